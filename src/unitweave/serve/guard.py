"""What the page may ask for: files that were uploaded to it or are shown on it, and nothing else.

gradio takes file paths of the server from its clients and tells them others. Here clients know a file as `files/...`
alone: names in requests are turned into paths after a check, paths in responses into names. This holds for every
version and every route of gradio, whose own check (`has_launched` in page.py) is the second line.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitweave.core.errors import InputError
from unitweave.serve.clients import PageSessions
from unitweave.serve.responses import send_error
from unitweave.serve.uploads import MAX_NAME_BYTES, Storage

_API = "/v1/"  # our own routes take no paths
_OWN = ("/docs", "/openapi.json")
# What the page's own script asks for. gradio has many more routes: some fetch addresses, some show other sessions.
_EVENTS = "/gradio_api/queue/data"
_SESSION = re.compile(r"session_hash=([\w-]{1,64})", re.ASCII)
_READ = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/pwa_icon", "/gradio_api/info",
         "/gradio_api/startup-events", "/gradio_api/app_id", "/gradio_api/upload_progress",
         _EVENTS)  # fmt: skip
_READ_FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
_WRITE = ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")
_UPLOAD = "/gradio_api/upload"
_FILE = "/gradio_api/file="
_LASTING = ("/gradio_api/heartbeat/", _EVENTS)  # as long as the page is open
_BODY_BYTES = 1 << 20  # largest request of the page that is not an upload
_AUDIO = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg", ".oga": "audio/ogg",
          ".opus": "audio/ogg", ".m4a": "audio/mp4", ".mp4": "audio/mp4", ".webm": "audio/webm"}  # fmt: skip
_REWRITTEN = ("text/html", "application/json", "text/event-stream")
_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; manifest-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


class PageGuard:
    """Lets the page's requests through, with names in place of paths.

    Args:
        app: The application with the page mounted at `/`.
        storage: The page's recordings.
        sessions: The page's sessions.
        inputs: For each function of the page, by its index, what checks each of its inputs: it returns the value as
            gradio may have it, or raises InputError.
        script: A script for the page.
        max_lasting: Requests of open pages at the same time, which last until the page is closed.
    """

    def __init__(
        self,
        app: ASGIApp,
        storage: Storage,
        sessions: PageSessions,
        inputs: Mapping[int, Sequence[Callable[[Any], Any]]],
        script: str,
        max_lasting: int,
    ) -> None:
        self.app, self.storage, self.sessions, self.inputs = app, storage, sessions, inputs
        self.max_lasting = max_lasting
        self.script = f"<script>{script}</script></head>".encode()
        self._lasting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] != "http" or path in _OWN or path.startswith(_API) or path == _UPLOAD:
            await self.app(scope, receive, send)
        elif path.startswith(_FILE):
            await self._send_file(path.removeprefix(_FILE), scope, receive, send)
        elif path in _WRITE:
            await self._checked(scope, receive, send)
        elif (path not in _READ and not _is_in_folder(path)) or b"deep_link" in scope["query_string"]:
            await send_error(send, 404, "no such address")
        elif scope["method"] not in ("GET", "HEAD"):
            await send_error(send, 405, "method not allowed", {"Allow": "GET, HEAD"})
        else:
            await self._read(path, scope, receive, send)

    async def _send_file(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await send_error(send, 405, "method not allowed", {"Allow": "GET, HEAD"})
            return
        try:
            path = self.storage.upload_path(name)
        except InputError as error:
            await send_error(send, 403, str(error))
            return
        kind = _AUDIO.get(path.suffix.lower())
        headers = {"Cache-Control": "private, max-age=600"}
        response = FileResponse(path, headers=headers, media_type=kind or "application/octet-stream")
        if kind is None:
            response.headers["Content-Disposition"] = "attachment"
        await response(scope, receive, send)

    async def _read(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if path.startswith("/assets/") or path.startswith("/static/"):
            await self.app(scope, receive, send)
            return
        session = None
        if path == _EVENTS:
            found = _SESSION.fullmatch(scope["query_string"].decode("latin-1"))
            if not found or found[1] not in self.sessions:
                await send_error(send, 404, "no such session")
                return
            session = self.sessions.listening(found[1])
        lasting = path.startswith(_LASTING)
        if lasting and self._lasting >= self.max_lasting:
            await send_error(send, 503, "busy: too many open pages; try again in 30 s", {"Retry-After": "30"})
            return
        self._lasting += lasting
        try:
            # Compressed responses could not be rewritten.
            headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            response = _Rewriter(send, self.storage, self.script, whole=not lasting)
            with session or nullcontext():
                await self.app({**scope, "headers": headers}, receive, response.send)
        finally:
            self._lasting -= lasting

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what a request with a JSON body takes and nothing else, with the path of the file that it names."""
        if scope["method"] != "POST":
            await send_error(send, 405, "method not allowed", {"Allow": "POST"})
            return
        body = await _read_body(receive)
        if body is None:
            await send_error(send, 413, "the request is too large")
            return
        try:
            content = json.loads(body)
            json.dumps(content, allow_nan=False)  # Python reads NaN and infinities; JSON has none
        except (ValueError, RecursionError):
            await send_error(send, 400, "the request is not valid JSON")
            return
        joins = scope["path"] == "/gradio_api/queue/join"
        try:
            content = self._call(content) if joins else _event(content)
        except InputError as error:
            await send_error(send, 422, str(error))
            return
        try:
            # Only here: to look for thousands of files would stop the server.
            for file in [value for value in content.get("data", ()) if isinstance(value, dict)]:
                file["path"] = str(self.storage.upload_path(file["path"]))
        except InputError as error:
            await send_error(send, 403, str(error))
            return
        body = json.dumps(content).encode()
        if joins:
            self.sessions.join(content["session_hash"])
        headers = MutableHeaders(raw=[pair for pair in scope["headers"] if pair[0] != b"transfer-encoding"])
        headers["content-length"], headers["content-type"] = str(len(body)), "application/json"
        del headers["accept-encoding"]
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app({**scope, "headers": headers.raw}, replay, _Rewriter(send, self.storage).send)

    def _call(self, content: Any) -> dict[str, Any]:
        """A call of one of the page's functions, with what it takes and nothing else.

        Raises:
            InputError: gradio would fail on it.
        """
        if not isinstance(content, dict):
            raise InputError("the request must be an object")
        function, data, session = (content.get(key) for key in ("fn_index", "data", "session_hash"))
        if isinstance(function, bool) or not isinstance(function, int) or function not in self.inputs:
            raise InputError("fn_index: no such function")
        checks = self.inputs[function]
        if not isinstance(data, list) or len(data) != len(checks):
            raise InputError(f"data: must be a list of {len(checks)} values")
        if not isinstance(session, str) or not re.fullmatch(r"[\w-]{1,64}", session, re.ASCII):
            raise InputError("session_hash: must be 1 to 64 letters and digits")
        trigger = content.get("trigger_id")
        return {
            "data": [check(value) for check, value in zip(checks, data, strict=True)],
            "event_data": None,
            "fn_index": function,
            "trigger_id": trigger if type(trigger) is int else None,
            "session_hash": session,
        }


