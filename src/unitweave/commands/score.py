"""unitweave score and unitweave report."""

from pathlib import Path

from unitweave.commands.base import Parser, settings_of, stage_command
from unitweave.core.layout import RunLayout


def score(arguments: list[str]) -> None:
    """unitweave score RUN [--score.KEY VALUE ...], or FOLDER... --references FILE [-o FILE] for any system's wavs"""
    from unitweave.score.scores import read_scores
    from unitweave.score.table import print_table

    if any(argument == "--references" or argument.startswith("--references=") for argument in arguments):
        score_wavs(arguments)
        return
    run = stage_command("score", "score", "score", arguments)
    if run is None:
        print("\nunitweave score FOLDER... --references FILE [-o FILE] scores the audio files of any system")
    else:
        print_table(read_scores(RunLayout(run).score))


def score_wavs(arguments: list[str]) -> None:
    """Output of any system: one folder of audio files per system, and their references."""
    from unitweave.config.score import ScoreSettings
    from unitweave.score.folder import score_folders
    from unitweave.score.table import print_table

    parser = Parser(prog="unitweave score", description="Score folders of audio files from any system.")
    parser.add_argument("folders", type=Path, nargs="+", help="audio files, one folder per system")
    parser.add_argument(
        "--references", type=Path, required=True, help="text file: name<TAB>text per line, or one line per file"
    )
    parser.add_argument("--reference-speech", type=Path, help="folder of recordings of the references, for the ceiling")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write the scores to")
    known, rest = parser.parse_known_args(arguments)
    given = settings_of(["score"], rest, parser.prog).get("score", {}) if rest else {}
    settings = ScoreSettings(**given)
    print_table(score_folders(known.folders, known.references, settings, known.out, known.reference_speech))


def report(arguments: list[str]) -> None:
    """unitweave report RUN... [-o FILE]"""
    from unitweave.score.report import write_report

    parser = Parser(prog="unitweave report", description="Write one HTML page about one or more runs.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("-o", "--out", type=Path, help="the page (default: report.html in the first run)")
    known = parser.parse_args(arguments)
    print(write_report(known.out or known.runs[0] / "report.html", known.runs))
