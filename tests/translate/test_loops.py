"""What counts as a loop of units, and of a text."""

import numpy as np
import pytest
import torch

from unitweave.translate.loops import (
    LONGEST_PHRASE,
    LOOP_WINDOW,
    PHRASE_LOOP,
    PHRASE_REPEATS,
    PhraseLoops,
    first_phrase_loop,
    in_a_loop,
)


def test_loops_are_told_from_speech() -> None:
    rng = np.random.default_rng(1)
    speech = rng.integers(0, 100, size=LOOP_WINDOW).tolist()
    assert not in_a_loop(speech) and not in_a_loop([1, 2] * 10)
    assert in_a_loop([1, 2, 3] * 40) and in_a_loop(speech + [4, 4, 7, 9] * 30)
    assert not in_a_loop([*([1, 2, 3] * 40), *range(20)])


def looks_back(tokens: list[int]) -> bool:
    """By the definition: the end of the text is a phrase, said often enough and for long enough."""
    for period in range(1, LONGEST_PHRASE + 1):
        length = max(PHRASE_REPEATS * period, PHRASE_LOOP)
        end = tokens[-length:]
        if len(end) == length and all(end[i] == end[i - period] for i in range(period, length)):
            return True
    return False


def texts() -> list[list[int]]:
    rng = np.random.default_rng(3)
    found = []
    for period in (1, 2, 5, 9, 20, 64, 65):
        start, phrase = rng.integers(0, 3, 15).tolist(), rng.integers(0, 50, period).tolist()
        found.append((start + phrase * (PHRASE_LOOP // period + 4))[:220])
    return [*found, rng.integers(0, 2, 220).tolist(), rng.integers(0, 30, 220).tolist()]


@pytest.mark.parametrize("tokens", texts())
def test_a_phrase_is_a_loop_where_it_is_said_three_times_over_24_tokens(tokens: list[int]) -> None:
    ends = [n for n in range(1, len(tokens) + 1) if looks_back(tokens[:n])]
    assert first_phrase_loop(tokens) == (ends[0] if ends else None)


def test_short_repetitions_are_no_loop() -> None:
    for said in ([1, 2] * 5, [7] * 20, [1, 2, 3, 4, 5, 6, 7, 8] * 2, list(range(200))):
        assert first_phrase_loop(said) is None


def test_the_rows_of_a_batch_are_each_what_they_are_alone_and_begin_anew_where_a_text_begins() -> None:
    rng = np.random.default_rng(5)
    rows = torch.from_numpy(rng.integers(0, 2, (6, 120)))
    loops, never = PhraseLoops(6), torch.zeros(6, dtype=torch.bool)
    steps = torch.stack([loops.advance(token, never) for token in rows.T])
    for row, found in zip(rows.tolist(), steps.T, strict=True):
        first = first_phrase_loop(row)
        assert (int(found.int().argmax()) + 1 if bool(found.any()) else None) == first
    loops.select(torch.tensor([4, 4, 0]))
    assert loops.recent.shape == (3, LONGEST_PHRASE) and bool((loops.recent[0] == loops.recent[1]).all())
    loops, found = PhraseLoops(1), []
    for n in range(40):
        found += loops.advance(torch.tensor([9]), torch.tensor([n == 15])).tolist()
    assert found.index(True) == 15 + PHRASE_LOOP
