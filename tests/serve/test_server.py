"""The server on its socket: idle and slow clients, a port in use, limits that are no numbers, and a quick end."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

if find_spec("gradio") is None:  # which is not imported here: it takes seconds, in quick runs for nothing
    pytest.skip("needs unitweave[serve]", allow_module_level=True)

from helpers.processes import Program, command
from helpers.serving import make_run, raw_request, running, speech, until, voice
from unitweave.cli import main
from unitweave.config.serve import ServerLimits
from unitweave.core.errors import InputError
from unitweave.serve.app import build_app
from unitweave.serve.batching import Batcher, Job, ShuttingDown
from unitweave.serve.security import Access
from unitweave.serve.server import bind
from unitweave.serve.wav import wav_bytes
from unitweave.translate.translator import Translator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), text_lm_folder)


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A server of short patience and few connections."""
    limits = ServerLimits(request_timeout_seconds=1.0, max_connections=12, max_streams=2)
    app, _ = build_app(Translator.from_pretrained(run), limits, Access(), tmp_path_factory.mktemp("page"))
    with running(app, 12, head_seconds=0.5, write_seconds=0.5) as port:
        yield SimpleNamespace(port=port, app=app.app.app.app)


HEAD = b"POST /v1/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PAGE = b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
GET = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = {
    "not a byte": b"",
    "half a line": b"GET /v1/hea",
    "half a head": b"GET / HTTP/1.1\r\nHost: loc",
    "half a second head": GET + b"GET / HTTP/1.1\r\nHo",
    "no body": HEAD + b"Content-Length: 1000\r\n\r\n",
    "half a body": HEAD + b"Content-Length: 1000\r\n\r\n--b\r\nContent-Disposition: form-data",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n--b",
    "half a request of the page": PAGE,
}


@pytest.mark.parametrize("kind", SLOW)
def test_connections_without_a_whole_request_end(server: SimpleNamespace, kind: str) -> None:
    start = time.monotonic()
    answer = raw_request(server.port, SLOW[kind])
    assert time.monotonic() - start < 15, "the server closed the connection"
    if "body" in kind or "chunk" in kind or "page" in kind:
        assert b" 408 " in answer and b'{"error": ' in answer


def test_a_client_that_goes_on_sending_after_its_answer_is_cut_off(server: SimpleNamespace) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"POST /nothing HTTP/1.1\r\nHost: evil\r\nContent-Length: 100000\r\n\r\n")
        with pytest.raises(OSError):
            for _ in range(200):
                raw.sendall(b"x")
                time.sleep(0.05)


CHUNKED = b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
MULTIPART = CHUNKED % b"multipart/form-data; boundary=b"
PIECE = b"1\r\nx\r\n"
ENDLESS = {  # what begins, and what follows for ever
    "a recording": (b"POST /v1/translate" + MULTIPART, PIECE),
    "a stream's recording": (b"POST /v1/stream" + MULTIPART, PIECE),
    "an upload to the page": (b"POST /gradio_api/upload" + MULTIPART, PIECE),
    "a click": (b"POST /gradio_api/queue/join" + CHUNKED % b"application/json", b"1\r\n[\r\n"),
    "to nowhere": (b"POST /nothing" + MULTIPART, PIECE),
    "with a wrong method": (b"DELETE /v1/health" + MULTIPART, PIECE),
    "with a GET": (b"GET /v1/health" + MULTIPART, PIECE),
    "trailers": (b"POST /v1/translate" + MULTIPART + PIECE + b"0\r\n", b"a: b\r\n"),
    "an extension of a chunk": (b"POST /v1/translate" + MULTIPART + b"1", b";a=b"),
    "head lines": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"a: b\r\n"),
}


def test_what_never_ends_is_cut_off_however_steadily_it_comes(server: SimpleNamespace) -> None:
    def seconds(begin: bytes, more: bytes) -> float:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(begin)
            with suppress(OSError):
                while time.monotonic() - start < 20:
                    raw.sendall(more)
                    time.sleep(0.05)
        return time.monotonic() - start

    with ThreadPoolExecutor(len(ENDLESS)) as pool:
        lasted = dict(zip(ENDLESS, pool.map(lambda kind: seconds(*ENDLESS[kind]), ENDLESS), strict=True))
    assert max(lasted.values()) < 15, lasted


def test_a_client_that_does_not_read_is_cut_off(server: SimpleNamespace) -> None:
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        time.sleep(0.5)
        raw.settimeout(5)
        with pytest.raises(OSError):
            for _ in range(100):
                raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                time.sleep(0.1)


