"""Who may use the server: by which host names, from which web pages, with which token."""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitweave.config.serve import ServerLimits
from unitweave.serve.access import bare_name
from unitweave.serve.responses import Responses, send_error
from unitweave.serve.uploads import UploadLimit

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_LOGIN = "/login"
WEBSOCKETS = ("/v1/live",)
_LOGIN_BYTES = 4096
_FORM = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>unitweave</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:24rem;margin:4rem auto;padding:0 1rem}}
input,button{{font:inherit;padding:.4rem .6rem;width:100%;box-sizing:border-box;margin:.3rem 0}}</style></head>
<body><h1>unitweave</h1><form method="post" action="/login"><label>Access token
<input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Continue</button><p role="alert">{problem}</p></form></body></html>"""


class Access:
    """The rules of one server.

    Args:
        host: The address that it listens on.
        allowed_hosts: Further names by which clients may call it, without ports.
        token: What clients have to present; None for nothing.
    """

    def __init__(self, host: str = "127.0.0.1", allowed_hosts: Iterable[str] = (), token: str | None = None) -> None:
        self.allowed = frozenset(bare_name(name) for name in allowed_hosts)
        self.names = _LOCAL | self.allowed | ({bare_name(host)} if not is_wildcard(host) else set())
        self.token = token
        # The cookie must not be the token itself, and is worth nothing after a restart.
        self._cookie = hmac.new(secrets.token_bytes(32), (token or "").encode(), hashlib.sha256).hexdigest()

    def knows_host(self, header: str, local_address: str | None) -> bool:
        """Whether a Host header names this server.

        A page that rebinds its own name to this machine sends that name. The address that the client connected to
        is always right: no foreign page has it as its name.
        """
        name = host_name(header)
        return name is not None and (name in self.names or name == local_address)

    def is_foreign(self, headers: Headers, method: str) -> bool:
        """Whether another web page caused the request. Following a link to the page is fine; clients that are
        no browsers send none of these headers."""
        site = headers.get("sec-fetch-site", "none")
        follows_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not follows_link:
            return True
        origin = headers.get("origin")
        if origin is None:
            return False
        try:
            parts = urlsplit(origin)
        except ValueError:
            return True
        # Behind a proxy that rewrites Host, the origin has the public name and its default port.
        return parts.netloc != headers.get("host") and parts.netloc.lower() not in self.allowed

    def admits(self, headers: Headers, port: object) -> bool:
        """Whether the request has the token, as a bearer token or as the cookie of the page."""
        if self.token is None:
            return True
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(value.strip()):
            return True
        # Not http.cookies: see _is_costly; and it gives up at the first cookie that it does not understand.
        expected = f"{_cookie_name(port)}={self._cookie}".encode()
        cookies = headers.get("cookie", "").split(";")
        return any(hmac.compare_digest(one.strip().encode(), expected) for one in cookies)

    def is_token(self, value: str) -> bool:
        """Compare with the token in constant time."""
        return self.token is not None and hmac.compare_digest(value.encode(), self.token.encode())

    def cookie(self, port: object) -> str:
        """The Set-Cookie header of somebody who gave the token."""
        return f"{_cookie_name(port)}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"


class Gate:
    """Lets requests through that `Access` has no objection to; the others never reach the application."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            send = _before_handshake(send)
        headers = Headers(scope=scope)
        local, port = scope.get("server") or (None, None)
        host = headers.getlist("host")
        if len(host) != 1 or not self.access.knows_host(host[0], local):
            name = host_name(host[0]) if host else None
            hint = f"; start it with --allowed-host {name} if it is" if name else ""
            await send_error(send, 421, f"the Host header does not name this server{hint}")
        elif self.access.is_foreign(headers, scope.get("method", "WEBSOCKET")):
            await send_error(send, 403, "requests from other web pages are refused")
        elif scope["type"] == "websocket" and scope["path"] not in WEBSOCKETS:
            await send_error(send, 404, "no such address")
        elif (
            scope["type"] == "http"
            and self.access.token is not None
            and (scope["path"] == _LOGIN or "token=" in _query(scope))
        ):
            await self._log_in(scope, receive, send, port)
        elif not self.access.admits(headers, port):
            await self._ask_for_token(scope, receive, send)
        else:
            passed = [(name, value) for name, value in scope["headers"] if not _is_costly(name, value)]
            await self.app({**scope, "headers": passed}, receive, send)

    async def _log_in(self, scope: Scope, receive: Receive, send: Send, port: object) -> None:
        """Trade the token for a cookie, and take it out of the address."""
        given = _query(scope)
        if scope["method"] == "POST":
            body = b""
            while len(body) <= _LOGIN_BYTES:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    break
            given = body.decode("utf-8", "replace")
        try:
            token = parse_qs(given, max_num_fields=8).get("token", [""])[0]
        except ValueError:
            token = ""
        if self.access.is_token(token):
            response = RedirectResponse("/", 303, {"Set-Cookie": self.access.cookie(port)})
            await response(scope, receive, send)
        else:
            await self._ask_for_token(scope, receive, send, "Wrong token." if token else "")

    async def _ask_for_token(self, scope: Scope, receive: Receive, send: Send, problem: str = "") -> None:
        headers = {"WWW-Authenticate": "Bearer"}
        if "text/html" in Headers(scope=scope).get("accept", ""):
            await HTMLResponse(_FORM.format(problem=problem), 401, headers)(scope, receive, send)
        else:
            await send_error(send, 401, "an access token is needed: 'Authorization: Bearer TOKEN'", headers)


def _is_costly(name: bytes, value: bytes) -> bool:
    """Whether a header is useless behind the gate, and takes seconds to parse where it is long.

    Cookies do before Python 3.11.10 and 3.12.6, and FastAPI parses them for every route; lists of ranges do.
    """
    return name == b"cookie" or (name == b"range" and b"," in value)


def _before_handshake(send: Send) -> Send:
    """A `send` by which a WebSocket is refused as a request is: before the handshake, with a status and a body."""

    async def mapped(message: Message) -> None:
        if message["type"].startswith("http."):
            message = {**message, "type": "websocket." + message["type"]}
        await send(message)

    return mapped


def protect(app: ASGIApp, access: Access, limits: ServerLimits) -> ASGIApp:
    """The application as it may be put on a network: behind the limits, the gate and the common headers."""
    return Responses(UploadLimit(Gate(app, access), limits))


def is_wildcard(host: str) -> bool:
    """Whether a host stands for all addresses of the machine."""
    try:
        return ipaddress.ip_address(bare_name(host)).is_unspecified
    except ValueError:
        return host == ""


def host_name(header: str) -> str | None:
    """The name in a Host header, lower-case, without its port and brackets; None if it is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises ValueError when it is no number
    except ValueError:
        return None
    malformed = (
        "@" in header
        or not header.isprintable()
        or " " in header
        or parts.path
        or parts.query
        or parts.fragment
        or not parts.hostname
    )
    return None if malformed else bare_name(parts.hostname or "")


def _cookie_name(port: object) -> str:
    return f"unitweave-{port}"  # browsers share cookies between the ports of a host


def _query(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return query.decode("ascii", "replace")
