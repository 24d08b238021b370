"""Requests that arrive one by one are translated together: a bounded queue and one thread that works through it."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import overload

import numpy as np

from unitweave.config.serve import ServerLimits
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.translate.decode import ForcedPrefix, Translation
from unitweave.translate.live.decoding import LiveDecoder
from unitweave.translate.live.hypotheses import Answer, Request
from unitweave.translate.translator import SpeechTranslation, Translator, Words
from unitweave.translate.utterances import cut, join

_PAUSE_SECONDS = 0.1  # after a failure that concerned no job


class Busy(Exception):
    """The queue is full; `retry_after` is in how many seconds to come again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"busy; try again in {retry_after} s")
        self.retry_after = retry_after


class ShuttingDown(Exception):
    """The server is shutting down; the request is not going to be answered."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class Stream:
    """A translation while it is decoded: first the texts, then unit after unit.

    Args:
        timeout: Seconds to wait for the next item.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.started = False  # whether anything has been put
        self._items: queue.SimpleQueue[Translation | int | BaseException | None] = queue.SimpleQueue()

    def put(self, item: Translation | int | BaseException | None) -> None:
        """Add the next item (called by the decoding thread); None is the end, an exception the reason for it."""
        self.started = True
        self._items.put(item)

    def text(self) -> Translation:
        """Wait for the texts.

        Raises:
            TimeoutError: The texts took longer than the timeout.
            Exception: Whatever the translation failed with.
        """
        first = self._next()
        if not isinstance(first, Translation):
            raise TimeoutError("the translation ended before its text")
        return first

    def units(self) -> Iterator[int]:
        """The units as they are decoded; call `text` first."""
        while isinstance(unit := self._next(), int):
            yield unit

    def _next(self) -> Translation | int | None:
        try:
            item = self._items.get(timeout=self._timeout)
        except queue.Empty:
            raise TimeoutError("the translation took too long") from None
        if isinstance(item, BaseException):
            raise item
        return item


@dataclass(eq=False)  # compared by identity: waveforms cannot be compared with ==
class Job:
    """One request.

    Attributes:
        waveform: The recording, float32 [samples] at 16 kHz.
        given: Texts or language that the client knows already.
        text_only: Stop after the translation.
        stream: Receives texts and units while they are decoded.
        align: Also find the time of each word.
        words: Words with their times in the recording and in the translation, set with the result if `align`.
        result: Where the result goes.
        given_up: Whether nobody waits for it any more.
    """

    waveform: np.ndarray
    given: ForcedPrefix | None = None
    text_only: bool = False
    stream: Stream | None = None
    align: bool = False
    words: tuple[Words, Words] = ([], [])
    result: "Future[SpeechTranslation]" = field(default_factory=Future)
    given_up: bool = False


@dataclass(eq=False)
class LiveJob:
    """A request of a live session; only its result is told when it is done."""

    request: Request
    result: "Future[Answer]" = field(default_factory=Future)
    given_up: bool = False


