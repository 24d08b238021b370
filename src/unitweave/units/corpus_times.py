"""The word times of a corpus whose units come from elsewhere: from files of alignments, or by an encoder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from unitweave.core.errors import InputError
from unitweave.core.manifest import Manifest, Pair
from unitweave.units.dataset import SIDES, UnitTable, row_batches
from unitweave.units.unit_files import plain_name
from unitweave.units.word_times import TIMES, TimedWord, read_word_times, timed_row, timed_words

Times = Callable[[Pair, str], list[TimedWord] | None]  # the words of a pair's recording on a side


def times_of_corpus(alignments: Path | None, pairs: Manifest, own: UnitTable | None = None) -> Times:
    """The word times of recordings.

    Args:
        alignments: Folder with src and tgt of alignments, found by id or by the name of the recording.
        pairs: The corpus.
        own: Word times that came with the units, for recordings without an alignment.

    Raises:
        InputError: There is no alignment of an utterance of the corpus, or one is damaged.
    """
    tables = UnitTable([])
    if alignments is not None:
        sides = [side for side in SIDES if (alignments / side).is_dir()]
        rows = (
            timed_row(plain_name(name), side, words, str(alignments / side))
            for side in sides
            for name, words in read_word_times(alignments / side)
        )
        tables = UnitTable(row_batches(rows, TIMES))

    def times(pair: Pair, side: str) -> list[TimedWord] | None:
        audio = getattr(pair, f"{side}_audio")
        names = (plain_name(pair.id), plain_name(audio)) if audio and len(tables) else ()
        row = next((tables[name, side] for name in names if (name, side) in tables), None)
        return timed_words(row if row is not None or own is None else own.get((pair.id, side)))

    if alignments is not None and not any((one, side) in tables for one in _names(pairs) for side in SIDES):
        raise InputError(
            f"{alignments}: no alignment of an utterance of the corpus; expected folders src and tgt in it"
        )
    return times


def _names(pairs: Manifest) -> Iterator[str]:
    """What the recordings of pairs may be called by."""
    for pair in pairs:
        yield plain_name(pair.id)
        yield from (plain_name(audio) for audio in (pair.src_audio, pair.tgt_audio) if audio)


def times_by_encoder(encoder: Path, pairs: Manifest, lengths: np.ndarray) -> Times:
    """Word times by the alignment of a CTC encoder.

    Args:
        encoder: Its folder.
        pairs: The corpus.
        lengths: int64 [pairs, 2]: below 0 where a recording is left out.
    """
    from unitweave.units.aligner import Aligner  # torch

    recordings = ((pairs[pair], SIDES[side]) for pair, side in np.argwhere(lengths >= 0).tolist())
    aligned = Aligner.load(encoder).align_pairs(recordings, int((lengths >= 0).sum()))
    table = UnitTable(row_batches(aligned, TIMES))
    return lambda pair, side: timed_words(table.get((pair.id, side)))
