"""Tables of parallel text with the columns src_lang, tgt_lang, src_text, tgt_text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from unitweave.core.errors import InputError
from unitweave.core.languages import is_language_code, language_code
from unitweave.core.sequences import evenly_spaced
from unitweave.corpus.checks import encoding_problem
from unitweave.corpus.readers.records import read_records

_TRIED = 200  # rows, of all parts of the table
_DAMAGED = 2  # of them from which on it is not by chance


@dataclass(frozen=True)
class ParallelText:
    """One row: a text and its translation, as they are written."""

    src_lang: str
    tgt_lang: str
    src_text: str
    tgt_text: str


def read_parallel_text(path: Path) -> list[ParallelText]:
    """The rows of a table in any format of `read_records`; further columns are ignored.

    Raises:
        InputError: The table cannot be read, a row lacks a column or names an unknown language, or texts are
            in another encoding; names file and row.
    """
    path = Path(path)
    columns = [field.name for field in fields(ParallelText)]
    made = []
    for record in read_records(path):
        if record.problem:
            raise InputError(f"{path}, {record.problem}")
        cells = {name.lower(): cell for name, cell in record.values.items()} | dict(record.values)
        values = {name: str(cells.get(name) or "") for name in columns}
        if missing := [name for name in columns if not values[name].strip()]:
            raise InputError(f"{path}, row {record.number}: no {missing[0]}; the columns are {', '.join(columns)}")
        if re.search("[\udc80-\udcff]", values["src_text"] + values["tgt_text"]):
            raise InputError(f"{path}, row {record.number}: the text has the wrong encoding; save the table as UTF-8")
        for name in ("src_lang", "tgt_lang"):
            code = language_code(values[name])
            if not is_language_code(code):
                raise InputError(f"{path}, row {record.number}: {name} {values[name]!r} is not a language code or name")
            values[name] = code
        made.append(ParallelText(**values))
    if not made:
        raise InputError(f"{path}: has no sentence pairs")
    _check_encoding(path, made)
    return made


def _check_encoding(path: Path, rows: Sequence[ParallelText]) -> None:
    """Raise InputError where several of some rows show that the table was saved in another encoding."""
    damaged = [
        problem
        for row in evenly_spaced(rows, _TRIED)
        if (problem := encoding_problem(row.src_text, row.src_lang) or encoding_problem(row.tgt_text, row.tgt_lang))
    ]
    if len(damaged) >= min(_DAMAGED, len(rows)):
        raise InputError(f"{path}: texts have the wrong encoding: {damaged[0]}")