def _event(content: Any) -> dict[str, Any]:
    """What names a call that is to be canceled, and nothing else. Raises InputError where gradio would fail on it."""
    if not isinstance(content, dict) or not isinstance(content.get("session_hash", ""), str):
        raise InputError("the request must be an object with a session_hash")
    return {key: content[key] for key in ("session_hash", "fn_index", "event_id") if key in content}


def _is_in_folder(path: str) -> bool:
    """Whether a path is of a folder that may be read, and gradio could look for it without an error."""
    longest = max(len(part.encode("utf-8", "replace")) for part in path.split("/"))
    possible = longest <= MAX_NAME_BYTES and len(path) <= 4 * MAX_NAME_BYTES and "\0" not in path
    return path.startswith(_READ_FOLDERS) and possible


class _Rewriter:
    """A response of gradio with names in place of the storage's paths; pages also get their policy.

    Args:
        send: Where the response goes.
        storage: The page's recordings.
        script: An element that a page gets at the end of its head.
        whole: Collect the body before it is sent. Events are sent as they come: gradio sends each in one piece.
    """

    def __init__(self, send: Send, storage: Storage, script: bytes = b"", whole: bool = True) -> None:
        self._send, self._script, self._whole = send, script, whole
        folder = str(storage.folder)
        # As it is, and as JSON writes it.
        self._needles = {folder.encode(), json.dumps(folder)[1:-1].encode()}
        self._name = storage.ALIAS.encode()
        self._start: Message | None = None
        self._kind = ""
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._kind = Headers(raw=message["headers"]).get("content-type", "").partition(";")[0]
            if self._kind in _REWRITTEN:
                headers = MutableHeaders(raw=list(message["headers"]))
                del headers["content-length"]
                message = {**message, "headers": headers.raw}
                if self._whole:
                    self._start = message
                    return
        elif self._start is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_whole(self._start, self._replaced(self._body))
            return
        elif self._kind in _REWRITTEN:
            message = {**message, "body": self._replaced(message.get("body", b""))}
        await self._send(message)

    async def _send_whole(self, start: Message, body: bytes) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        if self._kind == "text/html":
            nonce = secrets.token_urlsafe(16)
            body = body.replace(b"</head>", self._script, 1)
            body = re.sub(rb"<script(?=[\s>])", f'<script nonce="{nonce}"'.encode(), body)
            headers["content-security-policy"] = _POLICY.format(nonce=nonce)
            headers["cache-control"] = "no-store"
        headers["content-length"] = str(len(body))
        await self._send({**start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})

    def _replaced(self, body: bytes) -> bytes:
        for needle in self._needles:
            body = body.replace(needle, self._name)
        return body


async def _read_body(receive: Receive) -> bytes | None:
    """The body of a request; None when it is too large."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _BODY_BYTES:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return body
