"""From an application to a server on a socket, which starts or fails in one line and ends within seconds."""

import logging
import signal
import socket
import sys
import time
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from unitweave.core.errors import InputError
from unitweave.serve.protocol import TimedProtocol, TimedWebSocket
from unitweave.serve.responses import access_log

_KEEP_ALIVE_SECONDS = 10
_SHUTDOWN_SECONDS = 2
_MAX_HEAD_BYTES = 1 << 16
_MAX_MESSAGE_BYTES = 1 << 20  # half a minute of samples


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: The port is in use, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise InputError(f"--host {host}: {reason}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror}; try another --port") from None
    return listener


def make_server(app: ASGIApp, connections: int, protocol: type[TimedProtocol] = TimedProtocol) -> uvicorn.Server:
    """uvicorn, set up for `app` with bounded connections; `run_server` runs it."""
    limited = type("LimitedProtocol", (protocol,), {"max_connections": connections})
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=limited,
            ws=TimedWebSocket,
            ws_max_size=_MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            loop="asyncio",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


def run_server(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then end within seconds, with pages open too."""
    # uvicorn raises the signals again once it has shut down; by default they would end the process before it has
    # removed its temporary files.
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run([listener])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        with suppress(OSError):
            listener.close()


def log_requests() -> None:
    """Write the access log to standard error, a line for each request."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    access_log.handlers[:] = [handler]
    access_log.setLevel(logging.INFO)
    access_log.propagate = False
