"""CoVoST 2 and Common Voice in their published layouts: clips, splits, transcripts and speakers.

Texts come from covost_v2.XX_en.tsv (alone, in its .tar.gz, or as split by CoVoST's own script) or from the
parquet layout of fixie-ai/covost2; where the tsv has no transcripts, from Common Voice's validated.tsv.
Clips come from Common Voice's archives or unpacked folders, or from the same parquet files.
"""

import contextlib
import csv
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unitweave.core.errors import InputError, in_one_line
from unitweave.core.progress import echo
from unitweave.corpus.assemble import Skipped
from unitweave.corpus.readers.archives import Member, containers, is_archive, members, stamp
from unitweave.corpus.readers.records import detect_encoding
from unitweave.corpus.readers.table import SPLIT_NAMES
from unitweave.corpus.recording_store import RecordingTask

CLIP = r"common_voice_[A-Za-z]+(?:-[A-Za-z]+)*_\d+"
TAGS = {"zh": "zh-CN", "sv": "sv-SE"}  # Common Voice's and CoVoST's names where CVSS' are shorter
_TABLE = re.compile(r"(?:.*/)?covost_v2\.([A-Za-z-]+)_en(?:\.(train|dev|test))?\.tsv")
_VALIDATED = re.compile(r"(?:.*/)?validated\.tsv")
_AUDIO = re.compile(rf"(?:.*/)?({CLIP})\.(?:mp3|wav|flac|ogg|opus)")
_PARQUET = re.compile(r"(?:.*/)?([A-Za-z-]+)_en/(train|validation|dev|test)[-/][^/]*\.parquet")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Clip:
    """What is known of a clip: its split in CoVoST 2, its transcript (None: not yet), its speaker."""

    split: str
    sentence: str | None = None
    speaker: str = ""


def clip_name(file_name: str) -> str:
    """The clip's name without folders and endings: common_voice_fr_17 of train/common_voice_fr_17.mp3.wav."""
    return PurePosixPath(file_name).name.removesuffix(".wav").removesuffix(".mp3")


def local_folders(places: Sequence[str], languages: Collection[str], splits: Collection[str]) -> list[Path]:
    """The places as paths, a hub name being downloaded (only these languages and splits) or found in the cache."""
    return [_download(p, languages, splits) if _is_hub_name(p) else Path(p) for p in places]


def voice_containers(places: Sequence[Path]) -> list[Path]:
    """The places and the archives in them; those of CVSS may lie beside them."""
    return [c for place in places for c in containers(place, lambda name: not name.lower().startswith("cvss"))]


def read_clips(places: Sequence[Path], languages: Collection[str]) -> tuple[dict[str, Clip], list[Skipped]]:
    """Clip name -> what the CoVoST 2 tables below `places` say, for these languages; and rows that cannot be read.

    Archives are looked into only if they are called covost...: those of Common Voice have no such table
    and many gigabytes. Raises InputError when there is no table at all.
    """
    clips: dict[str, Clip] = {}
    faults: list[Skipped] = []
    transcripts: list[Member] = []
    tables = 0
    for container in voice_containers(places):
        if is_archive(container) and not container.name.lower().startswith("covost"):
            continue
        for member in members(container):
            if (match := _TABLE.fullmatch(member.name)) and _code(match[1]) in languages:
                tables += 1
                clips |= _read_table(member, match[2], _code(match[1]), faults)
            elif (match := _PARQUET.fullmatch(_rooted(container, member))) and _code(match[1]) in languages:
                tables += 1
                clips |= _read_parquet_texts(container / member.name if container.is_dir() else container, match[2])
            elif _VALIDATED.fullmatch(member.name) and not is_archive(container):
                transcripts.append(member)
    if not tables:
        raise InputError(
            f"{', '.join(map(str, places))}: no covost_v2.XX_en.tsv and no XX_en/*.parquet for {', '.join(languages)}"
        )
    for member in transcripts:
        _add_transcripts(clips, member)
    return clips, [fault for fault in faults if fault.id not in clips]


