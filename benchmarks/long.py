"""Memory and time of `unitweave translate` on a long recording against a short one.

    python benchmarks/long.py MODEL WAV... [--minutes 1 60] [--every 20]

Makes a recording of each length in which one of the WAVs is heard every so many seconds, over a little noise,
translates it in a process of its own and prints that process's peak memory and time as a markdown table.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from unitweave.core.audio import read_audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("wavs", type=Path, nargs="+")
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 60])
    parser.add_argument("--every", type=float, default=20.0, help="seconds from one utterance to the next")
    options = parser.parse_args()
    voices = [read_audio(path) for path in options.wavs]
    print("| minutes | utterances | peak MiB | processor seconds | real-time factor |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes:
            path = Path(folder) / f"talk{minutes}.flac"
            count = write_talk(path, voices, minutes, options.every)
            command = [sys.executable, "-m", "unitweave.cli", "translate", options.model, str(path), "-o", folder]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                sys.exit(f"translating {minutes} minutes failed")
            spent = used.ru_utime + used.ru_stime
            memory = used.ru_maxrss / 1024
            print(f"| {minutes} | {count} | {memory:.0f} | {spent:.0f} | {spent / minutes / 60:.3f} |", flush=True)


def write_talk(path: Path, voices: list[np.ndarray], minutes: int, every: float) -> int:
    """Write a recording of so many minutes; returns how many utterances it has."""
    rng, period = np.random.default_rng(0), round(every * 16_000)
    count = round(minutes * 60 / every)
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC") as file:
        for i in range(count):
            block = rng.normal(scale=5e-4, size=period).astype(np.float32)
            voice = voices[i % len(voices)][:period]
            block[: len(voice)] += voice
            file.write(block)
    return count


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"\n{time.monotonic() - start:.0f} s in all")
