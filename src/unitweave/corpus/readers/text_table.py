"""Tables of parallel text with the columns src_lang, tgt_lang, src_text, tgt_text."""

import re
from dataclasses import dataclass, fields
from pathlib import Path

from unitweave.core.errors import InputError
from unitweave.core.text import language_code
from unitweave.corpus.readers.records import read_records


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
        InputError: The table cannot be read, or a row lacks a column or is in another encoding; names file and row.
    """
    path = Path(path)
    columns = [field.name for field in fields(ParallelText)]
    made = []
    for record in read_records(path):
        if record.problem:
            raise InputError(f"{path}, {record.problem}")
        values = {name: str(record.values.get(name) or "") for name in columns}
        if missing := [name for name in columns if not values[name].strip()]:
            raise InputError(f"{path}, row {record.number}: no {missing[0]}; the columns are {', '.join(columns)}")
        if re.search("[\udc80-\udcff]", values["src_text"] + values["tgt_text"]):
            raise InputError(f"{path}, row {record.number}: the text has the wrong encoding; save the table as UTF-8")
        values |= {name: language_code(values[name]) for name in ("src_lang", "tgt_lang")}
        made.append(ParallelText(**values))
    if not made:
        raise InputError(f"{path}: has no sentence pairs")
    return made
