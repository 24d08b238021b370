"""Extraction as a Ray Data pipeline: CPU workers for audio and features, actors for the encoder.

The rows are those of the in-process engine: the same functions make them, each recording on its own. A worker
or actor that dies is started again by Ray and its batch done once more; this process writes the shards,
whole or not at all.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from unitweave.config.training import Precision
from unitweave.config.units import ExtractionSettings
from unitweave.core.errors import InputError
from unitweave.units.extract import Gathering, Shard, rows_of
from unitweave.units.extractor import UnitExtractor
from unitweave.units.features import FEATURE_SIZE
from unitweave.units.reading import best_device, features_of
from unitweave.units.recordings import Item, batches_of
from unitweave.units.table import SCHEMA, UnitRow, rows_of_table


def extract_with_ray(
    todo: Sequence[Shard], settings: ExtractionSettings, encoder: Path, codebook: Path
) -> Iterator[tuple[int, list[UnitRow]]]:
    """Rows of each shard as it is complete. Uses the Ray cluster of RAY_ADDRESS, or starts Ray on this machine.

    On several machines the corpus, the encoder and the codebook have to lie at the same paths on all of
    them. Raises InputError when Ray is not installed.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError:
        raise InputError("units.backend ray needs Ray Data; install it with: pip install 'unitweave[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    parts = [
        {"shard": number, "items": json.dumps([asdict(items[i]) for i in batch])}
        for number, items in todo
        for batch in batches_of(items, settings.batch_seconds) or [[]]
    ]
    if not parts:
        return
    gpus = 1 if torch.cuda.is_available() else 0
    actors = settings.workers or max(
        1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1)) // (1 + (not gpus))
    )
    data = ray.data.from_items(parts, override_num_blocks=len(parts))
    data = data.map(_read, num_cpus=1, max_retries=-1)
    data = data.map(
        _Encoder,
        fn_constructor_args=(str(Path(encoder).absolute()), str(Path(codebook).absolute()), settings.precision),
        compute=ActorPoolStrategy(size=actors),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=-1,
    )
    gathering = Gathering(todo, settings)
    for result in data.iter_rows():
        if result["error"]:
            raise InputError(result["error"])
        yield from gathering.add(result["shard"], _unpack(result["rows"]))


def _read(part: dict[str, Any]) -> dict[str, Any]:
    """Audio and features of a batch, as flat arrays; bad input as a message. Runs in a Ray task."""
    torch.set_num_threads(1)
    try:
        features = features_of([Item(**item) for item in json.loads(part["items"])])
    except InputError as error:
        return part | {"features": b"", "frames": "[]", "error": str(error)}
    flat = np.concatenate([one.numpy().reshape(-1) for one in features] or [np.empty(0, np.float32)])
    return part | {"features": flat.tobytes(), "frames": json.dumps([len(one) for one in features]), "error": ""}


class _Encoder:
    """A Ray actor that holds the encoder and turns features into rows."""

    def __init__(self, encoder: str, codebook: str, precision: Precision) -> None:
        torch.set_num_threads(1)
        self.extractor = UnitExtractor.load(Path(encoder), Path(codebook), precision, best_device())

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["error"]:
            return {"shard": part["shard"], "rows": b"", "error": part["error"]}
        items = [Item(**item) for item in json.loads(part["items"])]
        flat = torch.frombuffer(bytearray(part["features"]) or bytearray(4), dtype=torch.float32)
        lengths = [FEATURE_SIZE * frames for frames in json.loads(part["frames"])]
        features = [one.view(-1, FEATURE_SIZE) for one in flat[: sum(lengths)].split(lengths)] if lengths else []
        return {"shard": part["shard"], "rows": _pack(rows_of(self.extractor, items, features)), "error": ""}


def _pack(rows: Sequence[UnitRow]) -> bytes:
    table = pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _unpack(packed: bytes) -> list[UnitRow]:
    return list(rows_of_table(pa.ipc.open_stream(packed).read_all()))
