"""A file of references for folders of audio files: which texts belong to which file."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unitweave.core.audio import SUFFIXES
from unitweave.core.errors import InputError
from unitweave.core.languages import language_code
from unitweave.core.progress import echo
from unitweave.corpus.readers.records import detect_encoding, read_records, table_columns

# Headings of the column that names the audio file.
_NAMES = ("name", "file", "filename", "file_name", "id", "path", "audio")
_HEADINGS = {
    "language": "language", "src_lang": "language", "source_language": "language",
    "tgt_lang": "target", "target_language": "target",
    "src_text": "source", "source": "source", "source_text": "source",
}  # fmt: skip
_TABLES = (".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xlsm", ".xls", ".ods")
_SEPARATORS = ",;|: "  # between name and text, where all lines begin with the name of a file
_TEXT = re.compile(r"(reference|text|sentence|transcript|transcription|translation|tgt_text|target)s?[ _-]?\d*$")
_CODE = re.compile(r"[a-z]{2,3}(-\w+)?$")


@dataclass
class ReferenceTable:
    """The references of some audio files, all lists in their order; empty where the file does not say it.

    Attributes:
        texts: The (first) reference of each.
        further: More references of each.
        languages: Source languages.
        targets: Target languages.
        sources: Source texts.
    """

    texts: list[str]
    further: list[list[str]] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def read_references(path: Path, files: Mapping[str, Path]) -> ReferenceTable:
    """The references of each of `files` (name without suffix -> path), in their order.

    Plain lines are one reference for each file. Lines with tabs are name, [language,] reference, further references;
    or what a heading in the first line says: name, language, target_language, source_text, reference, reference_2, ...
    Lines that all begin with a file's name, as Kaldi's do, are name and reference. A table (.csv, .jsonl, .parquet,
    .xlsx, ...) has such headings, in any order, and in JSON a reference may be a list of several.

    Raises:
        InputError: Files and references are not one to one, or a line has columns that nobody can know.
    """
    rows = _read_table(path, files) if path.suffix.lower() in _TABLES else _split_lines(_read_lines(path), files)
    if all(len(row) == 1 for row in rows):
        if len(rows) != len(files):
            raise InputError(f"{path}: {len(rows)} references for {len(files)} audio files; each file needs one")
        return ReferenceTable([row[0] for row in rows])
    roles = _heading(path, rows[0], files)
    first = 2 if roles else 1
    rows = rows[1:] if roles else rows
    roles = roles or _roles_without_heading(path, rows)
    columns: dict[str, dict[str, list[str]]] = {}
    for number, row in enumerate(rows, first):
        cells: dict[str, list[str]] = {role: [] for role in roles}
        for role, cell in zip(roles, row, strict=False):
            cells[role].append(cell)
        # A column for each reference, some of which may be empty: but not the first.
        texts = [text for text in [*cells["text"], *row[len(roles) :]] if text]
        if not cells["text"] or not cells["text"][0]:
            raise InputError(f"{path}, line {number}: no reference; each line is 'name<TAB>text', or what headings say")
        for role in roles:
            if role not in ("text", "name") and not "".join(cells[role]):
                raise InputError(f"{path}, line {number}: an empty {role}")
        key = _stem(row[0], files)
        if key is None:
            raise InputError(f"{path}, line {number}: no audio file for {row[0]!r}")
        if key in columns:
            raise InputError(f"{path}, line {number}: duplicate reference for {row[0]!r}")
        columns[key] = cells | {"text": texts}
    missing = [name for name in files if name not in columns]
    if missing:
        raise InputError(f"{path}: no reference for {files[missing[0]].name}")

    def column(role: str) -> list[str]:
        return [columns[name][role][0] for name in files] if role in roles else []

    further = [columns[name]["text"][1:] for name in files]
    languages, targets = ([language_code(code) for code in column(role)] for role in ("language", "target"))
    return ReferenceTable(column("text"), further if any(further) else [], languages, targets, column("source"))


def _read_table(path: Path, files: Mapping[str, Path]) -> list[list[str]]:
    """The headings, the name's first, and the rows of a table; a JSON object from names to texts is such a table."""
    records = list(read_records(path))
    if problem := next((record.problem for record in records if record.problem), ""):
        raise InputError(f"{path}, {problem}")
    if len(records) == 1 and all(_stem(name, files) is not None for name in records[0].values):
        return [["name", "reference"], *([name, _text(path, text)] for name, text in records[0].values.items())]
    columns = table_columns(path)
    if (name := next((column for column in columns if column.lower() in _NAMES), None)) is None:
        used = columns  # without headings
    else:
        known = [column for column in columns if column.lower() in _HEADINGS or _TEXT.match(column.lower())]
        used = [name, *(column for column in known if column != name)]
        if not any(_TEXT.match(column.lower()) and column.lower() not in _HEADINGS for column in known):
            raise InputError(f"{path}: no column 'reference'; it has {', '.join(filter(None, columns))}")
        if unused := [column for column in columns if column and column not in used]:
            echo(f"{path}: columns that are not used: {', '.join(unused)}")
    rows: list[list[str]] = []
    several = {
        column: max((len(value) for r in records if isinstance(value := r.values.get(column), list)), default=1)
        for column in used
    }
    headings = [column for column in used for _ in range(several[column])]
    for record in records:
        row: list[str] = []
        for column in used:
            value = record.values.get(column)
            texts = [_text(path, text) for text in (value if isinstance(value, list) else [value])]
            row += texts + [""] * (several[column] - len(texts))
        rows.append(row)
    return [headings, *rows]


