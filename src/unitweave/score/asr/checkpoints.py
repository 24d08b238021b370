"""Recognizers from checkpoints of transformers: loading them, and naming them down to their revision."""

from pathlib import Path
from typing import Any, ClassVar, Self

from unitweave.core.errors import InputError
from unitweave.core.files import file_digest, json_digest
from unitweave.training.model_files import SAFE_LOADING, check_hub_name, check_model_folder, loading_errors


class CheckpointRecognizer:
    """What recognizers from checkpoints have in common; `default_model` is that of the protocol that one follows."""

    default_model: ClassVar[str]

    def __init__(self, model: str, device: Any) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, model: str, device: str) -> Self:
        """The protocol's own checkpoint, or `model`: a folder, a hub name, or a hub name@revision."""
        from unitweave.training.devices import resolve_device

        return cls(model or cls.default_model, resolve_device(device))

    @classmethod
    def identity(cls, model: str) -> str:
        """Digest of a local folder, or name on the hub, without loading anything."""
        return f"{cls.__name__.lower()} {identity(model or cls.default_model)}"


def load(kind: Any, model: str) -> Any:
    """A tokenizer, processor or network from a folder, a hub name, or a hub name@revision."""
    from transformers import PreTrainedModel

    name, _, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
    if not Path(name).is_dir():
        check_hub_name(name)
    options = {"revision": revision} if revision else {}
    if issubclass(kind, PreTrainedModel):
        check_model_folder(name)
    with loading_errors(model, kind.__name__):
        if not issubclass(kind, PreTrainedModel):
            return kind.from_pretrained(name, **options)
        network, report = kind.from_pretrained(name, output_loading_info=True, **options, **SAFE_LOADING)
    # Other weights, such as the mask embedding, play no part here and are missing from well-known checkpoints.
    if any(key.startswith("lm_head") for key in report["missing_keys"]):
        raise InputError(f"{model}: has no output layer; give a checkpoint that was fine-tuned with CTC")
    return network


def revision(model: str, network: Any) -> str:
    """`name@revision`: the hub's commit, or a digest of all that a local folder holds."""
    folder = Path(model)
    if folder.is_dir():
        return f"{folder.resolve().name}@{digest(folder)}"
    return f"{model.partition('@')[0]}@{(getattr(network.config, '_commit_hash', None) or 'unknown')[:8]}"


def identity(model: str) -> str:
    """A digest of a local folder, or the name on the hub as it is."""
    return digest(Path(model)) if Path(model).is_dir() else model


def digest(folder: Path) -> str:
    """Eight digits that name the weights and settings in a folder."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".json", ".txt"))
    return json_digest([[path.name, file_digest(path)] for path in files])[:8]
