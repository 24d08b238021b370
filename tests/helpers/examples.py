"""Utterance pairs of random units and text."""

import numpy as np

from unitweave.config.interleave import InterleaveSettings
from unitweave.interleaving.sequence import Example, Markers, prepare_speech

MARKERS = Markers(source=200, transcript=201, translation=202, target=203, end=204, mask=205)


def random_example(seed: int) -> Example:
    """An utterance pair of random units (ids 100 to 199) and random text (ids 1 to 99)."""
    rng = np.random.default_rng(seed)

    def speech():
        words = int(rng.integers(1, 7))
        ends = np.cumsum(rng.integers(2, 8, size=words))
        tokens = [rng.integers(1, 99, size=int(n)).astype(np.int32) for n in rng.integers(1, 3, size=words)]
        units = rng.integers(100, 200, size=int(ends[-1]))
        return prepare_speech(units, np.append(0, ends[:-1]), ends, np.ones(words), tokens, InterleaveSettings())

    source, target = speech(), speech()
    return Example(source, target, source.text, target.text)
