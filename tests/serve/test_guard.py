"""Nobody reads what is not theirs through the page, and mixed traffic does not stop the server."""

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

if find_spec("gradio") is None:  # which is not imported here: it takes seconds, in quick runs for nothing
    pytest.skip("needs unitweave[serve]", allow_module_level=True)

from helpers.serving import make_run, post, running, speech, voice, wav
from unitweave.config.serve import ServerLimits
from unitweave.core.errors import InputError
from unitweave.serve.app import build_app
from unitweave.serve.batching import Batcher, Job
from unitweave.serve.security import Access
from unitweave.translate.translator import Translator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Translator:
    return Translator.from_pretrained(make_run(tmp_path_factory.mktemp("run"), text_lm_folder))


@pytest.fixture(scope="module")
def server(translator: Translator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A running server with its page, one example, and a private recording that is nowhere offered."""
    uploads, elsewhere = tmp_path_factory.mktemp("uploads"), tmp_path_factory.mktemp("elsewhere")
    for seed, name in enumerate(("example.wav", "private.wav")):
        soundfile.write(elsewhere / name, voice(0.5, seed), 16_000)
    (elsewhere / "secret.txt").write_text("the secret")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", "")
    app, _ = build_app(
        translator, ServerLimits(request_timeout_seconds=30.0), Access(), uploads, [elsewhere / "example.wav"]
    )
    with running(app) as port:
        inner = app.app.app.app
        yield SimpleNamespace(
            url=f"http://127.0.0.1:{port}", port=port, app=inner, uploads=uploads, elsewhere=elsewhere
        )
    patch.undo()


def ask(server: SimpleNamespace, path: str, body: object = None, timeout: float = 20) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    return send(urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"}), timeout)


def send(request: urllib.request.Request, timeout: float = 20) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def file_data(path: object) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


ROUTES = ("run/translate", "run/translate/", "api/translate", "call/translate", "call/v2/translate", "queue/join")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("what", ["secret.txt", "private.wav", "../elsewhere0/secret.txt"])
@pytest.mark.parametrize("place", [0, 1])
def test_no_file_of_the_server_is_read_through_the_page(
    server: SimpleNamespace, route: str, what: str, place: int
) -> None:
    data: list[Any] = [None, None, None]
    data[place] = [file_data(str(server.elsewhere / what))] if place else file_data(str(server.elsewhere / what))
    body = {"data": data, "fn_index": 1, "session_hash": "s"}
    status, answer = ask(server, f"/gradio_api/{route}", body)
    assert status in (403, 404, 405, *[422] * place) and str(server.elsewhere) not in answer.decode()
    kept = [path.read_bytes() for path in server.uploads.rglob("*") if path.is_file()]
    assert (server.elsewhere / what).resolve().read_bytes() not in kept, "nothing of it was copied"


def test_a_link_in_the_upload_folder_leads_nowhere(server: SimpleNamespace) -> None:
    storage = server.app.state.storage
    (server.uploads / "link").symlink_to(server.elsewhere / "secret.txt")
    outside = ("link", "missing", "", "../elsewhere0/secret.txt", str(server.elsewhere / "secret.txt"), "\0")
    for name in outside:
        with pytest.raises(InputError, match="not uploaded"):
            storage.upload_path(f"files/{name}")
        with pytest.raises(InputError, match="not uploaded"):
            storage.upload_path(str(server.uploads / name))
    assert ask(server, "/gradio_api/file=files/link")[0] == 403
    assert ask(server, f"/gradio_api/file={server.uploads / 'link'}")[0] == 403


def test_a_file_without_an_end_does_not_hang_the_server(server: SimpleNamespace) -> None:
    body = {"data": [file_data("/dev/zero"), None, None], "session_hash": "s", "fn_index": 1}
    for route in ROUTES:
        assert ask(server, f"/gradio_api/{route}", body)[0] in (403, 404, 405)
    fifo = server.uploads / "fifo"
    os.mkfifo(fifo)
    assert ask(server, "/gradio_api/queue/join", {**body, "data": [file_data("files/fifo"), None, None]})[0] == 403
    assert ask(server, "/v1/health")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/deep_link?session_hash=s",
        "/config?deep_link=x",
        "/gradio_api/file=SECRET",
        "/gradio_api/file/SECRET",
        "/gradio_api/file=%2e%2e/%2e%2e/SECRET",
        "/file=SECRET",
        "/gradio_api/file=http://127.0.0.1/",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/static/..%2f..%2f..%2fSECRET",
        "/assets/..%2f..%2f..%2fSECRET",
        "/gradio_api/run-history/records",
        "/gradio_api/component_server",
        "/gradio_api/openapi.json",
    ],
)
def test_routes_that_the_page_does_not_need_are_closed(server: SimpleNamespace, path: str) -> None:
    status, answer = ask(server, path.replace("SECRET", str(server.elsewhere / "secret.txt")))
    assert status in (400, 403, 404, 405) and b"the secret" not in answer


def test_gradios_own_guard_is_on_too(server: SimpleNamespace) -> None:
    """Whichever version of gradio is installed: without ours, its own check has to refuse the path."""
    from unitweave.serve.guard import PageGuard

    def own(app: Any) -> Any:
        while isinstance(app, PageGuard) or hasattr(app, "app"):
            if isinstance(app, PageGuard):
                return app.app
            app = app.app
        raise AssertionError("the guard is not in place")

    from starlette.testclient import TestClient

    bare = TestClient(
        own(server.app.middleware_stack), raise_server_exceptions=False
    )  # no lifespan: the server goes on
    for what in ("secret.txt", "private.wav"):
        body = {"data": [file_data(str(server.elsewhere / what)), None, None], "fn_index": 0, "session_hash": "s"}
        bare.post("/gradio_api/run/translate", json=body)
    kept = [path.read_bytes() for path in server.uploads.rglob("*") if path.is_file() and not path.is_symlink()]
    assert b"the secret" not in kept and (server.elsewhere / "private.wav").read_bytes() not in kept


def test_what_is_uploaded_to_the_page_is_translated(server: SimpleNamespace) -> None:
    status, answer = upload(server, [wav()])
    (uploaded,) = json.loads(answer)
    assert status == 200 and re.fullmatch(r"files/[0-9a-f]{32}/a\.wav", uploaded)
    assert ask(server, f"/gradio_api/file={uploaded}") == (200, wav())
    by_outputs = {len(d["outputs"]): d["id"] for d in json.loads(ask(server, "/config")[1])["dependencies"]}
    (example,) = on_the_page(server, by_outputs[1], [0])["data"]
    for recording in (file_data(uploaded), example["value"]):
        answer = on_the_page(server, by_outputs[5], [recording, None, None])
        assert "of computing" in answer["data"][0] and re.fullmatch(r"files/\w+/audio\.wav", answer["data"][3]["path"])
        assert ask(server, answer["data"][3]["url"].removeprefix(server.url))[1][:4] == b"RIFF"
    private = file_data(str(server.elsewhere / "private.wav"))
    with pytest.raises(AssertionError):
        on_the_page(server, by_outputs[5], [private, None, None])


def upload(server: SimpleNamespace, files: list[bytes], name: str = "../../a.wav") -> tuple[int, bytes]:
    """An upload as the page's script sends it."""
    head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = b"".join(head.encode() + file + b"\r\n" for file in files) + b"--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    return send(urllib.request.Request(server.url + "/gradio_api/upload", body, kind))


def test_no_path_of_the_server_is_shown(server: SimpleNamespace) -> None:
    shown = [ask(server, path)[1] for path in ("/", "/config", "/gradio_api/info", "/openapi.json")]
    by_outputs = {len(d["outputs"]): d["id"] for d in json.loads(shown[1])["dependencies"]}
    shown.append(json.dumps(on_the_page(server, by_outputs[1], [0])).encode())
    shown.append(upload(server, [wav()])[1])
    import gradio

    hidden = {str(server.uploads), str(server.elsewhere), str(Path.home()), str(Path(gradio.__file__).parent)}
    for text in shown:
        assert not [path for path in hidden if path.encode() in text]


def test_uploads_to_the_page_are_bounded(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert upload(server, [wav(0.1)] * 2)[0] == 422, "one file for each request"
    assert upload(server, [])[0] in (400, 422)
    storage = server.app.state.storage
    monkeypatch.setattr(storage, "max_bytes", 100_000)
    answers = [upload(server, [bytes(20_000)])[0] for _ in range(8)]
    kept = [path for path in server.uploads.rglob("*") if path.is_file()]
    assert 503 in answers and sum(path.stat().st_size for path in kept) < 150_000, "a flood is refused"
    for path in kept:
        if path not in storage._permanent:
            os.utime(path, (0, 0), follow_symlinks=False)
    assert upload(server, [bytes(20_000)])[0] == 200, "what is old makes room"
    assert ask(server, "/gradio_api/file=files/examples/example-1.wav")[0] == 200, "examples stay"


@pytest.mark.parametrize(
    "change",
    [
        {"fn_index": 9},
        {"fn_index": -1},
        {"fn_index": "0"},
        {"fn_index": True},
        {"fn_index": None},
        {"data": []},
        {"data": None},
        {"data": [None] * 9},
        {"data": ["files/x", None, None]},
        {"data": [[], None, None]},
        {"data": [{"path": None}, None, None]},
        {"data": [{"url": "http://127.0.0.1/"}, None, None]},
        {"data": [None, "no such language", None]},
        {"data": [None, None, ["en"]]},
        {"data": [None, {}, None]},
        {"data": [9], "fn_index": 0},
        {"data": [True], "fn_index": 0},
        {"data": ["0"], "fn_index": 0},
        {"session_hash": None},
        {"session_hash": 5},
        {"session_hash": "../x"},
        {"session_hash": "x" * 99},
    ],
)
def test_malformed_requests_of_the_page_are_refused(server: SimpleNamespace, change: dict[str, Any]) -> None:
    body = {"data": [None, None, None], "fn_index": 1, "session_hash": "s", **change}
    status, answer = ask(server, "/gradio_api/queue/join", body)
    assert status == 422 and list(json.loads(answer)) == ["error"]
    assert ask(server, "/gradio_api/queue/data?session_hash=never-joined")[0] == 404


def test_of_a_call_only_what_the_page_sends_reaches_gradio(server: SimpleNamespace) -> None:
    odd = {"batched": True, "event_id": [], "request": {"x": 1}, "trigger_id": "x", "event_data": 5, "simple_format": 7}
    body = {"data": [None, None, None], "fn_index": 1, "session_hash": "odd", **odd}
    assert ask(server, "/gradio_api/queue/join", body)[0] == 200
    assert b'"success":true' in ask(server, "/gradio_api/queue/data?session_hash=odd")[1].replace(b" ", b"")


@pytest.mark.parametrize("path", ["queue/join", "cancel", "reset"])
def test_a_request_that_names_thousands_of_files_looks_for_none_of_them(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    looked: list[object] = []
    monkeypatch.setattr(server.app.state.storage, "upload_path", looked.append)
    many = [file_data("files/examples/example-1.wav")] * 5000
    body = {"data": many, "x": many, "fn_index": 1, "session_hash": "s", "event_id": "x"}
    assert ask(server, f"/gradio_api/{path}", body)[0] in (200, 404, 422) and not looked


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"])
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(server: SimpleNamespace, path: str, number: str) -> None:
    body = f'{{"data": [{number}, null, null], "fn_index": 1, "event_id": {number}, "session_hash": "s"}}'
    request = urllib.request.Request(server.url + path, body.encode(), {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 400 and list(json.loads(refused.value.read())) == ["error"]


def test_the_page_calls_its_functions_through_the_route_that_is_open(server: SimpleNamespace) -> None:
    functions = json.loads(ask(server, "/config")[1])["dependencies"]
    assert len(functions) == 2 and all(function["queue"] for function in functions)


def on_the_page(server: SimpleNamespace, function: int, data: list[Any]) -> dict[str, Any]:
    """What the page gets for a click, asked for as its script does."""
    session = uuid.uuid4().hex
    body = {"data": data, "fn_index": function, "session_hash": session}
    assert ask(server, "/gradio_api/queue/join", body)[0] == 200
    events = ask(server, f"/gradio_api/queue/data?session_hash={session}")[1].decode().split("\n\n")
    (done,) = [
        e for e in (json.loads(x.removeprefix("data: ")) for x in events if x) if e["msg"] == "process_completed"
    ]
    assert done["success"]
    output: dict[str, Any] = done["output"]
    return output


def test_mixed_requests_at_once_are_all_answered(server: SimpleNamespace) -> None:
    kinds: list[dict[str, str]] = [
        {},
        {"text_only": "true"},
        {"language": "es"},
        {"transcript": "hola", "language": "es"},
        {"translation": "good day", "text_only": "true"},
    ]

    def one(i: int) -> int:
        path = "/v1/stream" if i % 7 == 6 else "/v1/translate"
        return post(server, path, wav(0.3, i % 5), **(kinds[i % 5] if path == "/v1/translate" else {}))[0]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(64)))
    assert set(answers) <= {200, 503} and answers.count(200) > 48
    status, answer = ask(server, "/v1/health")
    assert status == 200 and json.loads(answer)["status"] == "ok"
    assert post(server, "/v1/translate", wav(0.3), text_only="true")[0] == 200


def test_jobs_of_equal_content_are_told_apart(translator: Translator) -> None:
    batcher = Batcher(translator, ServerLimits(batch_size=2, batch_wait_seconds=0.3))
    same = speech(0.3)
    futures = [batcher.submit(Job(same.copy(), text_only=bool(i % 2))) for i in range(8)]
    assert all(future.result(60).language for future in futures)
    batcher.close()


def test_no_fault_of_ours_ends_the_thread_and_health_tells_whether_it_lives(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = server.app.state.batcher
    with monkeypatch.context() as broken:
        broken.setattr(batcher, "_translate", lambda jobs: 1 / 0)
        failed = [batcher.submit(Job(np.zeros(3), text_only=bool(i % 2))) for i in range(3)]
        for future in failed:
            with pytest.raises(ZeroDivisionError):
                future.result(30)
    assert batcher.alive and batcher.submit(Job(speech(0.3))).result(30).language
    monkeypatch.setattr(type(batcher), "alive", property(lambda self: False))
    status, answer = ask(server, "/v1/health")
    assert status == 503 and json.loads(answer)["status"] == "stopped"


@pytest.mark.parametrize("name", ["a" * 256, "\U00010330" * 64, "x/" + "a" * 5000, "a\0b", "/".join(["a"] * 3000)])
def test_names_that_no_file_can_have_are_no_error_of_the_server(server: SimpleNamespace, name: str) -> None:
    for folder in ("assets", "static", "svelte", "gradio_api/file=files"):
        status, answer = ask(server, f"/{folder}/{urllib.parse.quote(name)}")
        assert status in (403, 404) and list(json.loads(answer)) == ["error"]
    status, answer = upload(server, [b"x"], name.replace("\0", "_") + ".wav")
    assert status in (200, 400)  # a part's head may have 4 kB
    if status == 200:
        assert ask(server, f"/gradio_api/file={urllib.parse.quote(json.loads(answer)[0])}")[0] == 200
