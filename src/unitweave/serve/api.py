"""The HTTP API: upload a recording, get its translation, or hear it as it is spoken. OpenAPI at /openapi.json."""

import asyncio
import base64
import contextlib
import io
import struct
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
import soundfile
from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitweave import __version__
from unitweave.core.audio import SAMPLE_RATE, read_audio
from unitweave.core.errors import InputError
from unitweave.serve.batching import Batcher, Busy, Job, Limits, Stream
from unitweave.translate.decode import ForcedPrefix, Translation
from unitweave.translate.translator import SpeechTranslation, Translator, check_audible

_BLOCK = 1 << 20
_DRAINED = 8  # bodies of up to so many times the limit are read, and thrown away, before they are refused


class Answer(BaseModel):
    """A translated recording."""

    language: str = Field(description="language of the source as the model heard it")
    transcript: str
    translation: str
    complete: bool = Field(description="false where a length limit cut the model off")
    score: float = Field(description="mean log-probability of the chosen tokens")
    scores: dict[str, float]
    seconds: dict[str, float] = Field(description="computing time of each stage")
    source_seconds: float
    units: list[int]
    audio: str | None = Field(description="the English speech, a wav file in base64; null with text_only")


class Problem(BaseModel):
    """Why a request could not be answered."""

    error: str


class Health(BaseModel):
    """How the server is."""

    status: str = Field(description='"ok", or "stopped" (with code 503) when nothing is translated any more')
    waiting: int
    done: int
    limits: dict[str, float]


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "the recording cannot be used"},
    408: {"model": Problem, "description": "the upload came too slowly"},
    413: {"model": Problem, "description": "the upload is too large"},
    422: {"model": Problem, "description": "the request is not as described here"},
    503: {"model": Problem, "description": "busy; Retry-After says when to come again"},
    504: {"model": Problem, "description": "it took too long"},
}
Audio = Annotated[UploadFile, File(description="a recording: wav, flac, ogg, opus, mp3, and what ffmpeg reads")]
Text = Annotated[str | None, Form(max_length=2000)]


def make_app(translator: Translator, limits: Limits | None = None) -> FastAPI:
    """The API for one model. The app owns a Batcher (app.state.batcher), which ends with the app's lifespan."""
    limits = limits or Limits()
    batcher = Batcher(translator, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(batcher.close)

    app = FastAPI(
        title="unitweave",
        version=__version__,
        description="Speech in, English speech out.",
        lifespan=lifespan,
        responses=_PROBLEMS,
    )
    app.state.batcher, app.state.streams = batcher, 0
    app.add_middleware(UploadLimit, most=int(limits.upload_mb * 1e6), seconds=limits.request_seconds)
    _add_error_handlers(app)
    _add_routes(app, batcher, limits)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    def bad_input(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(Busy)
    def busy(_: Request, error: Busy) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(error.retry_after)})

    @app.exception_handler(TimeoutError)
    def too_long(_: Request, __: TimeoutError) -> JSONResponse:
        return JSONResponse({"error": "the translation took too long and was given up"}, 504)

    @app.exception_handler(RequestValidationError)
    def not_as_described(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first.get("loc", ())[1:]) or "request"
        return JSONResponse({"error": f"{place}: {first.get('msg', 'not valid')}"}, 422)

    @app.exception_handler(HTTPException)
    def other(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


def _add_routes(app: FastAPI, batcher: Batcher, limits: Limits) -> None:
    @app.get("/v1/health", summary="Whether the server works, and how much waits")
    async def health(response: Response) -> Health:
        if not batcher.alive:
            response.status_code = 503
        status = "ok" if batcher.alive else "stopped"
        return Health(status=status, waiting=batcher.waiting, done=batcher.done, limits=vars(limits))

    @app.post("/v1/translate", summary="Translate a recording")
    async def translate(
        audio: Audio,
        transcript: Text = None,
        translation: Text = None,
        language: Text = None,
        text_only: Annotated[bool, Form(description="stop after the translation; no speech")] = False,
    ) -> Answer:
        waveform = await receive(audio, batcher)
        job = Job(waveform, given_of(transcript, translation, language), text_only)
        result = await wait_for(batcher, job)
        return Answer(**result.plain(), audio=None if text_only else base64.b64encode(wav_bytes(result)).decode())

    @app.post(
        "/v1/stream",
        summary="Translate a recording and hear it while it is spoken",
        description="A wav file of unknown length, sent while it is made. The headers X-Language, X-Transcript and "
        "X-Translation hold the texts, percent-encoded UTF-8.",
        response_class=StreamingResponse,
        responses={200: {"content": {"audio/wav": {}}}},
    )
    async def stream(audio: Audio, language: Text = None) -> StreamingResponse:
        if app.state.streams >= limits.streams:
            raise Busy(batcher.retry_after())
        app.state.streams += 1  # counted on the event loop alone, which needs no lock

        def free() -> None:
            app.state.streams -= 1

        try:
            waveform = await receive(audio, batcher)
            heard = Stream(limits.request_seconds)
            said = await texts_of(batcher, Job(waveform, given_of(None, None, language), stream=heard), heard)
            return SpokenResponse(_spoken(batcher.translator, heard), free, _text_headers(said))
        except BaseException:
            free()
            raise


class SpokenResponse(StreamingResponse):
    """A wav file that is sent while it is made; calls `over` once when it is over, however that comes about.

    The generator cannot do that itself: it never begins when the client has left before the first byte.
    """

    def __init__(self, content: Iterator[bytes], over: Callable[[], None], headers: dict[str, str]) -> None:
        super().__init__(content, media_type="audio/wav", headers=headers)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


def _spoken(translator: Translator, stream: Stream) -> Iterator[bytes]:
    """A wav file whose length is not known yet, chunk by chunk."""
    yield wav_header()
    for chunk in translator.stream_speech(stream.units()):
        yield (np.clip(chunk, -1, 1) * 32767).astype("<i2").tobytes()


def wav_header() -> bytes:
    """Header of a 16-bit mono wav file at 16 kHz of unknown length, as streaming players take it."""
    unknown, rate = 0xFFFFFFFF, SAMPLE_RATE
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", unknown, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", unknown
    )


