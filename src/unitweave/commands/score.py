"""unitweave score and unitweave report."""

from pathlib import Path

from unitweave.commands.base import Parser, stage_command


def score(arguments: list[str]) -> None:
    """unitweave score RUN [--score.KEY VALUE ...]"""
    from unitweave.score.score import read_scores
    from unitweave.score.table import print_table

    stage_command("score", "score", "score", arguments)
    if not {"-h", "--help"} & set(arguments):
        print_table(read_scores(Path(arguments[0]) / "score"))


def report(arguments: list[str]) -> None:
    """unitweave report RUN... [-o FILE]"""
    from unitweave.score.report import write_report

    parser = Parser(prog="unitweave report", description="Write one HTML page about one or several runs.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("-o", "--out", type=Path, help="the page (default: report.html in the first run)")
    known = parser.parse_args(arguments)
    print(write_report(known.out or known.runs[0] / "report.html", known.runs))
