"""Weights read one by one, so that a model is never twice in memory, as its file and in another type."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from unitweave.core.errors import InputError
from unitweave.lm.model.start import load_config
from unitweave.training.model_files import loading_errors, safetensors_errors, weight_files

_VALUES = 1 << 20  # of a weight that are read at once: little, since freed memory of a few MB stays with the process


@dataclass(frozen=True)
class StoredWeight:
    """A weight in a safetensors file."""

    path: Path
    name: str
    shape: torch.Size

    def parts(self) -> Iterator[Tensor]:
        """Some rows at a time, each valid until the next."""
        rows = max(1, _VALUES // max(1, self.shape[1:].numel())) if len(self.shape) > 1 else max(1, self.shape.numel())
        for first in range(0, self.shape[0] if self.shape else 1, rows):
            # Opened anew for each: what was read of a mapped file stays in memory until the file is closed.
            with safe_open(self.path, "pt") as file:
                if self.shape:
                    yield file.get_slice(self.name)[first : first + rows]
                else:
                    yield file.get_tensor(self.name)

    def read(self, dtype: torch.dtype) -> Tensor:
        """All of it, in memory of its own."""
        whole, first = torch.empty(self.shape, dtype=dtype), 0
        for part in self.parts():
            whole[first : first + len(part)] = part
            first += len(part)
        return whole


def stored_weights(folder: Path, file: str | None = None) -> Iterator[StoredWeight]:
    """Every weight of a model folder, or of one of its files."""
    for path in [folder / file] if file else weight_files(folder):
        with safetensors_errors(path), safe_open(path, "pt") as opened:
            names = list(opened.keys())
            for name in names:
                yield StoredWeight(path, name, torch.Size(opened.get_slice(name).get_shape()))


def empty_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal LM without its weights (buffers that are computed, not loaded, are there)."""
    from accelerate import init_empty_weights  # heavy, and seldom needed

    config = load_config(folder, weights=False)
    with loading_errors(folder, "language model"), init_empty_weights():
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)


def put_weight(model: PreTrainedModel, name: str, weight: Tensor) -> None:
    """Give a model a weight by its name."""
    module, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(module), leaf, nn.Parameter(weight, requires_grad=False))


def check_complete(model: PreTrainedModel, folder: Path) -> None:
    """Raise InputError where a weight has not been given."""
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise InputError(f"{folder}: weights are missing, the first: {missing[0]}; copy or export the model again")


def load_converted(folder: Path, dtype: torch.dtype) -> PreTrainedModel | None:
    """A causal LM whose file is float32 in another type; None where transformers has more to do than to convert."""
    if not folder.is_dir():
        return None
    load_config(folder)  # refuses what may not be loaded
    stored = {weight.name: weight for weight in stored_weights(folder)}
    model = empty_model(folder, dtype)
    head = model.get_output_embeddings() if model.config.tie_word_embeddings else None
    shapes = {
        name: parameter.shape
        for name, parameter in model.named_parameters()
        if name in stored or head is None or parameter is not head.weight
    }
    same = shapes == {name: weight.shape for name, weight in stored.items()}
    if not same or getattr(model, "_keep_in_fp32_modules", None) or not _is_float32(next(iter(stored.values()))):
        return None
    for name, weight in stored.items():
        put_weight(model, name, weight.read(dtype))
    model.tie_weights()
    check_complete(model, folder)
    return model.eval()


def _is_float32(weight: StoredWeight) -> bool:
    with safe_open(weight.path, "pt") as file:
        return bool(file.get_slice(weight.name).get_dtype() == "F32")
