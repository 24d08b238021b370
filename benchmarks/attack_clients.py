"""Clients that hang up in every phase of a request or of a live session, and WebSocket frames as none should be."""

import json
import os
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from bad_uploads import multipart

if TYPE_CHECKING:
    from attack import Target

RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: the connection is reset, not closed
HANDSHAKE = (
    b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FINISH = b'{"event": "finish"}'
SECONDS = 240.0  # for a client that waits, on a busy machine


def frame(kind: int, content: bytes, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """A WebSocket frame, whose mask is zeros."""
    size, mask = len(content), 0x80 if masked else 0
    length = (
        bytes([mask | size]) if size < 126
        else bytes([mask | 126]) + struct.pack(">H", size) if size < 1 << 16
        else bytes([mask | 127]) + struct.pack(">Q", size)
    )  # fmt: skip
    return bytes([(0x80 if fin else 0) | reserved | kind]) + length + (bytes(4) if masked else b"") + content


class Session:
    """A live session of raw bytes."""

    def __init__(self, target: "Target", more: bytes = b"") -> None:
        self.raw = socket.create_connection(("127.0.0.1", target.port), timeout=SECONDS)
        self.raw.sendall(HANDSHAKE + more + b"\r\n")
        self.head = self.raw.recv(4096)
        self.file = self.raw.makefile("rb")

    def send(self, *frames: bytes) -> None:
        """Send, as far as the server takes it."""
        try:
            for one in frames:
                self.raw.sendall(one)
        except OSError:
            pass

    def read(self) -> tuple[int, bytes]:
        """The next frame from the server: kind and content. Raises OSError or EOFError when there is none."""
        head = self._exactly(2)
        size = head[1] & 127
        if size > 125:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
        return head[0] & 15, self._exactly(size)

    def _exactly(self, count: int) -> bytes:
        found = self.file.read(count)
        if len(found) < count:
            raise EOFError
        return found

    def code(self) -> str:
        """With which code the server closes; "cut off" without one, "open" when it does not within the time."""
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                kind, content = self.read()
                if kind == PING:
                    self.send(frame(PONG, content))
                if kind == CLOSE:
                    return str(int.from_bytes(content[:2], "big"))
        except TimeoutError:
            return "open"
        except (OSError, EOFError):
            return "cut off"
        return "open"

    def close(self) -> None:
        self.file.close()
        self.raw.close()


def leave(raw: socket.socket, number: int) -> None:
    """Hang up; every other one resets the connection."""
    if number % 2:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    raw.close()


def idle(target: "Target") -> dict[str, int]:
    """What is left of clients that have gone, once nothing is at work: all of it should be 0."""
    process = psutil.Process(target.process.pid)
    return {
        "waiting": target.health()["waiting"],
        "connections": sum(c.status == "CLOSE_WAIT" for c in process.net_connections()),
        "files": len([*target.temporary.glob("unitweave-serve-*/unitweave-*")]),
        "deleted files": sum("(deleted)" in os.path.realpath(p) and str(target.temporary) in os.path.realpath(p)
                             for p in Path(f"/proc/{target.process.pid}/fd").iterdir()),
    }  # fmt: skip


def hang_ups(target: "Target", number: int = 50) -> tuple[int, str, bool]:
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
            list(pool.map(way, range(number)))
        start, found = time.monotonic(), idle(target)
        while any(found.values()) and time.monotonic() < start + 20:
            time.sleep(0.1)
            found = idle(target)
        left += Counter(found)
        slowest = max(slowest, time.monotonic() - start)
    done = target.health()["done"] - before
    text = f"{len(ways)} ways; left of them: {sum(left.values())}, after at most {slowest:.1f} s; begun: {done}"
    return number * len(ways), text, not left and target.is_well()


def frames(target: "Target") -> tuple[int, str, bool]:
    """Each kind of frames that no client should send, and what it should come to; all of it several times."""
    speech = (32767 * np.clip(target.speech, -1, 1)).astype("<i2").tobytes()
    settings = b'{"policy": "utterance"}'
    flate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = flate.compress(bytes(100 << 20)) + flate.flush(zlib.Z_SYNC_FLUSH)
    pieces = [frame(TEXT, settings[:1], fin=False),
              *[frame(0, settings[i : i + 1], fin=False) for i in range(1, len(settings))], frame(0, b"")]  # fmt: skip
    end = frame(TEXT, FINISH)
    cases: dict[str, tuple[list[bytes], str]] = {
        "fragments, pings in between": ([*[p + frame(PING, b"x") for p in pieces], frame(BINARY, speech), end], "1000"),
        "empty messages": ([frame(BINARY, b"") * 20_000, end], "1000"),
        "odd bytes": ([frame(BINARY, speech[:3001]), frame(BINARY, b"x"), end], "1000"),
        "fragments without an end": ([frame(BINARY, b"", fin=False),
                                      *[frame(0, bytes(60_000), fin=False)] * 40], "1009 1001"),
        "too large": ([frame(BINARY, bytes(2 << 20))], "1009"),
        "2^63 bytes announced": ([b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4)], "1009"),
        "a length with its top bit": ([b"\x82\xff" + b"\xff" * 8 + bytes(4)], "1002 1009"),
        "unmasked": ([frame(BINARY, b"hello", masked=False)], "1002"),
        **{f"reserved bit {bit:#x}": ([frame(BINARY, b"x", reserved=bit)], "1002") for bit in (0x10, 0x20, 0x40)},
        **{f"kind {kind}": ([frame(kind, b"")], "1002") for kind in (3, 7, 11, 15)},
        "compression bomb": ([frame(BINARY, bomb[: 1 << 19], reserved=0x40)], "1002"),
        "a continuation of nothing": ([frame(0, b"x")], "1002"),
        "a message in a message": ([frame(TEXT, b"{", fin=False), frame(TEXT, b"}")], "1002"),
        "a long ping": ([frame(PING, bytes(126))], "1002"),
        "a ping in fragments": ([frame(PING, b"", fin=False)], "1002"),
        "a close of one byte": ([frame(CLOSE, b"\3")], "1002"),
        "a close with a bad code": ([frame(CLOSE, b"\0\5")], "1002"),
        "invalid UTF-8": ([frame(TEXT, b'{"language": "\xff"}')], "1007"),
        "invalid UTF-8 across fragments": ([frame(TEXT, b"\xc3", fin=False), frame(0, b"\x28")], "1007"),
        "text where samples are due": ([frame(BINARY, speech[:3200]), frame(TEXT, b"hello")], "1007"),
        "NaN, 1e999 and 10^400": ([frame(TEXT, b'{"chunk_seconds": NaN, "agreement": 1e999, "sample_rate": 1'
                                   + b"0" * 400 + b"}")], "1007"),
        "numbers of seconds": ([frame(TEXT, b'{"speech_pad_seconds": 1e308}')], "1007"),
        "100,000 brackets": ([frame(TEXT, b"[" * 100_000)], "1007"),
    }  # fmt: skip
    wrong = []

    def one(name: str) -> str:
        session = Session(target, b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        session.send(*cases[name][0])
        code = session.code()
        session.close()
        if code not in cases[name][1].split() and code != "1013":
            wrong.append(f"{name}: {code}")
        return code

    with ThreadPoolExecutor(6) as pool:
        found = Counter(pool.map(one, [*cases] * 3))
    found.update(_endless(target, wrong))
    text = ", ".join(f"{code}: {count}" for code, count in sorted(found.items()))
    return 3 * len(cases) + 84, text + "".join(f"; {one}" for one in sorted(set(wrong))), not wrong and target.is_well()


def _endless(target: "Target", wrong: list[str]) -> list[str]:
    """What would go on for ever: floods that are not read, a half close, slow frames, half handshakes."""
    memory = psutil.Process(target.process.pid).memory_info
    before, flood = memory().rss, Session(target)
    flood.raw.settimeout(20)
    flood.send(*[frame(PING, bytes(125)) * 8000] * 60)  # 63 MB, whose answers nobody reads
    if (grown := (memory().rss - before) / 2**20) > 50:
        wrong.append(f"ping flood: {grown:.0f} MiB")
    half = Session(target)
    half.send(frame(BINARY, bytes(32_000)))
    half.raw.shutdown(socket.SHUT_WR)
    slow = [Session(target) for _ in range(2)]
    stuck = [socket.create_connection(("127.0.0.1", target.port), timeout=SECONDS) for _ in range(80)]
    for connection in stuck:
        connection.sendall(HANDSHAKE)  # without its end
    found = [half.code()]
    start = time.monotonic()
    content = frame(BINARY, bytes(1000))
    for i in range(25):  # a byte each second
        for session in slow:
            session.send(content[i : i + 1])
        time.sleep(1)
    found += [session.code() for session in slow]
    if any(code == "open" for code in found) or time.monotonic() - start > 60:
        wrong.append(f"endless: {found}")
    for connection in stuck:
        with connection:
            try:
                ended = connection.recv(100)[:12] in (b"", b"HTTP/1.1 503", b"HTTP/1.1 408")
            except OSError as error:
                ended = not isinstance(error, TimeoutError)
        found.append("cut off" if ended else "open")
    if "open" in found:
        wrong.append("half handshakes stay")
    flood.close()
    return found


def live_session(target: "Target", seconds: float) -> int:
    """A session as a client has it, in the statuses of HTTP: 200, or 503 when the server is busy."""
    samples = np.concatenate([target.speech[: int(16_000 * seconds)], np.zeros(12_000, np.float32)])
    session = Session(target)
    data = (32767 * samples).astype("<i2").tobytes()
    session.send(frame(TEXT, json.dumps({"text_only": seconds < 1}).encode()),
                 *[frame(BINARY, data[i : i + 16_000]) for i in range(0, len(data), 16_000)],
                 frame(TEXT, FINISH))  # fmt: skip
    code = session.code()
    session.close()
    return {"1000": 200, "1013": 503}.get(code, 0)


def costly(target: "Target") -> tuple[int, str, bool]:
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
    held = served == 200 and slowest < 10 and not any(status == 0 or status >= 500 for status in statuses)
    return len(lines) + len(idle) + 1, f"{text}; the slowest took {slowest:.1f} s; another upload: {served}", held
