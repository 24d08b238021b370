"""Latency of simultaneous translation: hand-worked values, and the definitions written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitweave.metrics.latency import (
    Chunk,
    average_token_delay,
    end_offset,
    length_adaptive_average_lagging,
    play_times,
    start_offset,
)


def test_speech_is_played_after_what_came_before_it() -> None:
    assert play_times([1.0, 1.5, 5.0], [2.0, 0.5, 1.0]) == [1.0, 3.0, 5.0]
    assert start_offset([1.0, 3.0]) == 1.0 and end_offset([1.0, 3.0, 5.0], 4.0) == 1.0


def test_lagging_by_hand() -> None:
    # Four words over 4 s: the ideal ones come at 0, 1, 2 and 3 s.
    assert length_adaptive_average_lagging([1, 2, 3, 4], 4.0) == pytest.approx(1.0)
    # All at the end: only the first of them counts.
    assert length_adaptive_average_lagging([4, 4, 4, 4], 4.0) == pytest.approx(4.0)
    # Words after the end do not count either; the first one at the end does: (1 + 1 + 2) / 3.
    assert length_adaptive_average_lagging([1, 2, 4, 9], 4.0) == pytest.approx(4 / 3)
    # A longer reference makes the ideal words come every half second: (1 + 1.5 + 2 + 2.5) / 4.
    assert length_adaptive_average_lagging([1, 2, 3, 4], 4.0, reference_words=8) == pytest.approx(1.75)
    assert length_adaptive_average_lagging([1, 2, 3, 4], 4.0, reference_words=2) == pytest.approx(1.0)
    assert length_adaptive_average_lagging([5, 6], 4.0) == 5.0


def test_token_delay_by_hand() -> None:
    # After 0.6 s of the source (two tokens) two tokens of speech, which end at 0.9 and 1.2; they answer 0.3 and 0.6.
    assert average_token_delay([Chunk(0.6, 0.6, 0.6)]) == pytest.approx(0.6)
    # The second chunk, at 1.2 s, begins at once and answers the tokens that end at 0.9 and 1.2: 0.6 again.
    even = [Chunk(0.6, 0.6, 0.6), Chunk(1.2, 0.6, 1.2)]
    assert average_token_delay(even) == pytest.approx(0.6)
    # A first chunk of four tokens answers 0.3, 0.6, 0.6, 0.6 at 0.9, 1.2, 1.5, 1.8; the second one waits for it, ends
    # at 2.1 and 2.4, and is moved back by the two tokens that were too many: 0.9, 1.2.
    long = [Chunk(0.6, 1.2, 0.6), Chunk(1.2, 0.6, 1.2)]
    assert average_token_delay(long) == pytest.approx((0.6 + 0.6 + 0.9 + 1.2 + 1.2 + 1.2) / 6)
    # 0.5 s of computing for the first chunk, spread over its tokens: they end at 1.15 and 1.7.
    assert average_token_delay([Chunk(0.6, 0.6, 1.1)], computation_aware=True) == pytest.approx((0.85 + 1.1) / 2)


def written_out(chunks: list[Chunk]) -> float:
    """Equations 1 to 4 of the paper, in whole tokens: T(y_t) - T(x_a(t)), a(t) = min(t - d(t), g(t))."""
    x_ends, y_ends, chunk_of, g = [], [], [], []
    heard, x_acc, y_acc = 0, [0], [0]
    for number, chunk in enumerate(chunks):
        new = round((chunk.delay - heard) / 0.3)
        heard = chunk.delay
        x_ends += [0.3 * (len(x_ends) + 1 + i) for i in range(new)]
        for _ in range(round(chunk.seconds / 0.3)):
            y_ends.append(max(chunk.delay, y_ends[-1] if y_ends else 0.0) + 0.3)
            chunk_of.append(number)
            g.append(len(x_ends))
        x_acc.append(len(x_ends))
        y_acc.append(len(y_ends))
    total = 0.0
    for t, end in enumerate(y_ends, 1):
        c = chunk_of[t - 1]
        d = max(0, y_acc[c] - x_acc[c])
        total += end - x_ends[min(t - d, g[t - 1]) - 1]
    return total / len(y_ends)


chunks = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=8)


@given(chunks)
def test_token_delay_is_the_papers(steps: list[tuple[int, int]]) -> None:
    heard = np.cumsum([new for new, _ in steps]) * 0.3
    made = [Chunk(float(at), 0.3 * said, float(at)) for at, (_, said) in zip(heard, steps, strict=True)]
    assert average_token_delay(made) == pytest.approx(written_out(made))


@given(chunks, st.integers(2, 4))
def test_chunks_that_come_at_the_same_time_may_be_split(steps: list[tuple[int, int]], parts: int) -> None:
    heard = np.cumsum([new for new, _ in steps]) * 0.37
    made = [Chunk(float(at), 0.21 * said, float(at) + 0.1) for at, (_, said) in zip(heard, steps, strict=True)]
    split = [Chunk(one.delay, one.seconds / parts, one.elapsed) for one in made for _ in range(parts)]
    for aware in (False, True):
        assert average_token_delay(split, aware) == pytest.approx(average_token_delay(made, aware))


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=10), st.floats(0.0, 2.0))
def test_what_comes_later_lags_more(gaps: list[float], later: float) -> None:
    delays = np.cumsum(gaps)
    source = float(delays[-1])
    lag = length_adaptive_average_lagging(delays.tolist(), source + 5)
    assert length_adaptive_average_lagging((delays + later).tolist(), source + 5) == pytest.approx(lag + later)
