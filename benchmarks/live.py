"""Live sessions on a server over loopback, all at the speed of speech, from a process of their own.

    python benchmarks/live.py MODEL WAV... [--sessions 1 8] [--seconds 30] [--policy agreement] [-- SERVE OPTIONS]

Starts `unitweave serve MODEL --no-page` itself. Each session says the recordings one after the other, with a second of
silence between them, and prints how long after the end of an utterance its translation was there, and how many sessions
were told that the server is busy.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from unitweave.core.audio import SAMPLE_RATE, read_audio

BLOCK = 1600  # samples sent at a time: 0.1 s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("wavs", type=Path, nargs="+")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--policy", default="utterance")
    parser.add_argument("--port", type=int, default=7898)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, rest = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    serve = ["serve", options.model, "--no-page", "--port", str(options.port), *rest]
    process = subprocess.Popen([sys.executable, "-m", "unitweave.cli", *serve], stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server is not to outlive us
    try:
        wait_for(options.port, process)
        talk = said(options.wavs, options.seconds)
        print(f"policy {options.policy}, {options.seconds:g} s each\n")
        print("| sessions | utterances | busy | first words s | whole translation s | worst s | server MiB |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for sessions in options.sessions:
            print_row(sessions, talk, options.policy, options.port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port: int, process: subprocess.Popen) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("the server did not start")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=5).close()
            return
        except urllib.error.URLError:
            time.sleep(0.2)
    sys.exit("the server did not answer")


def said(wavs: list[Path], seconds: float) -> np.ndarray:
    """So many seconds of the recordings with pauses, as 16-bit samples."""
    parts = [part for wav in wavs for part in (read_audio(wav), np.zeros(SAMPLE_RATE, np.float32))]
    once = np.concatenate(parts)
    repeated = np.resize(once, round(seconds * SAMPLE_RATE))
    return (np.clip(repeated, -1, 1) * 32767).astype("<i2")


def print_row(sessions: int, talk: np.ndarray, policy: str, port: int, pid: int) -> None:
    """Run so many sessions at the same time and print how they did."""
    with ThreadPoolExecutor(sessions) as pool:
        # Not in step: each begins a little later than the one before.
        found = list(pool.map(lambda i: one_session(talk, policy, port, 0.37 * i), range(sessions)))
    busy = sum(code == 1013 for _, _, code in found)
    first = [value for firsts, _, _ in found for value in firsts]
    whole = [value for _, ends, _ in found for value in ends]
    memory = psutil.Process(pid).memory_info().rss / 2**20
    shown = [f"{np.median(values):.2f}" if values else "" for values in (first, whole)]
    worst = f"{max(whole):.2f}" if whole else ""
    print(f"| {sessions} | {len(whole)} | {busy} | {shown[0]} | {shown[1]} | {worst} | {memory:.0f} |", flush=True)


def one_session(talk: np.ndarray, policy: str, port: int, later: float) -> tuple[list[float], list[float], int]:
    """Seconds from the end of each utterance to its first words and to its whole translation, and the close code."""
    time.sleep(later)
    firsts: dict[int, float] = {}
    ends: list[float] = []
    lags: list[float] = []
    with connect(f"ws://127.0.0.1:{port}/v1/live", compression=None) as socket:
        socket.send(json.dumps({"policy": policy}))
        start = time.monotonic()

        def listen() -> int:
            try:
                while True:
                    message = socket.recv()
                    if isinstance(message, bytes):
                        continue
                    event, now = json.loads(message), time.monotonic() - start
                    if event["event"] == "translation":
                        firsts.setdefault(event["utterance"], now)
                    elif event["event"] == "end":
                        ends.append(now - event["end"])
                        if event["utterance"] in firsts:
                            lags.append(firsts[event["utterance"]] - event["end"])
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006

        with ThreadPoolExecutor(1) as pool:
            code = pool.submit(listen)
            try:
                for at in range(0, len(talk), BLOCK):
                    socket.send(talk[at : at + BLOCK].tobytes())
                    time.sleep(max(0.0, start + (at + BLOCK) / SAMPLE_RATE - time.monotonic()))
                socket.send(json.dumps({"event": "finish"}))
            except ConnectionClosed:
                pass
            return lags, ends, code.result()


if __name__ == "__main__":
    main()
