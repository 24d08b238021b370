"""The units dataset: for each side of each utterance pair, its units and the frames of its words.

Stored as Parquet shards `units-00000.parquet`, ... in one folder. One unit stands for one frame;
the metadata have the frame rate (of our encoders: 50 a second). Repeated units are kept, or, where they were dropped
before an import, the metadata say `deduplicated`.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitweave.core.errors import InputError, in_one_line
from unitweave.core.files import atomic_path
from unitweave.core.keyed import HashIndex
from unitweave.core.manifest import schema_metadata
from unitweave.core.stage import STAGE_FILE, check_count, read_stage

FRAME_RATE = 50  # frames, and so units, a second
SIDES = ("src", "tgt")
_LISTS = ("units", "starts", "ends", "scores")
_ROWS_AT_ONCE = 50_000  # some 60 MB
_REMEDY = "delete the folder to extract or import the units again"
RATE_TOLERANCE = 1e-4  # relative

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

    Attributes:
        id: Of the utterance pair.
        side: "src" or "tgt".
        units: uint16 [frames].
        words: The normalized transcript, split at spaces.
        starts: int32 [words], the first frame of each word.
        ends: int32 [words], the frame after its last.
        scores: float32 [words], 0 to 1: geometric mean of the probabilities of the word's characters, each at its
            most probable frame (see align.py); low where unsure, 0 where nothing was aligned.
    """

    id: str
    side: str
    units: np.ndarray
    words: list[str]
    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray


def write_shard(folder: Path, number: int, rows: Iterable[UnitRow] | pa.Table, metadata: dict[str, str]) -> Path:
    """Write shard `number`, whole or not at all. `metadata` names the codebook and its size."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches(row_batches(rows), SCHEMA)
    path = shard_path(folder, number)
    with atomic_path(path) as temporary:
        table = table.combine_chunks().replace_schema_metadata(metadata)
        pq.write_table(table, temporary, compression="zstd")
    return path


def row_batches(rows: Iterable[UnitRow], schema: pa.Schema = SCHEMA) -> Iterator[pa.RecordBatch]:
    """Rows as record batches, a few thousand objects at a time."""
    rows = iter(rows)
    while part := list(itertools.islice(rows, 4096)):
        yield pa.RecordBatch.from_pylist([vars(row) for row in part], schema=schema)


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` of the dataset in `folder` lies."""
    return Path(folder) / f"units-{number:05d}.parquet"


