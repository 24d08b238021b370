"""A model folder whose weights torch pickled, as most speech encoders of the hub are, written anew as safetensors.

The pickles are read with `weights_only`: tensors and plain containers, no code.
"""

import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file

from unitweave.core.errors import InputError, first_line
from unitweave.core.files import atomic_path, read_json_object, write_json
from unitweave.core.lock import locked
from unitweave.core.stage import versions
from unitweave.training.model_files import INDEX_FILE, WEIGHTS_FILE, check_model_config

PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_KEPT_SUFFIXES = (".json", ".txt", ".model", ".md", ".jinja")  # besides the weights


def convert_pickled(source: Path, folder: Path, about: str) -> dict[str, Any]:
    """Write the model in `source` to `folder`, with safetensors in place of pickles; the other files are copied.

    Args:
        source: A model folder with pytorch_model.bin, in one file or in shards.
        folder: The folder to write; a new one, or one that an earlier call wrote.
        about: Name of the file that says where the folder is from.

    Returns:
        What that file says.

    Raises:
        InputError: The pickled weights are missing or hold more than tensors, or `folder` holds something else.
    """
    source, folder = Path(source).resolve(), Path(folder).resolve()
    check_model_config(read_json_object(source / "config.json"), source / "config.json")
    shards = [PICKLE]
    if not (source / PICKLE).is_file():
        if not (source / PICKLE_INDEX).is_file():
            raise InputError(f"{source}: has no {PICKLE}, so there is nothing to convert")
        shards = sorted({Path(str(name)).name for name in _weight_map(source).values()})
    if folder.exists() and not (folder / about).exists():
        raise InputError(f"{folder}: already exists and is not a fetched model; choose another folder")
    with locked(folder), atomic_path(folder) as temporary:
        temporary.mkdir()
        written: dict[str, str] = {}
        parameters = 0
        for number, shard in enumerate(shards, start=1):
            tensors = {name: tensor for name, tensor in _tensors(source / shard).items() if name not in written}
            name = WEIGHTS_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            save_file(tensors, temporary / name, metadata={"format": "pt"})
            written |= dict.fromkeys(tensors, name)
            parameters += sum(tensor.numel() for tensor in tensors.values())
        if len(shards) > 1:
            write_json(temporary / INDEX_FILE, {"metadata": {}, "weight_map": written})
        for path in sorted(source.iterdir()):
            if path.is_file() and path.suffix in _KEPT_SUFFIXES and path.name not in (PICKLE_INDEX, about):
                shutil.copyfile(path, temporary / path.name)
        record = {"converted_from": source.name, "parameters": parameters, "versions": versions()}
        write_json(temporary / about, record)
    return record


def _weight_map(source: Path) -> dict[str, Any]:
    found = read_json_object(source / PICKLE_INDEX).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise InputError(f"{source / PICKLE_INDEX}: damaged (no weight_map); copy the model folder again")
    return found


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickle; of those that share their memory, as tied weights do, the first."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the model folder is incomplete") from None
    except UnpicklingError:  # whose message would have it read in spite of that
        raise InputError(
            f"{path}: not readable as weights alone: it is damaged, or holds more than tensors, which could run code; "
            "save the model with transformers' save_pretrained"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable as weights alone ({first_line(error)})") from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise InputError(f"{path}: holds more than tensors; save the model with transformers' save_pretrained")
    places: set[tuple[int, torch.Size]] = set()
    kept = {}
    for name, tensor in content.items():
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and place in places:
            continue
        places.add(place)
        kept[str(name)] = tensor.detach().clone().contiguous()
    return kept
