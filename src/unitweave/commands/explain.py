"""What `--help` says of a stage's settings: each key with its type, its meaning and its default.

The meaning is what stands beside the field in the settings' own source, as a comment or as a string under
it, so that a key is explained in one place.
"""

import argparse
import ast
import inspect
import io
import textwrap
import tokenize
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

_NAMES = {int: "INT", float: "NUMBER", str: "TEXT", bool: "true|false"}


def explain(kind: type, key: str) -> str:
    """Help for the flags --KEY.FIELD of a dataclass of settings, group by group for those inside it."""
    parser = argparse.ArgumentParser(add_help=False, formatter_class=_Formatter)
    _add(parser, kind, key)
    return parser.format_help()


def _add(parser: argparse.ArgumentParser, kind: type, key: str) -> None:
    group = parser.add_argument_group(f"{key}: {(kind.__doc__ or '').splitlines()[0].rstrip('.:')}")
    hints, meanings = get_type_hints(kind), comments(kind)
    for entry in fields(kind):
        hint = hints[entry.name]
        inner = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
        if isinstance(inner, type) and get_origin(hint) not in (dict, list):
            if hint is not inner:  # one that may be left out
                group.add_argument(f"--{key}.{entry.name}", metavar="...", help=_help(meanings, entry))
            _add(parser, inner, f"{key}.{entry.name}")
        else:
            group.add_argument(f"--{key}.{entry.name}", metavar=_type_name(hint), help=_help(meanings, entry))


def _help(meanings: dict[str, str], entry: Field[Any]) -> str:
    value = entry.default
    if value is MISSING:
        value = None if entry.default_factory is MISSING else entry.default_factory()
    default = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
    return f"{meanings.get(entry.name, '')} (default: {default})".strip().replace("%", "%%")


def comments(kind: type) -> dict[str, str]:
    """What the source of a dataclass says of its fields: the comment at or after each, or the string under it."""
    source = textwrap.dedent(inspect.getsource(kind))
    told = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    found: dict[str, str] = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            found[node.target.id] = " ".join(after.value.value.split())
            continue
        last = after.lineno - 1 if after is not None else len(source.splitlines())
        found[node.target.id] = " ".join(told[line] for line in range(node.lineno, last + 1) if line in told)
    return found


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    kinds = (hint,) if get_origin(hint) in (list, dict, tuple) else get_args(hint) or (hint,)
    names = dict.fromkeys(_plain_name(part) for part in kinds if part is not NoneType)
    return "|".join(names)


def _plain_name(hint: Any) -> str:
    if get_origin(hint) is list:
        return f"[{_plain_name(get_args(hint)[0])},...]"
    if get_origin(hint) is tuple:
        return f"[{','.join(map(_plain_name, get_args(hint)))}]"
    if get_origin(hint) is dict:
        key, value = get_args(hint)
        return f"{{{_plain_name(key)}: {_type_name(value)}}}"
    return _NAMES.get(hint, "...")


class _Formatter(argparse.HelpFormatter):
    """argparse's, without the usage line, which would list every flag."""

    def add_usage(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""
