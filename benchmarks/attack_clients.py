"""Clients that hang up in every phase of a request or of a live session, are slow, many, or make much work."""

import argparse
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from attack_live import BINARY, CLOSE, FINISH, HANDSHAKE, SECONDS, TEXT, Session, frame
from attack_server import Result, Target
from bad_uploads import multipart

RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: the connection is reset, not closed


def leave(raw: socket.socket, number: int) -> None:
    """Hang up; every other one resets the connection."""
    if number % 2:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    raw.close()


def idle(target: Target) -> dict[str, int]:
    """What is left of clients that have gone, once nothing is at work: all of it should be 0."""
    process = psutil.Process(target.process.pid)
    return {
        "waiting": target.health()["waiting"],
        "connections": sum(c.status == "CLOSE_WAIT" for c in process.net_connections()),
        "files": len([*target.temporary.glob("unitweave-serve-*/unitweave-*")]),
        "deleted files": sum("(deleted)" in one and str(target.temporary) in one for one in _descriptors(process.pid)),
    }  # fmt: skip


def _descriptors(pid: int) -> Iterator[str]:
    """What the open descriptors of a process lead to."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield str(link.readlink())


def hang_ups(target: Target, options: argparse.Namespace) -> Result:
    """So many hang-ups each way, a few at a time; what they left, and how many of them were translated all the same."""
    body = multipart(target.good())
    kind = "Host: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    head = {
        path: f"POST {path} HTTP/1.1\r\n{kind}Content-Length: {len(body)}\r\n\r\n".encode()
        for path in ("/v1/translate", "/v1/stream", "/gradio_api/upload")
    }
    talk = (32767 * np.clip(3 * np.tile(target.speech, 2), -1, 1)).astype("<i2").tobytes()

    def http(content: bytes, until: bytes = b"", seconds: float = 0.0) -> Callable[[int], None]:
        def one(i: int) -> None:
            raw = socket.create_connection(("127.0.0.1", target.port), timeout=SECONDS)
            raw.sendall(content)
            answer = b""
            while until and until not in answer and b" 503 " not in answer[:20]:
                answer += raw.recv(2000)
            time.sleep(seconds)
            leave(raw, i)

        return one

    def live(*frames: bytes, until: int = 0, seconds: float = 0.0) -> Callable[[int], None]:
        def one(i: int) -> None:
            session = Session(target)
            session.send(*frames)
            try:
                while until and session.read()[0] not in (until, CLOSE):
                    pass
            except (OSError, EOFError):
                pass
            time.sleep(seconds)
            session.file.close()
            leave(session.raw, i)

        return one

    def page(until: bytes | None) -> Callable[[int], None]:
        def one(i: int) -> None:
            name = f"left-{i}"
            target.join(target.uploaded(), session_hash=name)
            if until is not None:
                listen = f"GET /gradio_api/queue/data?session_hash={name} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                http(listen.encode(), until)(i)

        return one

    samples = [frame(BINARY, talk[i : i + 32_000]) for i in range(0, len(talk), 32_000)]
    ways = {
        "before a byte": http(b""),
        "in the head": http(head["/v1/translate"][:40]),
        "before the body": http(head["/v1/translate"]),
        "in the body": http(head["/v1/translate"] + body[:-300]),
        "in a page's upload": http(head["/gradio_api/upload"] + body[:500]),
        "while waiting": http(head["/v1/translate"] + body),
        "while translating": http(head["/v1/translate"] + body, seconds=0.4),
        "while waiting, with more behind": http(head["/v1/translate"] + body + head["/v1/translate"] * 400),
        "stream, before its texts": http(head["/v1/stream"] + body),
        "stream, in its speech": http(head["/v1/stream"] + body, until=b"WAVEfmt"),
        "an open page": http(b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        "the page, before it listens": page(None),
        "the page, while it waits": page(b"estimation"),
        "the page, while it is translated": page(b"process_starts"),
        "live, in the handshake": http(HANDSHAKE),
        "live, after it": live(),
        "live, after the settings": live(frame(TEXT, b'{"policy": "agreement"}')),
        "live, in a frame": live(frame(BINARY, talk)[:5000]),
        "live, while speaking": live(*samples[:1]),
        "live, sent too fast": live(*samples * 4),
        "live, before the answer": live(*samples, frame(TEXT, FINISH)),
        "live, in the answer": live(*samples, frame(TEXT, FINISH), until=TEXT),
        "live, in its speech": live(*samples, frame(TEXT, FINISH), until=BINARY),
    }
    left: Counter[str] = Counter()
    slowest = 0.0
    before = target.health()["done"]
    for way in ways.values():
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(way, range(options.hang_ups)))
        start, found = time.monotonic(), idle(target)
        while any(found.values()) and time.monotonic() < start + 20:
            time.sleep(0.1)
            found = idle(target)
        left += Counter(found)
        slowest = max(slowest, time.monotonic() - start)
    done = target.health()["done"] - before
    text = f"{len(ways)} ways; left of them: {sum(left.values())}, after at most {slowest:.1f} s; begun: {done}"
    return options.hang_ups * len(ways), text, [f"{count} {name} left" for name, count in left.items() if count]


def costly(target: Target, _: argparse.Namespace) -> Result:
    """Little to send and much to do: headers that take long to parse, uploads that are announced and do not come,
    names that no file can have, samples byte by byte. Others are answered meanwhile."""
    cookie, ranges = (
        b'Cookie: a="' + b"\\\\" * 29_000 + b'"',
        b"Range: bytes=" + b",".join([b"%d-" % i for i in range(9000)]),
    )
    names = ("a" * 256, "%F0%90%8C%B0" * 64, "a/" * 2000, "a%00b")
    lines = [b"/v1/health HTTP/1.1\r\n" + cookie, b"/config HTTP/1.1\r\n" + cookie,
             b"/static/img/logo.svg HTTP/1.1\r\n" + ranges,
             *[f"{folder}{name} HTTP/1.1".encode() for name in names
               for folder in ("/static/", "/assets/", "/svelte/", "/gradio_api/file=files/")]]  # fmt: skip
    idle = [socket.create_connection(("127.0.0.1", target.port), timeout=SECONDS) for _ in range(16)]
    for connection in idle:
        connection.sendall(b"POST /v1/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n-")
    session = Session(target)
    session.send(frame(BINARY, b"x") * 100_000)
    many = [{"path": target.uploaded()}] * 9000
    target.join(None, x=many, data=many)
    statuses: Counter[int] = Counter()
    slowest = 0.0
    for line in lines:
        start = time.monotonic()
        answer = target.raw(b"GET " + line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        slowest = max(slowest, time.monotonic() - start)
        statuses[int(answer[9:12] or 0)] += 1
    served = target.patient_upload(target.good())
    session.close()
    for connection in idle:
        connection.close()
    text = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    through = [f"{status}" for status in statuses if status == 0 or status >= 500]
    through += [f"another upload: {served}"] * (served != 200) + ["the server stood still"] * (slowest > 10)
    return len(lines) + len(idle) + 2, f"{text}; the slowest took {slowest:.1f} s; another upload: {served}", through


def slow_clients(target: Target, _: argparse.Namespace) -> Result:
    """Connections that would stay open for good, many at a time."""
    head = b"POST /v1/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    ways = (
        b"",
        b"GET / HT",
        head,
        head + b"Content-Length: 9999\r\n\r\n--b",
        head + b"Transfer-Encoding: chunked\r\n\r\nff\r\n",
    )
    connections = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(40 * len(ways))]
    for i, connection in enumerate(connections):
        connection.sendall(ways[i % len(ways)])
    start = time.monotonic()
    fine = target.is_well()  # meanwhile
    ended = sum(map(_ends, connections))
    seconds = time.monotonic() - start
    text = f"{ended} ended within {seconds:.0f} s; others were served meanwhile: {'yes' if fine else 'no'}"
    through = [] if fine else ["others were not served"]
    return len(connections), text, through + ["connections that stay"] * (ended < len(connections))


def _ends(connection: socket.socket) -> bool:
    connection.settimeout(40)
    with connection:
        try:
            while connection.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


def many_connections(target: Target, _: argparse.Namespace) -> Result:
    held = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(600)]
    for _ in range(20):  # a busy server takes a moment to refuse those beyond its limit
        time.sleep(0.5)
        open_now = len(psutil.Process(target.process.pid).net_connections())
        if open_now <= 260:
            break
    for connection in held:
        connection.close()
    time.sleep(0.5)
    return len(held), f"{open_now} open at once", [f"{open_now} connections"] * (open_now > 260)
