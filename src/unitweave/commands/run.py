"""unitweave run."""

from collections.abc import Sequence
from pathlib import Path

from unitweave.commands.base import SECTIONS, Parser, open_run, print_settings, settings_of
from unitweave.core.distributed import process_index


def run(arguments: list[str]) -> None:
    """unitweave run RECIPE --out RUN [--SECTION.KEY VALUE ...]"""
    parser = Parser(
        prog="unitweave run", description="Do every stage of a recipe that is not yet done.", add_help=False
    )
    parser.add_argument("recipe", help="a YAML file, or the name of a built-in recipe")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        print_settings(SECTIONS)
        return
    known, rest = parser.parse_known_args(arguments)
    overrides = settings_of(SECTIONS, rest, "unitweave run") if rest else {}
    opened = open_run(known.out, known.recipe, overrides)
    opened.all()
    if opened.speaking and process_index() == 0:
        _show(opened.folder, opened.speaking)


def _show(folder: Path, systems: Sequence[str]) -> None:
    """The end of a run: the table, and where to look and listen."""
    from unitweave.core.layout import RunLayout
    from unitweave.score.report import write_report
    from unitweave.score.scores import read_scores
    from unitweave.score.table import print_table

    at = RunLayout(folder)
    report = write_report(at.report, [folder])
    print_table(read_scores(at.score))
    print(f"\nreport: {report}")
    for system in sorted(systems):
        for wav in sorted((at.translate(system) / "audio").glob("*.wav"))[:3]:
            print(f"listen: {wav}")
