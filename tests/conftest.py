"""Small real models and data, shared by the tests."""

import os

# Tests share two cores with each other's worker threads: waiting threads spin but briefly.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from pathlib import Path

import numpy as np
import pytest
import torch

from unitweave.lm.text import SmallLm, new_llama, train_tokenizer
from unitweave.weave.sequence import Example, Markers, WeaveSettings, prepare_speech

TEXTS = ["the small dog sleeps", "a red house by the sea", "where is the station", "el perro duerme en la casa"]


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def text_lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights and its tokenizer, in save_pretrained layout."""
    folder = tmp_path_factory.mktemp("text_lm")
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(0)
    new_llama(SmallLm(hidden_size=32, layers=2, heads=2, feed_forward=64), len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


MARKERS = Markers(source=200, transcript=201, translation=202, target=203, end=204, mask=205)


def random_example(seed: int) -> Example:
    """An utterance pair of random units (ids 100 to 199) and random text (ids 1 to 99)."""
    rng = np.random.default_rng(seed)

    def speech():
        words = int(rng.integers(1, 7))
        ends = np.cumsum(rng.integers(2, 8, size=words))
        tokens = [rng.integers(1, 99, size=int(n)).astype(np.int32) for n in rng.integers(1, 3, size=words)]
        units = rng.integers(100, 200, size=int(ends[-1]))
        return prepare_speech(units, np.append(0, ends[:-1]), ends, np.ones(words), tokens, WeaveSettings())

    source, target = speech(), speech()
    return Example(source, target, source.text, target.text)
