"""Rows of unit shards from batches of recordings; what the in-process engine and the Ray engine share."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from unitweave.units.align import WordFrames
from unitweave.units.dataset import UnitRow
from unitweave.units.extractor import UnitExtractor
from unitweave.units.sampling import Recording, Recordings, batches_by_length

Shard = tuple[int, Recordings]  # number, recordings


def shard_batches(shard: Shard, batch_seconds: float) -> list[list[Recording]]:
    """Batches of a shard; an empty batch for a shard without recordings, so that it is written too."""
    items = list(shard[1])
    return [[items[i] for i in batch] for batch in batches_by_length(shard[1].seconds, batch_seconds)] or [[]]


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
        self._todo, self._batch_seconds = dict(todo), batch_seconds
        self._missing: dict[int, int] = {}
        self._rows: dict[int, list[UnitRow]] = {}

    def add(self, number: int, rows: Sequence[UnitRow]) -> Iterator[tuple[int, list[UnitRow]]]:
        """Take the rows of a batch of shard `number`; yield the shard when it is complete."""
        recordings = self._todo[number]
        if number not in self._rows:
            self._rows[number] = []
            self._missing[number] = len(batches_by_length(recordings.seconds, self._batch_seconds)) or 1
        self._rows[number] += rows
        self._missing[number] -= 1
        if self._missing[number] == 0:
            order = {(recording.id, recording.side): i for i, recording in enumerate(recordings)}
            yield number, sorted(self._rows.pop(number), key=lambda row: order[row.id, row.side])
