"""Muon on processors without bfloat16."""

import pytest
import torch

from unitweave.training import optimizers
from unitweave.training.devices import has_native_bf16
from unitweave.training.optimizers import Float32Muon, make_optimizer


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (48, 48)])
def test_muon_in_float32_takes_torchs_steps(shape: tuple[int, int]) -> None:
    weights = []
    for kind in (torch.optim.Muon, Float32Muon):
        generator = torch.Generator().manual_seed(1)
        parameter = torch.nn.Parameter(torch.randn(shape, generator=generator))
        optimizer = kind([parameter], lr=0.1, weight_decay=0.1, momentum=0.95)
        for _ in range(4):
            parameter.grad = torch.randn(shape, generator=generator)
            optimizer.step()
        weights.append(parameter.detach())
    torch.testing.assert_close(weights[1], weights[0], atol=5e-3, rtol=5e-3)  # torch's own has bfloat16's precision


def test_muon_is_torchs_where_the_processor_has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    for native, kind in ((True, torch.optim.Muon), (False, Float32Muon)):
        monkeypatch.setattr(optimizers, "has_native_bf16", lambda native=native: native)
        assert type(make_optimizer("muon", model, 1e-3, 0.0).parts[0]) is kind


def test_bfloat16_is_left_off_where_torch_is_kept_from_the_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for capability in ("AVX512", "AVX2", "DEFAULT"):  # as ATEN_CPU_CAPABILITY may set it
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert has_native_bf16() == (capability == "AVX512")


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_the_output_layer_can_have_a_learning_rate_of_its_own(name: str) -> None:
    model = torch.nn.ModuleDict({"body": torch.nn.Linear(4, 4), "lm_head": torch.nn.Linear(4, 3)})
    rates = {}
    for outer in (None, 0.5):
        groups = make_optimizer(name, model, 0.01, 0.1, outer_learning_rate=outer).param_groups
        rates[outer] = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert all(rates[0.5][id(parameter)] == 0.5 for parameter in model["lm_head"].parameters())
    assert rates[0.5][id(model["body"].weight)] == rates[None][id(model["body"].weight)]
    assert 0.5 not in rates[None].values() and set(rates[None]) == set(rates[0.5])