def test_connections_are_bounded(server: SimpleNamespace) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]
    answer = raw_request(server.port, b"")
    assert b" 503 " in answer and b'{"error": ' in answer
    for connection in held:
        connection.close()
    until(lambda: b" 200 " in raw_request(server.port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))


def test_open_pages_leave_room_for_others(server: SimpleNamespace) -> None:
    heart = b"GET /gradio_api/heartbeat/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(8)]
    for i, connection in enumerate(held):
        connection.sendall(heart % i)
    answers = [connection.recv(12) for connection in held]
    assert answers.count(b"HTTP/1.1 200") == 6 and answers.count(b"HTTP/1.1 503") == 2
    for connection in held:
        connection.close()


def test_fifty_clients_hang_up_each_way(server: SimpleNamespace) -> None:
    upload = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n' + wav_bytes(voice(0.3))
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % (len(upload) + 9) + upload + b"\r\n--b--\r\n"
    ways = (whole[:60], whole[:-400], whole, whole.replace(b"/v1/translate", b"/v1/stream"))
    for way in ways:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(way)
    until(lambda: server.app.state.streams == 0 and server.app.state.batcher.waiting == 0)
    until(lambda: b'"ok"' in raw_request(server.port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))


def test_an_address_that_cannot_be_used_is_named_in_one_line(
    run: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNITWEAVE_TOKEN", raising=False)
    with bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        for options, words in (
            (["--port", port], f"port {port}"),
            (["--port", "70000"], "--port: must be a whole number from 0 to 65535 (got 70000)"),
            (["--host", "no.such.host.invalid", "--allow-anonymous"], "no.such.host.invalid"),
            (["--host", "x" * 300, "--allow-anonymous"], "--host"),
            (["--host", "192.0.2.7", "--allow-anonymous", "--port", "0"], "192.0.2.7"),
            (["--host", "0.0.0.0"], "--allow-anonymous"),
            (["--token", "short"], "at least 16"),
        ):
            assert main(["serve", str(run), *options]) == 2
            output = capsys.readouterr()
            assert words in output.err and output.err.count("\n") == 1 and not output.out


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "0", "1e999"])
@pytest.mark.parametrize("name", ["max-upload-mb", "max-audio-seconds", "request-timeout-seconds", "max-storage-mb"])
def test_limits_that_are_no_positive_numbers_are_refused(
    name: str, value: str, run: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["serve", str(run), f"--{name}={value}"]) == 2
    error = capsys.readouterr().err
    assert f"--{name}" in error and error.count("\n") == 1


def test_limits_hold_together() -> None:
    ServerLimits(batch_wait_seconds=0.0)
    with pytest.raises(InputError, match="batch_wait_seconds"):
        ServerLimits(batch_wait_seconds=float("nan"))
    with pytest.raises(InputError, match="storage"):
        ServerLimits(max_upload_mb=300.0)


def test_a_batcher_that_is_closed_abandons_what_is_being_decoded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = Batcher(Translator.from_pretrained(run), ServerLimits(batch_size=1))
    free = threading.Event()
    monkeypatch.setattr(batcher.translator, "translate_all", lambda *_: free.wait(30))
    running_job, waiting_job = batcher.submit(Job(speech(0.3))), batcher.submit(Job(speech(0.3)))
    until(lambda: batcher.waiting == 1)
    batcher.close(0.1)
    assert waiting_job.cancelled() and isinstance(running_job.exception(1), ShuttingDown)
    free.set()
    until(lambda: not batcher.alive)


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_within_seconds_with_a_page_open(
    run: Path, tmp_path: Path, number: signal.Signals, hangups: None
) -> None:
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    (tmp_path / "temporary").mkdir()
    serve = "import tempfile; tempfile.tempdir = None\n" + command("serve", run, "--port", port)
    process = Program(serve, tmp_path, {"TMPDIR": str(tmp_path / "temporary")})
    until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 120)
    with socket.create_connection(("127.0.0.1", port), timeout=120) as page:
        page.sendall(b"GET /gradio_api/heartbeat/s HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in page.recv(200)
        start = time.monotonic()
        process.send(number)
        assert process.wait(60) == 0 and time.monotonic() - start < 10, process.printed
    assert "Traceback" not in process.printed and "GET /gradio_api/heartbeat/s 200" in process.printed
    assert not list((tmp_path / "temporary").iterdir()), "temporary folders are removed"
    assert process.printed.count("127.0.0.1:") == 2, "the address is printed once, in one line"
