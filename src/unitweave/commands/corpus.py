"""unitweave corpus: the corpus stage of a run, and the commands that make a corpus folder from users' data."""

import argparse
import re
from pathlib import Path

from unitweave.commands.base import Parser, stage_command
from unitweave.core.flags import add_flags, settings_from


def corpus(arguments: list[str]) -> None:
    """unitweave corpus RUN [--corpus.KEY VALUE ...]"""
    stage_command("corpus", "corpus", "corpus", arguments)


def cvss(arguments: list[str]) -> None:
    """unitweave corpus cvss --cvss PATH... --covost PATH... --out FOLDER"""
    from unitweave.corpus.checks import Limits
    from unitweave.corpus.readers.cvss import CvssCorpus, build_cvss

    known = _parse(
        "cvss", "CVSS-C with CoVoST 2 and Common Voice 4, as a corpus folder.", arguments, CvssCorpus, Limits
    )
    if known:
        build_cvss(settings_from(known, CvssCorpus), settings_from(known, Limits))


def table(arguments: list[str]) -> None:
    """unitweave corpus table --table FILE... --out FOLDER --src-audio COLUMN ..."""
    from unitweave.corpus.checks import Limits
    from unitweave.corpus.readers.table import Columns, TableCorpus, build_table

    text = "A table of recordings and texts (CSV, TSV, JSON Lines, Parquet), as a corpus folder."
    known = _parse("table", text, arguments, TableCorpus, Columns, Limits)
    if known:
        build_table(settings_from(known, TableCorpus), settings_from(known, Columns), settings_from(known, Limits))


def hub(arguments: list[str]) -> None:
    """unitweave corpus hub --dataset NAME --out FOLDER --src-audio COLUMN ..."""
    from unitweave.corpus.checks import Limits
    from unitweave.corpus.readers.hub import HubCorpus, build_hub
    from unitweave.corpus.readers.table import Columns

    known = _parse(
        "hub", "A dataset of the Hugging Face hub, as a corpus folder.", arguments, HubCorpus, Columns, Limits
    )
    if known:
        build_hub(settings_from(known, HubCorpus), settings_from(known, Columns), settings_from(known, Limits))


def stats(arguments: list[str]) -> None:
    """unitweave corpus stats FOLDER [--picture FILE]"""
    parser = Parser(
        prog="unitweave corpus stats", description="Hours, pairs, speakers and lengths per language and split."
    )
    parser.add_argument("folder", type=Path, help="a corpus folder or a run folder")
    parser.add_argument("--picture", type=Path, help="where the picture goes (default: FOLDER/stats.png)")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        return
    known = parser.parse_args(arguments)
    from unitweave.corpus.stats import show_stats

    show_stats(known.folder, known.picture)


def _parse(name: str, description: str, arguments: list[str], *kinds: type) -> argparse.Namespace | None:
    """The flags of a command; None when only help was asked for."""
    parser = Parser(prog=f"unitweave corpus {name}", description=description, allow_abbrev=False)
    add_flags(parser, *kinds)
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        return None
    # --some_name is taken for --some-name, as fields are written in code.
    spelt = [re.sub(r"^--[^=]*", lambda flag: flag[0].replace("_", "-"), argument) for argument in arguments]
    return parser.parse_args(spelt)