class Batcher:
    """Translates the jobs of many threads in batches, on one thread of its own. Close it when done."""

    def __init__(self, translator: Translator, limits: ServerLimits) -> None:
        self.translator, self.limits = translator, limits
        self.live = LiveDecoder(translator)
        self._waiting: deque[Job | LiveJob] = deque()
        self._running: list[Job | LiveJob] = []
        self._changed = threading.Condition()
        self._closed = False
        self._seconds_per_job = 1.0  # a job's part of its batch's time, averaged over the last batches
        self.batches = self.done = 0
        self._thread = threading.Thread(target=self._work, name="translating", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the translating thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    def retry_after(self) -> int:
        """Estimated seconds until the queue is empty, at least 1."""
        return max(1, round(self._seconds_per_job * len(self._waiting)))

    @overload
    def submit(self, job: Job) -> "Future[SpeechTranslation]": ...
    @overload
    def submit(self, job: LiveJob) -> "Future[Answer]": ...
    def submit(self, job: Job | LiveJob) -> "Future[SpeechTranslation] | Future[Answer]":
        """Put a job into the queue.

        Raises:
            Busy: The queue is full.
            InputError: The model lacks a language or needs to be told one, or a given text is too long.
            ShuttingDown: Nothing is translated any more.
        """
        if isinstance(job, Job):
            self.translator.check_prefix(job.given, seconds=len(job.waveform) / SAMPLE_RATE)
        with self._changed:
            if self._closed or not self.alive:
                raise ShuttingDown
            if len(self._waiting) >= self.limits.max_queue:
                raise Busy(self.retry_after())
            self._waiting.append(job)
            self._changed.notify()
        return job.result

    def give_up(self, job: Job | LiveJob) -> None:
        """Nobody waits for a job any more: it leaves the queue, or ends at its next step."""
        job.given_up = True
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
        job.result.cancel()
        if isinstance(job, Job) and job.stream:
            job.stream.put(None)  # for who reads it

    def close(self, timeout: float | None = None) -> None:
        """Cancel what waits and end the thread; what is being decoded is abandoned at its next step.

        Args:
            timeout: Seconds to wait for the thread. If it is still busy then, its jobs fail with `ShuttingDown`.
        """
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.result.cancel()
                if isinstance(job, Job) and job.stream:
                    job.stream.put(ShuttingDown())
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout)
        if self.alive:
            for job in list(self._running):
                _settle(job, ShuttingDown())

    def _work(self) -> None:
        while not self._closed:
            try:
                self._do_next()
            except Exception as error:
                # A bug of ours: it fails the requests at hand, but the thread has to live on for later ones.
                logging.getLogger(__name__).exception("a batch failed")
                self._fail(error)
            finally:
                self._running = []

    def _do_next(self) -> None:
        """Wait for a batch and do it. Nothing of it stays referenced while the next one is waited for."""
        jobs = self._gather()
        if not jobs:
            return
        start = time.monotonic()
        live = [job for job in jobs if isinstance(job, LiveJob)]
        if live:
            self._answer(live)
        else:
            self._translate([job for job in jobs if isinstance(job, Job)])
        seconds = (time.monotonic() - start) / len(jobs)
        self._seconds_per_job = 0.8 * self._seconds_per_job + 0.2 * seconds
        self.batches += 1
        self.done += len(jobs)

    def _fail(self, error: Exception) -> None:
        """Fail what runs, or what waits where it cannot be gathered: it would fail again and again."""
        with self._changed:
            failed = self._running
            if not failed:
                failed, self._waiting = list(self._waiting), deque()
        for job in failed:
            _settle(job, error)
        if not failed:
            time.sleep(_PAUSE_SECONDS)

    def _gather(self) -> list[Job | LiveJob]:
        """The next batch, of jobs of one kind; empty when closed, or when all that it held are canceled."""
        with self._changed:
            # Again from the start if all that waited is given up meanwhile. Looked for in this order: `_company` lets
            # the lock go, and who closes then will not wake this thread again.
            while not self._company() and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            first = _kind(self._waiting[0])
            taken: list[Job | LiveJob] = []
            left_waiting: deque[Job | LiveJob] = deque()
            for job in self._waiting:
                fits = _kind(job) == first and len(taken) < self.limits.batch_size
                (taken if fits else left_waiting).append(job)
            self._running, self._waiting = taken, left_waiting  # at any time a job is in one of them
        self._running = [job for job in taken if job.result.set_running_or_notify_cancel()]
        return self._running

    def _company(self) -> int:
        """How many jobs wait once a batch is full or the first has waited long enough; called with the lock held."""
        if self._waiting:
            # Somebody is listening to a live session: it does not wait for company, but takes what there is.
            wait = 0.0 if isinstance(self._waiting[0], LiveJob) else self.limits.batch_wait_seconds
            end = time.monotonic() + wait
            while (
                not self._closed
                and len(self._waiting) < self.limits.batch_size
                and (left := end - time.monotonic()) > 0
            ):
                self._changed.wait(left)
        return len(self._waiting)

    def _translate(self, jobs: list[Job]) -> None:
        settings = replace(self.translator.settings, batch_size=self.limits.batch_size, text_only=jobs[0].text_only)
        try:
            spans = [self._utterances(job) for job in jobs]
            owners = [job for job, own in zip(jobs, spans, strict=True) for _ in own]
            waveforms = [job.waveform[i:j] for job, own in zip(jobs, spans, strict=True) for i, j in own]
            progress = _Progress(owners, self.is_closed)
            given = [job.given for job in owners]
            parts = iter(self.translator.translate_all(waveforms, settings, given, progress, progress.wanted))
            results = [
                join(list(islice(parts, len(own))), own, len(job.waveform))
                for job, own in zip(jobs, spans, strict=True)
            ]
        except Exception as error:
            # One request failed, whatever the reason. The others are tried alone, except for those whose client
            # has received something already: it would receive that again.
            for job in jobs:
                if len(jobs) == 1 or self._closed or job.given_up or (job.stream and job.stream.started):
                    _settle(job, error)
                else:
                    self._translate([job])
            return
        # Alignment is another pass of the encoder: requests without it do not wait for it.
        for job, result in sorted(zip(jobs, results, strict=True), key=lambda pair: pair[0].align):
            try:
                if job.given_up:
                    raise ShuttingDown
                if job.align:
                    job.words = self._words(job, result)
            except Exception as error:
                _settle(job, error)
            else:
                _settle(job, result)

    def _answer(self, jobs: list[LiveJob]) -> None:
        """Answer live sessions together; where that fails, each alone."""
        try:
            answers = self.live.answer_all([job.request for job in jobs], _Progress(jobs, self.is_closed).wanted)
        except Exception as error:
            for job in jobs:
                if len(jobs) == 1 or self._closed or job.given_up:
                    _settle(job, error)
                else:
                    self._answer([job])
            return
        for job, answer in zip(jobs, answers, strict=True):
            _settle(job, answer)

    def _utterances(self, job: Job) -> list[tuple[int, int]]:
        """The parts of a job's recording that are translated one by one; what is streamed or known is one."""
        known = job.given is not None and (job.given.transcript or job.given.translation)
        return [(0, len(job.waveform))] if job.stream or known else cut(self.translator, job.waveform)

    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _words(self, job: Job, result: SpeechTranslation) -> tuple[Words, Words]:
        source = self.translator.align(job.waveform, result.transcript, result.language)
        return source, self.translator.align(
            result.waveform, result.translation, result.target_language, result.sampling_rate
        )


