"""Attacks on a server as shipped: `unitweave serve MODEL` in a process of its own, over loopback.

    python benchmarks/attack.py MODEL RECORDING [--only NAME...] [--seed 0] [--requests 200] [--at-once 16] [--rounds 3]
        [--uploads 147] [--commands 300] [--hang-ups 50]

Each attack is a row: what was tried, how often, what came back, what got through, and the most memory that the server
took meanwhile. After each the server has to be well: its health says so, and it translates. The exit code is 1 if
anything got through. The model may be tiny, and nothing is written into it; RECORDING is speech of a second or more, at
16 kHz. Some answers are expected to be "busy". Takes about ten minutes and 200 MB of disk.
"""

import argparse
import json
import re
import secrets
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

import numpy as np
import psutil
import soundfile

import attack_clients
import attack_live
from attack_server import SECRET, STORAGE_MB, Result, Target, statuses
from bad_uploads import RATE, bad_uploads

WRITING = ("queue/join", "run/translate", "api/translate", "call/translate", "call/v2/translate", "component_server",
           "upload", "cancel", "reset", "stream/x")  # fmt: skip


def names_of(target: Target) -> list[str]:
    """Ways to name a private file."""
    secret = str(target.folder / "private.txt")
    return [secret, f"files/../../{target.folder.name}/private.txt", f"files/{secret}", f"/./{secret}",
            f"files/./{secret}", f"files/%2e%2e/{secret}", f"..%2f..%2f..%2f{secret}", f"file://{secret}",
            "\\..\\..\\private.txt", f"http://127.0.0.1:{target.port}/v1/health"]  # fmt: skip


def seen_of(target: Target, seen: bytes, copies: int = 0) -> list[str]:
    """What of the server's files is in what was answered, or in its temporary folder."""
    found = {"the secret": SECRET.encode() in seen, "a path": str(target.folder).encode() in seen,
             "a copy": target.copies() > copies}  # fmt: skip
    return [name for name, is_there in found.items() if is_there]


def file_read(target: Target, _: argparse.Namespace) -> Result:
    """A private file in every input of the page's functions, then by all that may tell its content."""
    seen, answers = b"", []
    for name in names_of(target):
        file = {"path": name, "url": name, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        for data in ([file, None, None], [None, None, [file]], [{"x": {"y": [file]}}, None, None], [name] * 3, [file]):
            for index in range(target.functions()):
                body = json.dumps(
                    {"data": data, "fn_index": index, "session_hash": "s", "api_name": "translate"}
                ).encode()
                for route in WRITING[: 99 if index == 0 else 1]:
                    status, head, content = target.ask(
                        "POST", f"/gradio_api/{route}", body, 20, content_type="application/json"
                    )
                    answers.append(status)
                    seen += head + content
    for path in ("/gradio_api/queue/data?session_hash=s", "/config", "/", "/gradio_api/deep_link?session_hash=s"):
        seen += target.ask("GET", path, timeout=15)[2]
    return len(answers), statuses(answers), seen_of(target, seen) + ["200"] * (200 in answers)


def routes(target: Target, _: argparse.Namespace) -> Result:
    """All routes of the installed gradio, and some of others, with the private file wherever they take a name."""
    import gradio

    paths = {getattr(route, "path", "") for route in gradio.routes.App.create_app(gradio.Blocks()).routes}
    paths |= {"/file={x}", "/file/{x}", "/proxy={x}", "/static/{x}", "/assets/{x}", "/svelte/{x}", "/mcp/{x}", "/{x}"}
    seen, answers = b"", []
    for path in sorted(paths):
        for name in names_of(target) if "{" in path else names_of(target)[:2]:
            place = re.sub(r"\{[^}]*\}", lambda _, name=name: name, path)
            query = f"?path={name}&url={name}&deep_link={name}&session_hash={name}" if "{" not in path else ""
            for prefix in ("", "/gradio_api", "/"):
                for method in ("GET", "POST"):
                    if (prefix + place).startswith("/gradio_api/heartbeat"):
                        continue  # which lasts
                    status, head, content = target.ask(
                        method, f"{prefix}{place}{query}".replace(" ", "%20"), timeout=20
                    )
                    answers.append(status)
                    seen += head + content
    through = seen_of(target, seen) + [f"{status}" for status in set(answers) if status == 0 or status >= 500]
    return len(answers), f"{len(paths)} routes; {statuses(answers)}", through


def device_file(target: Target, _: argparse.Namespace) -> Result:
    answers = []
    for path in ("/dev/zero", "/dev/random", "/dev/stdin", "/proc/self/environ", "/proc/kmsg", "files/../../dev/zero"):
        answers.append(target.join(path)[0])
        for route in WRITING[1:]:
            body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, None, None]}).encode()
            answers.append(target.ask("POST", f"/gradio_api/{route}", body, 20, content_type="application/json")[0])
        answers.append(target.ask("GET", f"/gradio_api/file={path}", timeout=20)[0])
    return len(answers), statuses(answers), [f"{status}" for status in answers if not 400 <= status < 500]


