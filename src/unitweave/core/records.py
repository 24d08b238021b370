"""Records as JSON: dataclasses that are written with their field names and read back with their types checked."""

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from unitweave.core.errors import InputError
from unitweave.core.files import json_integer

T = TypeVar("T")


def to_json(record: Any) -> dict[str, Any]:
    """A dataclass as plain values; fields that are None or empty by default are left out where they are."""
    plain: dict[str, Any] = _without_defaults(record)
    return plain


def from_json(kind: type[T], value: Any, where: object) -> T:
    """A dataclass from plain values; unknown keys are ignored.

    Args:
        kind: The dataclass.
        value: What JSON held.
        where: File, and line where there are several records, for the message.

    Raises:
        InputError: A field is missing or of another type.
    """
    try:
        return _read(kind, value, "")
    except _Mismatch as error:
        raise InputError(f"{where}: damaged or of another version ({error})") from None


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file, of which one line at a time is in memory.

    Raises:
        InputError: The file is missing, or a line is not a JSON object; the message names it.
    """
    try:
        # Lines end at "\n" alone: a text may hold U+2028, which other readers take for the end of a line.
        with Path(path).open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line, parse_int=json_integer)
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict):
                    raise InputError(f"{path}, line {number}: not a JSON object")
                yield row
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All of `json_lines` at once."""
    return list(json_lines(path))


def records(kind: type[T], path: Path) -> Iterator[T]:
    """The dataclasses of a JSON lines file, one by one. Raises InputError as `json_lines` and `from_json` do."""
    for number, row in enumerate(json_lines(path), 1):
        yield from_json(kind, row, f"{path}, line {number}")


def read_records(kind: type[T], path: Path) -> list[T]:
    """All of `records` at once."""
    return list(records(kind, path))


class _Mismatch(Exception):
    """What does not fit, and where in the value."""


def _without_defaults(record: Any) -> Any:
    if isinstance(record, Mapping):
        return {key: _without_defaults(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [_without_defaults(value) for value in record]
    if not is_dataclass(record) or isinstance(record, type):
        return record
    kept = {}
    for entry in fields(record):
        value = getattr(record, entry.name)
        optional = entry.default is not MISSING or entry.default_factory is not MISSING
        if not optional or not (value is None or (isinstance(value, dict | list | tuple) and not value)):
            kept[entry.name] = _without_defaults(value)
    return kept


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, value: Any, at: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = (part for part in inner if part is not type(None))
        return _read(kind, value, at)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, at)
    if origin is dict and isinstance(value, dict):
        return {key: _read(inner[1], item, f"{at}.{key}".lstrip(".")) for key, item in value.items()}
    if origin is list and isinstance(value, list):
        return [_read(inner[0], item, f"{at}[{i}]") for i, item in enumerate(value)]
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    name = (origin or kind).__name__
    raise _Mismatch(f"{at or 'top level'}: expected {name}, got {type(value).__name__}")


def _read_dataclass(kind: Any, value: Any, at: str) -> Any:
    if not isinstance(value, dict):
        raise _Mismatch(f"{at or 'top level'}: expected an object, got {type(value).__name__}")
    given = {}
    for entry in fields(kind):
        key = f"{at}.{entry.name}".lstrip(".")
        if entry.name in value:
            given[entry.name] = _read(_types(kind)[entry.name], value[entry.name], key)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise _Mismatch(f"{key} is missing")
    return kind(**given)
