"""Noise on the units that a model reads in training: against learning a few recordings by heart. Pure functions.

A model that has met each of a few hundred recordings many times predicts a unit from the units before it, as it stood
there last time, and hardly looks at the text: what it then says for a new text is something else. Where some of the
units before are wrong, only the text tells what comes next. What is predicted stays as it is, as in the word dropout of
Bowman et al. (2016, arXiv 1511.06349); but each replaced unit becomes another unit, not a token that decoding
never sees.
"""

from collections.abc import Mapping

import numpy as np

from unitweave.config.interleave import SpeechSegment
from unitweave.interleaving.sequence import SEGMENTS, TrainingSequence


def add_unit_noise(
    sequences: list[TrainingSequence], noise: Mapping[SpeechSegment, float], units: range, seed: tuple[int, ...]
) -> list[TrainingSequence]:
    """The sequences of a step with some of the units that the model reads replaced.

    Args:
        sequences: Sequences without noise.
        noise: Segment ("source", "target") -> fraction of its units that is replaced.
        units: Token ids of the units; the others, interleaved words among them, stay.
        seed: What is drawn depends on nothing but this and the sequences.

    Returns:
        The sequences with `inputs`; `ids`, which the labels come from, are those given. Where nothing is replaced,
        the sequences themselves.
    """
    if not sequences or not any(noise.values()):
        return sequences
    rng = np.random.default_rng(seed)
    ids = np.concatenate([sequence.ids for sequence in sequences])
    segments = np.concatenate([sequence.segments for sequence in sequences])
    fractions = np.array([0.0, *(noise.get(name, 0.0) for name in SEGMENTS)])
    is_unit = (ids >= units.start) & (ids < units.stop)
    hit = is_unit & (rng.random(len(ids)) < fractions[segments])
    inputs = ids.copy()
    inputs[hit] = rng.integers(units.start, units.stop, int(hit.sum()))
    parts = np.split(inputs, np.cumsum([len(sequence.ids) for sequence in sequences])[:-1])
    return [sequence._replace(inputs=part) for sequence, part in zip(sequences, parts, strict=True)]
