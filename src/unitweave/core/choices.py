"""Built-in values of a setting that are files of a folder: a new file there is a new value, without a registry.

The value `wait-k` of `policy` is the class `WaitK` in `translate/live/policies/wait_k.py`.
"""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent.parent


def choices(folder: str, first: str) -> tuple[str, ...]:
    """The values that the files of a folder stand for, without importing them.

    Args:
        folder: Below the package, such as "translate/live/policies".
        first: The default, which comes first; the others are in alphabetical order.
    """
    names = {module.name.replace("_", "-") for module in pkgutil.iter_modules([str(_PACKAGE / folder)])}
    return (first, *sorted(names - {first}))


def chosen(folder: str, name: str) -> Any:
    """The class that a value stands for."""
    module = importlib.import_module(f"unitweave.{folder.replace('/', '.')}.{name.replace('-', '_')}")
    return getattr(module, "".join(part.capitalize() for part in name.split("-")))
