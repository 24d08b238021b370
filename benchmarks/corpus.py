"""How fast `unitweave corpus cvss` reads archives on this machine, as a markdown table. No downloads.

    python benchmarks/corpus.py [--clips 300] [--seconds 5] [--workers 1 2]

Makes an archive of CVSS-C (wav, 24 kHz) and one of Common Voice (mp3, 48 kHz) out of noise-like sound, and
times the whole command with each number of threads, again after everything was made, and after a change of a limit.
"""

import argparse
import io
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from unitweave.config.corpus import CvssCorpus, RowLimits
from unitweave.corpus.readers.cvss import build_cvss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each clip")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_archives(place, options.clips, options.seconds)
        hours = 2 * options.clips * options.seconds / 3600
        print("| threads | | seconds | hours of audio per hour |\n| --- | --- | --- | --- |")
        for workers in options.workers:
            out = place / f"corpus{workers}"
            settings = CvssCorpus(
                cvss=[str(place / "cvss_c_es_en_v1.0.tar.gz")],
                covost=[str(place / "covost_v2.es_en.tsv"), str(place / "es.tar.gz")],
                out=str(out),
                workers=workers,
            )
            for what, limits in (
                ("everything", RowLimits()),
                ("again, nothing changed", RowLimits()),
                ("again, other limits", RowLimits(max_seconds=30)),
            ):
                start = time.perf_counter()
                build_cvss(settings, limits)
                seconds = time.perf_counter() - start
                print(f"| {workers} | {what} | {seconds:.2f} | {hours * 3600 / seconds:.0f} |", flush=True)


def make_archives(folder: Path, clips: int, seconds: float) -> None:
    """cvss_c_es_en_v1.0.tar.gz, es.tar.gz and covost_v2.es_en.tsv with that many training clips."""
    rng = np.random.default_rng(0)
    sounds = {}
    for rate, kind in ((24_000, "WAV"), (48_000, "MP3")):
        envelope = np.abs(np.sin(np.arange(int(rate * seconds)) * 2 * np.pi * 2 / rate))  # syllables, two a second
        buffer = io.BytesIO()
        wave = 0.2 * envelope * np.convolve(rng.standard_normal(len(envelope)), np.ones(8) / 8, mode="same")
        soundfile.write(buffer, wave, rate, format=kind)
        sounds[kind] = buffer.getvalue()
    names = [f"common_voice_es_{number}" for number in range(clips)]
    with tarfile.open(folder / "cvss_c_es_en_v1.0.tar.gz", "w:gz") as tar:
        add(tar, "train.tsv", "".join(f"{name}.mp3\tthe sea is wide today\n" for name in names).encode())
        for name in names:
            add(tar, f"train/{name}.mp3.wav", sounds["WAV"])
    with tarfile.open(folder / "es.tar.gz", "w:gz") as tar:
        for name in names:
            add(tar, f"es/clips/{name}.mp3", sounds["MP3"])
    rows = [f"{name}.mp3\tHoy el mar es ancho.\tThe sea is wide today.\tme\ttrain\n" for name in names]
    header = "path\tsentence\ttranslation\tclient_id\tsplit\n"
    (folder / "covost_v2.es_en.tsv").write_text(header + "".join(rows), encoding="utf-8")


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """One file of an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main()
