"""Live sessions as none should be: WebSocket frames, settings, noise, and clients that just leave."""

import argparse
import json
import re
import socket
import struct
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import psutil
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from attack_server import Result, Target
from unitweave.config.live import LiveSettings

LIVE_SETTINGS = ("sample_rate", "language", "target_language", *[entry.name for entry in fields(LiveSettings)])
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

    def __init__(self, target: Target, more: bytes = b"") -> None:
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


def frames(target: Target, _: argparse.Namespace) -> Result:
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
    return 3 * len(cases) + 84, text, sorted(set(wrong))


def _endless(target: Target, wrong: list[str]) -> list[str]:
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


def live_session(target: Target, seconds: float) -> int:
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


def live_sessions(target: Target, options: argparse.Namespace) -> Result:
    """Live sessions of noise, silence, bursts and what is no message, several at a time; half of them just leave."""
    rng = np.random.default_rng(options.seed)
    noise = [rng.integers(-32768, 32767, int(rng.integers(1, 30_000)), dtype="<i2").tobytes() for _ in range(8)]
    texts = ["{", "[]", '{"sample_rate": 1}', '{"policy": ["agreement"]}', '{"agreement": 1e999}',
             '{"language": "\\ud800"}', '{"event": "finish"}', '{"policy": "agreement", "chunk_seconds": 0.2}',
             "\0" * 5000]  # fmt: skip

    def one(number: int) -> str:
        own = np.random.default_rng([options.seed, number])
        try:
            with connect(f"ws://127.0.0.1:{target.port}/v1/live", compression=None, close_timeout=2) as session:
                for _ in range(int(own.integers(1, 12))):
                    kind = own.random()
                    if kind < 0.6:
                        session.send(noise[own.integers(8)] if kind < 0.4 else bytes(int(own.integers(0, 40_001))))
                    else:
                        session.send(texts[own.integers(len(texts))])
                if number % 2:
                    session.socket.close()
                    return "left"
                session.send('{"event": "finish"}')
                while True:
                    session.recv(timeout=60)
        except ConnectionClosed as closed:
            return str(closed.rcvd.code) if closed.rcvd else "left"
        except (OSError, TimeoutError) as error:
            return type(error).__name__

    tries = 60
    with ThreadPoolExecutor(12) as pool:
        found = Counter(pool.map(one, range(tries)))
    foreign = [target.ask("GET", "/v1/live", upgrade="websocket", connection="Upgrade", sec_websocket_version="13",
                          sec_websocket_key="AAAAAAAAAAAAAAAAAAAAAA==", origin="http://evil.example")[0]]  # fmt: skip
    found.update(f"settings {code}" for code in _odd_settings(target))
    text = ", ".join(f"{code}: {count}" for code, count in sorted(found.items()))
    wrong = [code for code in found if not re.fullmatch(r"(settings )?(1000|1007|1013)|left", code)]
    through = [*wrong, *[f"a foreign page: {status}" for status in foreign if status != 403]]
    return found.total() + 1, f"{text}; foreign page: {foreign[0]}", through


def _odd_settings(target: Target) -> list[str]:
    """Each setting of a live session with values that it may or may not have, and speech after those that pass."""
    values = (0, -1, 1e-300, 10**30, 1e308, 59.99, True, None, "", "es", [], {}, "\ud800")
    samples = (32767 * np.clip(target.speech, -1, 1)).astype("<i2").tobytes()

    def one(content: dict[str, object]) -> str:
        session = Session(target)
        text = json.dumps({"policy": "agreement", **content}).encode()
        session.send(frame(TEXT, text), frame(BINARY, samples), frame(TEXT, FINISH))
        code = session.code()
        session.close()
        return code

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, [{name: value} for name in LIVE_SETTINGS for value in values]))
