"""The HTTP API and the page, over a real socket: uploads good and bad, limits, streams, OpenAPI."""

import asyncio
import base64
import http.client
import io
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs unitweave[serve]")
pytest.importorskip("uvicorn", reason="needs unitweave[serve]")

from helpers.serving import make_run, post, running, speech, until, voice, wav
from unitweave.config.serve import ServerLimits
from unitweave.serve.app import build_app
from unitweave.serve.batching import Job
from unitweave.serve.security import Access
from unitweave.translate.translator import Translator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), text_lm_folder)


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A running server; `url`, its `app`, and the folder that its temporary files go to."""
    temporary = tmp_path_factory.mktemp("temporary")
    patch = pytest.MonkeyPatch()
    patch.setattr("tempfile.tempdir", str(temporary))
    patch.setenv("GRADIO_TEMP_DIR", "")
    limits = ServerLimits(
        max_upload_mb=1.0,
        max_audio_seconds=5.0,
        max_queue=40,
        request_timeout_seconds=30.0,
        batch_size=8,
        max_streams=2,
        max_storage_mb=200.0,
    )
    page = temporary / "page"
    page.mkdir()
    app, batcher = build_app(Translator.from_pretrained(run), limits, Access(), page)
    with running(app) as port:
        inner = app.app.app.app
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", app=inner, temporary=temporary, port=port)
    assert not batcher.alive
    patch.undo()


def left_over(server: SimpleNamespace) -> list[str]:
    return [path.name for path in server.temporary.iterdir() if path.name != "page"]


def test_a_recording_is_translated(server: SimpleNamespace, run: Path) -> None:
    status, _, body = post(server, "/v1/translate", wav())
    answer = json.loads(body)
    expected = Translator.from_pretrained(run).translate(voice(0.5))
    assert status == 200 and answer["transcript"] == expected.transcript
    speech_back, rate = soundfile.read(io.BytesIO(base64.b64decode(answer["audio"])), dtype="float32")
    assert rate == 16_000 and len(speech_back) == len(expected.waveform)
    status, _, body = post(server, "/v1/translate", wav(), text_only="true", transcript="Hola", language="es")
    answer = json.loads(body)
    assert answer["audio"] is None and answer["transcript"] == "hola" and answer["language"] == "es"


def test_the_target_language_is_answered_and_another_one_refused(server: SimpleNamespace) -> None:
    status, _, body = post(server, "/v1/translate", wav(), text_only="true", target_language="en")
    assert (status, json.loads(body)["target_language"]) == (200, "en")
    for path in ("/v1/translate", "/v1/stream"):
        status, _, body = post(server, path, wav(), target_language="fr")
        assert status == 400 and "target_language: must be one of en (got 'fr')" in json.loads(body)["error"]


def test_speech_is_streamed_with_the_texts_in_the_headers(server: SimpleNamespace, run: Path) -> None:
    status, headers, body = post(server, "/v1/stream", wav(1.0))
    expected = Translator.from_pretrained(run).translate(voice(1.0))
    headers = {name.lower(): value for name, value in headers.items()}
    assert status == 200 and headers["content-type"].startswith("audio/wav")
    assert unquote(headers["x-transcript"]) == expected.transcript
    assert unquote(headers["x-translation"]) == expected.translation
    samples = np.frombuffer(body[44:], "<i2") / 32767
    np.testing.assert_allclose(samples, np.clip(expected.waveform, -1, 1), atol=1e-3)
    assert body[:4] == b"RIFF"


BAD = {
    "random": np.random.default_rng(0).bytes(3_000),
    "zero length": b"",
    "truncated": wav()[:40],
    "short": wav(0.01),
    "long": wav(6.0),
    "text": b"<script>alert(1)</script>" * 30,
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("path", ["/v1/translate", "/v1/stream"])
def test_bad_uploads_get_one_line_and_the_server_goes_on(server: SimpleNamespace, kind: str, path: str) -> None:
    status, _, body = post(server, path, BAD[kind])
    error = json.loads(body)["error"]
    assert status == 400 and "\n" not in error and "Traceback" not in error and str(server.temporary) not in error
    assert post(server, "/v1/translate", wav(0.3), text_only="true")[0] == 200
    assert not left_over(server), "uploads are deleted"


def test_a_file_name_never_becomes_a_path(server: SimpleNamespace, tmp_path: Path) -> None:
    for name in (f"../../{tmp_path.name}/evil.wav", str(tmp_path / "evil.wav"), "a\x00b.wav", "-i.wav", "x" * 3000):
        assert post(server, "/v1/translate", wav(0.3), name=name, text_only="true")[0] == 200
    assert not list(tmp_path.iterdir()) and not left_over(server)


def test_what_is_too_large_is_refused_announced_or_not(server: SimpleNamespace) -> None:
    status, _, body = post(server, "/v1/translate", bytes(1_200_000))
    assert status == 413 and "1 MB" in json.loads(body)["error"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:  # chunked: no length announced
        raw.sendall(b"POST /v1/translate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n")  # fmt: skip
        head = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n'
        try:
            for block in [head, *[bytes(65_536)] * 40]:
                raw.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has hung up, having answered
        assert b" 413 " in raw.recv(200)
    assert not left_over(server)


def test_requests_unlike_the_description_are_refused(server: SimpleNamespace) -> None:
    assert post(server, "/v1/translate", None)[0] == 422
    assert "audio" in json.loads(post(server, "/v1/translate", None)[2])["error"]
    assert post(server, "/v1/translate", wav(), text_only="perhaps")[0] == 422
    assert post(server, "/v1/translate", wav(), language="xx")[0] == 400
    assert post(server, "/v1/nothing", wav())[0] in (404, 405)


def test_the_api_describes_itself(server: SimpleNamespace) -> None:
    with urllib.request.urlopen(server.url + "/openapi.json", timeout=30) as answer:
        description = json.load(answer)
    assert {"/v1/translate", "/v1/stream", "/v1/health"} <= set(description["paths"])
    assert {"400", "413", "503"} <= set(description["paths"]["/v1/translate"]["post"]["responses"])
    with urllib.request.urlopen(server.url + "/v1/health", timeout=30) as answer:
        assert json.load(answer)["status"] == "ok"


def test_many_at_once_are_all_answered(server: SimpleNamespace) -> None:
    before = server.app.state.batcher.batches

    def one(i: int) -> int:
        bad = i % 10 == 0
        return post(server, "/v1/translate", b"noise" * 50 if bad else wav(0.3, i), text_only="true")[0]

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(40)))
    assert answers == [400 if i % 10 == 0 else 200 for i in range(40)]
    assert server.app.state.batcher.batches - before < 36, "requests were batched"


def test_overload_is_answered_with_busy(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.app.state.batcher.limits, "max_queue", 0)
    for path in ("/v1/translate", "/v1/stream"):
        status, headers, body = post(server, path, wav(0.3))
        assert status == 503 and int({k.lower(): v for k, v in headers.items()}["retry-after"]) >= 1
        assert "busy" in json.loads(body)["error"]
    assert server.app.state.streams == 0


def blocked(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make the server's translations wait for an event."""
    free, translate_all = threading.Event(), server.app.state.batcher.translator.translate_all

    def wait(*arguments: object) -> object:
        free.wait(30)
        return translate_all(*arguments)

    monkeypatch.setattr(server.app.state.batcher.translator, "translate_all", wait)
    return free


