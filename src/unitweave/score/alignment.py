"""How well a run's transcripts fit its recordings: the worst-aligned utterances, and a page with their pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import write_text
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Manifest, Pair, read_manifest
from unitweave.core.markdown import markdown_table
from unitweave.core.natural import normalized_pieces
from unitweave.core.scripts import join_words
from unitweave.units.align import utterance_score
from unitweave.units.dataset import UnitRow, list_column, read_units, unit_batches

_STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}figure{margin:0 0 2em}"
    ".p{position:relative}.p img{width:100%;height:7em;display:block}"
    ".p span{position:absolute;top:0;height:100%;box-sizing:border-box;border-left:1px solid #07c;font-size:.75em;"
    "white-space:nowrap;background:#07c1}.p span:nth-of-type(even){padding-top:1.1em}"  # labels in two rows
    ".p .u{border-color:#c30;background:#c302}"
)
_UNSURE = 0.5  # the score below which a word counts as unsure, as in units/stage.json


@dataclass(frozen=True)
class AlignedRecording:
    """A recording with its words; `score` is the geometric mean of its characters' probabilities, 0 to 1."""

    pair: Pair
    row: UnitRow
    score: float

    @property
    def audio(self) -> str:
        """Path of the recording."""
        return str(self.pair.src_audio if self.row.side == "src" else self.pair.tgt_audio)

    @property
    def name(self) -> str:
        """Id and side."""
        return f"{self.pair.id}/{self.row.side}"


def worst_aligned(run: Path, count: int) -> tuple[np.ndarray, list[AlignedRecording], list[AlignedRecording]]:
    """The worst-aligned recordings of a run. Of all others no more than their scores is kept.

    Returns:
        The scores of all recordings with words, float64, ascending; the `count` worst of them, the worst first; and as
        many that are spread over all, for comparison.

    Raises:
        InputError: The run has no units, or no recording has words.
    """
    layout = RunLayout(run)
    pairs = read_manifest(layout.corpus)
    parts = [_scored(batch) for batch in unit_batches(layout.units, ["id", "side", "words", "scores"])]
    table = pa.concat_tables(parts)
    table = table.filter(pc.is_in(table["id"], pairs.column("id").combine_chunks()))
    if not len(table):
        raise InputError(f"{layout.units}: no recording has aligned words; imported units may have none")
    table = table.append_column("name", pc.binary_join_element_wise(table["id"], table["side"], "/"))
    table = table.sort_by([("score", "ascending"), ("name", "ascending")])
    places = np.linspace(0, len(table) - 1, min(count, len(table))).round().astype(int)
    worst, spread = (
        _recordings(table.take(pa.array(some)), layout, pairs) for some in (np.arange(len(places)), places)
    )
    return table["score"].to_numpy(), worst, spread


def _scored(batch: pa.RecordBatch) -> pa.Table:
    """Id, side and score of the recordings that have words."""
    scores, offsets = list_column(batch.column("scores"))
    found = np.zeros(len(batch))
    for first in range(0, len(batch), 1024):
        for row, words in enumerate(batch.column("words").slice(first, 1024).to_pylist(), first):
            found[row] = utterance_score(words, scores[offsets[row] : offsets[row + 1]])
    table = pa.table({"id": batch.column("id"), "side": batch.column("side"), "score": found})
    return table.filter(pc.greater(pc.list_value_length(batch.column("words")), 0))


def _recordings(chosen: pa.Table, layout: RunLayout, pairs: Manifest) -> list[AlignedRecording]:
    """Some recordings as objects, in their order."""
    rows = read_units(layout.units, chosen["id"])
    places = pc.index_in(chosen["id"], pairs.column("id").combine_chunks()).to_pylist()
    return [
        AlignedRecording(pairs[place], rows[key["id"], key["side"]], key["score"])
        for place, key in zip(places, chosen.to_pylist(), strict=True)
    ]


def as_table(recordings: Sequence[AlignedRecording]) -> str:
    """Recordings as a markdown table: score, name, split, and the words with those that are unsure in brackets."""
    rows = []
    for recording in recordings:
        words = normalized_pieces(" ".join(recording.row.words))
        marked = "".join(
            piece.text if s >= _UNSURE else re.sub(r"\S+", r"[\g<0>]", piece.text)
            for piece, s in zip(words, recording.row.scores, strict=True)
        )
        rows.append((f"{recording.score:.2f}", recording.name, recording.pair.split, marked))
    return markdown_table(["score", "recording", "split", "words; [unsure ones]"], rows, "rl")


def write_page(path: Path, worst: Sequence[AlignedRecording], spread: Sequence[AlignedRecording]) -> None:
    """Write one HTML file without links: spectrogram, word boundaries and sound of each recording."""
    parts = [f"<!doctype html><meta charset=utf-8><title>Alignment</title><style>{_STYLE}</style>"]
    for title, recordings in (("Worst-aligned recordings", worst), ("From the worst to the best", spread)):
        parts.append(f"<h1>{title}</h1>" + "".join(map(_figure, recordings)))
    write_text(path, "\n".join(parts))


def _figure(recording: AlignedRecording) -> str:
    from unitweave.score.pictures import audio_uri, spectrogram_uri

    waveform, frames = read_audio(recording.audio), max(1, len(recording.row.units))
    words = "".join(
        f'<span{" class=u" if score < _UNSURE else ""} style="left:{100 * start / frames:.2f}%;'
        f'width:{100 * (end - start) / frames:.2f}%" title="{escape(word)}: {score:.2f}">{escape(word)}</span>'
        for word, start, end, score in zip(
            recording.row.words, recording.row.starts, recording.row.ends, recording.row.scores, strict=True
        )
    )
    return (
        f"<figure><figcaption>{escape(recording.name)}, {recording.score:.2f}: "
        f"{escape(join_words(' '.join(recording.row.words)))}</figcaption>"
        f'<div class=p><img alt="spectrogram" src="{spectrogram_uri(waveform)}">{words}</div>'
        f'<audio controls preload=none src="{audio_uri(waveform)}"></audio></figure>'
    )
