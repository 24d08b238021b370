"""Commands that make a corpus folder from users' data, and look into one."""

from pathlib import Path

from unitweave.config.corpus import Columns, CvssCorpus, HubCorpus, RowLimits, SpeakSettings, TableCorpus
from unitweave.core.lock import locked


def cvss(settings: CvssCorpus, limits: RowLimits) -> None:
    """Build a corpus folder from CVSS-C with CoVoST 2 and Common Voice 4."""
    from unitweave.corpus.readers.cvss import build_cvss

    with locked(Path(settings.out)):
        build_cvss(settings, limits)


def table(settings: TableCorpus, columns: Columns, limits: RowLimits) -> None:
    """Build a corpus folder from tables of recordings and texts (CSV, JSON Lines, Parquet, spreadsheets) or folders."""
    from unitweave.corpus.readers.table import build_table

    with locked(Path(settings.out)):
        build_table(settings, columns, limits)


def hub(settings: HubCorpus, columns: Columns, limits: RowLimits) -> None:
    """Build a corpus folder from a dataset of the Hugging Face hub."""
    from unitweave.corpus.readers.hub import build_hub

    with locked(Path(settings.out)):
        build_hub(settings, columns, limits)


def speak(folder: Path, settings: SpeakSettings, *, out: Path) -> None:
    """Make the speech that a corpus of recordings and translations lacks, with a speech engine.

    Args:
        folder: A corpus folder; its recordings stay where they are.
        out: The corpus folder to write.
    """
    from unitweave.corpus.speak import speak_corpus

    with locked(out):
        speak_corpus(folder, out, settings)


def stats(folder: Path, *, picture: Path | None = None) -> None:
    """Show hours, pairs, speakers and lengths per language and split.

    Args:
        folder: A corpus folder or a run folder.
        picture: Where the picture goes (default: FOLDER/stats.png).
    """
    from unitweave.corpus.stats import show_stats

    show_stats(folder, picture)
