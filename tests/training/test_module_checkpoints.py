"""What a checkpoint of modules and optimizers gives back is what an uninterrupted training has, its layout included."""

from pathlib import Path

import pytest
import torch

from unitweave.training.module_checkpoints import load_modules, save_modules
from unitweave.training.optimizers import make_optimizer


def trained(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv1d(3, 5, 3), torch.nn.Flatten(), torch.nn.Linear(5, 7))
    model[0].weight.data = torch.randn(3, 5, 3).transpose(0, 1)  # not contiguous, as some kernels leave weights
    optimizer = make_optimizer("adam", model, 1e-2, 0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(1, 3, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.cpu
def test_restored_states_lie_in_memory_as_those_of_an_uninterrupted_training(tmp_path: Path) -> None:
    model, optimizer = trained(2)
    save_modules(tmp_path, {"model": model}, {"generator": optimizer})
    other, again = trained(0)
    load_modules(tmp_path, {"model": other}, {"generator": again})
    states = [list(one.state.values()) for one in (optimizer, again)]
    assert len(states[0]) == len(states[1]) == 4
    for before, after in zip(*states, strict=True):
        for name, value in before.items():
            assert torch.equal(value, after[name]) and value.stride() == after[name].stride(), name
            assert after[name].data_ptr() % 64 == 0, "as torch's own tensors"
