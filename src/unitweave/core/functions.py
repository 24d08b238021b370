"""Python functions of the user that settings name as `module:name`."""

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError, first_line


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


@contextlib.contextmanager
def function_errors(name: str, what: str) -> Iterator[None]:
    """Turn what a function of the user raises into an InputError with the line that raised it.

    Only the call belongs into the block: anything else in it that fails would be a bug here.

    Args:
        name: The function, `module:name`.
        what: The setting and the function, for the message.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{what}: raised {_described(error, name.partition(':')[0])}") from error


def _described(error: Exception | SystemExit, module: str) -> str:
    """An error with its last line in a module of the user, as far as it comes from there."""
    file = f"{module.rpartition('.')[2]}.py"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == file]
    where = f" ({file}, line {lines[-1]})" if lines else ""
    message = first_line(error) if str(error).strip() else ""
    return type(error).__name__ + (f": {message}" if message else "") + where


def imported(name: str, setting: str) -> Callable[..., Any]:
    """The function of `module:name`, looked for in the current folder as well.

    Args:
        name: What the setting holds.
        setting: The setting, for errors.

    Raises:
        InputError: There is no such function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith(".") or "/" in module:
        raise InputError(f"{setting}: must be MODULE:NAME (got {name!r})")
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{setting} {name}: could not be imported ({error})") from None
    except (Exception, SystemExit) as error:  # whatever its module does when it is imported
        raise InputError(f"{setting} {name}: could not be imported ({_described(error, module)})") from error
    finally:
        sys.path.pop(0)
    if not callable(function):
        raise InputError(f"{setting} {name}: is not a function")
    return function
