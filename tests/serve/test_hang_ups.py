"""Clients that hang up: whatever they asked for is dropped at once, and nothing of it is left."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

if find_spec("gradio") is None:  # which is not imported here: it takes seconds, in quick runs for nothing
    pytest.skip("needs unitweave[serve]", allow_module_level=True)
pytest.importorskip("websockets", reason="needs unitweave[serve]")

from helpers.serving import make_run, post, raw_live, running, speech, until, wav
from unitweave.config.serve import ServerLimits
from unitweave.serve.app import build_app
from unitweave.serve.batching import Job
from unitweave.serve.security import Access
from unitweave.serve.wav import to_pcm
from unitweave.translate.translator import Translator
from unitweave.translate.vad import SpeechDetector

pytestmark = pytest.mark.slow
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: close with a reset


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Iterator[SimpleNamespace]:
    """A running server with its page, its batcher, and the folder of its temporary files."""
    temporary = tmp_path_factory.mktemp("temporary")
    patch = pytest.MonkeyPatch()
    patch.setattr("tempfile.tempdir", str(temporary))
    patch.setenv("GRADIO_TEMP_DIR", "")
    patch.setattr(SpeechDetector, "probability", lambda self, window: float(np.abs(window).max() > 0.1))
    page = temporary / "page"
    page.mkdir()
    translator = Translator.from_pretrained(make_run(tmp_path_factory.mktemp("run"), text_lm_folder))
    limits = ServerLimits(batch_size=1, max_queue=9, max_streams=2, request_timeout_seconds=60.0)
    app, batcher = build_app(translator, limits, Access(), page)
    with running(app) as port:
        state = app.app.app.app.state
        yield SimpleNamespace(
            url=f"http://127.0.0.1:{port}", port=port, batcher=batcher, state=state, temporary=temporary, limit=app.app
        )
    patch.undo()


def send(server: SimpleNamespace, method: str, path: str, body: bytes, kind: str, more: bytes = b"") -> socket.socket:
    """A connection with a whole request, and more bytes after it; its answer has not been read."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body + more)
    return connection


def upload(server: SimpleNamespace, path: str, more: bytes = b"") -> socket.socket:
    head = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
    body = head + wav(0.3) + b"\r\n--b--\r\n"
    return send(server, "POST", path, body, "multipart/form-data; boundary=b", more)


def translate(server: SimpleNamespace) -> socket.socket:
    return upload(server, "/v1/translate")


def pipeline(server: SimpleNamespace) -> socket.socket:
    """With further requests behind it, which the server does not read while it is busy."""
    return upload(server, "/v1/translate", b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000)


def stream(server: SimpleNamespace) -> socket.socket:
    return upload(server, "/v1/stream")


def page(server: SimpleNamespace) -> socket.socket:
    """The connection on which a page listens for the answer."""
    _, _, names = post_file(server)
    file = {"path": json.loads(names)[0], "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file, None, None], "fn_index": 0, "session_hash": "page"}).encode()
    with send(server, "POST", "/gradio_api/queue/join", body, "application/json") as joined:
        assert b" 200 " in joined.recv(200)
    return send(server, "GET", "/gradio_api/queue/data?session_hash=page", b"", "text/plain")


def post_file(server: SimpleNamespace) -> tuple[int, dict, bytes]:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + wav(0.3) + b"\r\n--b--\r\n"
    )
    with send(server, "POST", "/gradio_api/upload", body, "multipart/form-data; boundary=b") as sent:
        answer = b""
        while b"]" not in answer:
            answer += sent.recv(1000)
    return 200, {}, answer[answer.index(b"[") : answer.index(b"]") + 1]