def rebinding(target: Target, _: argparse.Namespace) -> Result:
    hosts = ("evil.example", f"evil.example:{target.port}", "localhost.evil.example", "127.0.0.1.evil.example",
             "127.1", "x@localhost", "localhost@evil.example", "[::ffff:127.0.0.1]", "a#localhost")  # fmt: skip
    paths = ("/", "/config", "/docs", "/openapi.json", "/v1/health", "/gradio_api/info", "/gradio_api/file=files/x")
    answers = [target.ask("GET", path, host=host)[0] for host in hosts for path in paths]
    answers.append(int(target.raw(b"GET /v1/health HTTP/1.0\r\n\r\n").split()[1]))
    return len(answers), statuses(answers), [f"{status}" for status in answers if status not in (400, 421)]


def token(target: Target, _: argparse.Namespace) -> Result:
    """A second server, for other machines and with a token: nothing without it, by no name that is not the server's."""
    secret = secrets.token_hex(16)
    wrong: list[dict[str, str]] = [
        {}, {"authorization": f"Bearer {secret[:-1]}"}, {"authorization": f"Bearer {secret}x"},
        {"authorization": f"Basic {secret}"}, {"authorization": secret}, {"authorization": "Bearer "},
        {"cookie": f"unitweave={secret}"}, {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "localhost"},
        {"authorization": "Bearer null", "origin": "null"}]  # fmt: skip
    paths = ("/", "/config", "/docs", "/openapi.json", "/v1/health", "/v1/nosuch", "/gradio_api/info", "/theme.css",
             "/assets/x.js", "/gradio_api/file=files/x", f"/?token={secret[1:]}", "//", "/login",
             "/login?token=")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="token-") as name:
        other = Target(target.model, target.speech, Path(name), "--host", "0.0.0.0", token=secret)
        try:
            other.wait()
            answers = [other.ask("GET", path, **headers)[0] for path in paths for headers in wrong]
            answers += [other.ask("POST", path, **headers)[0] for path in ("/v1/translate", "/v1/stream", "/login",
                        "/gradio_api/upload", "/gradio_api/queue/join") for headers in wrong]  # fmt: skip
            socket_ = {"upgrade": "websocket", "connection": "Upgrade", "sec_websocket_version": "13",
                       "sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
            answers += [other.ask("GET", "/v1/live", **{**socket_, **headers})[0] for headers in wrong]
            through = [f"{status}" for status in answers if status not in (401, 403)]
            right = {"authorization": f"Bearer {secret}"}
            through += [] if other.ask("GET", "/v1/health", **right)[0] == 200 else ["the token does not open it"]
            named = [other.ask("GET", "/v1/health", host=host, **right)[0] for host in ("evil.example", "0.0.0.0", "x")]
            through += [f"{status} by another name" for status in named if status != 421]
        finally:
            other.process.kill()
            other.process.wait(30)
    return len(answers) + len(named), statuses([*answers, *named]), through


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
    through = [f"{status}" for status in answers if status != 403] + ["CORS"] * (b"access-control-" in opened)
    return len(answers), statuses(answers), through


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
    through = ["more than the cap"] * (most > STORAGE_MB * 1e6) + ["900 files"] * (answers[0] != 422)
    return len(answers), text, through + ["none was refused"] * (503 not in answers)


def malformed_page(target: Target, _: argparse.Namespace) -> Result:
    changes = [{"fn_index": value} for value in (9, -1, 2**70, 1.5, "0", None, [], True)]
    changes += [{"data": value} for value in (None, [], [None] * 5, {}, "x", 7)]
    changes += [{"session_hash": value} for value in (None, 5, "", "../x", "x" * 999)]
    answers = [target.join(None, **change)[0] for change in changes]
    for body in (b"", b"{", b"[" * 100_000, b"null", b"5", b'{"a":' * 50_000, b"\xff", b"1" * 5000, bytes(2_000_000)):
        for path in ("queue/join", "cancel", "reset"):
            answers.append(target.ask("POST", f"/gradio_api/{path}", body, content_type="application/json")[0])
    return len(answers), statuses(answers), [f"{status}" for status in answers if not 400 <= status < 500]


def bad_recordings(target: Target, options: argparse.Namespace) -> Result:
    hidden = [str(target.temporary), "Traceback", str(Path(sys.prefix)), "/unitweave-"]
    answers, through = [], []
    for i, content in enumerate(bad_uploads(options.uploads, target.speech, options.seed)):
        path = "/v1/stream" if i % 5 == 4 else "/v1/translate"
        status, _head, body = target.post(path, content, text_only="true")
        answers.append(status)
        if status != 200:
            error = json.loads(body)["error"]
            if status not in (400, 413) or "\n" in error or any(part in error for part in hidden):
                through.append(f"{status} {error[:100]}")
    return len(answers), statuses(answers), through


def bad_commands(_: Target, options: argparse.Namespace) -> Result:
    """Wrong command lines, in a process of their own."""
    command = [sys.executable, str(Path(__file__).with_name("bad_commands.py")), "--count", str(options.commands)]
    done = subprocess.run([*command, "--seed", str(options.seed)], capture_output=True, text=True)
    *through, last = done.stdout.strip().splitlines() or [done.stderr[-200:]]
    return options.commands, last, through or ["it failed"] * (done.returncode != 0)


def mixed_load(target: Target, options: argparse.Namespace) -> Result:
    """All kinds at once: texts only, given texts, languages, streams, live sessions, what is no recording."""
    # A model of random weights recognizes languages that it does not translate from: ask for one that it names.
    error = json.loads(target.post("/v1/translate", target.good(), language="nosuch")[2])["error"]
    known = re.search(r"must be one of (\w+)", error)
    into = json.loads(target.post("/v1/translate", target.good(), text_only="true")[2])["target_language"]
    kinds: list[dict[str, str]] = [{}, {"text_only": "true"}, {"transcript": "one two"},
             {"language": known[1]} if known else {}, {"translation": "good day", "text_only": "true"},
             {"target_language": into}]  # fmt: skip
    answers, memory, through = Counter[str](), [], []

    def one(i: int) -> None:
        kind, fields, expected = "translate", kinds[i % len(kinds)], 200
        if i % 10 == 9:
            kind, expected = "no recording", 400
            status = target.post("/v1/translate", np.random.default_rng(i).bytes(4000))[0]
        elif i % 7 == 6:
            kind, (status, *_) = "stream", target.post("/v1/stream", target.good(i))
        elif i % 11 == 5:
            kind, status = "live", attack_live.live_session(target, 0.5 + i % 2)
        else:
            kind, (status, *_) = (
                " ".join(["translate", *fields]),
                target.post("/v1/translate", target.good(i), **fields),
            )
        answers[f"{status or 'none'}"] += 1
        if status not in (expected, 503, 504):
            through.append(f"{kind}: {status}")

    for _round in range(options.rounds):
        with ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(one, range(options.requests)))
        memory.append(f"{psutil.Process(target.process.pid).memory_info().rss / 2**20:.0f}")
    # A busy machine translates some too late, and says so.
    through += ["504 too often"] * (answers["504"] > answers.total() // 20)
    text = ", ".join(f"{status}: {count}" for status, count in sorted(answers.items()))
    return answers.total(), f"{text}; MiB after each round: {', '.join(memory)}", through


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
    through = ["the port in use"] * (second.returncode != 2 or second.stderr.count("\n") != 1)
    through += ["the exit code"] * (code != 0) + ["it lasted"] * (seconds > 6) + ["folders"] * (left > 0)
    return 2, f"{text}{traces} tracebacks in the log of all attacks", through + ["tracebacks"] * (traces > 0)


ATTACKS: dict[str, Callable[[Target, argparse.Namespace], Result]] = {
    "file-read": file_read,
    "routes": routes,
    "device-file": device_file,
    "rebinding": rebinding,
    "token": token,
    "foreign-page": foreign_page,
    "flood": flood,
    "malformed-page": malformed_page,
    "bad-uploads": bad_recordings,
    "commands": bad_commands,
    "hang-ups": attack_clients.hang_ups,
    "frames": attack_live.frames,
    "live": attack_live.live_sessions,
    "costly": attack_clients.costly,
    "slow-clients": attack_clients.slow_clients,
    "connections": attack_clients.many_connections,
    "mixed-load": mixed_load,
    "end": the_end,
}


def rows(target: Target, options: argparse.Namespace) -> Iterator[bool]:
    """Run the attacks; print a row for each."""
    print("| attack | tries | what came back | got through | peak MiB | seconds |")
    print("| --- | ---: | --- | --- | ---: | ---: |")
    target.peak()
    for name in options.only or ATTACKS:
        start = time.monotonic()
        tries, text, through = ATTACKS[name](target, options)
        peak = f"{target.peak():.0f}" if name != "end" else ""
        if name != "end" and not target.is_well():
            through.append("the server is not well")
        shown = "; ".join(f"{what} ({count})" for what, count in Counter(through).items()) or "nothing"
        print(f"| {name} | {tries} | {text} | {shown} | {peak} | {time.monotonic() - start:.0f} |", flush=True)
        yield not through


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("recording", type=Path)
    parser.add_argument("--only", nargs="+", choices=ATTACKS)
    numbers = {"seed": 0, "requests": 200, "at-once": 16, "rounds": 3, "uploads": 147, "commands": 300, "hang-ups": 50}
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number)
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
