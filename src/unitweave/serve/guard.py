"""What the page may ask for: files that were uploaded to it or are shown on it, and nothing else.

gradio takes file paths from its clients, and checks them only after `launch()`, which a mounted page never calls. The
page turns that check on; this one stands before it and holds for every version and every route of gradio.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitweave.core.errors import InputError

_API = "/v1/"  # our own routes take no paths
_OWN = ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect")
# What the page's own script asks for. gradio has many more routes: some fetch addresses, some show other sessions.
_GRADIO = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/pwa_icon")
_GRADIO_API = (
    "info",
    "startup-events",
    "app_id",
    "upload",
    "upload_progress",
    "queue/join",
    "queue/data",
    "cancel",
    "reset",
)
_GRADIO_FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
_FILE = "/gradio_api/file="
_UPLOAD = "/gradio_api/upload"
_BODY_BYTES = 1 << 20  # largest request of the page that is not an upload


def uploaded_file(path: str, folder: Path) -> Path:
    """A client's path, resolved, if it is an ordinary file inside `folder`. Raises InputError otherwise.

    Links are followed first, so that one inside the folder cannot lead out of it. Nothing is opened.
    """
    try:
        real = Path(path).resolve(strict=True)
        if real.is_file() and real.is_relative_to(folder.resolve()):
            return real
    except (OSError, RuntimeError, ValueError):  # not there, links in a circle, a NUL in the name
        pass
    raise InputError("the recording was not uploaded to this page")


class PageGuard:
    """Lets the page's requests through, and of these none that names a file outside of `folder`.

    folder  where gradio keeps what was uploaded to it and what it shows
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self.app, self.folder = app, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"].startswith(_API) or scope["path"] in _OWN:
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await _refuse(404, "no such address", scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith(_FILE):
            if self._is_ours(path.removeprefix(_FILE)):
                await self.app(scope, receive, send)
            else:
                await _refuse(403, "this file was not uploaded to the page", scope, receive, send)
        elif not _is_of_the_page(path) or b"deep_link" in scope["query_string"]:
            await _refuse(404, "no such address", scope, receive, send)
        elif scope["method"] in ("GET", "HEAD") or path == _UPLOAD:
            await self.app(scope, receive, send)
        else:
            await self._checked(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request with a JSON body on if all files that it names are ours."""
        body = await _read(receive)
        if body is None:
            await _refuse(413, "the request is too large", scope, receive, send)
            return
        try:
            named = list(_paths_in(json.loads(body or b"{}")))
        except (ValueError, RecursionError):
            await _refuse(400, "the request is not JSON", scope, receive, send)
            return
        if not all(self._is_ours(one) for one in named):
            await _refuse(403, "this file was not uploaded to the page", scope, receive, send)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _is_ours(self, path: Any) -> bool:
        if not isinstance(path, str):
            return path is None
        try:
            uploaded_file(path, self.folder)
        except InputError:
            return False
        return True


def _is_of_the_page(path: str) -> bool:
    api = path.removeprefix("/gradio_api/").removesuffix("/")
    return path in _GRADIO or path.startswith(_GRADIO_FOLDERS) or (api != path and api in _GRADIO_API)


def _paths_in(value: Any) -> Iterator[Any]:
    """All that stands under the key "path" in a JSON value, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "path":
                yield inner
            else:
                yield from _paths_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths_in(inner)


async def _read(receive: Receive) -> bytes | None:
    """The body of a request; None when it is too large."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _BODY_BYTES:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return body


async def _refuse(status: int, error: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"error": error}, status)(scope, receive, send)
