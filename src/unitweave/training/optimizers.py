"""Optimizers: Adam, as the paper has it, and Muon, which learns faster from scratch."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import nn

from unitweave.core.errors import InputError
from unitweave.training.devices import has_native_bf16

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


class Float32Muon(torch.optim.Muon):
    """torch's Muon with the orthogonalization in float32.

    torch computes it in bfloat16. A CPU that only emulates bfloat16 multiplies it several times more slowly than
    float32, and a training step then consists of little else.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            parameters: list[torch.Tensor] = []
            gradients: list[torch.Tensor] = []
            momenta: list[torch.Tensor] = []
            self._init_group(group, parameters, gradients, momenta)
            for parameter, gradient, momentum in zip(parameters, gradients, momenta, strict=True):
                momentum.lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
                rows, columns = parameter.shape
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5  # equal update size for matrices of any shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(_orthogonalized(update, group["ns_coefficients"], group["ns_steps"]), alpha=-rate)


def _orthogonalized(matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int) -> torch.Tensor:
    """The matrix with all singular values near 1, by Newton-Schulz iterations (Jordan et al. 2024)."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # the smaller Gram matrix
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def make_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.98),
    outer_layers: Collection[str] = ("lm_head",),
    outer_learning_rate: float | None = None,
) -> torch.optim.Optimizer:
    """Build an optimizer.

    Args:
        name: "adam" is AdamW on everything, without weight decay on vectors; "muon" is Muon (Jordan et al. 2024) at ten
            times `learning_rate` on the matrices inside the network, and AdamW on embeddings, `outer_layers`,
            convolutions and vectors.
        model: What to train: its parameters that require a gradient.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Of matrices.
        betas: AdamW's.
        outer_layers: Names of modules whose matrices AdamW trains.
        outer_learning_rate: Peak learning rate of these modules; None: the same.

    Raises:
        InputError: The name is unknown.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"optimizer must be one of {', '.join(OPTIMIZERS)} (got {name!r})")
    outer = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    inner: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    outer_parameters: list[nn.Parameter] = []  # of the outer layers, where theirs differs
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        at_the_end = bool(set(outer_layers) & set(path.split(".")))
        hidden = id(parameter) not in outer and not at_the_end
        if outer_learning_rate is not None and at_the_end:
            outer_parameters.append(parameter)
        elif name == "muon" and parameter.ndim == 2 and hidden:
            inner.append(parameter)
        else:
            (matrices if parameter.ndim >= 2 else vectors).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
        {"params": outer_parameters, "weight_decay": 0.0, "lr": outer_learning_rate},
    ]
    adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=betas, fused=True)
    if not inner:
        return adam
    muon_class = torch.optim.Muon if has_native_bf16() else Float32Muon
    muon = muon_class(inner, lr=_MUON_LR_RATIO * learning_rate, weight_decay=weight_decay, momentum=0.95)
    return ChainedOptimizer([muon, adam])
