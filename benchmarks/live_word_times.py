"""LAAL of live translation by the word times of an independent recognizer, beside that of our aligner.

    python benchmarks/live_word_times.py FOLDER/POLICY [FOLDER/POLICY ...] --model whisper-base

FOLDER is what `unitweave live evaluate --out FOLDER` wrote. Whisper transcribes the speech as it is played, with its
pauses, and times the words that it hears, whatever the model wrote. Computing is not counted.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unitweave.core.audio import read_audio
from unitweave.metrics.latency import length_adaptive_average_lagging
from whisper import load_whisper, word_times


def laal(lines: list[dict], delays: list[list[float]]) -> float:
    """Mean LAAL in seconds of instances with the delays of their words in milliseconds."""
    return float(
        np.mean(
            [
                length_adaptive_average_lagging(
                    [delay / 1000 for delay in own], line["source_length"] / 1000, len(line["reference"].split())
                )
                for line, own in zip(lines, delays, strict=True)
            ]
        )
    )


def spoken(folder: Path) -> Iterator[dict]:
    """The instances of a policy that have speech."""
    for text in (folder / "instances.log").read_text().splitlines():
        line = json.loads(text)
        if line["delays"]:
            yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--language", default="en")
    parser.add_argument("--window", type=int, default=30, help="seconds that Whisper takes; longer speech is left out")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    model, processor = load_whisper(options.model, "cpu", options.window)
    print("| | recordings | LAAL, our aligner | LAAL, Whisper |\n| --- | ---: | ---: | ---: |")
    for folder in options.folders:
        lines = [line for line in spoken(folder) if line["prediction_length"] < 1000 * options.window]
        delays: list[list[float]] = []
        for first in range(0, len(lines), options.batch):
            batch = lines[first : first + options.batch]
            audio = [read_audio(folder / "wavs" / Path(line["prediction"]).name) for line in batch]
            for line, words in zip(batch, word_times(model, processor, audio, options.language), strict=True):
                begins = line["prediction_offset"]
                delays.append([begins + 1000 * start for _, start, _ in words] or [begins])
        ours = laal(lines, [line["word_delays"] for line in lines])
        print(f"| {folder.name} | {len(lines)} | {ours:.2f} | {laal(lines, delays):.2f} |", flush=True)


if __name__ == "__main__":
    main()
