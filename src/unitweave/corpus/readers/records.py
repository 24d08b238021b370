"""Rows of CSV, TSV, JSON Lines and Parquet files as plain mappings; a row that cannot be read is named, not fatal."""

import csv
import json
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unitweave.core.errors import InputError, in_one_line
from unitweave.core.file_kinds import file_kind
from unitweave.core.progress import echo
from unitweave.core.scripts import without_invisible
from unitweave.corpus.readers.json_tables import json_rows, parse_json

csv.field_size_limit(1 << 24)
_SEPARATED = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")
FORMATS = (*_SEPARATED, *_JSON, ".parquet", ".xlsx", ".ods")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
_DELIMITERS = ",;\t|"
_JSON_ROWS = 100  # objects of a JSON file whose keys are its columns: a key may be missing where there is no value
_MAX_JSON = 1 << 30  # bytes of a JSON file that is read whole
_BATCH_ROWS = 64  # rows of a Parquet file held in memory, with their audio
_BLANK_LINES = 100  # above a header
_MAX_LINE = 1 << 24  # characters; a longer line is skipped without reading it into memory
_TOO_LONG = f"longer than {_MAX_LINE >> 20} million characters"


@dataclass(frozen=True)
class Record:
    """One row of a table.

    Attributes:
        number: Its place, counted from 1.
        values: Column name -> value; empty where the row cannot be read.
        problem: Why it cannot be read, with the line; empty where it can.
    """

    number: int
    values: Mapping[str, Any]
    problem: str = ""


def read_records(path: Path, encoding: str = "utf-8", quoted: bool | None = None) -> Iterator[Record]:
    """Read the rows of a table in the format of its suffix.

    Args:
        path: A .csv, .tsv, .tab, .txt, .jsonl, .ndjson, .json, .parquet, .xlsx, .xls or .ods file. A .csv may be
            separated by semicolons, tabs or bars, as its header or a first line `sep=;` shows; a JSON file has an
            object a line, or is one value as `json_rows` takes it.
        encoding: Encoding of text files; a byte order mark overrides it. Bytes that do not fit become lone
            surrogates, by which the checks recognize them.
        quoted: Whether fields of .csv and .tsv may be in double quotes; None: in .csv yes, in .tsv where all names of
            its header are.

    Raises:
        InputError: The file is missing, has another suffix, or is not a table at all.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{path}: no such table")
    if suffix in _SPREADSHEETS:
        return _spreadsheet(path)
    if suffix == ".numbers":
        raise InputError(f"{path}: a spreadsheet; save it as CSV (UTF-8) and give that file")
    if suffix in (".gz", ".bz2", ".xz", ".zst", ".zip"):
        raise InputError(f"{path}: a compressed table; unpack it and give that file")
    if suffix not in FORMATS:
        raise InputError(f"{path}: a table's name ends in one of {', '.join(FORMATS)}")
    if suffix == ".parquet":
        return _parquet(path)
    with path.open("rb") as file:
        if kind := file_kind(file.read(64)):
            raise InputError(f"{path}: not a table of text, but {kind}")
    if suffix in _JSON:
        rows = _whole_json(path, encoding)
        return _json_lines(path, encoding) if rows is None else _json_objects(rows)
    return _separated(path, encoding, _SEPARATED[suffix], True if suffix == ".csv" and quoted is None else quoted)


def table_columns(path: Path, encoding: str = "utf-8", quoted: bool | None = None) -> list[str]:
    """Names of a table's columns: those of its header, its schema, or its first JSON objects.

    Raises:
        InputError: The table has no rows, or none that can be read; the message gives the first reason.
    """
    if path.suffix.lower() == ".parquet" and path.is_file():
        schema = _schema(path)
        structs = [field for field in schema if pa.types.is_struct(field.type)]
        return [
            *schema.names,
            *(f"{one.name}.{one.type.field(i).name}" for one in structs for i in range(one.type.num_fields)),
        ]
    unreadable, first = 0, ""
    names: dict[str, None] = {}
    for record in read_records(path, encoding, quoted):
        if record.values:
            names |= dict.fromkeys([*record.values, *with_fields(record.values)])
            if path.suffix.lower() not in _JSON or record.number >= _JSON_ROWS:
                break
        else:
            unreadable, first = unreadable + 1, first or record.problem
    if names:
        return list(names)
    if unreadable:
        form = "an object a line, or one array of objects" if path.suffix.lower() in _JSON else "column names first"
        raise InputError(f"{path}: none of its {unreadable} rows can be read; {first}; a table has {form}")
    raise InputError(f"{path}: the table has no rows")


def with_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the fields of its objects beside them: `translation.es` of the column `translation`."""
    fields = {
        f"{name}.{key}": field
        for name, value in values.items()
        if isinstance(value, Mapping)
        for key, field in value.items()
    }
    return {**fields, **values}


