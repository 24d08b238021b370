"""From recordings to units and word frames, in one pass of the encoder over each recording."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from unitweave.config.units import ExtractionSettings
from unitweave.core.errors import InputError
from unitweave.core.files import remove_leftovers
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.progress import meter
from unitweave.core.stage import StageResult
from unitweave.units.align import WordFrames
from unitweave.units.extractor import UnitExtractor as UnitExtractor
from unitweave.units.inference import single_threads
from unitweave.units.reading import best_device, features_of, in_order
from unitweave.units.recordings import Item, batches_of, items_of
from unitweave.units.table import FRAME_RATE, SIDES, UnitRow, read_units, shard_path, write_shard
from unitweave.units.train_codebook import train_codebook as train_codebook

Shard = tuple[int, list[Item]]  # number, recordings


def settings_that_count(settings: ExtractionSettings) -> dict[str, object]:
    """Those that the shards depend on: with others changed, an interrupted extraction may go on."""
    return {"precision": settings.precision, "shard_size": settings.shard_size}


def extract_units(
    folder: Path, settings: ExtractionSettings, corpus: Path, encoder: Path, codebook: Path
) -> StageResult:
    """Extract units and word frames of every pair into Parquet shards in `folder`; finished shards are kept.

    The shards are byte for byte the same whatever the engine, the number of workers and of interruptions.
    Raises InputError when `folder` holds shards of another codebook or a recording can't be read.
    """
    extractor = UnitExtractor.load(encoder, codebook, settings.precision, best_device())
    pairs = read_manifest(corpus)
    metadata = {
        "codebook": extractor.codebook.fingerprint,
        "num_units": str(extractor.codebook.num_units),
        "frame_rate": str(FRAME_RATE),
    }
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    todo: list[Shard] = []
    for number, first in enumerate(range(0, len(pairs), settings.shard_size)):
        if not _finished(folder, number, metadata):
            todo.append((number, items_of(pairs[first : first + settings.shard_size])))
    sizes = {number: len(items) for number, items in todo}
    with meter("units: extracting", sum(sizes.values())) as progress:
        if settings.backend == "ray":
            from unitweave.units.ray_engine import extract_with_ray

            done = extract_with_ray(todo, settings, encoder, codebook)
        else:
            done = _extract_here(todo, settings, extractor)
        for number, rows in done:
            write_shard(folder, number, rows, metadata)
            progress.advance(sizes[number])
    return _summary(folder, pairs)


def _finished(folder: Path, number: int, metadata: Mapping[str, str]) -> bool:
    path = shard_path(folder, number)
    if not path.exists():
        return False
    found = {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}
    if any(found.get(key) != value for key, value in metadata.items()):
        raise InputError(f"{path}: units of another codebook; remove the folder or give another one")
    return True


def _extract_here(
    todo: Sequence[Shard], settings: ExtractionSettings, extractor: UnitExtractor
) -> Iterator[tuple[int, list[UnitRow]]]:
    """Rows of each shard, from threads of this process."""
    parts = [(number, [items[i] for i in batch]) for number, items in todo for batch in _batches(items, settings)]
    gathering = Gathering(todo, settings)
    with single_threads(settings.workers) as pool:
        if extractor.inference.batched:
            # Threads read and compute features; this one feeds the GPU.
            for (number, items), features in in_order(pool, lambda part: features_of(part[1]), parts):
                yield from gathering.add(number, rows_of(extractor, items, features))
        else:
            work = in_order(pool, lambda part: rows_of(extractor, part[1], features_of(part[1])), parts)
            for (number, _), rows in work:
                yield from gathering.add(number, rows)


def _batches(items: Sequence[Item], settings: ExtractionSettings) -> list[list[int]]:
    """Batches of a shard; one without items for a shard without recordings, so that it is written too."""
    return batches_of(items, settings.batch_seconds) or [[]]


def rows_of(extractor: UnitExtractor, items: Sequence[Item], features: Sequence) -> list[UnitRow]:
    """Rows of recordings from their features; recordings shorter than one frame have none."""
    rows = []
    results = extractor.from_features(features, [item.text for item in items])
    for item, (units, words) in zip(items, results, strict=True):
        words = words or WordFrames(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
        spoken = item.text.split(" ") if item.text else []
        if len(units):
            rows.append(UnitRow(item.id, item.side, units, spoken, words.starts, words.ends, words.scores))
    return rows


class Gathering:
    """Puts rows that come batch by batch together to shards, in the order of the manifest."""

    def __init__(self, todo: Sequence[Shard], settings: ExtractionSettings) -> None:
        self._orders = {n: {(x.id, x.side): i for i, x in enumerate(items)} for n, items in todo}
        self._missing = {number: len(_batches(items, settings)) for number, items in todo}
        self._rows: dict[int, list[UnitRow]] = {number: [] for number, _ in todo}

    def add(self, number: int, rows: Sequence[UnitRow]) -> Iterator[tuple[int, list[UnitRow]]]:
        """Take the rows of a batch of shard `number`; give the shard when it is complete."""
        self._rows[number] += rows
        self._missing[number] -= 1
        if self._missing[number] == 0:
            order = self._orders.pop(number)
            yield number, sorted(self._rows.pop(number), key=lambda row: order[row.id, row.side])


def _summary(folder: Path, pairs: Sequence[Pair]) -> StageResult:
    rows = read_units(folder)
    frames = sum(len(row.units) for row in rows.values())
    scores = np.concatenate([row.scores for row in rows.values()] or [np.empty(0)])
    skipped = [
        {"id": f"{pair.id}/{side}", "reason": "shorter than one frame"}
        for pair in pairs
        for side in SIDES
        if getattr(pair, f"{side}_audio") and (pair.id, side) not in rows
    ]
    counts = {
        "recordings": len(rows),
        "frames": frames,
        "words": len(scores),
        "unsure_words": int((scores < 0.5).sum()),
    }
    return StageResult(counts=counts, skipped=skipped)
