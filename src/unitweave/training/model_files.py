"""Model folders as untrusted input: what a folder may hold, and one line for what cannot be loaded.

A model folder may come from anywhere. Weights are read from safetensors only (a pickle runs code), and settings
that would make transformers fetch code, quantize, or load an adapter are refused by name.
"""

import contextlib
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from unitweave.core.errors import InputError, first_line
from unitweave.core.files import read_json_object

# Pass these to every `from_pretrained`: a hub name is not checked by `check_model_folder`.
SAFE_LOADING: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"

_REFUSED_KEYS = {
    "auto_map": "it would run code from the model folder",
    "quantization_config": "quantized weights cannot be trained or exported; give the unquantized model",
    "compression_config": "compressed weights cannot be trained or exported; give the uncompressed model",
    "peft_config": "merge the adapter into its base model first",
    "adapter_config": "merge the adapter into its base model first",
}
_LOADING_ERRORS = (
    ArithmeticError,  # a division by a size of 0
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    SafetensorError,
    StrictDataclassError,
)
_LAYER = re.compile(r"\.\d+\.")
_NEW_PARAMETERS = 1 << 24  # that a checkpoint may lack, such as those of a new output layer
_MAX_VOCABULARY = 1 << 22  # the largest published vocabularies have some 2^18 tokens; the table must fit into memory
_NUMBERS_OF_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_MAX_LAYERS = 4096  # each costs time and memory to make, even without weights


def check_model_folder(path: Path | str, weights: bool = True) -> dict[str, Any]:
    """Check a model folder before transformers reads it.

    Args:
        path: A folder in the `save_pretrained` layout. A hub name (no folder here) is left to `SAFE_LOADING`.
        weights: Whether the folder has to hold weights; else config.json alone is checked.

    Returns:
        The content of config.json; empty for a hub name.

    Raises:
        InputError: There is no such folder and no such name can be on the hub; config.json is missing, damaged, or has
            a setting that is refused; the weights are missing, not in safetensors, or cut off; the tokenizer asks for
            code from elsewhere.
    """
    folder = Path(path)
    if not folder.is_dir():
        check_hub_name(str(path))
        return {}
    config = read_json_object(folder / "config.json")
    check_model_config(config, folder / "config.json")
    if (folder / "adapter_config.json").exists():
        raise InputError(f"{folder}: holds an adapter (adapter_config.json); merge it into its base model first")
    if (folder / "tokenizer_config.json").exists():
        check_model_config(read_json_object(folder / "tokenizer_config.json"), folder / "tokenizer_config.json")
    if weights:
        for file in weight_files(folder):
            check_safetensors(file)
    return config


def check_reachable(name: str) -> None:
    """As `check_model_folder`, and for a name on the hub that its configuration is there or can be fetched."""
    check_model_folder(name)
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download

        with loading_errors(name, "model's configuration"):
            hf_hub_download(name, "config.json")


def check_hub_name(name: str) -> None:
    """Raise InputError for what is no folder here and cannot be a model's name on the hub either."""
    if Path(name).is_file():
        raise InputError(f"{name}: is a file; name the model's folder (or a name on the hub, which is OWNER/NAME)")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(f"{name}: no such model folder (and no name on the hub, which is OWNER/NAME)") from None


