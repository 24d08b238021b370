"""Interleaving and batch building on one core, as a markdown table. Needs a run with units.

    python benchmarks/interleaving.py RUN [--text-lm FOLDER] [--step-seconds 0.5]

`--step-seconds` is the time of a training step of 16 pairs (benchmarks/training.py), of which the last
column is a share; workers build batches ahead, so on machines with a spare core even that is hidden.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from unitweave.config.interleave import InterleaveSettings
from unitweave.lm.data.dataset import all_languages, codebook_identity, load_pairs
from unitweave.lm.data.examples import load_examples
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.stream import InterleavedDataset, PackedDataset
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.model.start import load_causal_lm
from unitweave.lm.model.vocabulary import extend_tokenizer

BATCH, STEPS, ROUNDS = 16, 150, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with corpus and units")
    parser.add_argument("--text-lm", type=Path, help="model folder (default: RUN/text_lm/model)")
    parser.add_argument("--step-seconds", type=float, default=0.5, help="time of a training step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = load_pairs(options.run / "corpus", options.run / "units", "train")
    _, tokenizer = load_causal_lm(str(options.text_lm or options.run / "text_lm/model"))
    codebook, num_units = codebook_identity(options.run / "units")
    vocabulary = extend_tokenizer(tokenizer, num_units, all_languages(pairs), codebook)
    tokens = WordTokens(tokenizer)
    start = time.perf_counter()
    where = Path(tempfile.mkdtemp()) / "examples"
    examples, _ = load_examples(where, pairs, options.run / "units", vocabulary, tokens, InterleaveSettings())
    seconds = time.perf_counter() - start
    print(f"{len(pairs)} pairs prepared once in {seconds:.2f} s ({len(pairs) / seconds:,.0f} pairs/s)\n")
    print(
        "| text ratio | interleaved, pairs/s | and packed, pairs/s | share of a step |\n| ---: | ---: | ---: | ---: |"
    )
    for ratio in (0.9, 0.5, 0.1, 0.0):
        order = UtteranceSampler([range(len(examples))], 1)
        markers = vocabulary.sequence_markers
        source = InterleavedDataset(examples, order, BATCH, lambda step, r=ratio: r, InterleaveSettings(), markers)
        dataset = PackedDataset(source, STEPS, [0.0, 1.0, 1.0, 1.0, 1.0])
        speeds = []
        for build in (source.sequences, dataset.__getitem__):
            best = float("inf")
            for _ in range(ROUNDS):
                start = time.perf_counter()
                for step in range(STEPS):
                    build(step)
                best = min(best, time.perf_counter() - start)
            speeds.append(STEPS * BATCH / best)
        share = BATCH / speeds[1] / options.step_seconds
        print(f"| {ratio} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {100 * share:.2f} % |")


if __name__ == "__main__":
    main()
