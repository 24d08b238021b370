"""Extraction as a Ray Data pipeline: CPU workers for audio and features, actors for the encoder.

The rows equal those of the in-process engine: the same functions compute them, each recording on its own. Ray
restarts a worker or actor that dies and repeats its batch; this process writes the shards, whole or not at all.
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
from unitweave.core.errors import InputError
from unitweave.training.devices import resolve_device
from unitweave.units.dataset import SCHEMA, UnitRow, rows_from_table
from unitweave.units.encoder import load_front_end
from unitweave.units.extractor import UnitExtractor
from unitweave.units.front_end import FrontEnd
from unitweave.units.reading import read_features
from unitweave.units.sampling import Recording
from unitweave.units.shards import Shard, ShardCollector, shard_batches, unit_rows


def extract_with_ray(
    todo: Sequence[Shard], batch_seconds: float, workers: int, precision: str, encoder: Path, codebook: Path
) -> Iterator[tuple[int, list[UnitRow]]]:
    """Extract units on the Ray cluster of RAY_ADDRESS, or on this machine.

    On several machines the corpus, the encoder and the codebook must have the same paths on all of them.

    Args:
        todo: Shards that are to be made.
        batch_seconds: Padded speech in a batch.
        workers: Encoder actors; 0 for one per GPU, or one per two cores.
        precision: "fp32" or "bf16".
        encoder: Its folder.
        codebook: Its folder.

    Yields:
        Number and rows of each shard as it is complete.

    Raises:
        InputError: Ray is not installed, or a recording cannot be read.
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
        {"shard": shard[0], "items": json.dumps([asdict(item) for item in batch])}
        for shard in todo
        for batch in shard_batches(shard, batch_seconds)
    ]
    if not parts:
        return
    gpus = 1 if torch.cuda.is_available() else 0
    actors = workers or max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1)) // (1 + (not gpus)))
    data = ray.data.from_items(parts, override_num_blocks=len(parts))
    data = data.map(_read, fn_args=(load_front_end(encoder),), num_cpus=1, max_retries=-1)
    data = data.map(
        _Encoder,
        fn_constructor_args=(str(Path(encoder).absolute()), str(Path(codebook).absolute()), precision),
        compute=ActorPoolStrategy(size=actors),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=-1,
    )
    collector = ShardCollector(todo, batch_seconds)
    for result in data.iter_rows():
        if result["error"]:
            raise InputError(result["error"])
        yield from collector.add(result["shard"], _unpack(result["rows"]))


def _read(part: dict[str, Any], front_end: FrontEnd) -> dict[str, Any]:
    """Audio and features of a batch, as flat arrays; bad input as a message. Runs in a Ray task."""
    torch.set_num_threads(1)
    try:
        features = read_features(front_end, [Recording(**item) for item in json.loads(part["items"])])
    except InputError as error:
        return part | {"features": b"", "frames": "[]", "error": str(error)}
    flat = np.concatenate([feature.numpy().reshape(-1) for feature in features] or [np.empty(0, np.float32)])
    return part | {
        "features": flat.tobytes(),
        "frames": json.dumps([len(feature) for feature in features]),
        "error": "",
    }


class _Encoder:
    """A Ray actor that holds the encoder and turns features into rows."""

    def __init__(self, encoder: str, codebook: str, precision: Precision) -> None:
        torch.set_num_threads(1)
        self.extractor = UnitExtractor.load(Path(encoder), Path(codebook), precision, resolve_device("auto"))

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["error"]:
            return {"shard": part["shard"], "rows": b"", "error": part["error"]}
        items = [Recording(**item) for item in json.loads(part["items"])]
        flat = torch.frombuffer(bytearray(part["features"]) or bytearray(4), dtype=torch.float32)
        width = self.extractor.front_end.width
        lengths = [width * frames for frames in json.loads(part["frames"])]
        features = [part.view(-1, width) for part in flat[: sum(lengths)].split(lengths)] if lengths else []
        return {"shard": part["shard"], "rows": _pack(unit_rows(self.extractor, items, features)), "error": ""}


def _pack(rows: Sequence[UnitRow]) -> bytes:
    table = pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _unpack(packed: bytes) -> list[UnitRow]:
    return list(rows_from_table(pa.ipc.open_stream(packed).read_all()))
