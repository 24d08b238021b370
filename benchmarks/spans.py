"""Lengths of the spans that are written as text, and of the runs that they make, as a markdown table.

    python benchmarks/spans.py [--words 12] [--mean-length 3.0]

The last two columns are a literal reading of the paper, for comparison: spans at random places, as many as it takes
until the ratio is reached, without cutting the last one.
"""

import argparse
import itertools
from random import Random

import numpy as np

from unitweave.interleaving.spans import draw_spans

DRAWS = 20_000


def literal(words: int, ratio: float, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Words that are text, bool [words]: whole spans at uniform places until the ratio is reached."""
    text = np.zeros(words, dtype=bool)
    while text.sum() < ratio * words:
        first, length = rng.integers(words), rng.choice(lengths)
        text[first : first + length] = True
    return text


def runs(text: np.ndarray) -> list[int]:
    """Lengths of the runs of text in bool [words]."""
    return [len(list(run)) for is_text, run in itertools.groupby(text.tolist()) if is_text]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=12, help="words of the sentence")
    parser.add_argument("--mean-length", type=float, default=3.0, help="interleave.mean_span_length")
    options = parser.parse_args()
    words, rng, numbers = options.words, Random(0), np.random.default_rng(0)
    poisson = numbers.poisson(options.mean_length, 50_000)
    poisson = poisson[poisson > 0]
    print("| text ratio | fraction of text | mean run of text | runs | first word | literal: fraction | first word |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for ratio in (0.1, 0.3, 0.5, 0.7, 0.9):
        ours = np.zeros((DRAWS, words), dtype=bool)
        for draw in ours:
            for first, last in draw_spans(words, ratio, options.mean_length, rng):
                draw[first:last] = True
        theirs = np.array([literal(words, ratio, poisson, numbers) for _ in range(DRAWS // 10)])
        lengths = [length for draw in ours for length in runs(draw)]
        print(
            f"| {ratio} | {ours.mean():.2f} | {np.mean(lengths):.1f} | {len(lengths) / DRAWS:.1f} | "
            f"{ours[:, 0].mean():.2f} | {theirs.mean():.2f} | {theirs[:, 0].mean():.2f} |"
        )


if __name__ == "__main__":
    main()
