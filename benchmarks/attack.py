"""Attacks on a server as shipped: `unitweave serve MODEL` in a process of its own, over loopback.

    python benchmarks/attack.py MODEL RECORDING [--only NAME...] [--seed 0] [--requests 200] [--at-once 16] [--rounds 3]

Each attack is a row: what was tried, how often, what came back, and whether it held. The exit code is 1 if anything got
through. The model may be tiny; RECORDING is speech of a second or more, at 16 kHz. Some answers are expected to be
"busy". Takes about five minutes and 200 MB of disk.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import attack_clients
from bad_uploads import RATE, bad_uploads, encode, multipart

SECRET = "a private line that no client may read"
STORAGE_MB = 120
LIMITS = ["--max-upload-mb", "8", "--max-storage-mb", str(STORAGE_MB), "--request-timeout-seconds", "20",
          "--live-idle-seconds", "10"]  # fmt: skip
ROUTES = ("queue/join", "run/translate", "api/translate", "call/translate", "call/v2/translate", "component_server",
          "upload", "cancel", "reset", "stream/x")  # fmt: skip


class Target:
    """A running server, and requests to it."""

    def __init__(self, model: str, speech: np.ndarray, folder: Path) -> None:
        self.speech = speech
        self.folder, self.temporary = folder, folder / "tmp"
        self.temporary.mkdir()
        (folder / "private.txt").write_text(SECRET)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.command = [sys.executable, "-m", "unitweave.cli", "serve", model, "--port", str(self.port), *LIMITS]
        self.log = (folder / "server.log").open("w+")
        self.process = subprocess.Popen(
            self.command, stderr=self.log, env={**os.environ, "TMPDIR": str(self.temporary)}
        )

    def wait(self) -> None:
        """Wait until the server answers."""
        while self.process.poll() is None:
            try:
                if self.ask("GET", "/v1/health", timeout=120)[0] == 200:
                    return
            except OSError:
                time.sleep(0.2)
        self.log.seek(0)
        sys.exit(f"the server did not start: {self.log.read()[-500:]}")

    def ask(
        self, method: str, path: str, body: bytes = b"", timeout: float = 60, **headers: str
    ) -> tuple[int, bytes, bytes]:
        """Status (0 for none), head and body. Header names have underscores for hyphens."""
        fields = {"host": f"127.0.0.1:{self.port}", "connection": "close", "content_length": str(len(body)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        answer = self.raw(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body, timeout)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else 0, head, content

    def raw(self, content: bytes, timeout: float = 60) -> bytes:
        """What the server answers to these bytes until it closes the connection or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            answer = b""
            try:
                connection.sendall(content)
                while block := connection.recv(1 << 16):
                    answer += block
            except OSError:
                pass
            return answer

    def post(self, path: str, content: bytes, field: str = "audio", **fields: str) -> tuple[int, bytes, bytes]:
        """A multipart upload."""
        return self.ask(
            "POST", path, multipart(content, field, **fields), content_type="multipart/form-data; boundary=b"
        )

    def join(self, path: object, **change: object) -> tuple[int, bytes, bytes]:
        """A click on the page's button with a recording of this path."""
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [file, None, None], "fn_index": 0, "session_hash": "s", **change}
        return self.ask("POST", "/gradio_api/queue/join", json.dumps(body).encode(), content_type="application/json")

    def good(self, number: int = 0) -> bytes:
        """A recording of at least a second, one of a few."""
        return encode(self.speech[800 * (number % 5) :])

    def stored(self) -> int:
        """Bytes of temporary files."""
        return sum(path.lstat().st_size for path in self.temporary.rglob("*") if not path.is_dir())

    def copies(self) -> int:
        """Temporary files with the secret in them."""
        files = [path for path in self.temporary.rglob("*") if path.is_file()]
        return sum(SECRET.encode() in path.read_bytes() for path in files)

    def health(self) -> dict[str, Any]:
        """What the server says of itself."""
        found: dict[str, Any] = json.loads(self.ask("GET", "/v1/health", timeout=60)[2])
        return found

    def is_well(self) -> bool:
        """Whether it says that it is well, if need be after a moment, and still translates."""
        for _ in range(30):
            status, _head, body = self.ask("GET", "/v1/health", timeout=20)
            if status == 200:
                break
            time.sleep(1)
        return status == 200 and json.loads(body)["status"] == "ok" and self.patient_upload(self.good()) == 200

    def patient_upload(self, content: bytes) -> int:
        """Status of an upload that is repeated while the server is busy."""
        for _ in range(60):
            status = self.post("/v1/translate", content, text_only="true")[0]
            if status != 503:
                break
            time.sleep(1)
        return status


