"""Forced alignment equals a plain dynamic program, and words come out where their characters are."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unitweave.units.align import forced_align, word_frames


def reference_score(log_probs: np.ndarray, target: list[int], blank: int = 0) -> float:
    """Best CTC path by a plain per-utterance dynamic program."""
    labels = [blank]
    for t in target:
        labels += [t, blank]
    score = np.full(len(labels), -np.inf)
    score[0] = log_probs[0, blank]
    if len(labels) > 1:
        score[1] = log_probs[0, labels[1]]
    for t in range(1, len(log_probs)):
        new = np.full(len(labels), -np.inf)
        for s, label in enumerate(labels):
            before = [score[s]]
            if s >= 1:
                before.append(score[s - 1])
            if s >= 2 and label != blank and label != labels[s - 2]:
                before.append(score[s - 2])
            new[s] = max(before) + log_probs[t, label]
        score = new
    return max(score[-1], score[-2]) if len(labels) > 1 else score[-1]


def spell(positions: np.ndarray) -> list[int]:
    """Target positions in the order the path emits them, each once."""
    return [int(k) for k, _ in itertools.groupby(positions) if k >= 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_batched_alignment_equals_a_plain_dynamic_program(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    targets = [rng.integers(1, 4, size=n).tolist() for n in sizes]  # three characters: many repeats
    lengths = [int(rng.integers(1, 24)) for _ in sizes]
    batch = torch.randn(len(sizes), max(lengths), 4, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    aligned, scores = forced_align(batch, torch.tensor(lengths), targets)
    for i, (target, length) in enumerate(zip(targets, lengths, strict=True)):
        log_probs = batch[i, :length].double().numpy()
        expected = reference_score(log_probs, target)
        if np.isinf(expected):
            assert len(aligned[i]) == 0 and torch.isinf(scores[i])
            continue
        assert float(scores[i]) == pytest.approx(expected, abs=1e-4)
        assert spell(aligned[i]) == list(range(len(target)))
        path = sum(log_probs[t, target[p] if p >= 0 else 0] for t, p in enumerate(aligned[i]))
        assert path == pytest.approx(expected, abs=1e-4)


def test_alignment_of_an_utterance_does_not_depend_on_its_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(5, 40, 6, generator=generator).log_softmax(-1)
    lengths = torch.tensor([40, 12, 31, 25, 9])
    targets = [[1, 2, 3, 3, 4], [5], [1, 1, 1], [2, 4] * 5, [3, 2]]
    together, _ = forced_align(batch, lengths, targets)
    for i in range(5):
        alone, _ = forced_align(batch[i : i + 1, : lengths[i]], lengths[i : i + 1], [targets[i]])
        assert np.array_equal(together[i], alone[0])


def test_words_cover_their_characters_and_carry_their_probability() -> None:
    # "ab|c" with | = 9; frames: a a - b | - c c
    positions = np.array([0, 0, -1, 1, 2, -1, 3, 3])
    log_probs = np.full((8, 10), np.log(0.01))
    for frame, (character, p) in {0: (1, 0.5), 1: (1, 0.9), 3: (2, 0.4), 6: (3, 0.25), 7: (3, 0.2)}.items():
        log_probs[frame, character] = np.log(p)
    words = word_frames(positions, [1, 2, 9, 3], log_probs, delimiter=9)
    assert words.starts.tolist() == [0, 6]
    assert words.ends.tolist() == [4, 8]
    assert words.scores.tolist() == pytest.approx([np.sqrt(0.9 * 0.4), 0.25])


def test_words_without_a_path_get_no_frames_and_score_zero() -> None:
    words = word_frames(np.empty(0, int), [1, 2, 9, 3], np.zeros((2, 10)), delimiter=9)
    assert words.starts.tolist() == [0, 0] and words.ends.tolist() == [0, 0] and words.scores.tolist() == [0, 0]
