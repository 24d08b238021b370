"""Files of units from elsewhere: JSON records, and Parquet with our own columns."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unitweave.config.units import MAX_UNITS
from unitweave.core.audio import SUFFIXES
from unitweave.core.errors import InputError
from unitweave.core.manifest import Manifest
from unitweave.corpus.readers.records import detect_encoding
from unitweave.units.dataset import SCHEMA, SIDES, UnitRow, rows_from_table
from unitweave.units.word_times import WORD_KEYS, json_words, timed_row

_SIDES = {"source": "src", "target": "tgt"}


class UtteranceNames:
    """The pairs of a corpus by what files from elsewhere call their recordings.

    Args:
        pairs: The corpus.
    """

    def __init__(self, pairs: Manifest) -> None:
        ids = pairs.column("id").to_pylist()
        self._ids = set(ids)
        self._names: dict[tuple[str, str], str | None] = {}  # None where two have the name
        for side in SIDES:
            for id_, audio in zip(ids, pairs.column(f"{side}_audio").to_pylist(), strict=True):
                for name in {plain_name(id_), plain_name(audio or "")} - {""}:
                    key = name, side
                    self._names[key] = id_ if self._names.get(key, id_) == id_ else None

    def id(self, name: str, side: str) -> str:
        """The id of the pair that is meant: by its id or the name of its recording, without folder and suffix."""
        return name if name in self._ids else self._names.get((plain_name(name), side)) or name


def plain_name(name: str) -> str:
    """A name without its folder and the suffix of a recording."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[0] if Path(base).suffix.lower() in SUFFIXES else base


def unit_row(id_: str, side: str, units: np.ndarray) -> UnitRow:
    """A row without words."""
    nothing = np.empty(0, np.int32)
    return UnitRow(id_, side, units.astype(np.uint16), [], nothing, nothing, np.empty(0, np.float32))


def read_parquet(path: Path) -> Iterator[UnitRow]:
    """The rows of a file with our own columns. Raises InputError where one is missing or a side is unknown."""
    table = pq.read_table(path)
    missing = [name for name in SCHEMA.names if name not in table.schema.names]
    if missing:
        raise InputError(f"{path}: lacks the column {missing[0]!r}")
    for batch in table.select(SCHEMA.names).cast(SCHEMA).to_batches(max_chunksize=4096):
        for row in rows_from_table(pa.table(batch)):
            _check_side(path, row.side)
            yield row


def read_json(path: Path, times: list[UnitRow], names: UtteranceNames) -> Iterator[UnitRow]:
    """The units of each record; its word times are added to `times`. Raises InputError for what is no such record."""
    for number, record in enumerate(_records(path), start=1):
        where = f"{path}, record {number}"
        if not isinstance(record, dict) or (lacks := [key for key in ("id", "side", "units") if key not in record]):
            lacking = f"; it has no {lacks[0]!r}" if isinstance(record, dict) else ""
            raise InputError(f"{where}: must be an object with id, side and units{lacking}")
        units = _integers(record["units"], 0)
        if units is None:
            raise InputError(f"{where}: units must be integers from 0 to {MAX_UNITS - 1}, in a list or a text")
        if record.get("durations") is not None:
            durations = _integers(record["durations"], 1)
            if durations is None or len(durations) != len(units):
                raise InputError(f"{where}: durations must be a positive integer below {MAX_UNITS} for each unit")
            units = np.repeat(units, durations)
        id_, side = str(record["id"]), _SIDES.get(str(record["side"]), str(record["side"]))
        _check_side(path, side)
        id_ = names.id(id_, side)
        if any(record.get(key) is not None for key in WORD_KEYS):
            times.append(timed_row(id_, side, json_words(record), where))
        yield unit_row(id_, side, units)


def _integers(values: Any, lowest: int) -> np.ndarray | None:
    """Integers from `lowest` to MAX_UNITS - 1, in a list or in a text, as an array; None where these are none."""
    if isinstance(values, str) and re.fullmatch(r"\s*(?:\d{1,6}(?:[\s,]+|$))*", values):
        values = [int(value) for value in re.findall(r"\d+", values)]
    if not isinstance(values, list) or not all(type(value) is int and lowest <= value < MAX_UNITS for value in values):
        return None
    return np.array(values, np.int64)


def _records(path: Path) -> Iterator[Any]:
    """The records of a JSON file, or of the lines of one."""
    with path.open("rb") as start:
        encoding = detect_encoding(start.read(64), "utf-8")
    with path.open(encoding=encoding) as file:
        if path.suffix == ".jsonl":
            yield from (json.loads(line) for line in file if line.strip())
            return
        content = json.load(file)
    yield from content if isinstance(content, list) else [content]


def _check_side(path: Path, side: str) -> None:
    if side not in SIDES:
        raise InputError(f"{path}: side must be one of {', '.join(SIDES)} (got {side!r})")
