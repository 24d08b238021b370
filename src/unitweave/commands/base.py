"""What the commands share: their parsers, settings as flags, and the run folder that they work on."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from unitweave.core.errors import InputError

SECTIONS = ("corpus", "encoder", "codebook", "units", "text_lm", "lm", "vocoder", "translate", "score")


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are InputErrors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def settings_of(sections: Sequence[str], arguments: list[str], prog: str) -> dict[str, Any]:
    """What the flags --SECTION.KEY VALUE say, as nested plain values; nothing for what is not given."""
    from dataclasses import fields

    from jsonargparse import ArgumentError, ArgumentParser

    from unitweave.config.recipe import Recipe, one_line

    parser = ArgumentParser(exit_on_error=False, prog=prog)
    kinds = {field.name: field.type for field in fields(Recipe)}
    for section in sections:
        parser.add_class_arguments(kinds[section], section)
    try:
        given = parser.parse_args(arguments, defaults=False)
    except ArgumentError as error:
        raise InputError(f"{prog}: {one_line(error)}") from None
    return given.as_dict()


def print_settings(sections: Sequence[str]) -> None:
    """The help of the flags --SECTION.KEY."""
    from typing import get_type_hints

    from unitweave.commands.explain import explain
    from unitweave.config.recipe import Recipe

    kinds = get_type_hints(Recipe)
    for section in sections:
        print("\n" + explain(kinds[section], section), end="")


def open_run(folder: Path, recipe: Path | str | None, overrides: dict[str, Any]) -> Any:
    """The `unitweave.pipeline.Run` of a folder. Torch is imported here and not for help and wrong flags."""
    from unitweave import pipeline

    return pipeline.open_run(folder, recipe, overrides)


def stage_command(words: str, section: str, method: str, arguments: list[str]) -> Path | None:
    """A command that does one stage of a run folder: unitweave WORDS RUN [--recipe FILE] [--SECTION.KEY VALUE ...]

    Returns the run folder; None where only help was wanted.
    """
    parser = Parser(prog=f"unitweave {words}", add_help=False)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--recipe", type=Path, help="begin the folder with this recipe")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        print_settings([section])
        return None
    known, rest = parser.parse_known_args(arguments)
    overrides = settings_of([section], rest, parser.prog) if rest else {}
    getattr(open_run(known.run, known.recipe, overrides), method)()
    return Path(known.run)


def recipes_folder() -> Path:
    """Where the built-in recipes are."""
    return Path(__file__).parent.parent / "config" / "recipes"
