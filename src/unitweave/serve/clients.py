"""Whoever waits for an answer: when they hang up, their job ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, overload

from fastapi.concurrency import run_in_threadpool
from starlette.types import Receive

from unitweave.serve.batching import Batcher, Busy, Job, LiveJob, ShuttingDown, Stream
from unitweave.translate.decode import Translation
from unitweave.translate.live.hypotheses import Answer
from unitweave.translate.translator import SpeechTranslation

_SESSIONS = 4096
_OPEN_SECONDS = 10.0  # in which a page that asked for a translation has to listen for it
_POLL_SECONDS = 0.2


class HungUp(Exception):
    """The client does not wait for the answer any more."""

    def __init__(self) -> None:
        super().__init__("the client hung up")


@asynccontextmanager
async def watched(leaving: Coroutine[Any, Any, object]) -> AsyncIterator["asyncio.Task[object]"]:
    """A task that ends when the client hangs up; it is canceled with the block."""
    task = asyncio.create_task(leaving)
    try:
        yield task
    finally:
        task.cancel()


async def disconnected(receive: Receive) -> None:
    """Wait until the client of a request, whose body was read, has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


@overload
async def wait_for(batcher: Batcher, job: Job, left: "asyncio.Future[object]") -> SpeechTranslation: ...
@overload
async def wait_for(batcher: Batcher, job: LiveJob, left: "asyncio.Future[object] | None" = None) -> Answer: ...
async def wait_for(
    batcher: Batcher, job: Job | LiveJob, left: "asyncio.Future[object] | None" = None
) -> SpeechTranslation | Answer:
    """The result of a job, which ends with the request: with its time, when `left` is done, or when it is canceled.

    Raises:
        Busy: The queue is full.
        HungUp: The client has left.
        InputError: The recording or what is known of it cannot be used.
        ShuttingDown: The server is shutting down.
        TimeoutError: It took too long.
    """
    if left is not None and left.done():
        raise HungUp
    # Not asyncio.wrap_future: its callbacks and the future hold each other, and the waveforms with them, until garbage
    # is collected.
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[object] = loop.create_future()
    result: Future[Any] = batcher.submit(job)
    result.add_done_callback(lambda _: _wake(loop, answered))
    try:
        async with asyncio.timeout(batcher.limits.request_timeout_seconds):
            await asyncio.wait([answered] if left is None else [answered, left], return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise HungUp
        if result.cancelled():
            raise ShuttingDown
        found: SpeechTranslation | Answer = result.result()
        return found
    finally:
        batcher.give_up(job)
        answered.cancel()
        del job, result  # an error that is raised holds this frame


def _wake(loop: asyncio.AbstractEventLoop, waiter: "asyncio.Future[object]") -> None:
    """From another thread: let who awaits `waiter` go on; there may be nobody any more."""
    with suppress(RuntimeError):  # the loop has been closed
        loop.call_soon_threadsafe(lambda: None if waiter.done() else waiter.set_result(None))


async def decode_texts(batcher: Batcher, job: Job, stream: Stream, left: "asyncio.Future[object]") -> Translation:
    """The texts of a job; its units follow in the stream, until `left` is done. Raises as `wait_for` does."""
    if left.done():
        raise HungUp
    batcher.submit(job)
    left.add_done_callback(lambda _: batcher.give_up(job))
    try:
        return await run_in_threadpool(stream.text)
    except BaseException:
        batcher.give_up(job)
        if left.done():
            raise HungUp from None
        raise


class PageSessions:
    """The sessions of open pages, by the names that the pages give themselves."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}  # how many listen; until when one may begin

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def join(self, name: str) -> None:
        """A session asks for something, and is going to listen for it.

        Raises:
            Busy: Too many do.
        """
        if name not in self._known and len(self._known) >= _SESSIONS:
            now = time.monotonic()
            self._known = {other: known for other, known in self._known.items() if known[0] > 0 or now < known[1]}
            if len(self._known) >= _SESSIONS:
                raise Busy(round(_OPEN_SECONDS))
        self._known[name] = (self._known.get(name, (0, 0.0))[0], time.monotonic() + _OPEN_SECONDS)

    @contextmanager
    def listening(self, name: str) -> Iterator[None]:
        """While a session listens. What it asks for meanwhile it may listen for afterwards."""
        count, _ = self._known.get(name, (0, 0.0))
        self._known[name] = (count + 1, 0.0)
        try:
            yield
        finally:
            count, until = self._known.get(name, (1, 0.0))
            self._known[name] = (count - 1, until)

    async def left(self, name: str) -> None:
        """Wait until nobody listens to the session any more, or nobody began to."""
        while (known := self._known.get(name)) and (known[0] > 0 or time.monotonic() < known[1]):
            await asyncio.sleep(_POLL_SECONDS)
