"""Python functions of the user that settings name as `module:name`."""

import gc
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError


def is_installed(package: str) -> bool:
    """Whether a package can be imported; a mere folder of its name, in the current folder say, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def untrusted(folder: Path, setting: str) -> str:
    """What is said of a folder that names a function which nobody allowed to run."""
    return (
        f"{folder}: runs code of its own ({setting}); if you know where it is from, allow it with --trust-functions "
        "(in Python, trust_functions=True)"
    )


@contextmanager
def quick_imports() -> Iterator[None]:
    """For imports of torch and transformers: they make a million objects that stay, among which looking for garbage
    again and again costs a second. Where scipy is installed, transformers imports hundreds of its modules for losses
    of object detection; hidden, it counts as not installed."""
    enabled, hidden = gc.isenabled(), "scipy" not in sys.modules
    gc.disable()
    if hidden:
        sys.modules["scipy"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["scipy"]
        gc.freeze()
        if enabled:
            gc.enable()


def imported_on_call(name: str) -> Callable[..., Any]:
    """A function of this package, `module:function`, whose module is imported when it is called."""
    module, _, attribute = name.partition(":")

    def call(*arguments: Any, **named: Any) -> Any:
        with quick_imports():
            function = getattr(importlib.import_module(f"unitweave.{module}"), attribute)
        return function(*arguments, **named)

    return call


def imported(name: str, setting: str) -> Callable[..., Any]:
    """The function of `module:name`, looked for in the current folder as well.

    Args:
        name: What the setting holds.
        setting: The setting, for errors.

    Raises:
        InputError: There is no such function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"{setting}: must be module:name (got {name!r})")
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{setting} {name}: could not be imported ({error})") from None
    finally:
        sys.path.pop(0)
    if not callable(function):
        raise InputError(f"{setting} {name}: is not a function")
    return function
