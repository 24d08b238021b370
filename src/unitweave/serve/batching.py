"""Requests that come one by one are translated together: a bounded queue and one thread that works it off."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np

from unitweave.translate.decode import ForcedPrefix, Translation
from unitweave.translate.translator import SpeechTranslation, Translator, Words


@dataclass
class Limits:
    """What a server takes."""

    upload_mb: float = 25.0  # largest upload in megabytes
    audio_seconds: float = 60.0  # longest recording
    queue: int = 64  # requests that may wait; more are told to come again later
    request_seconds: float = 120.0  # a request is given up after this time
    batch: int = 16  # requests translated together
    gather_seconds: float = 0.02  # how long the first request of a batch waits for others
    streams: int = 8  # answers that are streamed at the same time


class Busy(Exception):
    """The queue is full; `retry_after` is in how many seconds to come again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"busy; try again in {retry_after} s")
        self.retry_after = retry_after


class Stream:
    """What is heard of a translation while it is decoded: the texts, then unit after unit."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.begun = False  # whether there is something to hear
        self._heard: queue.SimpleQueue[Translation | int | BaseException | None] = queue.SimpleQueue()

    def put(self, item: Translation | int | BaseException | None) -> None:
        """Called by the decoding thread; None is the end."""
        self.begun = True
        self._heard.put(item)

    def text(self) -> Translation:
        """Wait for the texts. Raises what went wrong, TimeoutError after the request's time."""
        first = self._next()
        if not isinstance(first, Translation):
            raise TimeoutError("the translation ended before its text")
        return first

    def units(self) -> Iterator[int]:
        """The units as they come, after `text`."""
        while isinstance(unit := self._next(), int):
            yield unit

    def _next(self) -> Translation | int | None:
        try:
            item = self._heard.get(timeout=self._patience)
        except queue.Empty:
            raise TimeoutError("the translation took too long") from None
        if isinstance(item, BaseException):
            raise item
        return item


@dataclass(eq=False)  # a job is itself and no other: waveforms cannot be compared with ==
class Job:
    """One request: its recording at 16 kHz, what is known of it, and where the result goes.

    aligned  also find when each word is said: `words` of the recording and of its translation, there with the result
    """

    waveform: np.ndarray
    given: ForcedPrefix | None = None
    text_only: bool = False
    stream: Stream | None = None
    aligned: bool = False
    words: tuple[Words, Words] = ([], [])
    result: "Future[SpeechTranslation]" = field(default_factory=Future)


class Batcher:
    """Translates jobs of many threads in batches, on one thread of its own. Close it when done."""

    def __init__(self, translator: Translator, limits: Limits) -> None:
        self.translator, self.limits = translator, limits
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._seconds = 1.0  # a job's share of its batch's time, averaged over the last batches
        self.batches = self.done = 0
        self._thread = threading.Thread(target=self._work, name="translating", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread that translates is there."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    def retry_after(self) -> int:
        """Seconds until the queue has probably been worked off, at least 1."""
        return max(1, round(self._seconds * len(self._waiting)))

    def submit(self, job: Job) -> "Future[SpeechTranslation]":
        """Put a job into the queue. Raises Busy when that is full, InputError when the model lacks the language."""
        self.translator.check_language(job.given)
        with self._changed:
            if self._closed or len(self._waiting) >= self.limits.queue:
                raise Busy(self.retry_after())
            self._waiting.append(job)
            self._changed.notify()
        return job.result

    def close(self) -> None:
        """Finish the batch at hand, give up what waits, and end the thread."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.result.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._gather():
            # A job that was given up while it waited takes no part.
            jobs = [job for job in jobs if job.result.set_running_or_notify_cancel()]
            if not jobs:
                continue
            start = time.monotonic()
            try:
                self._translate(jobs)
            except Exception as error:
                # A fault of ours. These requests end with it; the thread goes on, or later ones would wait forever.
                logging.getLogger(__name__).exception("a batch failed")
                for job in jobs:
                    if not job.result.done():
                        _settle(job, error)
            share = (time.monotonic() - start) / len(jobs)
            self._seconds = 0.8 * self._seconds + 0.2 * share
            self.batches += 1
            self.done += len(jobs)

    def _gather(self) -> list[Job]:
        """The next batch, of jobs that want the same; empty when closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            end = time.monotonic() + self.limits.gather_seconds
            while len(self._waiting) < self.limits.batch and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
                if self._closed:
                    return []
            first = self._waiting[0].text_only
            taken: list[Job] = []
            left_waiting: deque[Job] = deque()
            for job in self._waiting:
                fits = job.text_only == first and len(taken) < self.limits.batch
                (taken if fits else left_waiting).append(job)
            self._waiting = left_waiting
            return taken

    def _translate(self, jobs: list[Job]) -> None:
        settings = replace(self.translator.settings, batch=self.limits.batch, text_only=jobs[0].text_only)
        try:
            results = self.translator.translate_all(
                [job.waveform for job in jobs], settings, [job.given for job in jobs], _Listener(jobs)
            )
        except Exception as error:
            # Whatever it is, it is one request's and must not end the thread. The others are tried alone, but for
            # those whose client has heard something: it would hear that again.
            for job in jobs:
                if len(jobs) == 1 or (job.stream and job.stream.begun):
                    _settle(job, error)
                else:
                    self._translate([job])
            return
        # Alignment is another pass of the encoder: those that do not want it need not wait for it.
        for job, result in sorted(zip(jobs, results, strict=True), key=lambda pair: pair[0].aligned):
            try:
                if job.aligned:
                    job.words = self._words(job, result)
            except Exception as error:
                _settle(job, error)
            else:
                _settle(job, result)

    def _words(self, job: Job, result: SpeechTranslation) -> tuple[Words, Words]:
        heard = self.translator.align(job.waveform, result.transcript, result.language)
        return heard, self.translator.align(result.waveform, result.translation)


def _settle(job: Job, outcome: SpeechTranslation | Exception) -> None:
    if isinstance(outcome, Exception):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
    if job.stream:
        job.stream.put(outcome if isinstance(outcome, Exception) else None)


class _Listener:
    """Passes on to each job's stream what is decoded for it."""

    def __init__(self, jobs: list[Job]) -> None:
        self._streams = [job.stream for job in jobs]

    def text(self, index: int, said: Translation) -> None:
        stream = self._streams[index]
        if stream:
            stream.put(said)

    def unit(self, index: int, unit: int) -> None:
        stream = self._streams[index]
        if stream:
            stream.put(unit)
