"""The HTTP API: upload a recording and get its translation at once, or its speech while it is decoded."""

import asyncio
import base64
import contextlib
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from unitweave import __version__
from unitweave.config.serve import ServerLimits
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.languages import language_names
from unitweave.serve.batching import Batcher, Busy, Job, ShuttingDown, Stream
from unitweave.serve.clients import HungUp, decode_texts, disconnected, wait_for, watched
from unitweave.serve.live import add_live
from unitweave.serve.reference import reference_page
from unitweave.serve.uploads import Storage, keep_tidy
from unitweave.serve.wav import to_pcm, wav_bytes, wav_header
from unitweave.translate.checks import check_audible
from unitweave.translate.decode import ForcedPrefix, Translation
from unitweave.translate.translator import Translator
from unitweave.translate.vad import find_speech

_BLOCK = 1 << 20
_CLOSE_SECONDS = 1.0
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class TranslatedRecording(BaseModel):
    """A translated recording."""

    language: str = Field(description="language of the source as the model recognized it")
    target_language: str = Field(description="language of the translation")
    transcript: str
    translation: str
    complete: bool = Field(description="false where a length limit cut the model off")
    score: float = Field(description="mean log-probability of the chosen tokens")
    scores: dict[str, float]
    seconds: dict[str, float] = Field(description="computing time of each stage")
    source_seconds: float
    units: list[int]
    confidence: float | None = Field(description="0 to 1: how well the transcript fits the recording")
    in_domain: bool | None = Field(
        description="false where it fits far worse than in training: another language, noise, an unknown kind of speech"
    )
    audio: str | None = Field(
        description="the speech, a wav file in base64; null with text_only and for text-only models"
    )


class Error(BaseModel):
    """Why a request was not answered."""

    error: str


class Health(BaseModel):
    """The state of the server."""

    status: str = Field(description='"ok", or "stopped" (with code 503) when it no longer translates')
    waiting: int
    done: int
    limits: dict[str, float]


_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "the recording cannot be used"},
    401: {"model": Error, "description": "the access token is missing or wrong"},
    403: {"model": Error, "description": "the request comes from another web page"},
    408: {"model": Error, "description": "the upload took too long"},
    413: {"model": Error, "description": "the upload is too large"},
    421: {"model": Error, "description": "the Host header does not name this server"},
    422: {"model": Error, "description": "the request is not as described here"},
    503: {"model": Error, "description": "busy; Retry-After says when to try again"},
    504: {"model": Error, "description": "the translation took too long"},
}
Audio = Annotated[UploadFile, File(description="a recording: wav, flac, ogg, opus, mp3, and what ffmpeg reads")]
Text = Annotated[str | None, Form(max_length=2000)]
Target = Annotated[
    str | None, Form(max_length=2000, description="language to translate into; needed where the model has several")
]


def make_app(translator: Translator, limits: ServerLimits | None = None) -> FastAPI:
    """The API for one model, without the protection of `security.protect`.

    Its state has `batcher`, which ends with the app's lifespan, and `storage`, None until a page is mounted.
    """
    limits = limits or ServerLimits()
    batcher = Batcher(translator, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        storage: Storage | None = app.state.storage
        tidying = asyncio.create_task(keep_tidy(storage)) if storage else None
        yield
        if tidying:
            tidying.cancel()
        await run_in_threadpool(batcher.close, _CLOSE_SECONDS)

    app = FastAPI(
        title="unitweave",
        version=__version__,
        description=_about(translator),
        lifespan=lifespan,
        responses=_ERRORS,
        docs_url=None,
        redoc_url=None,
    )
    app.state.batcher, app.state.storage, app.state.streams = batcher, None, 0
    _add_error_handlers(app)
    _add_routes(app, batcher, limits)
    add_live(app, batcher)
    _add_other_routes(app)
    return app


def _about(translator: Translator) -> str:
    """What goes in and what comes out, in a sentence."""
    targets = translator.decoder.vocabulary.targets
    return f"Speech in, {language_names(targets) or 'translated'} speech out."


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    def bad_input(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(Busy)
    def busy(_: Request, error: Busy) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(error.retry_after)})

    @app.exception_handler(ShuttingDown)
    def stopped(_: Request, error: ShuttingDown) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503)

    @app.exception_handler(HungUp)
    def hung_up(_: Request, error: HungUp) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 499)  # for the access log alone: nobody reads it

    @app.exception_handler(TimeoutError)
    def too_long(_: Request, __: TimeoutError) -> JSONResponse:
        return JSONResponse({"error": "the translation took too long and was canceled"}, 504)

    @app.exception_handler(RequestValidationError)
    def not_as_described(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first.get("loc", ())[1:]) or "request"
        problem = first.get("msg", "not valid")
        return JSONResponse({"error": f"{place}: {'must be a file' if 'UploadFile' in problem else problem}"}, 422)

    @app.exception_handler(HTTPException)
    def other(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail).lower()}, error.status_code, error.headers)


