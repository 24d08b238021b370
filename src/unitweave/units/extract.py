"""From recordings to units and word frames, in one pass of the encoder over each recording."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from unitweave.config.units import ExtractionSettings
from unitweave.core.errors import InputError
from unitweave.core.files import remove_leftovers
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.progress import meter
from unitweave.core.stage import StageResult
from unitweave.training.devices import device_of
from unitweave.units.dataset import FRAME_RATE, SIDES, UnitRow, read_shard_metadata, read_units, shard_path, write_shard
from unitweave.units.extractor import UnitExtractor
from unitweave.units.inference import single_threads
from unitweave.units.reading import map_ordered, read_features
from unitweave.units.sampling import recordings_of
from unitweave.units.shards import Shard, ShardCollector, shard_batches, unit_rows


def settings_in_fingerprint(settings: ExtractionSettings) -> dict[str, object]:
    """The settings that the shards depend on; with others changed, an interrupted extraction still resumes."""
    return {"precision": settings.precision, "shard_size": settings.shard_size}


def extract_units(
    folder: Path, settings: ExtractionSettings, corpus: Path, encoder: Path, codebook: Path
) -> StageResult:
    """Extract units and word frames of every pair into Parquet shards in `folder`; finished shards are kept.

    The shards are byte for byte the same whatever the engine, the number of workers and of interruptions.

    Raises:
        InputError: `folder` holds damaged shards or shards of another codebook, or a recording cannot be read.
    """
    extractor = UnitExtractor.load(encoder, codebook, settings.precision, device_of("auto"))
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
            todo.append((number, recordings_of(pairs[first : first + settings.shard_size])))
    sizes = {number: len(items) for number, items in todo}
    with meter("units: extracting", sum(sizes.values())) as progress:
        if settings.backend == "ray":
            from unitweave.units.ray_engine import extract_with_ray

            done = extract_with_ray(
                todo, settings.batch_seconds, settings.workers, settings.precision, encoder, codebook
            )
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
    found = read_shard_metadata(path)
    if any(found.get(key) != value for key, value in metadata.items()):
        raise InputError(f"{path}: units of another codebook; remove the folder or choose another one")
    return True


def _extract_here(
    todo: Sequence[Shard], settings: ExtractionSettings, extractor: UnitExtractor
) -> Iterator[tuple[int, list[UnitRow]]]:
    """Rows of each shard, from threads of this process."""
    parts = [
        (number, [items[i] for i in batch])
        for number, items in todo
        for batch in shard_batches(items, settings.batch_seconds)
    ]
    collector = ShardCollector(todo, settings.batch_seconds)
    with single_threads(settings.workers) as pool:
        if extractor.inference.batched:
            # Threads read and compute features; this one feeds the GPU.
            for (number, items), features in map_ordered(pool, lambda part: read_features(part[1]), parts):
                yield from collector.add(number, unit_rows(extractor, items, features))
        else:
            work = map_ordered(pool, lambda part: unit_rows(extractor, part[1], read_features(part[1])), parts)
            for (number, _), rows in work:
                yield from collector.add(number, rows)


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
