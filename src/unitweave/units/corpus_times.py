"""The word times of a corpus whose units come from elsewhere: from files of alignments, or by an encoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from unitweave.core.errors import InputError
from unitweave.core.manifest import Manifest, Pair
from unitweave.units.dataset import SIDES, UnitTable, row_batches
from unitweave.units.unit_files import UtteranceNames
from unitweave.units.word_times import TIMES, TimedWord, read_word_times, timed_row, timed_words

Times = Callable[[Pair, str], list[TimedWord] | None]  # the words of a pair's recording on a side


def times_of_corpus(alignments: Path | None, pairs: Manifest, own: UnitTable | None = None) -> Times:
    """The word times of recordings.

    Args:
        alignments: Folder with src and tgt of alignments, found by id or by the name of the recording; a name that two
            recordings of a side share belongs to neither.
        pairs: The corpus.
        own: Word times that came with the units, for recordings without an alignment.

    Raises:
        InputError: There is no alignment of an utterance of the corpus, there are two of one, or one is damaged.
    """
    tables = UnitTable([])
    if alignments is not None:
        names = UtteranceNames(pairs)
        rows = (
            timed_row(names.id(name, side), side, words, str(alignments / side))
            for side in SIDES
            if (alignments / side).is_dir()
            for name, words in read_word_times(alignments / side)
        )
        tables = UnitTable(row_batches(rows, TIMES))
        if twice := tables.duplicate():
            raise InputError(
                f"{alignments}: two alignments of {'/'.join(twice)}, by its id and by the recording's name"
            )

    def times(pair: Pair, side: str) -> list[TimedWord] | None:
        row = tables.get((pair.id, side))
        return timed_words(row if row is not None or own is None else own.get((pair.id, side)))

    if alignments is not None and not any(
        (id_.as_py(), side) in tables for id_ in pairs.column("id") for side in SIDES
    ):
        raise InputError(
            f"{alignments}: no alignment of an utterance of the corpus; expected folders src and tgt in it"
        )
    return times


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
