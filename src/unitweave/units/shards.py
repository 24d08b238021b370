"""Rows of unit shards from batches of recordings; what the in-process engine and the Ray engine share."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from unitweave.units.align import WordFrames
from unitweave.units.dataset import UnitRow
from unitweave.units.extractor import UnitExtractor
from unitweave.units.sampling import Recording, batches_by_length

Shard = tuple[int, list[Recording]]  # number, recordings


def shard_batches(recordings: Sequence[Recording], batch_seconds: float) -> list[list[int]]:
    """Batches of a shard as indices; an empty batch for a shard without recordings, so that it is written too."""
    return batches_by_length(recordings, batch_seconds) or [[]]


def unit_rows(
    extractor: UnitExtractor, recordings: Sequence[Recording], features: Sequence[torch.Tensor]
) -> list[UnitRow]:
    """Units and word frames of recordings from their features [length, width]; those without a frame are left out."""
    rows = []
    results = extractor.from_features(features, [recording.text for recording in recordings])
    for recording, (units, frames) in zip(recordings, results, strict=True):
        frames = frames or WordFrames(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
        words = recording.text.split(" ") if recording.text else []
        if len(units):
            rows.append(UnitRow(recording.id, recording.side, units, words, frames.starts, frames.ends, frames.scores))
    return rows


class ShardCollector:
    """Collects rows batch by batch into shards, in the order of the manifest."""

    def __init__(self, todo: Sequence[Shard], batch_seconds: float) -> None:
        self._orders = {n: {(x.id, x.side): i for i, x in enumerate(recordings)} for n, recordings in todo}
        self._missing = {number: len(shard_batches(recordings, batch_seconds)) for number, recordings in todo}
        self._rows: dict[int, list[UnitRow]] = {number: [] for number, _ in todo}

    def add(self, number: int, rows: Sequence[UnitRow]) -> Iterator[tuple[int, list[UnitRow]]]:
        """Take the rows of a batch of shard `number`; yield the shard when it is complete."""
        self._rows[number] += rows
        self._missing[number] -= 1
        if self._missing[number] == 0:
            order = self._orders.pop(number)
            yield number, sorted(self._rows.pop(number), key=lambda row: order[row.id, row.side])
