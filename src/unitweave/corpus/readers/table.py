"""`unitweave corpus table`: a corpus from a table of recordings and texts, whatever its columns are called."""

import contextlib
import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unitweave.config.corpus import Columns, RowLimits, TableCorpus
from unitweave.core.audio import SUFFIXES
from unitweave.core.errors import InputError
from unitweave.core.file_kinds import is_text
from unitweave.core.languages import is_language_code, language_code
from unitweave.core.manifest import is_file_name
from unitweave.core.progress import Meter, echo, meter
from unitweave.core.stage import StageResult
from unitweave.core.text import normalize
from unitweave.corpus.assemble import Row, Side, Skipped, close_corpus, open_corpus
from unitweave.corpus.readers.archives import signature, stamp
from unitweave.corpus.readers.folders import folder_columns, folder_records, split_in_name
from unitweave.corpus.readers.joins import PREFIX, Join, joined_defaults
from unitweave.corpus.readers.parts import TIME_COLUMNS, RecordingPart, cut_tasks, part_of, unused_times
from unitweave.corpus.readers.paths import find_recording
from unitweave.corpus.readers.records import Record, count_rows, read_records, table_columns, with_fields
from unitweave.corpus.recording_store import RecordingStore, RecordingTask
from unitweave.corpus.samples import audio_file

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "train_covost"), "train"),
    **dict.fromkeys(("dev", "development", "validation", "valid", "val"), "dev"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
TABLE_SPLIT = "unitweave split"  # the column by which a record says the split that its table is named after
_QUOTED = {"yes": True, "no": False, "auto": None}
_MANIFEST_COLUMNS = ("id", "src_audio", "tgt_audio", "src_text", "tgt_text", "split", "speaker")
_MAX_PATH = 4096  # bytes; more than a path has are a recording
_ID_BYTES = 150  # of the readable part of a rewritten id: file systems count bytes, and 80 CJK characters are 240
# What programs write into an empty cell, or a spreadsheet where a formula fails.
_NO_VALUE = ("NULL", "NaN", "<NA>", "\\N", "#N/A", "#N/D", "#NV", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!")
_LACKS = {"": (), "none": (), "source": ("src",), "src": ("src",), "target": ("tgt",), "tgt": ("tgt",)}
_LACKS_TEXT: dict[str, tuple[str, ...]] = {**_LACKS, "both": ("src", "tgt")}


def build_table(settings: TableCorpus, columns: Columns, limits: RowLimits) -> StageResult:
    """Make a corpus folder from tables; what an interrupted call wrote is kept. Raises InputError."""
    tables = [Path(table) for table in settings.table]
    plans = _plans(tables, settings, columns)
    folder = Path(settings.out)
    open_corpus(folder, "table", settings)
    with RecordingStore(folder, settings.workers) as recordings:
        collector = RowCollector(folder, recordings)
        for (table, plan, join), name in zip(plans, table_names(tables), strict=True):
            root = Path(settings.audio_root) if settings.audio_root else table if table.is_dir() else table.parent
            records = _records(table, settings)
            records = join(records, str(table)) if join else records
            if plan.split == TABLE_SPLIT:
                records = _with_split(records, split_in_name(table.stem))
            roots = (root, _root_of_joined(settings, plan, root))
            collector.add(plan, records, name, 0 if table.is_dir() or join else count_rows(table), roots)
        return close_corpus(
            folder, "table", settings, collector.rows, collector.skipped, recordings, limits, settings.allow_skipped
        )


def _plans(tables: Sequence[Path], settings: TableCorpus, columns: Columns) -> list[tuple[Path, Columns, Join | None]]:
    """The columns of each table, and the rows that belong to it."""
    other = Path(settings.join) if settings.join else None
    theirs = _names(other, settings) if other else []
    plans: list[tuple[Path, Columns, Join | None]] = []
    for table in tables:
        names, join, given = _names(table, settings), None, vars(columns)
        if other:
            join = Join(_records(other, settings), theirs, names, settings.on, str(other))
            names = [*names, *join.columns]
            given = given | {key: name for key, name in joined_defaults(names).items() if given[key] is None}
        plan = resolve(Columns(**given), names, str(table))
        if name := unused_times(plan, names):
            echo(f"{table}: whole recordings are read; if {name!r} says where a row begins, give --src-start")
        plans.append((table, plan, join))
    splits = [split_in_name(table.stem) for table in tables]
    if len(set(tables)) > 1 and all(splits) and all(plan.split is None for _, plan, _ in plans):
        shown = ", ".join(f"{table.name} is {split}" for table, split in zip(tables, splits, strict=True))
        echo(f"corpus: splits by the tables' names: {shown}")
        plans = [(table, Columns(**vars(plan) | {"split": TABLE_SPLIT}), join) for table, plan, join in plans]
    return plans


def _names(table: Path, settings: TableCorpus) -> list[str]:
    if table.is_dir():
        return folder_columns(table)
    return table_columns(table, settings.encoding, _QUOTED[settings.quoted])


def _records(table: Path, settings: TableCorpus) -> Iterator[Record]:
    if table.is_dir():
        return folder_records(table)
    return read_records(table, settings.encoding, _QUOTED[settings.quoted])


def _with_split(records: Iterable[Record], split: str) -> Iterator[Record]:
    for record in records:
        yield replace(record, values={**record.values, TABLE_SPLIT: split} if record.values else {})


def _root_of_joined(settings: TableCorpus, plan: Columns, root: Path) -> Path:
    """Where the target's recordings are: beside the second table where they are named there."""
    if settings.audio_root or not settings.join or not (plan.tgt_audio or "").startswith(f"{PREFIX}."):
        return root
    return Path(settings.join) if Path(settings.join).is_dir() else Path(settings.join).parent


def table_names(tables: Sequence[Path]) -> list[str]:
    """What rows without an id are called after: the table's stem, where several have it with the folder's name before.

    A table that is given twice has one name, so that its rows are found to stand twice.
    """
    paths = [table.parent.resolve() / table.name for table in tables]
    stems = Counter(path.stem for path in set(paths))
    names: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        name = path.stem if stems[path.stem] == 1 else f"{path.parent.name}-{path.stem}"
        numbered = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
        names[path] = next(name for name in numbered if name not in names.values())
    return [names[path] for path in paths]


def resolve(columns: Columns, names: Sequence[str], where: str) -> Columns:
    """`columns` with the manifest's own names filled in where the table has them. Raises InputError for a wrong one."""
    given: dict[str, Any] = {  # a name may be composed as the table's is not (é as one character or two)
        key: unicodedata.normalize("NFC", value) if isinstance(value, str) and value not in names else value
        for key, value in vars(columns).items()
    }
    for field in _MANIFEST_COLUMNS:
        if given[field] is None and field in names:
            given[field] = field
    for side in ("src", "tgt"):
        times = [f"{side}_start", f"{side}_end" if f"{side}_end" in names else f"{side}_duration"]
        if not any(given[field] for field in TIME_COLUMNS if field.startswith(side)) and times[0] in names:
            given |= {field: field for field in times if field in names}
    for field in ("src_lang", "tgt_lang"):
        if given[field] is None and given[f"{field}_column"] is None and field in names:
            given[f"{field}_column"] = field
    shown = ", ".join(filter(str.strip, names))
    for field in (*_MANIFEST_COLUMNS, *TIME_COLUMNS, "lacks_text", "src_lang_column", "tgt_lang_column"):
        if given[field] is not None and given[field] not in names:
            alike = [name for name in names if name.casefold() == given[field].casefold()]
            if len(alike) != 1:
                flag = field.replace("_", "-")
                hint = ""
                if len(names) == 1:
                    hint = "; its first line names the columns, separated by commas, semicolons, tabs or bars"
                elif any(name.lower().endswith(SUFFIXES) or name.startswith("#") for name in names):
                    hint = "; the first line of a table names its columns, without anything above it"
                raise InputError(f"{where}: has no column {given[field]!r} (--{flag}); it has {shown}{hint}")
            given[field] = alike[0]
    if given["src_audio"] is None and given["tgt_audio"] is None:
        likely = next((name for name in names if re.search("audio|wav|clip|path|file|sound", name.lower())), None)
        hint = f", for instance --src-audio {likely}" if likely else ""
        raise InputError(f"{where}: name a column with recordings, --src-audio or --tgt-audio{hint}; it has {shown}")
    for field in ("src_lang", "tgt_lang"):
        if given[field] is None and given[f"{field}_column"] is None:
            flag = field.replace("_", "-")
            raise InputError(f"{where}: give its language with --{flag} CODE or --{flag}-column COLUMN")
        if given[field] is not None and not is_language_code(language_code(given[field])):
            raise InputError(
                f"--{field.replace('_', '-')}: must be an ISO 639 code or a language (got {given[field]!r})"
            )
    if columns.split_by == "speaker" and given["speaker"] is None:
        raise InputError(f"{where}: --split-by speaker needs the column --speaker")
    return Columns(**given)


class RowCollector:
    """Collects the rows of tables and converts their recordings."""

    def __init__(self, folder: Path, recordings: RecordingStore) -> None:
        self.folder, self.recordings = folder, recordings
        self.rows: list[Row] = []
        self.skipped: list[Skipped] = []
        self._taken: set[str] = set()
        self._parts: dict[Path | bytes, list[RecordingPart]] = {}  # of longer recordings, each of which is read once

    def add(
        self,
        columns: Columns,
        records: Iterable[Record],
        name: str,
        total: int,
        roots: tuple[Path, Path],
    ) -> None:
        """Take over every row.

        Args:
            columns: What they hold.
            records: The rows.
            name: What rows without an id are called after.
            total: How many there are, for the progress; 0 where unknown.
            roots: Where the paths of sources and targets start from.
        """
        progress_line = meter(f"corpus: {name}", total) if total else contextlib.nullcontext(Meter(name, 0))
        with progress_line as progress:

            def tasks() -> Iterator[RecordingTask]:
                for record in records:
                    yield from self._tasks(columns, record, name, roots)
                    progress.advance()
                while self._parts:
                    yield from cut_tasks(*self._parts.popitem())

            self.recordings.make(tasks())

    def _tasks(self, columns: Columns, record: Record, name: str, roots: tuple[Path, Path]) -> Iterator[RecordingTask]:
        fallback = f"{name}-{record.number:06d}"
        if record.problem:
            self.skipped.append(Skipped(fallback, columns.src_lang or "", "the row cannot be read", record.problem))
            return
        values = with_fields(record.values)
        row = _row(columns, values, fallback)
        if isinstance(row, Skipped):
            self.skipped.append(row)
            return
        if row.id in self._taken:
            self.skipped.append(Skipped(row.id, row.src.language, "duplicate id", f"row {record.number}"))
            return
        try:
            spans = part_of(columns, values, "src"), part_of(columns, values, "tgt")
        except InputError as error:
            self.skipped.append(Skipped(row.id, row.src.language, "the times cannot be read", str(error)))
            return
        self._taken.add(row.id)
        self.rows.append(row)
        sides = zip((row.src, row.tgt), (columns.src_audio, columns.tgt_audio), spans, roots, strict=True)
        for side, column, span, root in sides:
            cell = audio_cell(values.get(column), root) if column else None
            if not side.audio or cell is None:
                continue
            source, audio = cell
            source += f"@{span[0]}-{span[1]}" if span else ""
            if self.recordings.has(side.audio, source):
                continue
            if span:
                self._parts.setdefault(audio, []).append(RecordingPart(*span, side.audio, source))
            else:
                yield RecordingTask(side.audio, source, audio)


def audio_cell(cell: Any, root: Path) -> tuple[str, bytes | Path] | None:
    """Signature and recording of a cell: a path, bytes, or a hub dataset's mapping. None where it is empty.

    Raises:
        InputError: The cell is a list of samples without a rate.
    """
    if isinstance(cell, Mapping):
        if cell.get("array") is not None and cell.get("sampling_rate"):  # decoded already
            cell = audio_file((cell["array"], cell["sampling_rate"]))
        else:
            cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, list):
        raise InputError("--src-audio, --tgt-audio: samples without a rate; use {array, sampling_rate}, bytes or paths")
    if isinstance(cell, bytes) and len(cell) <= _MAX_PATH and is_text(cell):
        cell = cell.decode()
    if isinstance(cell, bytes):
        return signature(len(cell), hashlib.blake2b(cell, digest_size=8).hexdigest()), cell
    if not cell:
        return None
    path = find_recording(root, str(cell))
    try:
        return stamp(path), path
    except (OSError, ValueError):
        return "missing", path  # what is wrong with it is found where it is read


def _row(columns: Columns, values: Mapping[str, Any], fallback: str) -> Row | Skipped:
    def cell(column: str | None) -> str:
        value = values.get(column) if column else None
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        return "" if value is None or value != value else str(value)  # NaN is no value, either

    def text(column: str) -> str:
        return "" if cell(column).strip() in _NO_VALUE else cell(column)

    id = file_name(cell(columns.id).strip() or fallback)
    source, target = (
        language_code(cell(column).strip() if column else str(constant))
        for column, constant in (
            (columns.src_lang_column, columns.src_lang),
            (columns.tgt_lang_column, columns.tgt_lang),
        )
    )
    for code in (source, target):
        if not is_language_code(code):
            return Skipped(id, source, "the language is not an ISO 639 code", repr(code))
    lacking = _LACKS_TEXT.get(cell(columns.lacks_text).strip().lower())
    if lacking is None:
        return Skipped(id, source, f"the column {columns.lacks_text} must be source, target, both or empty")
    for column in filter(None, (columns.src_text, columns.tgt_text)):
        if isinstance(values.get(column), list | dict | bool):
            return Skipped(id, source, f"the column {column} is not text", type(values[column]).__name__)
    texts = {
        "src": None if columns.src_text is None or "src" in lacking else text(columns.src_text),
        "tgt": None if columns.tgt_text is None or "tgt" in lacking else text(columns.tgt_text),
    }
    speaker = cell(columns.speaker)
    named = cell(columns.split).strip().lower() if columns.split else ""
    split = SPLIT_NAMES.get(named) or split_in_name(named)  # dev-clean
    if columns.split and not split:
        return Skipped(id, source, "the split must be train, dev or test", repr(cell(columns.split)))
    if not split:
        sentence = normalize(texts["tgt"] or "", target) or normalize(texts["src"] or "", source)
        key = {"text": sentence, "speaker": speaker, "id": id}[columns.split_by] or id
        split = drawn_split(key, columns.dev_ratio, columns.test_ratio, columns.seed)
    return Row(
        id=id,
        split=split,
        src=Side(
            source, f"audio/{source}/{id}.flac" if columns.src_audio else None, texts["src"], texts["src"] is not None
        ),
        tgt=Side(
            target,
            f"audio/{source}-{target}/{id}.flac" if columns.tgt_audio else None,
            texts["tgt"],
            texts["tgt"] is not None,
        ),
        speaker=speaker,
    )


def drawn_split(key: str, dev_ratio: float, test_ratio: float, seed: int) -> str:
    """The split of all rows with this key: it follows from key and seed alone, whatever other rows there are."""
    drawn = int(signature(seed, key), 16) / 2**64
    if drawn < test_ratio:
        return "test"
    return "dev" if drawn < test_ratio + dev_ratio else "train"


def file_name(id: str) -> str:
    """`id` itself where it can name a file; else a name that says what it was, and is another for another id."""
    if is_file_name(id):
        return id
    readable = re.sub(r"[^\w-]+", "_", id).strip("_")[-80:]
    short = readable.encode()[-_ID_BYTES:].decode(errors="ignore")  # the cut may go through a character
    return f"{short}-{signature(id)[:8]}"