def _text(path: Path, value: object) -> str:
    if isinstance(value, list | dict | bool):
        raise InputError(f"{path}: a reference must be a text, or a list of several (got {value!r:.60})")
    return "" if value is None else " ".join(str(value).split())


def _split_lines(lines: Sequence[str], files: Mapping[str, Path]) -> list[list[str]]:
    """The cells of lines: between tabs, or name and text where all lines begin with the name of another file."""
    if lines and all(re.fullmatch('"[^"]*"', cell) for cell in lines[0].split("\t")):
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter="\t")]
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines]
    if any(len(row) > 1 for row in rows):
        return rows
    for separator in _SEPARATORS:
        named = [line.strip().partition(separator) for line in lines]
        names = {_stem(name.strip(), files) for name, found, _ in named if found}
        if len(names - {None}) == len(lines) > 0:
            return [[name.strip(), text.strip()] for name, _, text in named]
    return rows


def _read_lines(path: Path) -> list[str]:
    try:
        content = Path(path).read_bytes()
        text = content.decode(detect_encoding(content[:64], "utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{path}: not a text file in UTF-8") from None
    lines = re.split("\r\n|\n|\r", text)  # and not at the other line separators of Unicode, which belong to a text
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{path}, line {number}: empty; every audio file needs a reference")
    return lines


def _heading(path: Path, row: Sequence[str], files: Mapping[str, Path]) -> list[str]:
    """What each column is by the first line; empty where that is no heading."""
    names = [cell.lower() for cell in row]
    if names[0] not in _NAMES or _stem(row[0], files) is not None:
        return []
    roles = ["name"]
    for name in names[1:]:
        role = _HEADINGS.get(name, "text" if _TEXT.match(name) else "")
        if not role or (role != "text" and role in roles):
            raise InputError(
                f"{path}, line 1: column {name!r}: must be one of language, target_language, source_text, reference, "
                "reference_2, ..., each language and source_text once"
            )
        roles.append(role)
    if "text" not in roles:
        raise InputError(f"{path}, line 1: no column 'reference'")
    return roles


def _roles_without_heading(path: Path, rows: Sequence[Sequence[str]]) -> list[str]:
    """name, text; or name, language, text where every line has a code of a language there."""
    coded = [len(row) > 2 and bool(_CODE.match(row[1])) and bool(row[2]) for row in rows]
    if all(coded):
        return ["name", "language", "text"]
    if any(coded):
        number = (coded.index(False) if coded[0] else coded.index(True)) + 1
        raise InputError(
            f"{path}, line {number}: {len(rows[number - 1])} columns; it must be 'name<TAB>text' in all lines, or "
            "'name<TAB>language<TAB>text' in all lines, each with further references after it; a first line of "
            "headings (name, language, reference, ...) says which it is"
        )
    return ["name", "text"]


def _stem(name: str, files: Mapping[str, Path]) -> str | None:
    """The key in `files` that a reference's name means: the name itself, or without its suffix."""
    if name in files:
        return name
    stem = Path(name).name
    suffix = Path(stem).suffix
    stem = stem[: -len(suffix)] if suffix.lower() in SUFFIXES else stem
    return stem if stem in files else None