def live(server: SimpleNamespace) -> socket.socket:
    """A session that sends faster than somebody speaks, so that it is made to wait and not read from."""
    raw = raw_live(server.port)
    talk = to_pcm(np.concatenate([3 * speech(1.2), np.zeros(12_000, np.float32)])).tobytes()
    frame = b"\x82\xfe" + len(talk).to_bytes(2, "big") + bytes(4) + talk  # masked with zeros
    raw.sendall(8 * frame)
    return raw


WAYS = [translate, pipeline, stream, page, live]


@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_who_hangs_up_while_waiting_leaves_the_queue(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, way: Callable, abruptly: bool
) -> None:
    batcher, free = server.batcher, threading.Event()
    translate_all = batcher.translator.translate_all
    with monkeypatch.context() as patch:
        patch.setattr(batcher.translator, "translate_all", lambda *a: free.wait(50) and translate_all(*a))
        first = batcher.submit(Job(speech(0.3)))
        until(lambda: batcher.waiting == 0)
        connection = way(server)
        until(lambda: batcher.waiting == 1)
        done = batcher.done
        if abruptly:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RDWR) if not abruptly else connection.close()
        until(lambda: batcher.waiting == 0 and server.state.streams == 0 and server.state.live_sessions == 0, 5)
        assert batcher.done == done, "the one before it is still at work"
        free.set()
        assert first.result(30).language
    connection.close()
    assert post(server, "/v1/translate", wav(0.3))[0] == 200
    assert [path.name for path in server.temporary.iterdir()] == ["page"]


@pytest.mark.parametrize("way", WAYS)
def test_who_hangs_up_while_it_is_decoded_stops_it_at_the_next_step(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, way: Callable
) -> None:
    decoder, steps, released = server.batcher.translator.decoder, [], threading.Event()
    step = decoder.step

    def slow(*arguments: object) -> object:
        steps.append(1)
        time.sleep(0.002)
        if len(steps) == 2:
            released.wait(20)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "step", slow)
        done = server.batcher.done
        connection = way(server)
        until(lambda: len(steps) == 2)
        connection.close()
        until(lambda: server.state.streams == 0 and server.state.live_sessions == 0, 5)
        jobs = server.batcher._running
        until(lambda: all(job.given_up for job in jobs), 5)
        released.set()
        until(lambda: server.batcher.done > done)
        assert len(steps) == 2 and server.batcher.waiting == 0
    assert post(server, "/v1/translate", wav(0.3))[0] == 200


def test_one_of_a_batch_leaves_and_the_others_are_answered(server: SimpleNamespace) -> None:
    translator, asked = server.batcher.translator, []

    def wanted(index: int) -> bool:
        asked.append(index)
        return index != 1 or asked.count(1) < 4

    recordings = [speech(0.4 + 0.1 * i, i) for i in range(3)]
    found = translator.translate_all(recordings, wanted=wanted)
    for i in (0, 2):
        assert np.array_equal(found[i].units, translator.translate(recordings[i]).units)
    assert asked.count(1) == 4 and asked.count(0) > 4 and asked.count(2) > 4
    settings = translator.settings.__class__(**(vars(translator.settings) | {"num_beams": 2}))
    asked.clear()
    searched = translator.translate_all(recordings, settings, wanted=wanted)
    assert searched[2].transcript == translator.translate(recordings[2], settings).transcript


def test_bodies_that_break_off_leave_nothing(server: SimpleNamespace) -> None:
    def deleted() -> int:
        links = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
        return sum("(deleted)" in link and str(server.temporary) in link for link in links)

    head = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
    for path in ("/v1/translate", "/v1/stream", "/gradio_api/upload"):
        for number in range(4):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
                raw.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b"
                            "\r\nContent-Length: 9000000\r\n\r\n".encode() + head + bytes(1_500_000))  # fmt: skip
                until(lambda: server.limit.receiving > 0)
                if number % 2:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    until(lambda: server.limit.receiving == 0, 10)
    until(lambda: deleted() == 0, 10)
    assert [path.name for path in server.temporary.iterdir()] == ["page"] and server.state.streams == 0
