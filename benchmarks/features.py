"""Our features against transformers' SeamlessM4TFeatureExtractor, one utterance at a time, as a markdown table.

    python benchmarks/features.py [--corpus RUN/corpus] [--utterances 100] [--threads 1] [--repeats 3]

Without a corpus the utterances are noise and tones of 1 to 15 seconds. Both are called with one utterance at
a time, in turns in one run, by the clock and by processor time (which other processes
disturb less); the largest difference of the features is checked to be under 1e-4.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from transformers import SeamlessM4TFeatureExtractor

from unitweave.core.audio import read_audio
from unitweave.core.manifest import read_manifest
from unitweave.units.features import extract_features


def waveforms(corpus: Path | None, count: int) -> list[np.ndarray]:
    """Recordings of a corpus, or synthetic ones."""
    if corpus:
        pairs = read_manifest(corpus)
        step = max(1, len(pairs) // count)
        return [read_audio(pair.src_audio) for pair in pairs[::step] if pair.src_audio][:count]
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        time_axis = np.arange(int(rng.uniform(1, 15) * 16_000)) / 16_000
        tones = sum(np.sin(2 * np.pi * f * time_axis) for f in rng.uniform(90, 3000, 4))
        made.append(np.float32(0.1 * tones * np.sin(9 * time_axis) + rng.normal(0, 0.01, len(time_axis))))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--utterances", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the fastest of each counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    waves = waveforms(options.corpus, options.utterances)
    extractor = SeamlessM4TFeatureExtractor()
    fastest = {name: [float("inf")] * 2 for name in ("SeamlessM4TFeatureExtractor", "unitweave")}
    for _ in range(options.repeats):
        marks = [(time.perf_counter(), time.process_time())]
        theirs = [extractor(wave, sampling_rate=16_000, return_tensors="pt") for wave in waves]
        marks.append((time.perf_counter(), time.process_time()))
        ours = [extract_features([wave])[0] for wave in waves]
        marks.append((time.perf_counter(), time.process_time()))
        for name, (before, after) in zip(fastest, itertools.pairwise(marks), strict=True):
            fastest[name] = [min(f, b - a) for f, a, b in zip(fastest[name], before, after, strict=True)]
    difference = max(
        float((one - other.input_features[0, : len(one)]).abs().max()) for one, other in zip(ours, theirs, strict=True)
    )
    assert difference < 1e-4, difference
    seconds = sum(map(len, waves)) / 16_000
    print(f"{len(waves)} utterances, {seconds:.0f} s, {options.threads} threads; largest difference {difference:.1e}\n")
    print("| features | ms an utterance | ratio | ms of processor time | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    slow = fastest["SeamlessM4TFeatureExtractor"]
    for name, (wall, cpu) in fastest.items():
        print(
            f"| {name} | {1000 * wall / len(waves):.2f} | {slow[0] / wall:.1f} x "
            f"| {1000 * cpu / len(waves):.2f} | {slow[1] / cpu:.1f} x |"
        )


if __name__ == "__main__":
    main()
