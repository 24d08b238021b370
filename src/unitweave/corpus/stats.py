"""`unitweave corpus stats`: hours, pairs, speakers and lengths of a corpus, as a table and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, is_read_only
from unitweave.core.manifest import FILE_NAME, SPLITS, Pair, read_manifest

PERCENTILES = (5, 50, 95, 100)
_LENGTHS = ("5 %", "median", "95 %", "max")
PICTURE = "stats.png"


@dataclass(frozen=True)
class LanguageSplit:
    """One language pair in one split. Seconds are float [recordings], those of distinct files."""

    languages: str
    split: str
    pairs: int
    speakers: int
    src_seconds: np.ndarray
    tgt_seconds: np.ndarray
    src_words: float
    tgt_words: float


def language_splits(pairs: Sequence[Pair]) -> list[LanguageSplit]:
    """The corpus by language pair and split; a recording that several pairs share counts once."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((f"{pair.src_lang} > {pair.tgt_lang}", pair.split), []).append(pair)
    order = sorted(groups, key=lambda key: (key[0], SPLITS.index(key[1])))
    return [_part(*key, groups[key]) for key in order]


def show_stats(folder: Path, picture: Path | None = None) -> None:
    """Print the table of a corpus or run folder to standard output, and draw its lengths. Raises InputError."""
    if not (folder / FILE_NAME).exists() and (folder / "corpus" / FILE_NAME).exists():
        folder = folder / "corpus"
    pairs = read_manifest(folder)
    if not pairs:
        raise InputError(f"{folder}: the manifest has no pairs")
    parts = language_splits(pairs)
    console = Console()
    if not console.is_terminal:
        console.width = 100
    console.print(_table(parts))
    path = picture or folder / PICTURE
    try:
        draw(parts, path)
        console.print(f"picture: {path}", soft_wrap=True)
    except OSError as error:
        if picture or not is_read_only(error):
            raise
        console.print(f"no picture: {folder} is read-only; --picture names another place", soft_wrap=True)


def draw(parts: Sequence[LanguageSplit], path: Path) -> None:
    """Histograms of recordings' lengths, a row per language pair, source beside target, splits in colors."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path}: the file name of a picture must end in .png, .svg or .pdf")
    languages = list(dict.fromkeys(part.languages for part in parts))
    figure = Figure(figsize=(9, 0.6 + 1.9 * len(languages)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(languages), 2, squeeze=False, sharex=True)
    max_seconds = max(float(s.max(initial=1.0)) for part in parts for s in (part.src_seconds, part.tgt_seconds))
    bins = np.linspace(0, max_seconds, 41)
    for row, name in zip(axes, languages, strict=True):
        for axis, side in zip(row, ("src", "tgt"), strict=True):
            mine = [part for part in parts if part.languages == name]
            _histogram(axis, [(p.split, getattr(p, f"{side}_seconds")) for p in mine], bins)
            axis.set_title(f"{name}: {'source' if side == 'src' else 'target'}", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=120)


def _histogram(axis: Any, splits: Sequence[tuple[str, np.ndarray]], bins: np.ndarray) -> None:
    """Shares, so that a small split can be compared with a large one."""
    for split, seconds in splits:
        if len(seconds):
            weights = np.full(len(seconds), 100 / len(seconds))
            axis.hist(seconds, bins, weights=weights, histtype="step", label=f"{split}, {len(seconds)}")
    axis.set_ylabel("% of recordings", fontsize=8)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)


def _part(languages: str, split: str, pairs: Sequence[Pair]) -> LanguageSplit:
    def seconds(side: str) -> np.ndarray:
        durations = {getattr(p, f"{side}_audio"): getattr(p, f"{side}_seconds") for p in pairs}
        return np.array([value for path, value in durations.items() if path])

    def words(side: str) -> float:
        counts = [len(text.split()) for p in pairs if (text := getattr(p, f"{side}_text"))]
        return sum(counts) / len(counts) if counts else 0.0

    speakers = len({p.speaker for p in pairs} - {""})
    return LanguageSplit(
        languages, split, len(pairs), speakers, seconds("src"), seconds("tgt"), words("src"), words("tgt")
    )


def _table(parts: Sequence[LanguageSplit]) -> Table:
    table = Table(title="lengths in seconds; words: mean of a text", title_justify="left")
    for name in ("languages", "split", "pairs", "speakers", "side", "hours", *_LENGTHS, "words"):
        table.add_column(name, justify="left" if name in ("languages", "split", "side") else "right")
    for part in parts:
        first = (part.languages, part.split, str(part.pairs), str(part.speakers or "-"))
        table.add_row(*first, "source", *_cells(part.src_seconds, part.src_words))
        table.add_row(
            "", "", "", "", "target", *_cells(part.tgt_seconds, part.tgt_words), end_section=part is parts[-1]
        )
    hours = [sum(float(getattr(p, f"{side}_seconds").sum()) for p in parts) / 3600 for side in ("src", "tgt")]
    table.add_row("all", "", str(sum(p.pairs for p in parts)), "", "source", f"{hours[0]:.2f}")
    table.add_row("", "", "", "", "target", f"{hours[1]:.2f}")
    return table


def _cells(seconds: np.ndarray, words: float) -> list[str]:
    lengths = [f"{x:.1f}" for x in np.percentile(seconds, PERCENTILES)] if len(seconds) else ["-"] * len(PERCENTILES)
    return [f"{seconds.sum() / 3600:.2f}", *lengths, f"{words:.1f}" if words else "-"]
