"""The help of a command: what each option takes, what it does, and in parentheses its range and its default."""

import re
from argparse import Action, _HelpAction
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import SUPPRESS, ArgumentParser, DefaultHelpFormatter

from unitweave.config.types import Settings

_NUMBERS = {  # as it is written after the option, and its range
    "int": ("N", ""),
    "PositiveInt": ("N", "at least 1"),
    "TwoOrMore": ("N", "at least 2"),
    "NonNegativeInt": ("N", "at least 0"),
    "Seed": ("N", "at least 0"),
    "Port": ("N", "0 to 65535"),
    "float": ("X", ""),
    "PositiveNumber": ("X", "above 0"),
    "OneOrMore": ("X", "at least 1"),
    "NonNegativeNumber": ("X", "at least 0"),
    "ClosedUnitInterval": ("X", "0 to 1"),
    "RatioBelowOne": ("X", "0 to below 1"),
}
_MAPPING = "{KEY: VALUE,...}"


class HelpFormatter(DefaultHelpFormatter):
    """Says what a reader cannot see from the option's name and the word after it."""

    def _get_help_string(self, action: Action) -> str:
        if isinstance(action, _HelpAction):
            return "Show this help and exit."
        text = str(action.help)
        if not action.option_strings or text == SUPPRESS:
            return text
        _, limits = _NUMBERS.get(_number(_hint(action)), ("", ""))
        default = _as_written(action.default) if action.nargs != 0 else ""
        if in_words := re.fullmatch(r"(.*?) \(default: (.+)\)\.", text):
            text, default = in_words[1] + ".", in_words[2]
        notes = ["required"] if action.required else [limits, default and f"default: {default}"]
        return f"{text} ({', '.join(filter(None, notes))})" if any(notes) else text

    def _format_action_invocation(self, action: Action) -> str:
        given = action.option_strings
        # "--flag+ ITEM" appends to a list; naming it with every list says nothing about that list.
        action.option_strings = [flag for flag in given if not flag.endswith("+")]
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = given

    def _format_args(self, action: Action, default_metavar: str) -> str:
        text: str = super()._format_args(action, default_metavar)
        # Several of a list of choices: "{a,b} [{a,b} ...]" would give the whole list twice.
        return f"{action.metavar} ..." if action.nargs == "+" and str(action.metavar).startswith("{") else text


def metavar(hint: Any) -> str | None:
    """A short word for the values of a type; None where argparse shows its choices."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    words = dict.fromkeys(filter(None, map(_word, parts)))
    return "|".join(words) or None


def _word(hint: Any) -> str | None:
    origin, inner = get_origin(hint), get_args(hint)
    name = getattr(hint, "__name__", "")
    if name in _NUMBERS:
        return _NUMBERS[name][0]
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin is list:
        return "[ITEM,...]"
    if origin is dict or (isinstance(hint, type) and issubclass(hint, Settings)):
        return _MAPPING
    return {"Path": "PATH", "str": "TEXT", "bool": "{true,false}"}.get(name)


def _hint(action: Action) -> Any:
    return getattr(action, "_typehint", None) or action.type


def _number(hint: Any) -> str:
    """The name of the one kind of number that a type allows; empty for others."""
    kinds = [part for part in (get_args(hint) or (hint,)) if part is not NoneType]
    return getattr(kinds[0], "__name__", "") if len(kinds) == 1 and get_origin(hint) is not list else ""


def _as_written(value: Any) -> str:
    """A default as one would give it; empty where the option simply may be left out."""
    if value in (None, SUPPRESS, "", [], {}) or hasattr(value, "as_dict"):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return str(value)


def help_of_command(parser: ArgumentParser, sections: Sequence[tuple[str, type]]) -> str:
    """The help of a command; below it the settings that may be left out as a whole, group by group."""
    shown = [_without_files(parser)]
    for key, kind in sections:
        for name, hint in get_type_hints(kind).items():
            inner = [part for part in get_args(hint) if isinstance(part, type) and issubclass(part, Settings)]
            if inner and NoneType in get_args(hint):
                further = ArgumentParser(usage=SUPPRESS, add_help=False, formatter_class=HelpFormatter)
                further.add_class_arguments(inner[0], f"{key}.{name}")
                shown.append(_without_files(further))
    return "\n".join(shown).rstrip()


def _without_files(parser: ArgumentParser) -> str:
    """The help of a parser, less the flags that would read settings from a file, or show help of their own."""
    for action in parser._actions:
        if action.metavar == "CONFIG" or any(flag.endswith(".help") for flag in action.option_strings):
            action.help = SUPPRESS
        elif "." in action.dest and action.choices is None:
            action.metavar = metavar(_hint(action)) or action.metavar
    return parser.format_help()
