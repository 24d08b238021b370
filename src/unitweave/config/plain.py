"""Settings are plain values: what is read from a file never names a class to be imported."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from unitweave.core.errors import InputError


def check_plain(hint: Any, content: Any, name: str = "") -> None:
    """Refuse what jsonargparse would take for a class, which it imports and even makes.

    Where settings are expected, it accepts a class's path, a mapping with `class_path`, or a text with either; where
    any value is, the latter two.

    Args:
        hint: The type of the settings, or of what contains them.
        content: As read from a file.
        name: Of the key, for the message; empty at the top.

    Raises:
        InputError: Settings are no mapping, or a list or mapping has no value.
    """
    _check_no_class(content, name)
    _check_shape(hint, content, name)


def _check_no_class(content: Any, name: str) -> None:
    if isinstance(content, Mapping):
        for key, value in content.items():
            _check_no_class(key, name)
            _check_no_class(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for value in content:
            _check_no_class(value, name)
    elif isinstance(content, str) and "class_path" in content:
        raise InputError(f"{name or 'settings'}: class_path is no setting; settings are plain values")
    elif isinstance(content, str) and "\\" in content and '"' in content:  # YAML within a text may have it in escapes
        try:
            within = yaml.safe_load(content)
        except (yaml.YAMLError, ValueError, RecursionError):
            return
        if within != content:
            _check_no_class(within, name)


def _check_shape(hint: Any, content: Any, name: str) -> None:
    if is_dataclass(hint):
        if not isinstance(content, Mapping):
            raise InputError(f"{name}: must be a mapping of settings (got {content!r})")
        hints = get_type_hints(hint)
        for key, value in content.items():
            _check_shape(hints.get(key), value, f"{name}.{key}" if name else str(key))
        return
    kind = get_origin(hint)
    if content is None and kind in (list, dict):
        raise InputError(f"{name}: has no value; leave the key out for its default")
    parts = [part for part in get_args(hint) if _of_settings(part)]
    if not parts or (content is None and type(None) in get_args(hint)):
        return
    if kind is list:
        if not isinstance(content, list):
            raise InputError(f"{name}: must be a list (got {content!r})")
        for number, value in enumerate(content, 1):
            _check_shape(parts[0], value, f"{name}, entry {number}")
    elif kind is dict:
        if not isinstance(content, Mapping):
            raise InputError(f"{name}: must be a mapping (got {content!r})")
        for key, value in content.items():
            _check_shape(parts[-1], value, f"{name}.{key}")
    else:  # settings that may be left out
        _check_shape(parts[0], content, name)


def _of_settings(hint: Any) -> bool:
    return is_dataclass(hint) or any(_of_settings(part) for part in get_args(hint))
