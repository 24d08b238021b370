"""Tables of parallel text: TSV or Parquet with the columns src_lang, tgt_lang, src_text, tgt_text."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from unitweave.core.errors import InputError, in_one_line


@dataclass(frozen=True)
class ParallelText:
    """One row: a text and its translation, as they are written."""

    src_lang: str
    tgt_lang: str
    src_text: str
    tgt_text: str


def read_parallel_text(path: Path) -> list[ParallelText]:
    """The rows of a table; further columns are ignored. Raises InputError that names the file and the line."""
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
        else:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"{path}: not readable as a table of parallel text ({in_one_line(error)})") from None
    if not rows:
        raise InputError(f"{path}: has no sentence pairs")
    columns = [field.name for field in fields(ParallelText)]
    made = []
    for number, row in enumerate(rows, start=1 if path.suffix == ".parquet" else 2):
        missing = [name for name in columns if not row.get(name)]
        if missing:
            raise InputError(f"{path}, line {number}: no {missing[0]}; the columns are {', '.join(columns)}")
        made.append(ParallelText(**{name: str(row[name]) for name in columns}))
    return made
