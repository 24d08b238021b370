"""Settings of commands that belong to no run folder: a dataclass, whose fields are also the command's flags."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, field, fields
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from unitweave.core.errors import InputError

_Settings = TypeVar("_Settings")


def setting(default: Any, help: str, metavar: str = "VALUE") -> Any:
    """A dataclass field with its default and its meaning; `...` for one that has to be given."""
    metadata = {"help": help, "metavar": metavar}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def add_flags(parser: argparse.ArgumentParser, *kinds: type) -> None:
    """A flag --some-name for every field some_name of the dataclasses."""
    for kind in kinds:
        hints = get_type_hints(kind)
        for entry in fields(kind):
            required = entry.default is MISSING and entry.default_factory is MISSING
            shown = "" if required or entry.default in (None, False, MISSING) else f" (default: {entry.default})"
            parser.add_argument(
                "--" + entry.name.replace("_", "-"),
                dest=entry.name,
                required=required,
                default=argparse.SUPPRESS,
                help=entry.metadata["help"] + shown,
                **_conversion(hints[entry.name], entry.metadata.get("metavar", "VALUE")),
            )


def settings_from(known: argparse.Namespace, kind: type[_Settings]) -> _Settings:
    """The dataclass with what the flags gave."""
    return kind(**{entry.name: getattr(known, entry.name) for entry in fields(kind) if hasattr(known, entry.name)})  # type: ignore[arg-type]


def _conversion(hint: Any, metavar: str) -> dict[str, Any]:
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is list:
        return {"nargs": "+", "type": get_args(hint)[0], "metavar": metavar}
    if isinstance(hint, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    return {"type": hint, "metavar": metavar}


def one_of(value: str, choices: Sequence[str], name: str) -> str:
    """`value`; raises InputError when it is none of the choices."""
    if value not in choices:
        raise InputError(f"--{name.replace('_', '-')} {value}: should be one of {', '.join(choices)}")
    return value
