"""How long a stream takes from the recording to its texts, to its first half second of speech, and to all of it.

    python benchmarks/first_audio.py MODEL WAV... [--threads 1 2] [--repeats 3]

A row for each number of threads and each kind of model: units without repetitions, whose durations the vocoder
predicts, and with them. MODEL is of one kind; the other is the same network read the other way, since the time for a
unit does not depend on which one it is. Medians over the recordings.
"""

import argparse
import queue
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from unitweave.core.audio import read_audio
from unitweave.translate.decode import Translation
from unitweave.translate.translator import Translator


class Moments:
    """Seconds at which something came, since the recording was there; units go on to whoever reads them."""

    def __init__(self) -> None:
        self.start, self.text = time.perf_counter(), 0.0
        self._units: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def texts(self, index: int, hypothesis: Translation) -> None:
        """The texts are complete."""
        self.text = time.perf_counter() - self.start

    def unit(self, index: int, unit: int) -> None:
        """The next unit."""
        self._units.put(unit)

    def end(self) -> None:
        """There are no more units."""
        self._units.put(None)

    def units(self) -> Iterator[int]:
        """The units as they come."""
        while (unit := self._units.get()) is not None:
            yield unit


def measure(translator: Translator, path: Path) -> tuple[float, float, float, float, float]:
    """Seconds of the recording, to the texts, to the first chunk, to all speech; and seconds of the speech."""
    waveform = read_audio(path)
    moments = Moments()

    def decode() -> None:
        sources = [units for units, _ in translator.encode([waveform])]
        try:
            translator.decoder.translate(sources, translator.settings, streamer=moments)
        finally:
            moments.end()

    thread = threading.Thread(target=decode)
    thread.start()
    times, samples = [], 0
    for chunk in translator.stream_speech(moments.units()):
        times.append(time.perf_counter() - moments.start)
        samples += len(chunk)
    thread.join()
    rate = translator.speech_vocoder.sample_rate
    return len(waveform) / 16_000, moments.text, (times or [0.0])[0], (times or [0.0])[-1], samples / rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("wavs", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="of each recording; the fastest counts")
    options = parser.parse_args()
    translator = Translator.from_pretrained(options.model)
    print("| units | threads | recording s | texts s | first audio s | all speech s | speech s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    own = translator.decoder.vocabulary.deduplicate
    for deduplicate in (own, not own):
        translator.decoder.vocabulary = replace(translator.decoder.vocabulary, deduplicate=deduplicate)
        for threads in options.threads:
            torch.set_num_threads(threads)
            measure(translator, options.wavs[0])  # warms up
            rows = [
                min((measure(translator, wav) for _ in range(options.repeats)), key=lambda row: row[2])
                for wav in options.wavs
            ]
            name = "without repetitions" if deduplicate else "with repetitions"
            middle = " | ".join(f"{statistics.median(column):.2f}" for column in zip(*rows, strict=True))
            print(f"| {name} | {threads} | {middle} |", flush=True)


if __name__ == "__main__":
    main()