def count_rows(path: Path) -> int:
    """How many rows a table has; for text tables about as many as it has lines, for spreadsheets 0: unknown."""
    if path.suffix.lower() in _SPREADSHEETS:
        return 0
    if path.suffix.lower() == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as file:
        first = file.read(1 << 20)
        end = b"\n" if b"\n" in first else b"\r"  # as old spreadsheets end lines
        lines = first.count(end) + sum(block.count(end) for block in iter(lambda: file.read(1 << 20), b""))
    return max(lines - (path.suffix.lower() in _SEPARATED), 1)


def _lines(path: Path, encoding: str) -> Iterator[str]:
    with path.open("rb") as file:
        encoding = detect_encoding(file.read(64), encoding)
    try:
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as lines:
            while line := lines.readline(_MAX_LINE):
                if len(line) < _MAX_LINE or line.endswith(("\n", "\r")):
                    yield line
                    continue
                while (rest := lines.readline(_MAX_LINE)) and not rest.endswith(("\n", "\r")):
                    pass
                yield _TOO_LONG
    except LookupError:
        raise InputError(f"--encoding {encoding}: no such encoding") from None
    except UnicodeError as error:
        raise InputError(f"{path}: not readable as {encoding} ({error})") from None


def detect_encoding(start: bytes, otherwise: str) -> str:
    """The encoding that the first bytes of a text show by a byte order mark, or as UTF-16 without one."""
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32"}
    for mark, name in (marks | {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}).items():
        if start.startswith(mark):
            return name
    if len(start) >= 4 and start[1:4:2] == b"\0\0" and start[0]:
        return "utf-16-le"
    return "utf-16-be" if len(start) >= 4 and start[0:4:2] == b"\0\0" and start[1] else otherwise


class _ReadAgain:
    """Lines for csv.reader, of which those of the latest row can be read again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self.first = 1  # number of the row's first line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._row.append(line)
        if line is _TOO_LONG:
            raise csv.Error(_TOO_LONG)
        return line

    def put_back(self, line: str) -> None:
        """What was read of the underlying lines already."""
        self._again.append(line)

    @property
    def last(self) -> int:
        """Number of the row's last line."""
        return self.first + len(self._row) - 1

    def next_row(self, after: int) -> None:
        """What is read next is the row behind this line."""
        self._again.extendleft(reversed(self._row[after - self.first + 1 :]))
        self.first, self._row = after + 1, []


def _separated(path: Path, encoding: str, delimiter: str, quoted: bool | None) -> Iterator[Record]:
    content = _lines(path, encoding)
    lines = _ReadAgain(content)
    first, blank = "", -1
    while not first.strip() and blank < _BLANK_LINES:  # a table may have empty lines above its header
        first, blank = next(content, ""), blank + 1
    lines.first += blank
    if sign := re.fullmatch(r'"?sep=(.)"?\s*', first):  # a spreadsheet's own line
        delimiter, lines.first = sign[1], lines.first + 1
    else:
        delimiter = _delimiter(first, delimiter)
        lines.put_back(first)
    if quoted is None:
        quoted = all(re.fullmatch('"[^"]*"', name.strip()) for name in first.split(delimiter))
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=quoted,
    )
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{path}, line {lines.first}: the column names cannot be read ({error})") from None
    if not header:
        raise InputError(f"{path}: the table is empty; its first line names the columns")
    header = _column_names(header, path, encoding)
    number = 0
    lines.next_row(after=lines.last)
    while True:
        number += 1
        cells: list[str] = []
        problem = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = str(error)
        if len(cells) > len(header) and not any(cells[len(header) :]):
            cells = cells[: len(header)]  # spreadsheets fill rows up
        if any(cell.strip() for cell in cells) and len(cells) != len(header):
            problem = f"{len(cells)} fields, the header has {len(header)}"
        if problem:
            if lines.last > lines.first:
                problem = f"a quote is not closed before line {lines.last} ({problem})"
            yield Record(number, {}, f"line {lines.first}: {problem}")
            lines.next_row(after=lines.first)  # the lines that such a quote swallowed are rows, too
            continue
        if any(cell.strip() for cell in cells):  # spreadsheets have empty rows, between others and behind the last
            yield Record(number, dict(zip(header, cells, strict=True)))
        lines.next_row(after=lines.last)


