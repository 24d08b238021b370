"""A stream of interleaved sequences of random utterance pairs."""

import numpy as np

from helpers.examples import MARKERS, random_example
from unitweave.config.interleave import InterleaveSettings, ScheduleSettings
from unitweave.interleaving.schedule import text_ratio
from unitweave.interleaving.sequence import TrainingSequence
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.stream import InterleavedDataset

WEIGHTS = [0.0, 0.5, 1.0, 1.0, 2.0]


def speech_source(**changes) -> InterleavedDataset:
    examples = [random_example(seed) for seed in range(23)]
    settings = {
        "examples": examples,
        "sampler": UtteranceSampler([range(15), range(15, 23)], seed=3, temperature=2.0),
        "batch_size": 12,
        "ratio": text_ratio(ScheduleSettings(stair_steps=2), 40),
        "interleave": InterleaveSettings(),
        "markers": MARKERS,
        "tasks": {"s2st": 2.0, "asr": 1.0},
        "seed": 5,
    }
    return InterleavedDataset(**(settings | changes))


def interleaved(*lengths: int) -> list[TrainingSequence]:
    rng = np.random.default_rng(sum(lengths))
    return [
        TrainingSequence(rng.integers(1, 200, n).astype(np.int32), np.sort(rng.integers(1, 5, n)).astype(np.uint8))
        for n in lengths
    ]