def _kind(job: Job | LiveJob) -> object:
    """Jobs of the same kind can be done together."""
    return job.text_only if isinstance(job, Job) else LiveJob


def _forget_frames(error: Exception) -> None:
    """Drop an error's traceback, whose frames hold the jobs that hold the error, and all that was computed for them."""
    if not isinstance(error, InputError | ShuttingDown) and error.__traceback__ is not None:
        logging.getLogger(__name__).error("a request failed", exc_info=error)
    error.__traceback__ = error.__cause__ = error.__context__ = None


def _settle(job: Job | LiveJob, outcome: SpeechTranslation | Answer | Exception) -> None:
    try:
        if isinstance(outcome, Exception):
            _forget_frames(outcome)
            job.result.set_exception(outcome)
        else:
            job.result.set_result(outcome)  # type: ignore[arg-type]
    except InvalidStateError:  # settled before, for instance by `close`
        return
    if isinstance(job, Job) and job.stream:
        job.stream.put(outcome if isinstance(outcome, Exception) else None)


class _Progress:
    """Passes what is decoded on to each job's stream, and stops the decoding of what nobody waits for any more."""

    def __init__(self, jobs: Sequence[Job | LiveJob], is_closed: Callable[[], bool]) -> None:
        self._jobs, self._is_closed = jobs, is_closed

    def wanted(self, index: int) -> bool:
        """Whether anybody waits for a job, asked at each step. Raises ShuttingDown when nobody waits for any."""
        if self._is_closed() or all(job.given_up for job in self._jobs):
            raise ShuttingDown
        job = self._jobs[index]
        return isinstance(job, LiveJob) or not job.given_up  # those of live sessions are short

    def texts(self, index: int, hypothesis: Translation) -> None:
        self._put(index, hypothesis)

    def unit(self, index: int, unit: int) -> None:
        self._put(index, unit)

    def _put(self, index: int, item: Translation | int) -> None:
        job = self._jobs[index]
        if isinstance(job, Job) and job.stream and not job.given_up:
            job.stream.put(item)
