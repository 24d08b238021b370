"""/v1/live: a WebSocket that takes 16-bit PCM while somebody speaks and sends events and speech back.

A session reads on while the model answers. What waits is bounded: a client that sends faster than somebody speaks is
made to wait; one that does not is told that the server is busy. All computing goes through the batcher, so that
sessions share batches with each other and with uploads.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import soxr
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from unitweave.config.live import LiveSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.serve.batching import Batcher, Busy, LiveJob, ShuttingDown
from unitweave.serve.clients import wait_for
from unitweave.serve.live_page import WORKLET
from unitweave.serve.protocol import GONE
from unitweave.serve.wav import to_pcm
from unitweave.translate.constraints import ForcedPrefix
from unitweave.translate.live.decoding import check_live
from unitweave.translate.live.events import LiveEvent, SpeechChunk
from unitweave.translate.live.session import LiveSession
from unitweave.translate.vad import SpeechDetector

PATH = "/v1/live"
NORMAL, GOING_AWAY, INVALID, FAILED, RESTART, TRY_LATER = 1000, 1001, 1007, 1011, 1012, 1013
_RATES = range(8000, 96_001)
_MIN_CHUNK_SECONDS = 0.2
_BLOCK_SECONDS = 0.5  # of input that one turn takes in, so that the detector does not hold others up
_FASTER = 1.2  # a client that sends more seconds than this in a second does not send as somebody speaks
_CLOSE_SECONDS = 5.0


class LiveProblem(Exception):
    """Why a session ends before its client wanted; with the close code of the WebSocket."""

    def __init__(self, problem: str, code: int) -> None:
        super().__init__(problem)
        self.code = code


def add_live(app: FastAPI, batcher: Batcher) -> None:
    """Add the route to an app; its state counts the sessions in `live_sessions`."""
    app.state.live_sessions = 0

    @app.websocket(PATH)
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        if app.state.live_sessions >= batcher.limits.max_live_sessions:
            await _close(socket, f"busy: {batcher.limits.max_live_sessions} live sessions are open", TRY_LATER)
            return
        app.state.live_sessions += 1
        try:
            await _Connection(socket, batcher).run()
        finally:
            app.state.live_sessions -= 1

    @app.get("/v1/live/worklet.js", include_in_schema=False)
    def worklet() -> Response:
        return Response(WORKLET, media_type="text/javascript")


async def _close(socket: WebSocket, problem: str, code: int) -> None:
    """Say why, and close; a client that is gone or does not read is left to the protocol's deadlines."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            if problem:
                await _send(socket, {"event": "error", "error": problem[:500]})
            # A reason has 123 bytes at most.
            await socket.close(code, problem.encode("ascii", "replace")[:100].decode())
    except (WebSocketDisconnect, RuntimeError, TimeoutError):
        pass  # it left first


async def _send(socket: WebSocket, content: Mapping[str, Any]) -> None:
    """Send JSON in ASCII: what a client sent may hold characters that UTF-8 has not."""
    await socket.send_text(json.dumps(content))