def add_transcript(clips: dict[str, Clip], name: str, known: Clip) -> None:
    """Fill in transcript and speaker where CoVoST's table lacks them; the table's split stays."""
    clip = clips.get(name)
    if clip and clip.sentence is None and known.sentence is not None:
        clips[name] = replace(clip, sentence=known.sentence, speaker=known.speaker or clip.speaker)


def _add_transcripts(clips: dict[str, Clip], validated: Member) -> None:
    """Take transcripts from a validated.tsv of Common Voice where CoVoST's table had none."""
    for row in _rows(validated, [], ""):  # a clip whose row cannot be read has no transcript, and is skipped for that
        name = clip_name(row.get("path") or "")
        add_transcript(clips, name, Clip("", row.get("sentence"), row.get("client_id") or ""))


def clip_tasks(
    container: Path,
    wanted: Mapping[str, str],
    clips: dict[str, Clip],
    is_new: Callable[[str, str], bool],
) -> Iterator[RecordingTask]:
    """Recordings to be made from one container: `wanted` maps a clip's name to its path in the corpus.

    `is_new` says whether a path is still to be made from a source. Transcripts that are met on the way go to `clips`.
    """
    for member in members(container):
        if (match := _AUDIO.fullmatch(member.name)) and match[1] in wanted:
            if is_new(wanted[match[1]], member.source):
                yield RecordingTask(wanted[match[1]], member.source, member.read())
        elif _PARQUET.fullmatch(_rooted(container, member)):
            path = container / member.name if container.is_dir() else container
            yield from _parquet_tasks(path, wanted, is_new)
        elif _VALIDATED.fullmatch(member.name) and is_archive(container):
            _add_transcripts(clips, member)


def _read_table(member: Member, split: str | None, language: str, faults: list[Skipped]) -> dict[str, Clip]:
    clips = {}
    for row in _rows(member, faults, language):
        if not row.keys() >= ({"path"} if split else {"path", "split"}):
            raise InputError(f"{member.name}: not a CoVoST 2 table; its header must name path, translation and split")
        name, theirs = clip_name(row["path"]), split or row["split"]
        if theirs in SPLIT_NAMES and row["path"]:
            clips[name] = Clip(SPLIT_NAMES[theirs], row.get("sentence"), row.get("client_id") or "")
        else:
            faults.append(Skipped(name or member.name, language, "the split must be train, dev or test", repr(theirs)))
    return clips


def _rows(table: Member, faults: list[Skipped], language: str) -> Iterator[dict[str, str]]:
    """Rows of a tsv as CoVoST's own script reads them: no quoting, backslash as the escape character.

    A row that cannot be read is added to `faults` and costs none but itself: what follows a line feed within it is
    known by its number of fields.
    """
    content = table.read()
    text = content.decode(detect_encoding(content[:64], "utf-8-sig"), errors="surrogateescape").removeprefix("\ufeff")
    # A line ends in \n alone. U+2028 within it belongs to the text; so does a stray \r, which csv would refuse.
    lines = [line.removesuffix("\r").replace("\r", " ") for line in text.split("\n")]
    header = _fields(lines[0])
    at = 1
    while at < len(lines):
        first, cells, problem = at, [""], ""
        at += 1
        try:
            cells = _fields(lines[first])
            # A line feed that is escaped belongs to the text.
            if _is_escaped(lines[first]) and at < len(lines) and not re.search(CLIP, lines[at]):
                joined = _fields(f"{lines[first]}\n", lines[at])
                cells, at = (joined, at + 1) if len(joined) == len(header) else (cells, at)
        except csv.Error as error:
            problem = str(error)
        if lines[first] and not problem and (len(cells) != len(header) or cells[-1].endswith("\n")):
            ending = ", its last one ends in a backslash" if _is_escaped(lines[first]) else ""
            problem = f"{len(cells)} fields{ending}; the header has {len(header)}"
            while at < len(lines) and lines[at] and not re.search(CLIP, lines[at]):
                at += 1  # the rest of the row behind a line feed
        if problem:
            clip = re.search(CLIP, lines[first])
            id = clip[0] if clip else f"{PurePosixPath(table.name).name}-{first + 1}"
            faults.append(Skipped(id, language, "the row cannot be read", f"line {first + 1}: {problem}"))
        elif lines[first]:
            yield dict(zip(header, cells, strict=True))


