"""From recordings to units and word frames, in one pass of the encoder over each recording."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from unitweave.config.units import ExtractionSettings
from unitweave.core.distributed import barrier, on_main, process_index, process_share
from unitweave.core.errors import InputError
from unitweave.core.files import remove_leftovers
from unitweave.core.manifest import Manifest, read_manifest
from unitweave.core.progress import meter
from unitweave.core.stage import StageResult
from unitweave.training.devices import local_devices
from unitweave.units.dataset import (
    SCHEMA,
    SIDES,
    UnitRow,
    describe_shards,
    read_shard_keys,
    read_shard_metadata,
    shard_path,
    unit_batches,
    write_shard,
)
from unitweave.units.extractor import UnitExtractor
from unitweave.units.inference import single_threads
from unitweave.units.reading import map_ordered, read_features
from unitweave.units.sampling import Recording, list_recordings
from unitweave.units.shards import Shard, ShardCollector, shard_batches, unit_rows


def extract_units(
    folder: Path, settings: ExtractionSettings, corpus: Path, encoder: Path, codebook: Path
) -> StageResult:
    """Extract units and word frames of every pair into Parquet shards in `folder`; finished shards are kept.

    Uses all GPUs of this machine; started on several processes, all of them call this, and each takes its part of the
    shards with a GPU of its own. The shards are byte for byte the same whatever the backend, the number of workers,
    processes and interruptions.

    Shards that are damaged or have other recordings are extracted again.

    Raises:
        InputError: `folder` holds shards of another codebook or more than there are, or a recording cannot be read.
    """
    devices = local_devices()
    extractor = UnitExtractor.load(encoder, codebook, settings.precision, devices[0])
    pairs = read_manifest(corpus)
    metadata = {
        "codebook": extractor.codebook.fingerprint,
        "num_units": str(extractor.codebook.num_units),
        "frame_rate": f"{extractor.front_end.frame_rate:g}",
    }
    shards = [pairs[first : first + settings.shard_size] for first in range(0, len(pairs), settings.shard_size)]

    def unfinished() -> list[int]:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        refuse_further_shards(folder, len(shards))
        return [number for number, shard in enumerate(shards) if not is_finished(folder, number, metadata, shard)]

    numbers, ray = on_main(unfinished), settings.backend == "ray"
    assigned = process_share(numbers) if not ray else numbers if process_index() == 0 else []
    todo: list[Shard] = [(number, list_recordings(shards[number])) for number in assigned]
    sizes = {number: len(items) for number, items in todo}
    with meter("units: extracting", sum(sizes.values())) as progress:
        if ray:
            from unitweave.units.ray_engine import extract_with_ray

            done = extract_with_ray(
                todo, settings.batch_seconds, settings.workers, settings.precision, encoder, codebook
            )
        else:
            further = [UnitExtractor.load(encoder, codebook, settings.precision, device) for device in devices[1:]]
            done = _extract_here(todo, settings, [extractor, *further])
        for number, rows in done:
            write_shard(folder, number, rows, metadata)
            progress.advance(sizes[number])
    barrier()
    return on_main(lambda: summary(folder, pairs))


def refuse_further_shards(folder: Path, count: int) -> None:
    """Raise InputError where a folder has a shard besides the `count` of the corpus: it would be read with them."""
    known = {shard_path(folder, number) for number in range(count)}
    if further := sorted(set(folder.glob("units-*.parquet")) - known):
        raise InputError(f"{further[0]}: the corpus has only {count} shards of units; delete this file")


def is_finished(folder: Path, number: int, metadata: Mapping[str, str], pairs: Manifest) -> bool:
    """Whether a shard is there already, with units of recordings of these pairs, each of them once.

    Raises InputError where it is one of other units.
    """
    path = shard_path(folder, number)
    if not path.exists():
        return False
    try:
        found, keys = read_shard_metadata(path), read_shard_keys(path)
    except InputError:  # damaged: it is extracted again
        return False
    if any(found.get(key) != value for key, value in metadata.items()):
        raise InputError(f"{path}: units of another codebook; remove the folder or choose another one")
    ids = [pairs.column("id").filter(pairs.column(f"{side}_audio").is_valid()).combine_chunks() for side in SIDES]
    wanted = pa.concat_arrays(
        [pc.binary_join_element_wise(own, side, "/") for own, side in zip(ids, SIDES, strict=True)]
    )
    return len(pc.unique(keys)) == len(keys) and bool(pc.all(pc.is_in(keys, wanted), min_count=0).as_py())


def _extract_here(
    todo: Sequence[Shard], settings: ExtractionSettings, extractors: Sequence[UnitExtractor]
) -> Iterator[tuple[int, list[UnitRow]]]:
    """Rows of each shard, from threads of this process; on GPUs one extractor for each."""
    parts = ((shard[0], batch) for shard in todo for batch in shard_batches(shard, settings.batch_seconds))
    collector = ShardCollector(todo, settings.batch_seconds)
    read_part = partial(read_features, extractors[0].front_end)
    with single_threads(settings.workers) as pool:
        if extractors[0].inference.batched:
            # Threads read and compute features; each GPU has one more thread that feeds it.
            free: SimpleQueue[UnitExtractor] = SimpleQueue()
            for extractor in extractors:
                free.put(extractor)

            def encode(part: tuple[tuple[int, list[Recording]], list[torch.Tensor]]) -> list[UnitRow]:
                (_, items), features = part
                extractor = free.get()
                try:
                    return unit_rows(extractor, items, features)
                finally:
                    free.put(extractor)

            read = map_ordered(pool, lambda part: read_part(part[1]), parts)
            with single_threads(len(extractors)) as feeders:
                for ((number, _), _), rows in map_ordered(feeders, encode, read):
                    yield from collector.add(number, rows)
        else:
            work = map_ordered(pool, lambda part: unit_rows(extractors[0], part[1], read_part(part[1])), parts)
            for (number, _), rows in work:
                yield from collector.add(number, rows)


def summary(folder: Path, pairs: Manifest) -> StageResult:
    """Counts of a finished extraction, and the recordings that have no units."""
    schema = pa.schema([SCHEMA.field("id"), SCHEMA.field("side")])
    keys = pa.Table.from_batches(unit_batches(folder, schema.names), schema)
    counts: dict[str, Any] = dict.fromkeys(("recordings", "frames", "words", "unsure_words"), 0)
    for batch in unit_batches(folder, ["units", "scores"]):
        scores = batch.column("scores").flatten()
        counts["recordings"] += len(batch)
        counts["frames"] += len(batch.column("units").flatten())
        counts["words"] += len(scores)
        counts["unsure_words"] += pc.sum(pc.less(scores, pa.scalar(0.5, pa.float32()))).as_py() or 0
    skipped = []
    for side in SIDES:
        have = keys.filter(pc.equal(keys["side"], side))["id"]
        missing = pc.and_(pairs.column(f"{side}_audio").is_valid(), pc.invert(pc.is_in(pairs.column("id"), have)))
        skipped += [(number, side) for number in np.flatnonzero(missing)]
    ids = pairs.column("id")
    return StageResult(
        counts=counts | {"shards": describe_shards(folder)},
        skipped=[{"id": f"{ids[n]}/{side}", "reason": "shorter than one frame"} for n, side in sorted(skipped)],
    )