def _add_routes(app: FastAPI, batcher: Batcher, limits: ServerLimits) -> None:
    @app.get("/v1/health", summary="Whether the server works, and how many requests are waiting")
    async def health(response: Response) -> Health:
        if not batcher.alive:
            response.status_code = 503
        status = "ok" if batcher.alive else "stopped"
        return Health(status=status, waiting=batcher.waiting, done=batcher.done, limits=vars(limits))

    @app.post("/v1/translate", summary="Translate a recording")
    async def translate(
        request: Request,
        audio: Audio,
        transcript: Text = None,
        translation: Text = None,
        language: Text = None,
        target_language: Target = None,
        text_only: Annotated[bool, Form(description="stop after the translation; no speech")] = False,
    ) -> TranslatedRecording:
        prefix = forced_prefix(transcript, translation, language, target_language)
        async with watched(disconnected(request.receive)) as left:
            result = await wait_for(batcher, Job(await receive(audio, batcher), prefix, text_only), left)
        silent = text_only or batcher.translator.vocoder is None
        speech = None if silent else base64.b64encode(wav_bytes(result.waveform, result.sampling_rate)).decode()
        return TranslatedRecording(**result.plain(), audio=speech)

    @app.post(
        "/v1/stream",
        summary="Translate a recording and stream its speech while it is decoded",
        description="A wav file of unknown length, sent while it is made. The headers X-Language, X-Target-Language, "
        "X-Transcript and X-Translation hold languages and texts, percent-encoded UTF-8.",
        response_class=StreamingResponse,
        responses={200: {"content": {"audio/wav": {}}}},
    )
    async def stream(
        request: Request, audio: Audio, language: Text = None, target_language: Target = None
    ) -> StreamingResponse:
        if batcher.translator.vocoder is None:
            raise InputError("this model was trained for text only and returns no speech; use /v1/translate")
        if app.state.streams >= limits.max_streams:
            raise Busy(batcher.retry_after())
        resources = contextlib.AsyncExitStack()  # until the response has ended
        try:
            app.state.streams += 1  # counted on the event loop alone, which needs no lock
            resources.callback(lambda: setattr(app.state, "streams", app.state.streams - 1))
            left = await resources.enter_async_context(watched(disconnected(request.receive)))
            waveform = await receive(audio, batcher)
            progress = Stream(limits.request_timeout_seconds)
            job = Job(waveform, forced_prefix(None, None, language, target_language), stream=progress)
            texts = await decode_texts(batcher, job, progress, left)
            resources.callback(batcher.give_up, job)
            return WavResponse(_wav_chunks(batcher.translator, progress), resources, _text_headers(texts))
        except BaseException:
            await resources.aclose()
            raise


def _add_other_routes(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    def reference() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    allowed: dict[str, set[str]] = {}
    for route in app.routes:
        allowed.setdefault(getattr(route, "path", ""), set()).update(getattr(route, "methods", None) or ())

    @app.api_route("/v1/{name:path}", methods=_METHODS, include_in_schema=False)
    def unknown(name: str) -> JSONResponse:
        # A page mounted at / would answer here, and takes a wrong method for an unknown address.
        methods = allowed.get(f"/v1/{name}")
        if methods is None:
            return JSONResponse({"error": "not found"}, 404)
        return JSONResponse({"error": "method not allowed"}, 405, {"Allow": ", ".join(sorted(methods))})


class WavResponse(StreamingResponse):
    """A wav file that is sent while it is made; gives `resources` back when it has ended, for whatever reason.

    The generator cannot do that itself: it never starts when the client has left before the first byte.
    """

    def __init__(self, content: Iterator[bytes], resources: contextlib.AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(content, media_type="audio/wav", headers=headers)
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources:
            await super().__call__(scope, receive, send)


def _wav_chunks(translator: Translator, stream: Stream) -> Iterator[bytes]:
    yield wav_header(translator.speech_vocoder.sample_rate)
    for chunk in translator.stream_speech(stream.units()):
        yield to_pcm(chunk).tobytes()


def _text_headers(texts: Translation) -> dict[str, str]:
    values = {
        "X-Language": texts.language,
        "X-Target-Language": texts.target_language,
        "X-Transcript": texts.transcript,
        "X-Translation": texts.translation,
    }
    return {name: quote(text) for name, text in values.items()}


def forced_prefix(
    transcript: str | None = None,
    translation: str | None = None,
    language: str | None = None,
    target_language: str | None = None,
) -> ForcedPrefix | None:
    """What a request gives of the answer; empty fields give nothing."""
    given = ForcedPrefix(transcript or None, translation or None, language or None, target_language or None)
    return given if given != ForcedPrefix() else None


async def receive(audio: UploadFile, batcher: Batcher) -> np.ndarray:
    """Read an upload, float32 [samples] at 16 kHz. For a moment it is in a temporary file with a random name.

    Raises:
        Busy: The queue is full; the upload was not looked at.
        InputError: It is not a usable recording.
    """
    if batcher.waiting >= batcher.limits.max_queue:
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


def load_recording(path: Path, limits: ServerLimits) -> np.ndarray:
    """A client's recording, float32 [samples] at 16 kHz. Raises InputError if it is unreadable, silent or too long."""
    waveform = read_audio(path, "the recording", limits.max_audio_seconds)
    check_audible(waveform, "the recording")
    find_speech(waveform, "the recording")
    return waveform