def test_a_request_that_takes_too_long_is_given_up(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    free = blocked(server, monkeypatch)
    monkeypatch.setattr(server.app.state.batcher.limits, "request_timeout_seconds", 0.2)
    status, _, body = post(server, "/v1/translate", wav(0.3))
    free.set()
    assert status == 504 and "too long" in json.loads(body)["error"]


def raw_upload(server: SimpleNamespace, path: str) -> socket.socket:
    """A connection on which a recording was uploaded and whose answer has not been read."""
    head = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
    body = head + wav(0.3) + b"\r\n--b--\r\n"
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    raw.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode() + body)  # fmt: skip
    return raw


def test_a_client_that_leaves_before_the_text_gives_its_stream_back(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = blocked(server, monkeypatch)
    leaving = [raw_upload(server, "/v1/stream") for _ in range(2)]  # as many as there may be
    until(lambda: server.app.state.streams == 2)
    assert post(server, "/v1/stream", wav(0.3))[0] == 503
    for raw in leaving:
        raw.close()
    free.set()
    until(lambda: server.app.state.streams == 0)
    assert post(server, "/v1/stream", wav(0.3))[0] == 200
    until(lambda: server.app.state.streams == 0)


def test_a_stream_that_breaks_off_gives_its_place_back_and_does_not_end_as_if_it_were_whole(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(units: Iterator[int]) -> Iterator[np.ndarray]:
        yield np.zeros(8, np.float32)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(server.app.state.batcher.translator, "stream_speech", breaks)
    with pytest.raises(http.client.IncompleteRead):
        post(server, "/v1/stream", wav(0.3))
    until(lambda: server.app.state.streams == 0)


def test_a_stream_that_takes_too_long_is_taken_out_of_the_queue(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = server.app.state.batcher
    free = blocked(server, monkeypatch)
    first = batcher.submit(Job(speech(0.3)))
    until(lambda: batcher.waiting == 0)
    done = batcher.done
    monkeypatch.setattr(batcher.limits, "request_timeout_seconds", 0.2)
    assert post(server, "/v1/stream", wav(0.3))[0] == 504
    assert server.app.state.streams == 0
    free.set()
    assert first.result(60).language and batcher.submit(Job(speech(0.3))).result(60).language
    until(lambda: batcher.done > done + 1)
    assert batcher.done == done + 2, "nobody waited for the stream any more"


def test_the_page_answers_in_words(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from unitweave.serve.page import PageTranslator
    from unitweave.serve.uploads import Storage

    with urllib.request.urlopen(server.url + "/", timeout=30) as answer:
        assert b"unitweave" in answer.read()
    batcher = server.app.state.batcher
    inside = tmp_path / "inside"
    inside.mkdir()
    translate = PageTranslator(batcher, Storage(inside, 1e6))
    assert "uw-error" in asyncio.run(translate(None, None))[0]
    soundfile.write(tmp_path / "outside.wav", voice(0.5), 16_000)
    assert "not uploaded" in asyncio.run(translate(str(tmp_path / "outside.wav"), None))[0]
    soundfile.write(inside / "good.wav", voice(0.5), 16_000)
    (inside / "bad.wav").write_bytes(b"<b>no audio")
    assert "not readable" in asyncio.run(translate(str(inside / "bad.wav"), None))[0]
    align, threads = batcher.translator.align, []

    def watched(*arguments: object) -> list:
        threads.append(threading.current_thread().name)
        return align(*arguments)

    monkeypatch.setattr(batcher.translator, "align", watched)
    message, transcript, translation, spoken, words = asyncio.run(translate(str(inside / "good.wav"), "es"))
    assert "uw-error" not in message and isinstance(transcript, str) and isinstance(translation, str)
    assert spoken[0] == 16_000 and spoken[1].dtype == np.int16 and words.count("<svg") == 2
    assert threads == ["translating"] * 2, "elsewhere the encoder's threads would get in the way of the next batch"
    monkeypatch.setattr(batcher, "submit", lambda job: 1 / 0)
    assert "went wrong" in asyncio.run(translate(str(inside / "good.wav"), None))[0], (
        "and no traceback reaches the client"
    )
