"""What clients send: request bodies within bounds, and a folder of bounded size for the page's recordings."""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitweave.config.serve import ServerLimits
from unitweave.core.errors import InputError
from unitweave.serve.batching import Busy
from unitweave.serve.responses import send_error

KEEP_SECONDS = 600  # how long the page's recordings are kept
_GRACE_SECONDS = 60  # a full folder drops nothing younger than this
_MAX_FILES = 2000
MAX_NAME_BYTES = 255  # what file systems allow
_BLOCK = 1 << 20


class UploadLimit:
    """Refuses bodies that are too large, arrive too slowly, or are too many at a time, before they are kept anywhere.

    Args:
        app: The application behind it.
        limits: `upload_mb` and `request_seconds` hold for each body. All bodies together may take half of
            `storage_mb`, where each counts twice: once as received and once as the file that is decoded. What is
            announced and does not come takes nothing: a few idle clients would keep all others out.
    """

    def __init__(self, app: ASGIApp, limits: ServerLimits) -> None:
        self.app, self.limits = app, limits
        self.receiving = 0  # bytes of all bodies at hand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        announced = int(length) if length.isdigit() and len(length) < 20 else None
        if announced is None or announced > self.limits.max_upload_mb * 1e6:
            await send_error(send, 413, self._too_large())
            return
        if self._is_full(announced):
            await send_error(send, 503, "busy: too many uploads at once; try again in 5 s", {"Retry-After": "5"})
            return
        body = _Body(self, receive, send)
        try:
            await self.app(scope, body.receive, body.send)
        except Exception:
            if not body.refused:  # otherwise it is the application's complaint about the body that was cut off
                raise
        finally:
            self.receiving -= body.seen

    def _too_large(self) -> str:
        return f"the upload is larger than {self.limits.max_upload_mb:g} MB"

    def _is_full(self, more: int) -> bool:
        return 2 * (self.receiving + more) > self.limits.max_storage_mb * 1e6 / 2


class _Body:
    """One request's body on its way to the application. Once refused, the application is cut off from the client."""

    def __init__(self, limit: UploadLimit, receive: Receive, send: Send) -> None:
        self._limit, self._receive, self._send = limit, receive, send
        self._end = time.monotonic() + limit.limits.request_timeout_seconds
        self.seen = 0
        self._whole = self._answered = self.refused = False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # waits until the client disconnects
        if self.refused:
            return {"type": "http.disconnect"}
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, self._end - time.monotonic()))
        except TimeoutError:
            return await self._refuse(408, "the upload took too long")
        size = len(message.get("body", b""))
        if self.seen + size > self._limit.limits.max_upload_mb * 1e6:
            return await self._refuse(413, self._limit._too_large())
        if self._limit._is_full(size):
            return await self._refuse(503, "busy: too many uploads at once; try again in 5 s")
        self.seen += size
        self._limit.receiving += size
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._answered = True
            await self._send(message)

    async def _refuse(self, status: int, error: str) -> Message:
        self.refused = True
        if not self._answered:
            await send_error(self._send, status, error, {"Connection": "close"} if status == 408 else {})
        return {"type": "http.disconnect"}


class Storage:
    """The folder with the page's recordings: what was uploaded to it and the speech that it plays.

    Clients know a file as `files/...`, never by its path on this machine.

    Args:
        folder: The folder; the page's examples in it are kept.
        max_bytes: All files together. Older ones are dropped for new ones.
    """

    ALIAS = "files"

    def __init__(self, folder: Path, max_bytes: float) -> None:
        self.folder, self.max_bytes = folder.resolve(), max_bytes
        self._permanent = set(self._files())
        self._writing = 0
        self._lock = threading.Lock()

    def save(self, content: BinaryIO, size: int, name: str) -> str:
        """Keep an upload of `size` bytes; returns the name that clients know it by.

        Raises:
            Busy: The folder is full of recent files.
        """
        folder = self.folder / secrets.token_hex(16)
        clean = re.sub(r"[^\w.-]", "_", Path(name.replace("\\", "/")).name)[-MAX_NAME_BYTES // 4 :]  # UTF-8: 4 each
        clean = clean.lstrip(".-") or "recording"
        with self._reserved(size):
            folder.mkdir(mode=0o700)
            with (folder / clean).open("xb") as file:
                while block := content.read(_BLOCK):
                    file.write(block)
        return f"{self.ALIAS}/{folder.name}/{clean}"

    def upload_path(self, alias: object) -> Path:
        """The file that a client names `files/...`.

        Links are followed before the check, so that none leads out of the folder. Nothing is opened.

        Raises:
            InputError: The name is anything else than that of an ordinary file in the folder.
        """
        if isinstance(alias, str) and alias.startswith(f"{self.ALIAS}/"):
            return self.inside(str(self.folder / alias.removeprefix(f"{self.ALIAS}/")))
        raise InputError("the recording was not uploaded to this page")

    def inside(self, path: str) -> Path:
        """A path, resolved, if it is an ordinary file in the folder. Raises InputError otherwise."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # missing, links in a circle, a NUL in the name
            real = Path(path).resolve(strict=True)
            if real.is_file() and real.is_relative_to(self.folder):
                return real
        raise InputError("the recording was not uploaded to this page")

    def remove_old(self, seconds: float = KEEP_SECONDS) -> None:
        """Delete files older than `seconds`, and folders that are empty."""
        now = time.time()
        for path in self._files():
            with contextlib.suppress(OSError):
                if path not in self._permanent and now - path.lstat().st_mtime > seconds:
                    path.unlink()
                    path.parent.rmdir()

    @contextlib.contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        with self._lock:
            self.make_room(size)
            self._writing += size
        try:
            yield
        finally:
            with self._lock:
                self._writing -= size

    def make_room(self, size: int = 0) -> None:
        """Delete old files, oldest first, until `size` more bytes fit. Raises Busy when they do not fit."""
        self.remove_old()
        files = sorted((path for path in self._files() if path not in self._permanent), key=_age, reverse=True)
        total = self._writing + size + sum(_size(path) for path in files)
        while files and (total > self.max_bytes or len(files) >= _MAX_FILES) and _age(files[0]) > _GRACE_SECONDS:
            oldest = files.pop(0)
            total -= _size(oldest)
            with contextlib.suppress(OSError):
                oldest.unlink()
                oldest.parent.rmdir()
        if size and (total > self.max_bytes or len(files) >= _MAX_FILES):
            raise Busy(_GRACE_SECONDS)

    def _files(self) -> list[Path]:
        # Not rglob, which raises where another thread deletes a folder meanwhile.
        walked = [(Path(folder), folders, names) for folder, folders, names in os.walk(self.folder)]
        files = [folder / name for folder, _, names in walked for name in names]
        return files + [folder / name for folder, names, _ in walked for name in names if (folder / name).is_symlink()]


async def keep_tidy(storage: Storage, seconds: float = 30.0) -> None:
    """Delete old files again and again, until canceled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(storage.remove_old)
        except Exception:  # a bug of ours must not end it: recordings would stay
            logging.getLogger(__name__).exception("old recordings were not deleted")


def _age(path: Path) -> float:
    with contextlib.suppress(OSError):
        return time.time() - path.lstat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.lstat().st_size
    return 0
