"""What all settings are made of: number types with a range, and a base class that checks each field's type."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse.typing import ClosedUnitInterval, restricted_number_type

from unitweave.core.errors import InputError

# Metadata of a setting that came later than runs that were finished without it: at its default it leaves them finished.
LATER = {"later": True}

if TYPE_CHECKING:
    PositiveInt = int
    TwoOrMore = int
    NonNegativeInt = int
    Port = int
    Seed = int
    PositiveNumber = float
    OneOrMore = float
    NonNegativeNumber = float
    Ratio = float
    RatioBelowOne = float
else:
    _INFINITY = sys.float_info.max  # infinity and NaN are above it, or not comparable
    PositiveInt = restricted_number_type("PositiveInt", int, (">", 0))
    TwoOrMore = restricted_number_type("TwoOrMore", int, (">=", 2))
    NonNegativeInt = restricted_number_type("NonNegativeInt", int, (">=", 0))
    Port = restricted_number_type("Port", int, [(">=", 0), ("<=", 65535)])
    Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
    PositiveNumber = restricted_number_type("PositiveNumber", float, [(">", 0), ("<=", _INFINITY)])
    OneOrMore = restricted_number_type("OneOrMore", float, [(">=", 1), ("<=", _INFINITY)])
    NonNegativeNumber = restricted_number_type("NonNegativeNumber", float, [(">=", 0), ("<=", _INFINITY)])
    Ratio = ClosedUnitInterval
    RatioBelowOne = restricted_number_type("RatioBelowOne", float, [(">=", 0), ("<", 1)])

RANGES = {
    "PositiveInt": "a whole number above 0",
    "TwoOrMore": "a whole number, 2 or above",
    "NonNegativeInt": "a whole number, 0 or above",
    "Port": "a whole number from 0 to 65535",
    "Seed": "a whole number from 0 to below 2**32",
    "PositiveNumber": "a finite number above 0",
    "OneOrMore": "a finite number, 1 or above",
    "NonNegativeNumber": "a finite number, 0 or above",
    "ClosedUnitInterval": "a number from 0 to 1",
    "RatioBelowOne": "a number from 0 to below 1",
}


@dataclass
class Settings:
    """Base of all settings: values are checked when one is made, by a recipe or in Python."""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            try:
                setattr(self, name, _checked(getattr(self, name), hint))
            except (TypeError, ValueError) as problem:
                raise InputError(f"{name}: {problem}") from None
        self.check()

    def check(self) -> None:
        """Raise InputError for values that do not go together; what a type can say is checked before."""


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {entry.name: hints[entry.name] for entry in fields(kind)}


def _checked(value: Any, hint: Any) -> Any:
    """The value, numbers as plain int and float. Raises ValueError or TypeError where it is not of the type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal and value not in inner:
        raise ValueError(must_be_one_of(inner, value))
    if origin in (UnionType, Union):
        return _checked_union(value, inner)
    if origin is list and isinstance(value, list | tuple):
        return [_checked(item, inner[0]) for item in value]
    if origin is tuple and isinstance(value, list | tuple) and len(value) == len(inner):
        return tuple(_checked(item, part) for item, part in zip(value, inner, strict=True))
    if origin is dict and isinstance(value, dict):
        return {_checked(key, inner[0]): _checked(item, inner[1]) for key, item in value.items()}
    if getattr(hint, "__name__", "") in RANGES:
        try:
            return hint._type(hint(value))
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"must be {RANGES[hint.__name__]} (got {value})") from None
    if (is_dataclass(hint) or hint in (str, bool, list, dict, tuple)) and not isinstance(value, hint):
        raise TypeError(f"must be {hint.__name__} (got {value!r})")
    if origin in (list, tuple, dict) or (origin is Callable and not callable(value)):
        raise TypeError(f"must be {hint} (got {value!r})")
    return value


def _checked_union(value: Any, kinds: tuple[Any, ...]) -> Any:
    problem: Exception = ValueError()
    for kind in (kind for kind in kinds if kind is not NoneType or value is None):
        try:
            return value if kind is NoneType else _checked(value, kind)
        except (TypeError, ValueError) as error:
            if not isinstance(error, TypeError) or not problem.args:
                # Another one without a traceback: this frame, and with it all that its callers hold, would be held in
                # a circle by the error that it holds.
                problem = type(error)(*error.args)
    raise problem


def must_be_one_of(choices: Any, value: Any) -> str:
    """The words for a value that is not among the choices."""
    return f"must be one of {', '.join(map(str, choices))} (got {value!r})"
