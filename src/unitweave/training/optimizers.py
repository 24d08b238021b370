"""Optimizers: Adam, as the paper has it, and Muon, which learns faster from scratch."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import nn

from unitweave.core.errors import InputError

OPTIMIZERS = ("adam", "muon")
_MUON_LR_RATIO = 10.0  # Muon's steps have unit spectral scale: it takes about ten times Adam's learning rate


class ChainedOptimizer(torch.optim.Optimizer):
    """Several optimizers that step as one, over parameter groups that know which is theirs."""

    def __init__(self, parts: Iterable[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([g for part in self.parts for g in part.param_groups], {})
        # The parts and this object share the same group dictionaries, so a scheduler reaches all of them.
        first = 0
        for part in self.parts:
            part.param_groups = self.param_groups[first : first + len(part.param_groups)]
            first += len(part.param_groups)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every part."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The parts' states."""
        return {"parts": [part.state_dict() for part in self.parts], "param_groups": [], "state": {}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the parts' states."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [g for part in self.parts for g in part.param_groups]


def make_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.98),
    outer_layers: Collection[str] = ("lm_head",),
) -> torch.optim.Optimizer:
    """Build an optimizer.

    "adam"  AdamW on everything; no weight decay on vectors
    "muon"  Muon (Jordan et al. 2024) at ten times `learning_rate` on the matrices inside the network,
            AdamW on embeddings, `outer_layers` (names of modules), convolutions and vectors
    """
    if name not in OPTIMIZERS:
        raise InputError(f"optimizer {name!r} is none of {', '.join(OPTIMIZERS)}")
    outer = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    inner: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        hidden = id(parameter) not in outer and not set(outer_layers) & set(path.split("."))
        if name == "muon" and parameter.ndim == 2 and hidden:
            inner.append(parameter)
        else:
            (matrices if parameter.ndim >= 2 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=betas, fused=True)
    if not inner:
        return adam
    muon = torch.optim.Muon(inner, lr=_MUON_LR_RATIO * learning_rate, weight_decay=weight_decay, momentum=0.95)
    return ChainedOptimizer([muon, adam])
