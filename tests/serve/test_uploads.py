"""What clients send, without a server: bodies that do not come, a folder in which others delete, pages' sessions."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from unittest.mock import MagicMock

import pytest

pytest.importorskip("fastapi", reason="needs unitweave[serve]")

from unitweave.config.serve import ServerLimits
from unitweave.serve import clients
from unitweave.serve.batching import Busy
from unitweave.serve.clients import PageSessions
from unitweave.serve.responses import Responses
from unitweave.serve.uploads import KEEP_SECONDS, Storage, UploadLimit, keep_tidy


def post(limit: UploadLimit, announced: int, chunks: list[bytes], more: asyncio.Event) -> "asyncio.Task[int]":
    """The status that a client gets who announces so many bytes, sends these, and the rest after an event."""

    async def request() -> int:
        found = []

        async def receive() -> dict:
            if chunks:
                return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks) or not more.is_set()}
            await more.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict) -> None:
            found.append(message.get("status"))

        scope = {"type": "http", "method": "POST", "headers": [(b"content-length", str(announced).encode())]}
        await limit(scope, receive, send)
        return found[0]

    return asyncio.ensure_future(request())


async def read(scope: dict, receive: Callable, send: Callable) -> None:
    """An application that answers when it has the whole body."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200})


def test_uploads_that_are_announced_and_do_not_come_keep_nobody_out() -> None:
    async def main() -> None:
        limit = UploadLimit(read, ServerLimits(max_upload_mb=1, max_storage_mb=8))  # two at a time
        end, done = asyncio.Event(), asyncio.Event()
        done.set()
        idle = [post(limit, 900_000, [b"x"], end) for _ in range(50)]
        await asyncio.sleep(0)
        assert await post(limit, 900_000, [bytes(900_000)], done) == 200
        full = [post(limit, 900_000, [bytes(900_000)], end) for _ in range(2)]
        await asyncio.sleep(0)
        assert await post(limit, 900_000, [bytes(900_000)], done) == 503, "what has come counts"
        end.set()
        assert set(await asyncio.gather(*idle, *full)) == {200}
        assert limit.receiving == 0

    asyncio.run(main())


def test_a_folder_that_goes_while_it_is_looked_through_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, scandir = Storage(tmp_path, 1e6), os.scandir
    for _ in range(3):
        storage.save(BytesIO(b"x"), 1, "a.wav")
    gone = sorted(tmp_path.iterdir())[1]

    def delete_first(path: object = ".") -> object:
        if str(path) == str(gone):  # as another thread that makes room
            shutil.rmtree(gone, ignore_errors=True)
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", delete_first)
    monkeypatch.setattr("pathlib.os.scandir", delete_first)
    storage.remove_old(0)
    assert not list(tmp_path.rglob("*.wav"))


def test_one_failure_does_not_end_the_tidying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, calls = Storage(tmp_path, 1e6), []

    def remove(seconds: float = KEEP_SECONDS) -> None:
        calls.append(seconds)
        raise OSError("no")

    monkeypatch.setattr(storage, "remove_old", remove)

    async def main() -> None:
        tidying = asyncio.create_task(keep_tidy(storage, 0.0))
        while len(calls) < 3 and not tidying.done():
            await asyncio.sleep(0.01)
        tidying.cancel()

    asyncio.run(main())
    assert len(calls) >= 3


def test_pages_that_never_listen_do_not_drive_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_SESSIONS", 8)
    sessions = PageSessions()
    sessions.join("mine")
    with sessions.listening("mine"):
        with pytest.raises(Busy):
            for number in range(99):
                sessions.join(str(number))
        assert "mine" in sessions
        monkeypatch.setattr(clients, "_OPEN_SECONDS", -1.0)  # they had their time
        sessions._known = {name: (count, 0.0) for name, (count, _) in sessions._known.items()}
        sessions.join("another")
        assert "mine" in sessions and "5" not in sessions


def test_what_a_page_asks_for_while_it_listens_is_not_given_up_when_it_listens_anew() -> None:
    async def main() -> None:
        sessions = PageSessions()
        sessions.join("page")
        with sessions.listening("page"):
            sessions.join("page")  # the next request, before the stream of events of the last one has ended
        left = asyncio.ensure_future(sessions.left("page"))
        await asyncio.sleep(0)
        assert not left.done()
        with sessions.listening("page"):
            pass
        await asyncio.wait_for(left, 10)

    asyncio.run(main())


def test_what_is_being_decoded_at_the_end_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unitweave.serve import app

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = []
    for name in ("bind", "build_app", "make_server", "log_requests"):
        monkeypatch.setattr(app, name, MagicMock(return_value=(None, None)) if name == "build_app" else MagicMock())
    monkeypatch.setattr(app, "Translator", MagicMock())
    monkeypatch.setattr(app, "run_server", lambda *_: made.append(Path(tempfile.mkdtemp())))  # by a thread that ends
    app.serve_model(app.Service(MagicMock(), examples=None), ServerLimits())
    assert made[0].is_relative_to(tmp_path) and not list(tmp_path.iterdir())
    assert tempfile.gettempdir() == str(tmp_path)


def test_a_request_that_the_end_of_the_server_cancels_is_no_error() -> None:
    async def app(scope: dict, receive: object, send: object) -> None:
        raise asyncio.CancelledError

    scope = {"type": "http", "method": "GET", "path": "/"}
    asyncio.run(Responses(app)(scope, None, None))  # type: ignore[arg-type]
