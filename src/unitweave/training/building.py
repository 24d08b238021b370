"""Models built where tensors have no storage, without the parts of torch that only its compiler needs.

On the meta device much is computed by Python functions that import torch's compiler and sympy when they are first
called: half a second for what gives no numbers.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

_TABLES = (torch.arange, torch.hann_window)
_MAX_SIZE = 1 << 16
Model = TypeVar("Model")
_DRAWN, _NEW = (torch.Tensor.normal_, torch.Tensor.uniform_), (torch.rand, torch.randn)


def quickly_built(build: Callable[[], Model]) -> Model:
    """What a function returns that makes a model on the meta device, or loads one, which is made there first."""
    try:
        with _WithoutStorage():
            return build()
    except RuntimeError:  # where a table meets what has no storage, as in Gemma 4, or for a reason of its own
        return build()


class _WithoutStorage(TorchFunctionMode):
    """On the meta device weights are not drawn at random, and small tables are computed on the CPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _TABLES and _is_meta(kwargs.get("device")) and _is_small(args, kwargs):
            return func(*args, **kwargs | {"device": "cpu"})
        if func in _NEW and _is_meta(kwargs.get("device")):
            return torch.empty(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
        if func in _DRAWN or getattr(func, "__module__", None) == torch.nn.init.__name__:
            weight = args[0] if args else kwargs.get("tensor")
            if isinstance(weight, torch.Tensor) and weight.is_meta:
                return weight
        return func(*args, **kwargs)


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


def _is_small(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    numbers = [value for value in (*args, *kwargs.values()) if isinstance(value, int | float)]
    return all(abs(number) <= _MAX_SIZE for number in numbers)
