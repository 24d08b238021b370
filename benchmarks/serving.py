"""Load on a server: many uploads at a time over loopback, one in ten malformed, from a process of their own.

    python benchmarks/serving.py MODEL WAV... [--requests 200] [--at-once 16] [--rounds 2] [-- SERVE OPTIONS]

Starts `unitweave serve MODEL` itself, sends the requests `--rounds` times and prints what was answered, the
latencies, and the server's memory after each round (the first round warms up: threads, kernels, caches).
"""

import argparse
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from unitweave.core.audio import read_audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("wavs", type=Path, nargs="+")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--port", type=int, default=7899)
    own, rest = (sys.argv[1:], []) if "--" not in sys.argv else split(sys.argv[1:])
    options = parser.parse_args(own)
    url = f"http://127.0.0.1:{options.port}"
    command = [sys.executable, "-m", "unitweave.cli", "serve", options.model, "--port", str(options.port), *rest]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server is not to outlive us
    try:
        wait_for(url, process)
        bodies = [path.read_bytes() for path in options.wavs]
        seconds = sum(len(read_audio(path)) for path in options.wavs) / 16_000 / len(bodies)
        print(f"{options.requests} requests, {options.at_once} at a time, recordings of {seconds:.1f} s on average\n")
        print("| round | answered | 200 | 400 | other | median s | 95 % s | requests/s | server MiB |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for number in range(1, options.rounds + 1):
            print_round(number, url, bodies, options.requests, options.at_once, process)
    finally:
        process.terminate()
        process.wait(30)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and after --."""
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def wait_for(url: str, process: subprocess.Popen) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("the server did not start")
        try:
            urllib.request.urlopen(url + "/v1/health", timeout=5).close()
            return
        except urllib.error.URLError:
            time.sleep(0.2)
    sys.exit("the server did not answer")


def print_round(
    number: int, url: str, bodies: list[bytes], requests: int, at_once: int, process: subprocess.Popen
) -> None:
    """Send all requests and print one row."""
    noise = np.random.default_rng(number)

    def one(i: int) -> tuple[int, float]:
        content = noise.bytes(4_000) if i % 10 == 9 else bodies[i % len(bodies)]
        start = time.perf_counter()
        status = upload(url + "/v1/translate", content)
        return status, time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(one, range(requests)))
    spent = time.perf_counter() - start
    statuses = [status for status, _ in answers]
    good = sorted(seconds for status, seconds in answers if status == 200) or [0.0]
    other = sum(status not in (200, 400, 0) for status in statuses)
    memory = psutil.Process(process.pid).memory_info().rss / 2**20
    answered = sum(status != 0 for status in statuses)
    print(
        f"| {number} | {answered} of {requests} | {statuses.count(200)} | {statuses.count(400)} | {other} | "
        f"{good[len(good) // 2]:.2f} | {good[int(len(good) * 0.95)]:.2f} | {requests / spent:.1f} | {memory:.0f} |",
        flush=True,
    )


def upload(url: str, content: bytes) -> int:
    """Status of one upload, 0 where nothing was answered."""
    edge = uuid.uuid4().hex
    head = f'--{edge}\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'.encode()
    body = head + content + f"\r\n--{edge}--\r\n".encode()
    request = urllib.request.Request(url, body, {"Content-Type": f"multipart/form-data; boundary={edge}"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


if __name__ == "__main__":
    main()