class UnitTable(Mapping[tuple[str, str], UnitRow]):
    """(utterance id, side) -> row, kept as Arrow columns: a row becomes an object when it is looked at."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        """From record batches with the schema of units files."""
        self._batches = [batch for batch in batches if len(batch)]
        self._firsts = np.cumsum([0, *map(len, self._batches)])
        self._lists = [[list_column(batch.column(name)) for name in _LISTS] for batch in self._batches]
        self._index = HashIndex(self, self._key)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def batches(self) -> list[pa.RecordBatch]:
        """All rows, in order."""
        return self._batches

    def duplicate(self) -> tuple[str, str] | None:
        """A key that two rows have; None where there is none."""
        return cast(tuple[str, str] | None, self._index.duplicate())

    def _locate(self, position: int) -> tuple[int, int]:
        """Batch and row of a position."""
        number = int(np.searchsorted(self._firsts, position, side="right")) - 1
        return number, int(position - self._firsts[number])

    def _key(self, position: int) -> tuple[str, str]:
        number, row = self._locate(position)
        return self._batches[number].column("id")[row].as_py(), self._batches[number].column("side")[row].as_py()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for batch in self._batches:
            for first in range(0, len(batch), 1024):
                part = batch.slice(first, 1024)
                yield from zip(part.column("id").to_pylist(), part.column("side").to_pylist(), strict=True)

    def __contains__(self, key: object) -> bool:
        return self._index.find(key) is not None

    def __getitem__(self, key: tuple[str, str]) -> UnitRow:
        position = self._index.find(key)
        if position is None:
            raise KeyError(key)
        number, row = self._locate(position)
        id_, side, words = (self._batches[number].column(name)[row].as_py() for name in ("id", "side", "words"))
        units, starts, ends, scores = (
            values[offsets[row] : offsets[row + 1]] for values, offsets in self._lists[number]
        )
        return UnitRow(id_, side, units, words, starts, ends, scores)

    def num_frames(self, ids: pa.ChunkedArray, side: str) -> np.ndarray:
        """Units of the recordings of utterances on one side: int64 [utterances], -1 where there are none."""
        ids_on_side: list[pa.Array] = [pa.array([], pa.string())]
        counts = [np.zeros(0, np.int64)]
        for batch, lists in zip(self._batches, self._lists, strict=True):
            on_side = pc.equal(batch.column("side"), side)
            ids_on_side.append(batch.column("id").filter(on_side))
            counts.append(np.diff(lists[0][1])[on_side.to_numpy(zero_copy_only=False)])
        at = pc.fill_null(pc.index_in(ids, pa.concat_arrays(ids_on_side)), -1).to_numpy()
        return np.append(np.concatenate(counts), -1)[at]


def read_units(folder: Path, ids: Iterable[str] | None = None, sides: Sequence[str] = SIDES) -> UnitTable:
    """Read the units of recordings.

    Args:
        folder: The folder of the shards.
        ids: Of the utterances; None for all.
        sides: "src", "tgt" or both.

    Returns:
        (utterance id, side) -> row.

    Raises:
        InputError: There are none, one of the shards is damaged, or rows are missing.
    """
    wanted = None if ids is None else pa.array(ids, pa.string())
    kept = []
    for batch in unit_batches(folder):
        if wanted is not None:
            batch = batch.filter(pc.is_in(batch.column("id"), wanted))
        kept.append(batch.filter(pc.is_in(batch.column("side"), pa.array(sides))))
    return UnitTable(kept)


def unit_batches(folder: Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.RecordBatch]:
    """Read all shards, some ten thousand rows at a time.

    Args:
        folder: The folder of the shards.
        columns: Which columns to read.

    Yields:
        Record batches with these columns.

    Raises:
        InputError: There are no units, a shard is damaged, or these are not the shards that were written.
    """
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    tables: list[pa.Table] = []
    total = 0
    for path in _shards(folder):
        with _damage_named(path):
            if pq.read_schema(path).names != SCHEMA.names:
                raise InputError(f"{path}: not a units file of this version")
            tables.append(pq.read_table(path, columns=list(columns)).cast(schema))
        total += len(tables[-1])
        if sum(map(len, tables)) >= _ROWS_AT_ONCE:
            yield from pa.concat_tables(tables).combine_chunks().to_batches()
            tables = []
    check_count(folder, "recordings", total, _REMEDY)
    _check_shards(folder)
    if tables:
        yield from pa.concat_tables(tables).combine_chunks().to_batches()


def describe_shards(folder: Path) -> dict[str, str | int]:
    """What tells the shards in a folder from all others, for stage.json: their number and a digest.

    The digest is of their footers, where Parquet keeps the sizes of all columns and their smallest and largest values.
    """
    digest, paths = hashlib.sha256(), _shards(folder)
    for path in paths:
        with _damage_named(path), path.open("rb") as file:
            file.seek(-8, 2)  # the last bytes: the footer's length, and "PAR1"
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, 2)
            digest.update(file.read(length))
    return {"number": len(paths), "digest": digest.hexdigest()[:16]}


def _check_shards(folder: Path) -> None:
    """Raise InputError where a shard was replaced, by one with as many rows, since the units stage was done."""
    if (folder / STAGE_FILE).exists():
        expected = read_stage(folder.parent, folder.name)["counts"].get("shards")
        if expected is not None and expected != describe_shards(folder):
            raise InputError(f"{folder}: a shard is not the one that was written; {_REMEDY}")


def _shards(folder: Path) -> list[Path]:
    paths = sorted(Path(folder).glob("units-*.parquet"))
    if not paths:
        raise InputError(f"{folder}: no units; make them with 'unitweave units extract'")
    return paths


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise InputError(f"{path}: no permission to read it") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or cut off ({in_one_line(error)}); {_REMEDY}") from None


def rows_from_table(table: pa.Table) -> Iterator[UnitRow]:
    """Rows of a table with our schema, in order."""
    columns = {name: table.column(name).combine_chunks() for name in SCHEMA.names}
    ids, sides, words = (columns[name].to_pylist() for name in ("id", "side", "words"))
    arrays = {name: _split(columns[name]) for name in _LISTS}
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
        return schema_metadata(path)


def read_shard_keys(path: Path) -> pa.ChunkedArray:
    """The recordings of one shard, each as ID/SIDE. Raises InputError when it is damaged."""
    with _damage_named(path):
        keys = pq.read_table(path, columns=["id", "side"])
        return pc.binary_join_element_wise(keys["id"], keys["side"], "/")


def units_per_second(metadata: Mapping[str, str]) -> float:
    """Units a second, from the metadata of a units dataset. Raises InputError when it holds no such number."""
    try:
        rate = float(metadata["frame_rate"])
    except (KeyError, ValueError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise InputError(f"units: no valid frame_rate in their metadata (got {metadata.get('frame_rate')!r})")
    return rate


def same_rate(one: float, other: float) -> bool:
    """Whether two frame rates are the same but for rounding: 86.13 stands for 22050 / 256."""
    return abs(one - other) <= RATE_TOLERANCE * other


def _split(column: pa.ListArray) -> list[np.ndarray]:
    """One numpy view per row of a list column."""
    values, offsets = list_column(column)
    return [values[a:b] for a, b in itertools.pairwise(offsets)]


def list_column(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """A list column as flat values, and offsets int32 [rows + 1] into them; neither is copied."""
    return column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
