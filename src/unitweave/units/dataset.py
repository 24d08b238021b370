"""The units dataset: for each side of each utterance pair, its units and the frames of its words.

Stored as Parquet shards `units-00000.parquet`, ... in one folder. One unit stands for one frame,
50 frames a second; repeated units are kept.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path

FRAME_RATE = 50  # frames, and so units, a second
SAMPLES_PER_FRAME = 320  # at 16 kHz
SIDES = ("src", "tgt")
_SLACK_FRAMES = 3  # encoders yield up to 2 frames fewer than samples / 320; more means a mix-up

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("side", pa.string(), nullable=False),
        pa.field("units", pa.list_(pa.uint16()), nullable=False),
        pa.field("words", pa.list_(pa.string()), nullable=False),
        pa.field("starts", pa.list_(pa.int32()), nullable=False),
        pa.field("ends", pa.list_(pa.int32()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)


@dataclass(frozen=True)
class UnitRow:
    """Units of one recording.

    units           uint16 [frames]
    words           the normalized transcript, split at spaces
    starts, ends    int32 [words]: first frame of each word and the frame after its last
    scores          float32 [words], 0 to 1: geometric mean of the probabilities of the word's characters, each
                    at its most probable frame (see align.py); low where unsure, 0 where nothing was aligned
    """

    id: str
    side: str
    units: np.ndarray
    words: list[str]
    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray


def write_shard(folder: Path, number: int, rows: Iterable[UnitRow], metadata: dict[str, str]) -> Path:
    """Write shard `number`, whole or not at all. `metadata` names the codebook and its size."""
    records = [vars(row) for row in rows]
    table = pa.Table.from_pylist(records, schema=SCHEMA.with_metadata(metadata))
    path = shard_path(folder, number)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` of the dataset in `folder` lies."""
    return Path(folder) / f"units-{number:05d}.parquet"


def read_units(folder: Path) -> dict[tuple[str, str], UnitRow]:
    """Read all shards.

    Returns:
        (utterance id, side) -> row.

    Raises:
        InputError: There are none, or one of them is damaged.
    """
    rows: dict[tuple[str, str], UnitRow] = {}
    for path in _shards(folder):
        with _damage_named(path):
            table = pq.read_table(path)
            if table.schema.names != SCHEMA.names:
                raise InputError(f"{path}: not a units file of this version")
            table = table.cast(SCHEMA)
        rows |= {(row.id, row.side): row for row in rows_from_table(table)}
    return rows


def _shards(folder: Path) -> list[Path]:
    paths = sorted(Path(folder).glob("units-*.parquet"))
    if not paths:
        raise InputError(f"{folder}: no units; make them with 'unitweave units extract'")
    return paths


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path}: damaged or cut off ({' '.join(str(error).split())}); delete it and extract the units again"
        ) from None


def rows_from_table(table: pa.Table) -> Iterator[UnitRow]:
    """Rows of a table with our schema, in order."""
    columns = {name: table.column(name).combine_chunks() for name in SCHEMA.names}
    ids, sides, words = (columns[name].to_pylist() for name in ("id", "side", "words"))
    arrays = {name: _split(columns[name]) for name in ("units", "starts", "ends", "scores")}
    for i, (id_, side) in enumerate(zip(ids, sides, strict=True)):
        yield UnitRow(id_, side, arrays["units"][i], words[i], *(arrays[n][i] for n in ("starts", "ends", "scores")))


def read_units_metadata(folder: Path) -> dict[str, str]:
    """Metadata of the dataset: "codebook" (its fingerprint), "num_units", "frame_rate".

    Raises:
        InputError: There are no units, or the first shard is damaged.
    """
    return read_shard_metadata(_shards(folder)[0])


def read_shard_metadata(path: Path) -> dict[str, str]:
    """Metadata of one shard, as `read_units_metadata`."""
    with _damage_named(path):
        metadata = pq.read_schema(path).metadata or {}
        return {key.decode(): value.decode() for key, value in metadata.items()}


def length_mismatch(units: int, frames: float) -> str:
    """How many units there are for a recording of so many frames, where that cannot be; "" where it can."""
    if units > frames + _SLACK_FRAMES:
        return f"{units} units but only {int(frames)} frames of audio"
    if units < frames - _SLACK_FRAMES:
        return f"only {units} units for {int(frames)} frames of audio"
    return ""


def _split(column: pa.ListArray) -> list[np.ndarray]:
    """One numpy view per row of a list column."""
    values, offsets = column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
    return [values[a:b] for a, b in itertools.pairwise(offsets)]
