"""The recordings of a corpus folder: decoded in parallel, written once as 16 kHz mono, and remembered.

Every finished recording is a line of recordings.jsonl: where it is, what it was made from, how long
it lasts, or what is wrong with it. A build that was killed goes on behind the last line; a recording
whose source has changed since is made again.
"""

import contextlib
import io
import json
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import soundfile

from unitweave.core.audio import SAMPLE_RATE, AudioError, is_silent, read_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import raise_if_disk_full, remove, remove_leftovers

JOURNAL = "recordings.jsonl"
SILENT = "the recording is silent"
TOO_LONG = "the recording is too long"
_MAX_SECONDS = 3600  # longer ones are not even decoded: a few threads of them would fill the memory
_SMALL_BYTES = 1 << 23  # less than this is never too much to decode


@dataclass(frozen=True)
class Task:
    """A recording to be made: its path below the corpus folder, a name of its source, and the source itself."""

    path: str
    source: str
    audio: bytes | Path


@dataclass(frozen=True)
class Made:
    """A recording that was made, or what is wrong with it (then there is no file)."""

    path: str
    source: str
    seconds: float = 0.0
    problem: str = ""
    detail: str = ""


class Recordings:
    """The recordings of one corpus folder; a context manager, since it holds the journal open."""

    def __init__(self, folder: Path, workers: int = 0) -> None:
        self.folder = folder
        self.workers = workers if workers > 0 else os.cpu_count() or 1
        self._made = self._read()
        self._folders: set[Path] = set()

    def __enter__(self) -> Self:
        self._journal = (self.folder / JOURNAL).open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def get(self, path: str) -> Made | None:
        """What became of the recording with this path; None when it was never made."""
        return self._made.get(path)

    def has(self, path: str, source: str) -> bool:
        """Whether the recording was made from just this source, or found to be unusable."""
        made = self._made.get(path)
        return made is not None and made.source == source

    def make(self, tasks: Iterable[Task]) -> None:
        """Decode, check and write recordings; `tasks` is read only a little ahead of the work.

        Threads do it: libsndfile and soxr work outside Python's lock, and nothing is copied between processes.
        """
        pending: deque[Future[Made]] = deque()
        pool = ThreadPoolExecutor(self.workers)
        try:
            for task in tasks:
                self._prepare((self.folder / task.path).parent)
                pending.append(pool.submit(_make, self.folder, task))
                while len(pending) > 4 * self.workers:
                    self._note(pending.popleft().result())
            while pending:
                self._note(pending.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepare(self, folder: Path) -> None:
        if folder not in self._folders:
            self._folders.add(folder)
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)

    def _note(self, made: Made) -> None:
        try:
            self._journal.write(json.dumps(asdict(made)) + "\n")
            self._journal.flush()
        except OSError as error:
            raise_if_disk_full(error, self.folder)
            raise
        self._made[made.path] = made

    def _read(self) -> dict[str, Made]:
        path = self.folder / JOURNAL
        if not path.exists():
            return {}
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # killed while writing a line
            os.truncate(path, len(whole))
        found: dict[str, Made] = {}
        for number, line in enumerate(whole.decode(errors="replace").split("\n")[:-1], start=1):
            try:
                made = Made(**json.loads(line))
            except (ValueError, TypeError):
                raise InputError(f"{path}, line {number}: not of a corpus folder; delete the folder") from None
            found[made.path] = made
        return {p: made for p, made in found.items() if made.problem or (self.folder / p).exists()}


def _make(folder: Path, task: Task) -> Made:
    path = folder / task.path
    try:
        _check_length(task.audio, task.path)
        waveform = read_audio(task.audio, task.path)
    except AudioError as error:
        remove(path)
        return Made(task.path, task.source, problem=error.problem, detail=error.detail)
    seconds = round(len(waveform) / SAMPLE_RATE, 4)
    if is_silent(waveform):
        remove(path)
        return Made(task.path, task.source, seconds, SILENT)
    write_audio(path, waveform)
    return Made(task.path, task.source, seconds)


def _check_length(audio: bytes | Path, name: str) -> None:
    """Raise AudioError for a recording of more than an hour, by its header."""
    large = (
        len(audio) > _SMALL_BYTES
        if isinstance(audio, bytes)
        else audio.is_file() and audio.stat().st_size > _SMALL_BYTES
    )
    if large:
        with contextlib.suppress(soundfile.SoundFileError):
            about = soundfile.info(io.BytesIO(audio) if isinstance(audio, bytes) else audio)
            if about.duration > _MAX_SECONDS:
                raise AudioError(name, TOO_LONG, f"{about.duration:.0f} s")
