"""Checkpoints of a training loop without the Trainer: modules, optimizers and step in one safetensors file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path
from unitweave.training.model_files import first_line, safetensors_errors
from unitweave.training.optimizers import ChainedOptimizer

_STEP = "step"


def save_checkpoint(
    path: Path,
    step: int,
    modules: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Write everything that the steps after `step` depend on; an earlier checkpoint is replaced once it is whole."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for part, one in enumerate(_parts(optimizer)):
            prefix = f"optimizer/{name}/{part}"
            for index, entries in one.state_dict()["state"].items():
                tensors |= {f"{prefix}/{index}/{key}": torch.as_tensor(value) for key, value in entries.items()}
    with atomic_path(path) as temporary:
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, temporary, {_STEP: str(step)})


def load_checkpoint(
    path: Path, modules: Mapping[str, torch.nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> int:
    """Put modules and optimizers back as they were saved.

    Returns:
        The steps done; 0 without a checkpoint.

    Raises:
        InputError: The checkpoint is damaged or of another model.
    """
    if not path.exists():
        return 0
    remedy = "delete it to train from the first step"
    with safetensors_errors(path, remedy), safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
        step = (file.metadata() or {}).get(_STEP, "")
    try:
        _restore(tensors, modules, optimizers)
        return int(step)
    except (RuntimeError, ValueError, LookupError) as error:
        raise InputError(f"{path}: damaged or of another model ({first_line(error)}); {remedy}") from None


def _restore(
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    for name, module in modules.items():
        prefix = f"module/{name}/"
        module.load_state_dict(
            {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        )
    for name, optimizer in optimizers.items():
        states = []
        for part, one in enumerate(_parts(optimizer)):
            state: dict[int, dict[str, Tensor]] = {}
            prefix = f"optimizer/{name}/{part}/"
            for key, value in tensors.items():
                if key.startswith(prefix):
                    index, entry = key.removeprefix(prefix).split("/")
                    state.setdefault(int(index), {})[entry] = value
            states.append({"state": state, "param_groups": one.state_dict()["param_groups"]})
        optimizer.load_state_dict({"parts": states} if isinstance(optimizer, ChainedOptimizer) else states[0])


def _parts(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    return optimizer.parts if isinstance(optimizer, ChainedOptimizer) else [optimizer]
