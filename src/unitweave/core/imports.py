"""Imports of torch and transformers that do not take longer than they have to."""

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from types import ModuleType, SimpleNamespace
from typing import Any

_TRACE = "torch._dynamo._trace_wrapped_higher_order_op"
_one_command = False  # whether this process runs a single command and ends with it


def end_with_this_command() -> None:
    """Say that this process runs a single command, so that nobody will train or compile in it afterwards."""
    global _one_command
    _one_command = True


@contextmanager
def quick_imports(only_decoding: bool = False) -> Iterator[None]:
    """For imports of torch and transformers: they make a million objects that stay, among which looking for garbage
    again and again costs a second. Where scipy is installed, transformers imports hundreds of its modules for losses
    of object detection; hidden, it counts as not installed.

    Args:
        only_decoding: Whether models are only computed, on this process alone and without code of the user. Of what
            transformers then has no use for, a process that ends with its command leaves out torch's compiler, tensors
            spread over processes, and accelerate.
    """
    # scikit-learn, which transformers 5.18 imports where it is installed, needs scipy.
    hidden = [] if {"scipy", "sklearn"} & sys.modules.keys() else ["scipy", "sklearn"]
    # In a program of somebody else's, and where transformers has looked already, all stays as it is.
    less = only_decoding and _one_command and not {"accelerate", "transformers"} & sys.modules.keys()
    if less:
        hidden.append("accelerate")
    enabled = gc.isenabled()
    gc.disable()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        with ExitStack() as stack:
            if less:
                stack.enter_context(_compiler_on_use())
                _without_spread_tensors()
            yield
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        if enabled:
            gc.enable()


def _without_spread_tensors() -> None:
    """Let transformers find that torch came without `torch.distributed`, as it does in some builds of torch."""
    import torch.distributed
    import transformers.utils

    found = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        transformers.utils.is_torch_distributed_available()  # it asks once and keeps the answer
    finally:
        torch.distributed.is_available = found


@contextmanager
def _compiler_on_use() -> Iterator[None]:
    """Let decorators of `torch._dynamo` and `torch.compiler` import the compiler when something is compiled.

    As they are, transformers' files import it, with sympy and half of torch's export, only to mark functions. What is
    not such a mark imports the compiler as always.
    """
    import torch
    import torch.compiler

    if "torch._dynamo" in sys.modules:
        yield
        return
    trace, marks = _TraceModule(_TRACE), _Marks()
    replaced = {
        "allow_in_graph": marks.allow_in_graph,
        "assume_constant_result": marks.assume_constant_result,
        "disable": partial(_disabled_on_use, torch.compiler.disable),
    }
    originals = {name: getattr(torch.compiler, name) for name in replaced}
    sys.modules[_TRACE] = trace
    vars(torch)["_dynamo"] = marks
    vars(torch.compiler).update(replaced)
    try:
        yield
    finally:
        vars(torch.compiler).update(originals)
        if vars(torch).get("_dynamo") is marks:
            del vars(torch)["_dynamo"]
        trace.give_way()


def _disabled_on_use(
    disable: Callable[..., Any], fn: Callable[..., Any] | None = None, recursive: bool = True, **named: Any
) -> Callable[..., Any]:
    """`torch.compiler.disable`, which imports the compiler, put off until there is one."""
    if fn is None:
        return partial(_disabled_on_use, disable, recursive=recursive, **named)

    @wraps(fn)
    def call(*arguments: Any, **options: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return fn(*arguments, **options)
        return disable(fn, recursive, **named)(*arguments, **options)

    return call


class _Marks(SimpleNamespace):
    """In place of `torch._dynamo`, until something else of it is asked for."""

    @staticmethod
    def assume_constant_result(function: Any) -> Any:
        function._dynamo_marked_constant = True  # what the original does
        return function

    @staticmethod
    def allow_in_graph(function: Any) -> Any:
        return function  # of the compiler's concern alone

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("torch._dynamo"), name)


class _TraceModule(ModuleType):
    """In place of the module of `TransformGetItemToIndex`, which transformers' masks seldom use."""

    def give_way(self) -> None:
        """Let the next import have the module itself."""
        if sys.modules.get(_TRACE) is self:
            del sys.modules[_TRACE]

    def __getattr__(self, name: str) -> Any:
        if name == "TransformGetItemToIndex" and "torch._dynamo" not in sys.modules:
            return self._transform
        if name.startswith("__"):
            raise AttributeError(name)
        return self._original(name)

    def _original(self, name: str) -> Any:
        self.give_way()
        return getattr(importlib.import_module(_TRACE), name)

    def _transform(self) -> Any:
        return self._original("TransformGetItemToIndex")()


def imported_on_call(name: str) -> Callable[..., Any]:
    """A function of this package, `module:function`, whose module is imported when it is called."""
    module, _, attribute = name.partition(":")

    def call(*arguments: Any, **named: Any) -> Any:
        with quick_imports():
            function = getattr(importlib.import_module(f"unitweave.{module}"), attribute)
        return function(*arguments, **named)

    return call
