"""The parser of a command, from the signature and the docstring of its function.

Parameters without a default are positional, keyword-only ones are flags, lists take several values. A parameter whose
type is a settings class becomes a flag for each of its fields; `overrides` takes flags for the keys of a recipe's
sections. jsonargparse checks the values and writes the help.
"""

import inspect
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from unitweave.commands.help import HelpFormatter, help_of_command, metavar
from unitweave.config.recipe import one_line, section_types
from unitweave.config.types import Settings
from unitweave.core.errors import InputError

_SHORT = {"out": ["-o"]}


class Help(Exception):
    """The text of a command's help."""


def parse_command(
    function: Callable[..., None], prog: str, takes: str, sections: Sequence[str], given: Sequence[str]
) -> dict[str, Any]:
    """What to call the function of a command with.

    Args:
        function: The command.
        prog: The words that name it, as in "unitweave lm train".
        takes: What follows them, for the usage line.
        sections: Sections of the recipe whose keys are flags; their values are passed as `overrides`.
        given: The command line after the words.

    Raises:
        Help: Help is asked for.
        InputError: The command line is wrong.
    """
    wants_help = bool({"-h", "--help"} & set(given))
    set_parsing_settings(docstring_parse_attribute_docstrings=wants_help)  # reading sources takes time
    parser = ArgumentParser(
        exit_on_error=False, prog=prog, usage=f"{prog} {takes}", allow_abbrev=False, formatter_class=HelpFormatter
    )
    parser.description, meanings = _described(function)
    hints = get_type_hints(function)
    kinds = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if isinstance(hints[name], type) and issubclass(hints[name], Settings):
            kinds[name] = hints[name]
            _add_fields(parser, hints[name])
        elif name != "overrides":
            positional = parameter.kind is not parameter.KEYWORD_ONLY and parameter.default is MISSING_DEFAULT
            _add(parser, name, hints[name], parameter.default, meanings.get(name, ""), positional)
    types = section_types()
    spelled = [_spelled(argument) for argument in given]
    for section in sections:
        if wants_help or any(argument.startswith(f"--{section}") for argument in spelled):  # each takes a while
            parser.add_class_arguments(types[section], section)
    if wants_help:
        raise Help(help_of_command(parser, [(section, types[section]) for section in sections]))
    values = _parsed(parser, spelled)
    result = {}
    for name, kind in kinds.items():
        field_values = {entry.name: values.pop(entry.name) for entry in fields(kind) if entry.name in values}
        try:
            result[name] = kind(**field_values)
        except InputError as error:
            raise InputError(f"{prog.removeprefix('unitweave ')}: {_as_flag(str(error))}") from None
    if sections:
        result["overrides"] = {section: values.pop(section) for section in sections if section in values}
    return result | {name: values[name.rstrip("_")] for name in hints if name.rstrip("_") in values}


MISSING_DEFAULT = inspect.Parameter.empty


def _add(parser: ArgumentParser, name: str, hint: Any, default: Any, meaning: str, positional: bool) -> None:
    """A positional argument or a flag."""
    flag = name.rstrip("_")
    names = [flag] if positional else [*_SHORT.get(flag, []), "--" + flag.replace("_", "-")]
    details: dict[str, Any] = {"help": meaning}
    if hint is bool:
        parser.add_argument(*names, action="store_true", **details)
        return
    kind = get_args(hint)[0] if get_origin(hint) is list else hint
    listed = positional or get_origin(hint) is list
    details["type"] = _path if kind in (Path, Path | None) else _word if kind is str and listed else kind
    if get_origin(hint) is list:
        details["nargs"] = "+"
    if not positional:
        details |= {"required": True} if default is MISSING_DEFAULT else {"default": default}
        details["metavar"] = metavar(kind)
    if get_origin(hint) is list and default == []:
        details["default"] = None
    parser.add_argument(*names, **details)


def _word(text: str) -> str:
    """A value that is not empty, as that of a variable of the shell is that is not set."""
    if not text:
        raise ArgumentTypeError("must not be empty")
    return text


def _path(text: str) -> Path:
    """A path. An empty one would be the current folder."""
    return Path(_word(text))


def _add_fields(parser: ArgumentParser, kind: type[Settings]) -> None:
    """A flag for each field of a settings class."""
    hints, meanings = get_type_hints(kind), _meanings(kind)
    for entry in fields(kind):
        default = MISSING_DEFAULT if entry.default is MISSING else entry.default
        if entry.default_factory is not MISSING:
            default = entry.default_factory()
        _add(parser, entry.name, hints[entry.name], default, meanings.get(entry.name, ""), positional=False)


def _described(function: Callable[..., None]) -> tuple[str, dict[str, str]]:
    """The description of a function, and the meaning of each parameter, from its docstring."""
    from docstring_parser import parse

    text = parse(function.__doc__ or "")
    parts = [part for part in (text.short_description, text.long_description) if part]
    return "\n\n".join(parts), {p.arg_name: " ".join((p.description or "").split()) for p in text.params}


def _meanings(kind: type) -> dict[str, str]:
    """The strings under the fields of a class and its bases."""
    from docstring_parser import parse_from_object

    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        meanings |= {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(base).params}
    return meanings


def _spelled(argument: str) -> str:
    """--some_name as --some-name, and the keys of a recipe as they are written there."""

    def fixed(flag: re.Match[str]) -> str:
        return flag[0].replace("-", "_").replace("__", "--", 1) if "." in flag[0] else flag[0].replace("_", "-")

    return re.sub(r"^--[^=]+", fixed, argument)


def _parsed(parser: ArgumentParser, given: list[str]) -> dict[str, Any]:
    """The values that were given, by name."""
    try:
        values: dict[str, Any] = parser.parse_args(given, defaults=False).as_dict()
        return values
    except ArgumentError as error:
        problem = _as_flag(_command_line_error(parser, one_line(error)))
    except RecursionError:
        problem = "a value is nested too deeply"
    raise InputError(f"{parser.prog.removeprefix('unitweave ')}: {problem}")


def _command_line_error(parser: ArgumentParser, text: str) -> str:
    if text.startswith("unrecognized arguments: "):
        unknown = text.removeprefix("unrecognized arguments: ").split(" ")[0]
        return f"unknown option or argument {unknown}; '{parser.prog} --help' lists them"
    if text.startswith("the following arguments are required: "):
        flags = {a.dest: a.option_strings[-1] for a in parser._actions if a.option_strings}
        missing = text.removeprefix("the following arguments are required: ").split(", ")
        return f"missing {', '.join(flags.get(name, name.upper()) for name in missing)}"
    return text


def _as_flag(text: str) -> str:
    """An error about a name as one about the flag."""
    return re.sub(r"^([a-z]\w+(\.\w+)*):", lambda m: "--" + (m[1] if m[2] else m[1].replace("_", "-")) + ":", text)