def _spreadsheet(path: Path) -> Iterator[Record]:
    """The first sheet that has cells."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise InputError(
            f"{path}: a spreadsheet; save it as CSV (UTF-8) and give that, or pip install 'unitweave[spreadsheets]'"
        ) from None
    try:
        with CalamineWorkbook.from_path(str(path)) as book:
            sheets = {name: book.get_sheet_by_name(name).to_python() for name in book.sheet_names}
    except (CalamineError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not readable as a spreadsheet ({in_one_line(error)}); save it as CSV (UTF-8)"
        ) from None
    filled = {name: rows for name, rows in sheets.items() if any(any(map(_cell, row)) for row in rows)}
    if not filled:
        raise InputError(f"{path}: the table is empty; its first line names the columns")
    name, rows = next(iter(filled.items()))
    if len(filled) > 1:
        echo(f"{path}: the sheet {name!r} is read, not {', '.join(map(repr, list(filled)[1:]))}")
    start = next(i for i, row in enumerate(rows) if any(map(_cell, row)))
    header = _column_names([_cell(cell) for cell in rows[start]], path, "utf-8")
    for number, row in enumerate(rows[start + 1 :], start=1):
        cells = [_cell(cell) for cell in row]
        if any(cell.strip() for cell in cells):
            yield Record(number, {name: cell for name, cell in zip(header, cells, strict=True) if name})


def _cell(value: Any) -> str:
    """A cell as it is shown: 3 where the sheet holds 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _column_names(header: list[str], path: Path, encoding: str) -> list[str]:
    """The columns' names; of those that stand twice each gets its number, so that none is taken for the other.

    Raises:
        InputError: They are not in the table's encoding.
    """
    names = [unicodedata.normalize("NFC", " ".join(without_invisible(name).split())) for name in header]
    if odd := next((name for name in names if re.search("[\udc80-\udcff]", name)), None):
        shown = odd.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        raise InputError(
            f"{path}: the column names are not in {encoding}; save it as CSV (UTF-8), or give --encoding cp1252 where "
            f"{shown!r} is right"
        )
    counts, seen = Counter(names), Counter[str]()
    for i, name in enumerate(names):
        if name and counts[name] > 1:
            seen[name] += 1
            names[i] = f"{name} ({seen[name]})"
    return names


def _delimiter(header: str, usual: str) -> str:
    """What separates the columns: what stands most often in the header outside of quotes, `usual` in a tie."""
    bare = re.sub(r'"[^"]*"', "", header)
    delimiter = max(_DELIMITERS, key=bare.count)
    return delimiter if bare.count(delimiter) > bare.count(usual) else usual


def _whole_json(path: Path, encoding: str) -> list[Any] | None:
    """The rows of a JSON file that is one value; None for one with an object a line.

    Raises:
        InputError: It is one array, and too large or damaged.
    """
    lines = (line for line in _lines(path, encoding) if line.strip())
    first = next(lines, "").strip()
    begins_array, one_line = first.startswith("["), next(lines, None) is None
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        value = None
    if value is not None and not one_line and (isinstance(value, dict) or path.suffix.lower() != ".json"):
        return None
    if path.stat().st_size > _MAX_JSON:
        if begins_array:
            raise InputError(f"{path}: a JSON array of more than a gigabyte; write one object per line (.jsonl)")
        return None
    try:
        rows = json_rows(parse_json("".join(_lines(path, encoding))) if value is None or not one_line else value)
        return rows if path.suffix.lower() == ".json" or any(isinstance(row, dict) for row in rows) else None
    except (ValueError, RecursionError) as error:
        if not begins_array or path.suffix.lower() != ".json":
            return None
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path}: not valid JSON ({reason})") from None


def _json_objects(rows: list[Any]) -> Iterator[Record]:
    for number, values in enumerate(rows, start=1):
        is_mapping = isinstance(values, dict)
        problem = "" if is_mapping else f"entry {number}: expected a JSON object (got {type(values).__name__})"
        yield Record(number, values if is_mapping else {}, problem)


def _json_lines(path: Path, encoding: str) -> Iterator[Record]:
    for number, line in enumerate(_lines(path, encoding), start=1):
        if not line.strip():
            continue
        if line is _TOO_LONG:
            yield Record(number, {}, f"line {number}: {_TOO_LONG}")
            continue
        try:
            values = json.loads(line)
        except RecursionError:
            yield Record(number, {}, f"line {number}: not valid JSON (nested too deeply)")
            continue
        except ValueError as error:  # also a number of more than 4,300 digits
            yield Record(number, {}, f"line {number}: not valid JSON ({error})")
            continue
        if isinstance(values, dict):
            yield Record(number, values)
        else:
            yield Record(number, {}, f"line {number}: expected a JSON object (got {type(values).__name__})")


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not readable as Parquet ({error})") from None


def _parquet(path: Path) -> Iterator[Record]:
    _schema(path)
    number = 0
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=_BATCH_ROWS)
        while True:
            try:
                rows = next(batches).to_pylist()
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as error:
                words = in_one_line(error)
                raise InputError(f"{path}: damaged after row {number} ({words}); copy it again") from None
            for values in rows:
                number += 1
                yield Record(number, values)