class _Connection:
    """One session: a task that reads, and the turns of the session."""

    def __init__(self, socket: WebSocket, batcher: Batcher) -> None:
        self.socket, self.batcher, self.limits = socket, batcher, batcher.limits
        self.session: LiveSession | None = None
        self._resampler: soxr.ResampleStream | None = None
        self._rate = SAMPLE_RATE
        self._waiting = bytearray()  # a client may send single bytes, and a list of them would take long to count
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._received = 0.0  # seconds
        self._started = time.monotonic()

    async def run(self) -> None:
        """Serve the session until its client ends it or a limit does."""
        reader = asyncio.create_task(self._read())
        turns = asyncio.create_task(self._turns())
        # A client that is made to wait is not read from, and may hang up all the same.
        gone = self.socket.scope["extensions"].get(GONE, asyncio.Event())
        left = asyncio.create_task(gone.wait())
        try:
            done, _ = await asyncio.wait([reader, turns, left], return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: task is turns):
                task.result()
            await _close(self.socket, "", NORMAL)
        except LiveProblem as problem:
            await _close(self.socket, str(problem), problem.code)
        except InputError as problem:
            await _close(self.socket, str(problem), INVALID)
        except Busy as problem:
            await _close(self.socket, str(problem), TRY_LATER)
        except ShuttingDown as problem:
            await _close(self.socket, str(problem), RESTART)
        except TimeoutError:
            await _close(self.socket, "busy: a translation took too long", TRY_LATER)
        except WebSocketDisconnect:
            pass
        except Exception:  # a bug of ours ends this session, and no other
            logging.getLogger(__name__).exception("a live session failed")
            await _close(self.socket, "something went wrong on the server; its log has the details", FAILED)
        finally:
            for task in (reader, turns, left):
                task.cancel()
            await asyncio.gather(reader, turns, left, return_exceptions=True)

    async def _read(self) -> None:
        """Keep what arrives, no more than the limits allow."""
        end = time.monotonic() + self.limits.max_live_seconds + self.limits.live_idle_seconds
        while not self._ended:
            if time.monotonic() > end:  # a client that sends hardly any samples holds its place no longer
                raise LiveProblem(f"a session may last {self.limits.max_live_seconds:g} s", GOING_AWAY)
            try:
                async with asyncio.timeout(self.limits.live_idle_seconds):
                    message = await self.socket.receive()
            except TimeoutError:
                raise LiveProblem(f"no input for {self.limits.live_idle_seconds:g} s", GOING_AWAY) from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", NORMAL))
            if message.get("text") is not None:
                await self._take_text(message["text"])
            else:
                await self._take_samples(message.get("bytes") or b"")
            await asyncio.sleep(0)  # receiving what has arrived already lets nobody else have a turn
        # All input is here; a client that leaves before its answer frees the session.
        while (await self.socket.receive())["type"] != "websocket.disconnect":
            pass
        raise WebSocketDisconnect(NORMAL)

    async def _take_text(self, text: str) -> None:
        """The settings, as the first message, or the end."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise LiveProblem("a text message must be JSON; samples go into binary messages", INVALID) from None
        if content == {"event": "finish"}:
            await self._begin()
            self._ended = True
            self._changed.set()
        elif self.session is not None:
            raise LiveProblem('after the first message, the only text message is {"event": "finish"}', INVALID)
        elif not isinstance(content, dict):
            raise LiveProblem("the settings must be an object", INVALID)
        else:
            await self._begin(content)

    async def _begin(self, content: Mapping[str, Any] | None = None) -> None:
        """Make the session with the first message. Raises InputError for settings that are not possible."""
        if self.session is None:
            settings, self._rate, forced = read_settings(content or {}, self.limits.max_audio_seconds)
            translator = self.batcher.translator
            settings = check_live(translator, settings, forced, self.limits.max_audio_seconds)
            model = self.batcher.live
            detector = await run_in_threadpool(SpeechDetector)  # which is read from a file
            self.session = LiveSession(settings, detector.probability, forced, model.has_texts, model.early_speech)
            if self._rate != SAMPLE_RATE:
                self._resampler = soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            self._started = time.monotonic()

    async def _take_samples(self, data: bytes) -> None:
        await self._begin()
        self._received += len(data) / 2 / self._rate
        if self._received > self.limits.max_live_seconds:
            raise LiveProblem(f"a session may last {self.limits.max_live_seconds:g} s", GOING_AWAY)
        self._waiting += data
        self._changed.set()
        while self._backlog() > self.limits.max_live_backlog_seconds:
            elapsed = time.monotonic() - self._started
            if self._received <= _FASTER * elapsed:
                raise LiveProblem("busy: the server cannot keep up with this session; try again later", TRY_LATER)
            self._room.clear()
            await self._room.wait()

    def _has_samples(self) -> bool:
        return len(self._waiting) > 1  # the second byte of a sample may be in the next message

    def _backlog(self) -> float:
        assert self.session is not None
        return len(self._waiting) / 2 / self._rate + self.session.backlog_seconds

    async def _turns(self) -> None:
        """Feed the session with what has arrived, have its requests answered, send its events."""
        while True:
            if not self._has_samples() and not self._ended:
                self._changed.clear()
                await self._changed.wait()
            session = self.session
            if session is None:
                continue
            samples = self._next_samples()
            events = await run_in_threadpool(session.feed, samples)
            ends = self._ended and not self._has_samples()
            if ends:
                events += await run_in_threadpool(session.finish)
            await self._send(events)
            while session.request is not None:
                start = time.monotonic()
                answer = await wait_for(self.batcher, LiveJob(session.request))
                await self._send(await run_in_threadpool(session.answer, answer, time.monotonic() - start))
                self._room.set()
            self._room.set()
            if ends:
                return

    def _next_samples(self) -> np.ndarray:
        """What has arrived, or half a second of it, at 16 kHz."""
        size = 2 * min(len(self._waiting) // 2, round(_BLOCK_SECONDS * self._rate))
        data = bytes(self._waiting[:size])
        del self._waiting[:size]
        samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=self._ended and not self._has_samples())
        return samples

    async def _send(self, events: list[LiveEvent]) -> None:
        for event in events:
            await _send(self.socket, event.plain())
            if isinstance(event, SpeechChunk):
                await self.socket.send_bytes(to_pcm(event.waveform).tobytes())


def read_settings(content: Mapping[str, Any], max_seconds: float) -> tuple[LiveSettings, int, ForcedPrefix]:
    """A client's settings, sampling rate and languages. Raises InputError for those that are not possible."""
    given = dict(content)
    rate = given.pop("sample_rate", SAMPLE_RATE)
    languages = {name: given.pop(name, None) for name in ("language", "target_language")}
    if isinstance(rate, bool) or not isinstance(rate, int) or rate not in _RATES:
        raise InputError(f"sample_rate: must be a whole number from {_RATES.start} to {_RATES.stop - 1}")
    for name, code in languages.items():
        if code is not None and not isinstance(code, str):
            raise InputError(f"{name}: must be a string")
    names = [entry.name for entry in fields(LiveSettings)]
    for name in given:
        if name not in names:
            raise InputError(
                f"{str(name)[:40]}: unknown setting; choose from: {', '.join(['sample_rate', *languages, *names])}"
            )
    settings = LiveSettings(**given)
    if (settings.max_utterance_seconds or 0) > max_seconds:
        raise InputError(f"max_utterance_seconds: must be at most {max_seconds:g} here")
    if settings.chunk_seconds < _MIN_CHUNK_SECONDS:
        raise InputError(f"chunk_seconds: must be at least {_MIN_CHUNK_SECONDS:g} here")
    return settings, rate, ForcedPrefix(**languages)
