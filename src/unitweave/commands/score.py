"""Scores and the report."""

from pathlib import Path
from typing import Any

from unitweave.commands.base import open_run
from unitweave.config.recipe import parse_settings
from unitweave.config.score import ScoreSettings
from unitweave.core.errors import InputError
from unitweave.core.imports import quick_imports
from unitweave.core.layout import RunLayout


def score(
    paths: list[Path],
    *,
    references: Path | None = None,
    reference_speech: Path | None = None,
    source_speech: Path | None = None,
    language: str = "en",
    out: Path | None = None,
    export: Path | None = None,
    overrides: dict[str, Any],
) -> None:
    """Score the systems of a run, or with --references the audio files of any systems.

    Args:
        paths: A run folder; with --references one folder of audio files for each system.
        references: File of references: one line per audio file, or lines of name<TAB>text or
            name<TAB>language<TAB>text, further references following after tabs; or a table with headings (CSV, JSON
            Lines, Parquet, Excel or OpenDocument).
        reference_speech: Folder of recordings of the references, for the ceiling.
        source_speech: With --references: folder of the source recordings, for duration ratio and speaker similarity.
        language: With --references: language of the speech.
        out: With --references: JSON file for the scores.
        export: Also write the run's translations into this new folder, in the layout of public evaluation suites.
    """
    if references is not None:
        settings = parse_settings(ScoreSettings, overrides.get("score", {}), "score")
        if export:
            raise InputError("score: --export needs a run; evaluation suites read folders of audio files as they are")
        for folder in paths:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder")
        with quick_imports():
            from unitweave.score.folder import score_folders
            from unitweave.score.table import print_table

        print_table(score_folders(paths, references, settings, out, reference_speech, language, source_speech))
        return
    if len(paths) > 1 or reference_speech or source_speech or out:
        raise InputError("score: give one run folder, or --references for the audio files of any systems")
    if export and export.exists():
        raise InputError(f"{export}: already exists; choose another folder")
    open_run(paths[0], None, overrides).score()

    from unitweave.score.scores import read_scores
    from unitweave.score.table import print_table

    print_table(read_scores(RunLayout(paths[0]).score))
    if export:
        from unitweave.score.export import export_run

        print(f"for evaluation suites: {export_run(paths[0], export)}")


def report(runs: list[Path], *, out: Path | None = None) -> None:
    """Write one HTML page about one or several runs.

    Args:
        runs: Run folders.
        out: The page (default: report.html in the first run).
    """
    from unitweave.score.report import write_report

    print(write_report(out or RunLayout(runs[0]).report, runs))