Result = tuple[int, str, bool]  # tries, what came back, whether it held


def statuses(answers: list[int]) -> str:
    """How often each status came."""
    return ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(Counter(answers).items()))


def file_read(target: Target, _: argparse.Namespace) -> Result:
    secret = str(target.folder / "private.txt")
    names = [secret, f"files/../../{target.folder.name}/private.txt", f"files/{secret}", f"/./{secret}",
             f"files/%2e%2e/{secret}", f"file://{secret}", f"http://127.0.0.1:{target.port}/v1/health"]  # fmt: skip
    seen, answers = b"", []
    for name in names:
        file = {"path": name, "url": name, "meta": {"_type": "gradio.FileData"}}
        for data in ([file, None, None], [None, None, [file]], [{"x": {"y": [file]}}, None, None], [name] * 3, [file]):
            body = json.dumps({"data": data, "fn_index": 0, "session_hash": "s", "api_name": "translate"}).encode()
            for route in ROUTES:
                status, head, content = target.ask(
                    "POST", f"/gradio_api/{route}", body, 20, content_type="application/json"
                )
                answers.append(status)
                seen += head + content
        for path in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/proxy=", "/static/", "/assets/",
                     "/config?deep_link=", "/gradio_api/deep_link?session_hash="):  # fmt: skip
            status, head, content = target.ask("GET", path + name, timeout=20)
            answers.append(status)
            seen += head + content
    for path in ("/gradio_api/queue/data?session_hash=s", "/config", "/"):
        seen += target.ask("GET", path, timeout=15)[2]
    leaks = SECRET.encode() in seen or target.copies() > 0
    paths = str(target.temporary).encode() in seen
    return len(answers), f"{statuses(answers)}; paths shown: {'yes' if paths else 'no'}", not leaks and not paths


def device_file(target: Target, _: argparse.Namespace) -> Result:
    answers = []
    for path in ("/dev/zero", "/dev/random", "/dev/stdin", "/proc/self/environ", "/proc/kmsg", "files/../../dev/zero"):
        answers.append(target.join(path)[0])
        for route in ROUTES[1:]:
            body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, None, None]}).encode()
            answers.append(target.ask("POST", f"/gradio_api/{route}", body, 20, content_type="application/json")[0])
        answers.append(target.ask("GET", f"/gradio_api/file={path}", timeout=20)[0])
    return len(answers), statuses(answers), all(400 <= status < 500 for status in answers)


def rebinding(target: Target, _: argparse.Namespace) -> Result:
    hosts = ("evil.example", f"evil.example:{target.port}", "localhost.evil.example", "127.0.0.1.evil.example",
             "127.1", "x@localhost", "localhost@evil.example", "[::ffff:127.0.0.1]", "a#localhost")  # fmt: skip
    paths = ("/", "/config", "/docs", "/openapi.json", "/v1/health", "/gradio_api/info", "/gradio_api/file=files/x")
    answers = [target.ask("GET", path, host=host)[0] for host in hosts for path in paths]
    answers.append(int(target.raw(b"GET /v1/health HTTP/1.0\r\n\r\n").split()[1]))
    return len(answers), statuses(answers), set(answers) <= {400, 421}