def check_model_config(config: Mapping[str, Any], where: Path | str) -> None:
    """Refuse settings of a model that would run foreign code or that nothing here can train.

    Args:
        config: Content of config.json or tokenizer_config.json.
        where: Its file or hub name, for the message.

    Raises:
        InputError: Names the key and what to do.
    """
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        for key, reason in _REFUSED_KEYS.items():
            if part.get(key):
                raise InputError(f"{where}: {key} is not supported: {reason}")
        for key in ("attn_implementation", "_attn_implementation"):
            if "/" in str(part.get(key) or ""):
                raise InputError(f"{where}: {key} {part[key]!r} names code on the hub; remove the key")
        size = part.get("vocab_size")
        if size is not None and not (isinstance(size, int) and 0 <= size <= _MAX_VOCABULARY):
            raise InputError(f"{where}: vocab_size must be a number up to {_MAX_VOCABULARY} (got {size!r})")
        for key, value in part.items():
            if isinstance(value, int) and value > _MAX_LAYERS and re.search("layers?$|experts$", str(key)):
                raise InputError(f"{where}: {key} must be a number up to {_MAX_LAYERS} (got {value})")
            if key in _NUMBERS_OF_LAYERS and isinstance(value, int) and value < 1:
                raise InputError(f"{where}: {key} must be 1 or more (got {value})")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, in one piece or in shards.

    Raises:
        InputError: There are none, or a shard is missing.
    """
    if (folder / INDEX_FILE).exists():
        shards = read_json_object(folder / INDEX_FILE).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise InputError(f"{folder / INDEX_FILE}: damaged (no weight_map); copy the model folder again")
        files = [folder / Path(name).name for name in sorted(set(shards.values()))]
    else:
        files = [folder / WEIGHTS_FILE]
    for file in files:
        if not file.is_file():
            pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
            if pickles:
                raise InputError(
                    f"{folder}: has {pickles[0]} but no {file.name}; pickles can run code and are not "
                    f"loaded; 'unitweave fetch {folder} --out FOLDER' writes the model again as safetensors"
                )
            raise InputError(f"{file}: no such file; the model folder is incomplete")
    return files


def check_parameters(path: Path | str, build: Callable[[], Any], new_head: bool = False) -> None:
    """Refuse a config.json that describes another model than the weights are of, before any memory is taken for it.

    Args:
        path: A model folder that `check_model_folder` has passed; a hub name is left alone.
        build: Makes the model of its configuration; called where tensors have no storage.
        new_head: Whether weights of other shapes may be replaced by new ones.

    Raises:
        InputError: The model cannot be made, has weights of other shapes than the folder, or more than twice as many.
    """
    if not Path(path).is_dir():
        return
    import torch

    from unitweave.training.building import quickly_built

    def built() -> Any:
        with torch.device("meta"):
            return build()

    with loading_errors(path, "model"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a size of 0, which the comparison shows
        described = {name: list(parameter.shape) for name, parameter in quickly_built(built).named_parameters()}
    stored: dict[str, list[int]] = {}
    for file in weight_files(Path(path)):
        with safetensors_errors(file), safe_open(file, "pt") as tensors:
            stored |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    for name, shape in described.items():
        if not new_head and stored.get(name, shape) != shape:
            raise InputError(
                f"{path}: config.json describes {name} as {shape}, but the weights have {stored[name]}; copy the model "
                "folder again"
            )
    # Weights of layers that the model does not have would be left out, and what is left would still compute something.
    # Those that predict further tokens (DeepSeek's, GLM's) are meant to be.
    exact = not new_head and not read_json_object(Path(path) / "config.json").get("num_nextn_predict_layers")
    numberless = {_LAYER.sub(".", name) for name in described}
    for name in sorted(stored.keys() - described.keys()):
        if exact and _LAYER.search(name) and _LAYER.sub(".", name) in numberless:
            raise InputError(
                f"{path}: the weights have {name}, but config.json describes a model without it; copy the model folder "
                "again"
            )
    numbers = [sum(map(math.prod, shapes.values())) for shapes in (described, stored)]
    if numbers[0] > 2 * numbers[1] + _NEW_PARAMETERS:
        raise InputError(
            f"{path}: config.json describes a model of {numbers[0]:,} parameters, but the weights have {numbers[1]:,}; "
            "copy the model folder again"
        )


def check_safetensors(path: Path) -> None:
    """Read the header of a safetensors file, which also shows whether its data are complete.

    Raises:
        InputError: The file is missing, damaged or cut off.
    """
    with safetensors_errors(path), safe_open(path, "numpy"):  # "pt" would import torch
        pass


@contextlib.contextmanager
def safetensors_errors(path: Path, remedy: str = "copy it again, or redo the stage that wrote it") -> Iterator[None]:
    """Turn what reading a missing or damaged safetensors file raises into an InputError that names it."""
    try:
        yield
    except (FileNotFoundError, PermissionError):  # safetensors raises the first one for both
        raise InputError(f"{path}: {'no permission to read it' if path.exists() else 'no such file'}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or cut off ({first_line(error)}); {remedy}") from None


@contextlib.contextmanager
def loading_errors(where: Path | str, what: str = "model") -> Iterator[None]:
    """Turn what transformers raises for a model that it cannot load into an InputError with the reason.

    Only the loading call belongs into the block: TypeError and the like are what a config.json with wrong values
    raises there, and would be bugs elsewhere.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # The tokenizers library raises bare Exceptions.
        if type(error) is not Exception and not isinstance(error, _LOADING_ERRORS):
            raise
        reason = re.sub(r"\b\w+(Error|Exception): ", "", first_line(error))  # it is no news to users which class it was
        raise InputError(f"{where}: could not load the {what} ({reason})") from None