def _fields(*lines: str) -> list[str]:
    """The fields of a row; all of its lines but the last end in an escaped line feed."""
    return next(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\"), [])


def _is_escaped(line: str) -> bool:
    """Whether the line feed behind a line is escaped: an odd number of backslashes stands before it."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _read_parquet_texts(path: Path, split: str) -> dict[str, Clip]:
    clips = {}
    with _parquet(path) as file:
        names = [n for n in ("id", "file", "path", "sentence", "client_id") if n in file.schema_arrow.names]
        for row in file.read(columns=names).to_pylist():
            clips[_row_name(row)] = Clip(SPLIT_NAMES[split], row.get("sentence"), row.get("client_id") or "")
    return clips


def _parquet_tasks(
    path: Path, wanted: Mapping[str, str], is_new: Callable[[str, str], bool]
) -> Iterator[RecordingTask]:
    source = stamp(path)
    with _parquet(path) as file:
        if "audio" not in file.schema_arrow.names:
            raise InputError(f"{path}: has no column 'audio'; it is not in the layout of fixie-ai/covost2")
        names = [n for n in ("id", "file", "path") if n in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            rows = [_row_name(row) for row in file.read_row_group(group, columns=names).to_pylist()]
            missing = {i for i, n in enumerate(rows) if n in wanted and is_new(wanted[n], source)}
            if not missing:  # nothing of the audio is read where all was made before
                continue
            first = 0
            for batch in file.iter_batches(64, row_groups=[group], columns=["audio"]):
                for i in range(len(batch)):
                    if first + i in missing:
                        audio = batch.column(0)[i].as_py() or {}
                        yield RecordingTask(wanted[rows[first + i]], source, audio.get("bytes") or b"")
                first += len(batch)


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file to read from. Raises InputError also where its data turn out to be damaged later on."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error})") from None


def _row_name(row: Mapping[str, Any]) -> str:
    return clip_name(str(row.get("id") or row.get("file") or row.get("path") or ""))


def _rooted(container: Path, member: Member) -> str:
    """The member's path with the two folders above it, which say language and split in the parquet layout."""
    parts = container.absolute().parts[-2:] if container.is_dir() else container.absolute().parts[-3:-1]
    return "/".join((*parts, member.name))


def _code(tag: str) -> str:
    return tag.split("-")[0].lower()


def _is_hub_name(place: str) -> bool:
    return not Path(place).exists() and _HUB_NAME.fullmatch(place) is not None and not is_archive(Path(place))


def _download(name: str, languages: Collection[str], splits: Collection[str]) -> Path:
    """A folder with the dataset's parquet files of these languages; what is in the hub's cache is not loaded again.

    The files themselves are taken, and not a stream of rows, so that an interrupted build goes on without the net.
    """
    from huggingface_hub import snapshot_download

    theirs = [split for split in SPLIT_NAMES if SPLIT_NAMES[split] in splits]
    tags = sorted({tag for code in languages for tag in (code, TAGS.get(code, code))})
    echo(f"corpus: {name} from the hub, {', '.join(tags)}")
    try:
        patterns = [f"{tag}_en/{split}{sign}*" for tag in tags for split in theirs for sign in "-/"]
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except (OSError, ValueError) as error:
        words = in_one_line(error)[:300]
        raise InputError(
            f"{name}: no such file or folder, and it could not be downloaded from the hub ({words})"
        ) from None
