"""Connections that end: deadlines for request heads and for readers, and a bounded number of connections.

uvicorn bounds the time between two requests only. A connection without a byte, half a head, a body that goes on after
its answer, or a client that does not read would stay for good. And a client that hangs up while nothing is read from it
(it has sent more than is being worked on) would be waited for.
"""

import asyncio
import json
import select
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.http11 import Response

HEAD_SECONDS = 10.0
WRITE_SECONDS = 30.0
_SHUTDOWN_SECONDS = 1.0
_LINGER_SECONDS = 5.0
_POLL_SECONDS = 0.5
_MAX_UNREAD = 1 << 20  # bytes: answers to pings, which nobody waits for
_HUNG_UP = getattr(select, "POLLRDHUP", 0)  # Linux: seen even where unread data comes before it
GONE = "unitweave.gone"  # extension of a WebSocket's scope: an asyncio.Event, set when the connection has ended


class _Watch:
    """Aborts a connection whose client has hung up, also while nothing is read from it."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll:
            self._poll.register(transport.get_extra_info("socket").fileno(), _HUNG_UP)
        self._timer = loop.call_later(_POLL_SECONDS, self._check)

    def _check(self) -> None:
        if self._poll and not self._transport.is_reading() and self._poll.poll(0):
            self._transport.abort()
        elif not self._transport.is_closing():
            self._timer = self._loop.call_later(_POLL_SECONDS, self._check)

    def stop(self) -> None:
        self._timer.cancel()


class _Transport:
    """A transport that, when it is closed before the whole request has arrived, reads on for a while.

    Otherwise the kernel would reset the connection, and a client that is still sending would see that in place of
    its answer.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, conn: h11.Connection) -> None:
        self._transport, self._loop, self._conn = transport, loop, conn
        self._lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        if self._conn.their_state is h11.SEND_BODY:
            self._lingers = True
            self._transport.resume_reading()
            self._transport.write_eof()
            self._loop.call_later(_LINGER_SECONDS, self._transport.abort)
        else:
            self._transport.close()


class TimedProtocol(H11Protocol):
    """uvicorn's protocol for HTTP/1.1 with the deadlines that it lacks.

    Attributes:
        head_seconds: From connecting, or the first byte of a later request, to the end of the request's head.
        write_seconds: For a client to read on after its buffers are full.
        max_connections: Further ones get 503 at once.
    """

    head_seconds = HEAD_SECONDS
    write_seconds = WRITE_SECONDS
    max_connections = 256

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._watch: _Watch | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._watch = _Watch(transport, self.loop)
        super().connection_made(_Transport(transport, self.loop, self.conn))  # type: ignore[arg-type]
        if len(self.connections) > self.max_connections:
            transport.write(_plain_response(503, "busy: too many connections", "Retry-After: 5\r\n"))
            transport.close()
        else:
            self._head_timer = self.loop.call_later(self.head_seconds, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            return  # it has become a WebSocket
        if self.cycle is not None and not self.cycle.response_complete:  # a request is being answered
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._cancel_timers()  # from here on the deadlines are those of TimedWebSocket
        # Not the one that lingers: it would still wait for the end of the request.
        self.transport = getattr(self.transport, "_transport", self.transport)
        super().handle_websocket_upgrade(event)

    def shutdown(self) -> None:
        super().shutdown()
        # An open page holds a connection that never ends by itself.
        self.loop.call_later(_SHUTDOWN_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_plain_response(400, msg.rstrip(".").lower()))
        self.transport.close()

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._write_timer = None
        if self._watch is not None:
            self._watch.stop()


class TimedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol for WebSockets; a client that does not read is cut off, and closing does not wait for it."""

    write_seconds = WRITE_SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._write_timer: asyncio.TimerHandle | None = None
        self._watch: _Watch | None = None
        self._gone = asyncio.Event()
        self.conn.reject = self._rejection  # type: ignore[method-assign]

    def _rejection(self, status: int, text: str) -> Response:
        """The answer to a malformed handshake, in the documented form."""
        error = text.removeprefix("Failed to open a WebSocket connection: ").strip().rstrip(".").lower()
        head, _, body = _plain_response(status, error).partition(b"\r\n\r\n")
        headers = Headers([tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")[1:]])  # type: ignore[misc]
        return Response(status, HTTPStatus(status).phrase, headers, body)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._watch = _Watch(transport, self.loop)
        super().connection_made(transport)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # its task begins after this
            self.scope["extensions"][GONE] = self._gone  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():  # what follows a broken frame is not read
            super().data_received(data)
        if self.transport.get_write_buffer_size() > _MAX_UNREAD:  # a flood of pings whose answers are not read
            self.transport.abort()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:  # uvicorn would write a traceback into the log
                self.conn.fail(1007, "a text message must be UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # a refusal is an answer, and no error for uvicorn's log

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._gone.set()
        if self._watch is not None:
            self._watch.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_timer()

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(_SHUTDOWN_SECONDS, self.transport.abort)

    def _cancel_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _plain_response(status: int, error: str, fields: str = "") -> bytes:
    body = json.dumps({"error": error})
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"X-Content-Type-Options: nosniff\r\n{fields}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()