def foreign_page(target: Target, _: argparse.Namespace) -> Result:
    foreign: list[dict[str, str]] = [
        *(
            {"origin": origin}
            for origin in ("http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:1")
        ),
        *({"sec_fetch_site": site} for site in ("cross-site", "same-site")),
    ]
    paths = ("/v1/translate", "/v1/stream", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel")
    answers, opened = [], b""
    for headers in foreign:
        for method in ("POST", "OPTIONS", "PUT", "GET"):
            for path in (*paths, "/config"):
                status, head, _body = target.ask(method, path, access_control_request_method="POST", **headers)
                answers.append(status)
                opened += head.lower()
    return len(answers), statuses(answers), set(answers) == {403} and b"access-control-" not in opened


def flood(target: Target, _: argparse.Namespace) -> Result:
    """Foreign or not: more bytes, and more files in one request, than there may be."""
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\nx\r\n'
    kind = "multipart/form-data; boundary=b"
    answers = [target.ask("POST", "/gradio_api/upload", part * 900 + b"--b--\r\n", content_type=kind)[0]]
    most = 0
    with ThreadPoolExecutor(8) as pool:
        for _round in range(8):
            answers += pool.map(lambda _: target.post("/gradio_api/upload", bytes(5_000_000), "files")[0], range(8))
            most = max(most, target.stored())
    text = f"{statuses(answers)}; at most {most / 1e6:.0f} MB of {STORAGE_MB}"
    return len(answers), text, most <= STORAGE_MB * 1e6 and answers[0] == 422 and 503 in answers


def malformed_page(target: Target, _: argparse.Namespace) -> Result:
    changes = [{"fn_index": value} for value in (9, -1, 2**70, 1.5, "0", None, [], True)]
    changes += [{"data": value} for value in (None, [], [None] * 5, {}, "x", 7)]
    changes += [{"session_hash": value} for value in (None, 5, "", "../x", "x" * 999)]
    answers = [target.join(None, **change)[0] for change in changes]
    for body in (b"", b"{", b"[" * 100_000, b"null", b"5", b'{"a":' * 50_000, b"\xff", b"1" * 5000, bytes(2_000_000)):
        for path in ("queue/join", "cancel", "reset"):
            answers.append(target.ask("POST", f"/gradio_api/{path}", body, content_type="application/json")[0])
    return len(answers), statuses(answers), all(400 <= status < 500 for status in answers)


def bad_recordings(target: Target, options: argparse.Namespace) -> Result:
    hidden = [str(target.temporary), "Traceback", str(Path(sys.prefix)), "/unitweave-"]
    answers, held = [], True
    for i, content in enumerate(bad_uploads(160, target.speech, options.seed)):
        path = "/v1/stream" if i % 5 == 4 else "/v1/translate"
        status, _head, body = target.post(path, content, text_only="true")
        answers.append(status)
        if status != 200:
            error = json.loads(body)["error"]
            held &= status in (400, 413) and "\n" not in error and not any(part in error for part in hidden)
    return len(answers), statuses(answers), held


def mixed_load(target: Target, options: argparse.Namespace) -> Result:
    """All kinds at once: texts only, given texts, languages, streams, live sessions, what is no recording."""
    said = json.loads(target.post("/v1/translate", target.good(), text_only="true")[2])
    kinds: list[dict[str, str]] = [{}, {"text_only": "true"}, {"transcript": "one two"},
             {"language": said["language"]}, {"translation": "good day", "text_only": "true"},
             {"target_language": said["target_language"]}]  # fmt: skip
    answers, memory = [], []

    def one(i: int) -> int:
        if i % 10 == 9:
            return target.post("/v1/translate", np.random.default_rng(i).bytes(4000))[0]
        if i % 7 == 6:
            return target.post("/v1/stream", target.good(i))[0]
        if i % 11 == 5:
            return attack_clients.live_session(target, 0.5 + i % 2)
        return target.post("/v1/translate", target.good(i), **kinds[i % len(kinds)])[0]

    for _round in range(options.rounds):
        with ThreadPoolExecutor(options.at_once) as pool:
            answers += pool.map(one, range(options.requests))
        memory.append(f"{psutil.Process(target.process.pid).memory_info().rss / 2**20:.0f}")
    return (
        len(answers),
        f"{statuses(answers)}; MiB after each round: {', '.join(memory)}",
        # A busy machine translates some too late, and says so.
        set(answers) <= {200, 400, 503, 504}
        and answers.count(400) <= len(answers) // 10
        and answers.count(504) <= len(answers) // 20,
    )


def hang_ups(target: Target, _: argparse.Namespace) -> Result:
    return attack_clients.hang_ups(target)


def frames(target: Target, _: argparse.Namespace) -> Result:
    return attack_clients.frames(target)


def costly(target: Target, _: argparse.Namespace) -> Result:
    return attack_clients.costly(target)


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
    text = ", ".join(f"{code}: {count}" for code, count in sorted(found.items()))
    return tries + 1, f"{text}; foreign page: {foreign[0]}", "TimeoutError" not in found and foreign == [403]


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
    return len(connections), text, fine and ended == len(connections)


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
    return len(held), f"{open_now} open at once", open_now <= 260 and target.is_well()


def the_end(target: Target, _: argparse.Namespace) -> Result:
    """A port in use first; then SIGTERM with a page open."""
    second = subprocess.run(target.command, capture_output=True, text=True)
    with socket.create_connection(("127.0.0.1", target.port)) as page:
        page.sendall(b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        page.recv(100)
        start = time.monotonic()
        target.process.send_signal(signal.SIGTERM)
        code = target.process.wait(60)
        seconds = time.monotonic() - start
    left = sum(not path.name.startswith("torchinductor") for path in target.temporary.iterdir())  # torch's own cache
    target.log.seek(0)
    traces = target.log.read().count("Traceback")
    text = f"port in use: exit {second.returncode}; SIGTERM: exit {code} after {seconds:.1f} s, {left} folders left, "
    held = second.returncode == 2 and second.stderr.count("\n") == 1 and code == 0 and seconds < 6 and left == 0
    return 2, f"{text}{traces} tracebacks in the log of all attacks", held and traces == 0


ATTACKS: dict[str, Callable[[Target, argparse.Namespace], Result]] = {
    "file-read": file_read,
    "device-file": device_file,
    "rebinding": rebinding,
    "foreign-page": foreign_page,
    "flood": flood,
    "malformed-page": malformed_page,
    "bad-uploads": bad_recordings,
    "hang-ups": hang_ups,
    "frames": frames,
    "costly": costly,
    "live": live_sessions,
    "slow-clients": slow_clients,
    "connections": many_connections,
    "mixed-load": mixed_load,
    "end": the_end,
}


def rows(target: Target, options: argparse.Namespace) -> Iterator[bool]:
    """Run the attacks; print a row for each."""
    print("| attack | tries | what came back | seconds | held |\n| --- | ---: | --- | ---: | --- |")
    for name in options.only or ATTACKS:
        start = time.monotonic()
        tries, text, held = ATTACKS[name](target, options)
        held = held and (name == "end" or target.is_well())
        print(f"| {name} | {tries} | {text} | {time.monotonic() - start:.0f} | {'yes' if held else 'NO'} |", flush=True)
        yield held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("recording", type=Path)
    parser.add_argument("--only", nargs="+", choices=ATTACKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    speech, rate = soundfile.read(options.recording, RATE * 3 // 2, dtype="float32")
    if rate != RATE or speech.ndim > 1 or len(speech) < RATE:
        parser.error(f"{options.recording}: must be mono, at 16 kHz, of a second or more")
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        target = Target(options.model, speech, Path(folder))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server is not to outlive us
        try:
            target.wait()
            sys.exit(0 if all(list(rows(target, options))) else 1)
        finally:
            if target.process.poll() is None:
                target.process.kill()
            target.process.wait(30)


if __name__ == "__main__":
    main()
