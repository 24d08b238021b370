"""Python functions of the user that settings name as `module:name`."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
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