def wav_bytes(result: SpeechTranslation) -> bytes:
    """The speech of a result as a wav file."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(result.waveform, -1, 1), result.sampling_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _text_headers(said: Translation) -> dict[str, str]:
    texts = {"X-Language": said.language, "X-Transcript": said.transcript, "X-Translation": said.translation}
    return {name: quote(text) for name, text in texts.items()}


def given_of(transcript: str | None, translation: str | None, language: str | None) -> ForcedPrefix | None:
    """What a request says about its recording; empty fields say nothing."""
    given = ForcedPrefix(transcript or None, translation or None, language or None)
    return given if given != ForcedPrefix() else None


async def receive(audio: UploadFile, batcher: Batcher) -> np.ndarray:
    """Read an upload. It lies for a moment in a temporary file whose name nobody outside chose.

    Raises Busy before it looks at the upload when the queue is full, InputError when it is no usable recording.
    """
    if batcher.waiting >= batcher.limits.queue:
        raise Busy(batcher.retry_after())

    def read() -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="unitweave-") as folder:
            path = Path(folder) / uuid.uuid4().hex
            with path.open("wb") as file:
                while block := audio.file.read(_BLOCK):
                    file.write(block)
            return load_recording(path, batcher.limits)

    try:
        return await run_in_threadpool(read)
    finally:
        await audio.close()


def load_recording(path: Path, limits: Limits) -> np.ndarray:
    """A recording that a client sent, float32 [samples] at 16 kHz. Raises InputError within the limits' bounds."""
    waveform = read_audio(path, "the recording", limits.audio_seconds)
    check_audible(waveform, "the recording")
    return waveform


async def wait_for(batcher: Batcher, job: Job) -> SpeechTranslation:
    """The result of a job; a client that waited too long gives it up. Raises Busy, InputError, TimeoutError."""
    future = batcher.submit(job)
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), batcher.limits.request_seconds)
    except asyncio.CancelledError:
        future.cancel()
        raise


async def texts_of(batcher: Batcher, job: Job, stream: Stream) -> Translation:
    """The texts of a job, whose stream goes on with its units. Raises as `wait_for` does."""
    future = batcher.submit(job)
    try:
        return await run_in_threadpool(stream.text)
    except BaseException:
        future.cancel()
        raise


class UploadLimit:
    """Refuses bodies that are too large or come too slowly, before they are kept anywhere."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self.app, self.most, self.seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = f"the upload is larger than {self.most / 1e6:g} MB"
        if not announced.isdigit() or int(announced) > self.most:
            if announced.isdigit() and int(announced) <= _DRAINED * self.most:
                await self._drain(receive)  # or the client would see a broken pipe and not our answer
            await JSONResponse({"error": too_large}, 413, {"Connection": "close"})(scope, receive, send)
            return
        seen = 0
        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        whole = False

        async def counted() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()  # waits for the client to go away
            try:
                message = await asyncio.wait_for(receive(), max(0.01, end - loop.time()))
            except TimeoutError:
                raise HTTPException(408, "the upload came too slowly") from None
            seen += len(message.get("body", b""))
            if seen > self.most:
                raise HTTPException(413, too_large)
            whole = not message.get("more_body", False)
            return message

        await self.app(scope, counted, send)

    async def _drain(self, receive: Receive) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                while (await receive()).get("more_body", False):
                    pass
