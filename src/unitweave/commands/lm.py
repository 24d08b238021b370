"""unitweave lm: the language models."""

from pathlib import Path

from unitweave.commands.base import Parser, open_run, settings_of, stage_command
from unitweave.core.errors import InputError


def text(arguments: list[str]) -> None:
    """unitweave lm text RUN [--text_lm.KEY VALUE ...]"""
    stage_command("lm text", "text_lm", "text_lm", arguments)


def train(arguments: list[str]) -> None:
    """unitweave lm train RUN --system NAME [--lm.KEY VALUE ...]"""
    parser = Parser(prog="unitweave lm train", add_help=False)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--system", help="name of the system (default: all of the recipe)")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        settings_of(["lm"], ["--help"], "unitweave lm train RUN")
        return
    known, rest = parser.parse_known_args(arguments)
    run = open_run(known.run, None, settings_of(["lm"], rest, parser.prog) if rest else {})
    systems = [known.system] if known.system else list(run.recipe.systems)
    if known.system and known.system not in run.recipe.systems:
        raise InputError(
            f"{known.run}: the recipe has no system {known.system!r}; it has: {', '.join(run.recipe.systems)}"
        )
    for system in systems:
        run.lm(system)
