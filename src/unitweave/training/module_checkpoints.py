"""What a training loop without the Trainer saves: modules and optimizers, in one safetensors file of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unitweave.core.errors import InputError, first_line
from unitweave.training.model_files import safetensors_errors
from unitweave.training.optimizers import ChainedOptimizer

_FILE = "state.safetensors"


def save_modules(
    checkpoint: Path, modules: Mapping[str, torch.nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Write all that the following steps depend on into the folder of a checkpoint."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for number, part in enumerate(_parts(optimizer)):
            prefix = f"optimizer/{name}/{number}"
            for index, entries in part.state_dict()["state"].items():
                tensors |= {f"{prefix}/{index}/{key}": torch.as_tensor(value) for key, value in entries.items()}
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, checkpoint / _FILE)


def load_modules(
    checkpoint: Path, modules: Mapping[str, torch.nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Put modules and optimizers back as they were saved.

    Raises:
        InputError: The checkpoint is damaged or of another model.
    """
    remedy = "delete it to go on from an earlier one"
    with safetensors_errors(checkpoint / _FILE, remedy):
        tensors = load_file(checkpoint / _FILE)
    try:
        _restore(tensors, modules, optimizers)
    except (RuntimeError, ValueError, LookupError) as error:
        raise InputError(f"{checkpoint}: damaged or of another model ({first_line(error)}); {remedy}") from None


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
        for number, part in enumerate(_parts(optimizer)):
            state: dict[int, dict[str, Tensor]] = {}
            prefix = f"optimizer/{name}/{number}/"
            for key, value in tensors.items():
                if key.startswith(prefix):
                    index, entry = key.removeprefix(prefix).split("/")
                    state.setdefault(int(index), {})[entry] = value
            states.append({"state": state, "param_groups": part.state_dict()["param_groups"]})
        optimizer.load_state_dict({"parts": states} if isinstance(optimizer, ChainedOptimizer) else states[0])
        for part in _parts(optimizer):
            _lay_out(part)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give restored states the memory layout that an uninterrupted training has them in.

    Tensors of a safetensors file begin at any multiple of 8 bytes, and are contiguous. Kernels may round sums and
    products of such tensors otherwise than those of torch's own, and the training would end in other bytes.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                like = parameter if value.shape == parameter.shape else value
                state[name] = torch.empty_like(like, dtype=value.dtype, device=value.device).copy_(value)


def _parts(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    return optimizer.parts if isinstance(optimizer, ChainedOptimizer) else [optimizer]
