"""Parts of recordings: rows of a table that say from when to when of a longer recording they are."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unitweave.config.corpus import Columns
from unitweave.core.audio import SAMPLE_RATE, read_parts
from unitweave.core.errors import AudioError, InputError
from unitweave.corpus.recording_store import RecordingTask

TIME_COLUMNS = tuple(f"{side}_{time}" for side in ("src", "tgt") for time in ("start", "end", "duration"))
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:[.,]\d+)?)\s*(s|sec|ms)?")
_MILLISECONDS = re.compile(r"(?:^|[_\W])(?i:ms|msec|milliseconds?)(?:$|\W)|[a-z]Ms$")  # in a column's name
_START = re.compile(r"(?i)(?:src_|source_)?(?:start|begin|onset|offset)(?:_?(?:time|seconds?|secs?|s|ms))?")
_MAX_SECONDS = 3600.0
_SLACK_SECONDS = 0.5  # by which a part may go beyond the recording's end


@dataclass(frozen=True)
class RecordingPart:
    """What is to be cut out of a recording: seconds from `start` to `end`, for `path`; `source` names it."""

    start: float
    end: float
    path: str
    source: str


def seconds(cell: Any, column: str) -> float | None:
    """A time of a table in seconds: 83.5, 83,5, 1:23.5, 00:01:23,500, 83500 ms; None where the cell is empty.

    Args:
        cell: What the table has.
        column: Its column; one whose name ends in ms, such as start_ms, has milliseconds.

    Raises:
        InputError: It is no time.
    """
    text = "" if cell is None or cell != cell else str(cell).strip()
    if not text:
        return None
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise InputError(f"{column} must be seconds or a time such as 1:23.5 (got {text!r})")
    value = int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3].replace(",", "."))
    unit = match[4] or ("ms" if _MILLISECONDS.search(column) and match[2] is None else "s")
    return value / 1000 if unit == "ms" else value


def part_of(columns: Columns, values: Mapping[str, Any], side: Literal["src", "tgt"]) -> tuple[float, float] | None:
    """From when to when a row's recording goes, in seconds; None for all of it.

    Raises:
        InputError: The times cannot be right.
    """
    names = [getattr(columns, f"{side}_{time}") for time in ("start", "end", "duration")]
    start, end, duration = (seconds(values.get(name), name) if name else None for name in names)
    if start is None and end is None and duration is None:
        return None
    start = start or 0.0
    if end is None:
        end = start + (_MAX_SECONDS if duration is None else duration)
    if end <= start:
        raise InputError(f"the part ends at {end:g} s and begins at {start:g} s")
    return start, min(end, start + _MAX_SECONDS)


def unused_times(columns: Columns, names: Sequence[str]) -> str | None:
    """A column that seems to say where a row begins in its recording, where none is named for that."""
    if columns.src_start or columns.tgt_start:
        return None
    return next((name for name in names if _START.fullmatch(name)), None)


def cut_tasks(recording: Path | bytes, parts: Sequence[RecordingPart]) -> Iterator[RecordingTask]:
    """The parts of one recording, which is read once."""
    ordered = sorted(parts, key=lambda part: part.start)
    cut = read_parts(recording, [(part.start, part.end) for part in ordered])
    for i, part in enumerate(ordered):
        try:
            samples = next(cut)
        except AudioError as error:
            detail = error.detail or (str(recording) if isinstance(recording, Path) else "")
            lost = AudioError("", error.problem, detail)
            yield from (RecordingTask(part.path, part.source, lost) for part in ordered[i:])
            return
        lacking = part.end - part.start - len(samples) / SAMPLE_RATE
        if not len(samples) or (lacking > _SLACK_SECONDS and part.end - part.start < _MAX_SECONDS):
            ends = AudioError("", "the recording ends before the part", f"{part.start:g} to {part.end:g} s")
            yield RecordingTask(part.path, part.source, ends)
        else:
            yield RecordingTask(part.path, part.source, samples)
