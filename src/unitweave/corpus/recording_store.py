"""The recordings of a corpus folder: decoded in parallel, written once as 16 kHz mono, and remembered.

Every finished recording is a line of recordings.jsonl: where it is, what it was made from, how long
it lasts, or what is wrong with it. A build that was killed goes on behind the last line; a recording
whose source has changed since is made again.
"""

import json
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, is_silent, read_audio, write_audio
from unitweave.core.errors import AudioError, InputError
from unitweave.core.files import raise_if_disk_full, remove, remove_leftovers
from unitweave.core.machine import usable_cores

JOURNAL = "recordings.jsonl"
SILENT = "the recording is silent"
_MAX_SECONDS = 3600  # longer ones are not even decoded: a few threads of them would fill the memory
_MAX_WAITING_BYTES = 1 << 28  # of recordings that were read and wait for a thread


@dataclass(frozen=True)
class RecordingTask:
    """A recording to convert.

    Attributes:
        path: Of the result, below the corpus folder.
        source: A name of what it is made of.
        audio: A file, its content, a part of one that was cut out already ([samples] at 16 kHz), or why there is none.
    """

    path: str
    source: str
    audio: bytes | Path | np.ndarray | AudioError


@dataclass(frozen=True)
class ConvertedRecording:
    """A converted recording, or what is wrong with it (then there is no file)."""

    path: str
    source: str
    seconds: float = 0.0
    problem: str = ""
    detail: str = ""


class RecordingStore:
    """The recordings of one corpus folder; a context manager, since it holds the journal open."""

    def __init__(self, folder: Path, workers: int = 0) -> None:
        self.folder = folder
        self.workers = workers if workers > 0 else usable_cores()
        self._made = self._read()
        self._folders: set[Path] = set()
        self._settled: set[str] = set()

    def __enter__(self) -> Self:
        self._journal = (self.folder / JOURNAL).open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def get(self, path: str) -> ConvertedRecording | None:
        """What became of the recording with this path; None when it was never made."""
        return self._made.get(path)

    def has(self, path: str, source: str) -> bool:
        """Whether the recording was made from just this source, or found to be unusable.

        Of several sources that have it, the first good one counts: the next would be another on every other call.
        """
        made = self._made.get(path)
        if made is not None and made.source == source:
            self._settled.add(path)
            return True
        return made is not None and path in self._settled and not made.problem

    def settle(self, paths: Iterable[str]) -> None:
        """Say that recordings which were made by an earlier call are still those that are wanted."""
        self._settled.update(paths)

    def make(self, tasks: Iterable[RecordingTask]) -> None:
        """Decode, check and write recordings; `tasks` is read only a little ahead of the work.

        Threads do it: libsndfile and soxr work outside Python's lock, and nothing is copied between processes.
        """
        pending: deque[tuple[int, Future[ConvertedRecording]]] = deque()
        pool = ThreadPoolExecutor(self.workers)
        try:
            for task in tasks:
                self._prepare((self.folder / task.path).parent)
                size = _bytes_held(task.audio)
                pending.append((size, pool.submit(_make, self.folder, task)))
                while len(pending) > 4 * self.workers or sum(size for size, _ in pending) > _MAX_WAITING_BYTES:
                    self._note(pending.popleft()[1].result())
            while pending:
                self._note(pending.popleft()[1].result())
        except InputError:  # as where an engine ends; what it made until then is kept
            while pending:
                self._note(pending.popleft()[1].result())
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepare(self, folder: Path) -> None:
        if folder not in self._folders:
            self._folders.add(folder)
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)

    def _note(self, made: ConvertedRecording) -> None:
        try:
            self._journal.write(json.dumps(asdict(made)) + "\n")
            self._journal.flush()
        except OSError as error:
            raise_if_disk_full(error, self.folder)
            raise
        self._made[made.path] = made
        self._settled.add(made.path)

    def _read(self) -> dict[str, ConvertedRecording]:
        path = self.folder / JOURNAL
        if not path.exists():
            return {}
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # killed while writing a line
            os.truncate(path, len(whole))
        converted: dict[str, ConvertedRecording] = {}
        for number, line in enumerate(whole.decode(errors="replace").split("\n")[:-1], start=1):
            try:
                made = ConvertedRecording(**json.loads(line))
            except (ValueError, TypeError):
                raise InputError(
                    f"{path}, line {number}: damaged journal; delete the folder and build the corpus again"
                ) from None
            converted[made.path] = made
        return {p: made for p, made in converted.items() if made.problem or (self.folder / p).exists()}


def _bytes_held(audio: object) -> int:
    return audio.nbytes if isinstance(audio, np.ndarray) else len(audio) if isinstance(audio, bytes) else 0


def _make(folder: Path, task: RecordingTask) -> ConvertedRecording:
    path = folder / task.path
    try:
        if isinstance(task.audio, AudioError):
            raise task.audio
        audio = task.audio
        waveform = audio if isinstance(audio, np.ndarray) else read_audio(audio, task.path, _MAX_SECONDS, complete=True)
    except AudioError as error:
        remove(path)
        detail = error.detail or (str(task.audio) if isinstance(task.audio, Path) else "")
        if ":/" in detail:
            detail += "; web addresses are not read, so download the recordings first"
        return ConvertedRecording(task.path, task.source, problem=error.problem, detail=detail)
    seconds = round(len(waveform) / SAMPLE_RATE, 4)
    if is_silent(waveform):
        remove(path)
        return ConvertedRecording(task.path, task.source, seconds, SILENT)
    write_audio(path, waveform)
    return ConvertedRecording(task.path, task.source, seconds)
