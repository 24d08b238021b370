"""The manifest: one row per utterance pair, written by every corpus command and read by every later stage.

Its columns, of which each `src_` has a `tgt_` beside it:

- `id`: unique within the manifest, and fit to name a file: later stages write ID.wav.
- `split`: "train", "dev" or "test".
- `src_lang`: ISO 639-1 code of the language.
- `src_audio`: path of the recording, relative to the manifest's folder, or absolute.
- `src_text`: normalized transcript or translation (null where unknown).
- `src_text_raw`: the same as the corpus has it.
- `speaker`: speaker of the source recording ("" where unknown).
- `src_seconds`: duration of the recording in seconds.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitweave.core.errors import InputError, in_one_line
from unitweave.core.files import atomic_path
from unitweave.core.stage import check_count

FILE_NAME = "manifest.parquet"
SPLITS = ("train", "dev", "test")
_PLAIN_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,150}\z"
_FILE_NAME = re.compile(r"(?!\.)[^\x00-\x1f\x7f/\\:\ud800-\udfff]+")


@dataclass(frozen=True)
class Pair:
    """One utterance pair; the fields are the manifest's columns, audio paths made absolute on reading."""

    id: str
    split: str
    src_lang: str
    tgt_lang: str
    src_audio: str | None
    tgt_audio: str | None
    src_text: str | None
    tgt_text: str | None
    src_text_raw: str | None = None
    tgt_text_raw: str | None = None
    speaker: str = ""
    src_seconds: float = 0.0
    tgt_seconds: float = 0.0


_REQUIRED = ("id", "split", "src_lang", "tgt_lang")
_SCHEMA = pa.schema(
    pa.field(f.name, pa.float32() if f.type is float else pa.string(), nullable=f.name not in _REQUIRED)
    for f in fields(Pair)
)


def write_manifest(folder: Path, pairs: Sequence[Pair], metadata: dict[str, str] | None = None) -> Path:
    """Write a corpus folder's manifest.parquet, whole or not at all.

    Args:
        folder: The corpus folder; paths below it are stored relative to it.
        pairs: The rows.
        metadata: Kept in the Parquet schema, for instance the text normalizer.

    Returns:
        The path of the manifest.

    Raises:
        InputError: An id is a duplicate or cannot name a file, or a split is unknown.
    """
    folder = Path(folder)
    seen: set[str] = set()
    for pair in pairs:
        if pair.id in seen:
            raise InputError(f"{folder}: duplicate utterance id {pair.id!r}")
        _check_id(pair.id, folder)
        if pair.split not in SPLITS:
            raise InputError(
                f"{folder}: utterance {pair.id}: split must be one of {', '.join(SPLITS)} (got {pair.split!r})"
            )
        seen.add(pair.id)
    schema = _SCHEMA.with_metadata(metadata or {})
    parts = []
    for first in range(0, len(pairs), 4096):  # as dictionaries, pairs take ten times the memory
        rows = [asdict(pair) for pair in pairs[first : first + 4096]]
        for row in rows:
            for side in ("src_audio", "tgt_audio"):
                row[side] = _relative(row[side], folder)
        parts.append(pa.RecordBatch.from_pylist(rows, schema=schema))
    table = pa.Table.from_batches(parts, schema).combine_chunks()
    path = folder / FILE_NAME
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


class Manifest(Sequence[Pair]):
    """The pairs of a manifest, kept as Arrow columns: a pair becomes an object when it is looked at."""

    def __init__(self, table: pa.Table, folder: Path) -> None:
        """See the class.

        Args:
            table: With a column for each field of `Pair`.
            folder: What audio paths are relative to.
        """
        self.table, self.folder = table, folder

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> "Manifest": ...

    def __getitem__(self, index: int | slice) -> "Pair | Manifest":
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            table = (
                self.table.slice(first, last - first)
                if step == 1
                else self.table.take(pa.array(range(first, last, step), pa.int64()))
            )
            return Manifest(table, self.folder)
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return next(iter(Manifest(self.table.slice(index % len(self), 1), self.folder)))

    def __iter__(self) -> Iterator[Pair]:
        for batch in self.table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                for side in ("src_audio", "tgt_audio"):
                    row[side] = row[side] and str(self.folder / row[side])
                yield Pair(**row)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def column(self, name: str) -> pa.ChunkedArray:
        """A field of all pairs."""
        return self.table.column(name)

    def take(self, indices: np.ndarray) -> "Manifest":
        """The pairs at some places; no copy where these are all."""
        if len(indices) == len(self) and np.array_equal(indices, np.arange(len(self))):
            return self
        return Manifest(self.table.take(pa.array(indices)), self.folder)

    def where(self, mask: pa.Array | pa.ChunkedArray) -> "Manifest":
        """The pairs where `mask` (bool [pairs]) holds; no copy where that is everywhere."""
        return self if pc.all(mask, skip_nulls=False).as_py() else Manifest(self.table.filter(mask), self.folder)


def read_manifest(folder: Path, split: str | None = None) -> Manifest:
    """Read a corpus folder's manifest.parquet.

    Args:
        folder: The corpus folder.
        split: The split to read; None for all.

    Raises:
        InputError: There is no manifest, it is damaged or of another version, or it has other rows than a run's corpus
            stage wrote.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise InputError(f"{path}: no manifest; make one with 'unitweave corpus'")
    try:
        table = pq.read_table(path, filters=[("split", "=", split)] if split else None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable manifest ({error})") from None
    missing = [field.name for field in fields(Pair) if field.name not in table.column_names]
    if missing:
        raise InputError(f"{path}: not a manifest of this version; it lacks the column {missing[0]!r}")
    table = table.select(_SCHEMA.names)
    try:  # other writers have other types for the same, such as double
        table = table if table.schema.types == _SCHEMA.types else table.cast(_SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: damaged; a column has the wrong type ({in_one_line(error)})") from None
    # What Arrow's expression cannot say is left to the exact check.
    for id in table["id"].filter(pc.invert(pc.match_substring_regex(table["id"], _PLAIN_NAME))).to_pylist():
        _check_id(id, path)
    items = f"pairs of the {split} split" if split else "pairs"
    check_count(Path(folder), split or "pairs", len(table), "delete the folder to make the corpus again", items)
    return Manifest(table, Path(folder))


def read_metadata(folder: Path) -> dict[str, str]:
    """The key-value metadata that the corpus command stored with the manifest."""
    path = Path(folder) / FILE_NAME
    try:
        return schema_metadata(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no manifest; make one with 'unitweave corpus'") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable manifest ({error})") from None


def schema_metadata(path: Path) -> dict[str, str]:
    """The key-value metadata of a Parquet file."""
    return {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}


def is_file_name(text: str) -> bool:
    """Whether an id can stand in a file name: no separators, no leading dot, no control characters, not too long."""
    return _FILE_NAME.fullmatch(text) is not None and len(text.encode()) <= 200


def _check_id(id: str, where: Path) -> None:
    if not is_file_name(id):
        raise InputError(f"{where}: utterance id {id!r} cannot name a file; use letters, digits, '_', '-' and '.'")


def _relative(path: str | None, folder: Path) -> str | None:
    if path is None:
        return None
    absolute, base = Path(path).absolute(), folder.absolute()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)
