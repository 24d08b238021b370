"""What every response has in common: security headers, errors of one form, a line in the access log."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

access_log = logging.getLogger("unitweave.access")
_MAX_ERROR_BYTES = 1 << 16
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# For responses that are no page; the page brings a policy of its own.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


async def send_error(send: Send, status: int, error: str, headers: Mapping[str, str] | None = None) -> None:
    """Send an error in the documented form, `{"error": ...}`."""
    body = json.dumps({"error": error}).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


class Responses:
    """Sets the headers, rewrites errors of other forms, and logs each request without its query."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        start = time.monotonic()
        response = _Response(send)
        try:
            await self.app(scope, receive, response.send)
        except asyncio.CancelledError:
            pass  # the server ends, and this connection has been cut: uvicorn would log a traceback for each
        finally:
            # Percent-encoded and cut, so that nothing a client sends (a proxy's header names it) forges a line.
            client = quote(scope["client"][0], safe=":.")[:50] if scope.get("client") else "-"
            path = quote(scope["path"], safe="/=:,@+~")[:300]
            milliseconds = 1000 * (time.monotonic() - start)
            method = scope.get("method", "WEBSOCKET")[:20]
            access_log.info("%s %s %s %s %.0f ms", client, method, path, response.status or "-", milliseconds)


class _Response:
    """One response: holds the start of an error back until its body is known."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self._held: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"].startswith("websocket."):
            if message["type"] == "websocket.close":
                self.status = message.get("code")
            elif message["type"] == "websocket.http.response.start":
                self.status = message["status"]
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            _set_headers(message)
            if message["status"] >= 400:
                self._held = message
                return
        elif self._held is not None:
            self._body += message.get("body", b"")[:_MAX_ERROR_BYTES]
            if not message.get("more_body", False):
                await self._send_error(self._held, self._body)
            return
        await self._send(message)

    async def _send_error(self, start: Message, body: bytes) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        if not headers.get("content-type", "").startswith("text/html") and not _is_documented(body):
            body = json.dumps({"error": _reason(start["status"], body)}).encode()
            headers["content-type"] = "application/json"
            del headers["content-encoding"]
        headers["content-length"] = str(len(body))
        await self._send({**start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})


def _set_headers(start: Message) -> None:
    headers = MutableHeaders(raw=list(start.get("headers", [])))
    for name in [name for name in headers if name.startswith("access-control-")]:
        del headers[name]  # other origins have no business here, though gradio would let any local port in
    for name, value in _HEADERS.items():
        headers[name] = value
    headers.setdefault("Content-Security-Policy", _POLICY)
    start["headers"] = headers.raw


def _is_documented(body: bytes) -> bool:
    content = _parse(body)
    if not isinstance(content, dict):
        return False
    # The health of a server that is not well is no error of this form.
    return (set(content) == {"error"} and isinstance(content["error"], str)) or "waiting" in content


def _reason(status: int, body: bytes) -> str:
    """What an error of another form says: FastAPI's and gradio's have "detail"."""
    content = _parse(body)
    detail = content.get("detail") if isinstance(content, dict) else None
    if isinstance(detail, str) and detail and status < 500:
        return detail
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return str(detail[0].get("msg", "not valid"))
    return HTTPStatus(status).phrase.lower() if status in HTTPStatus._value2member_map_ else "error"


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
