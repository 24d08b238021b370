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


# Source and reference words; delays, durations and elapsed times of the chunks in ms; and what SimulEval 1.1.4 says of
# them (its ATDScorer and LAALScorer, without and with computing time); OmniSTEval 0.1.10 says the same of LAAL.
SIMULEVAL = [
    (2992, 3, [2992, 2992, 2992, 2992, 2992, 2992], [300, 300, 66, 600, 300, 300], [3382, 3418, 3489, 3805, 4121, 4348],
     2958.5714285714284, 3733.4285714285706, 2992.0, 3382.0),
    (1000, 4, [300, 300, 900, 2183], [300, 600, 300, 1144], [620, 724, 1417, 3053],
     972.0, 1252.9375, 545.75, 670.3333333333334),
    (4039, 6, [1899, 4033, 4039], [300, 600, 1275], [1900, 4339, 4692],
     3525.875, 3903.937499999999, 2650.5, 2782.9166666666665),
    (1440, 1, [1440, 1440, 1440], [1007, 300, 300], [1823, 2006, 2212],
     1477.8333333333333, 1928.1666666666665, 1440.0, 1823.0),
    (5397, 6, [1682, 3909, 4939, 5397], [300, 600, 600, 600], [2079, 4542, 5627, 6386],
     3613.1428571428573, 3812.4285714285716, 2632.5, 3183.1666666666665),
    (3323, 6, [1973], [600], [2235], 1973.0, 2169.5, 1973.0, 2235.0),
    (2114, 1, [764, 827, 2114], [200, 344, 600], [1011, 1156, 2811],
     1009.2, 1292.4, 530.3333333333334, 954.6666666666666),
    (1563, 6, [265, 1563, 1563, 1563, 1563], [300, 300, 600, 300, 300], [587, 2096, 2150, 2236, 2458],
     1165.3333333333333, 1505.4999999999998, 783.75, 1211.25),
]  # fmt: skip


@pytest.mark.parametrize("row", SIMULEVAL)
def test_latencies_are_those_of_simuleval(row: tuple) -> None:
    source, words, *lists, atd, atd_ca, laal, laal_ca = row
    delays, durations, elapsed = (np.array(values) / 1000 for values in lists)
    made = [Chunk(*map(float, one)) for one in zip(delays, durations, elapsed, strict=True)]
    found = [average_token_delay(made), average_token_delay(made, computation_aware=True)]
    found += [length_adaptive_average_lagging(times.tolist(), source / 1000, words) for times in (delays, elapsed)]
    assert 1000 * np.array(found) == pytest.approx([atd, atd_ca, laal, laal_ca], abs=1e-6)


chunks = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=8)


@given(chunks)
def test_token_delay_is_the_papers(steps: list[tuple[int, int]]) -> None:
    heard = np.cumsum([new for new, _ in steps]) * 0.3
    made = [Chunk(float(at), 0.3 * said, float(at)) for at, (_, said) in zip(heard, steps, strict=True)]
    assert average_token_delay(made) == pytest.approx(written_out(made))


@pytest.mark.slow
@given(chunks, st.integers(2, 4))
def test_chunks_that_come_at_the_same_time_may_be_split(steps: list[tuple[int, int]], parts: int) -> None:
    heard = np.cumsum([new for new, _ in steps]) * 0.37
    made = [Chunk(float(at), 0.21 * said, float(at) + 0.1) for at, (_, said) in zip(heard, steps, strict=True)]
    split = [Chunk(one.delay, one.seconds / parts, one.elapsed) for one in made for _ in range(parts)]
    for aware in (False, True):
        assert average_token_delay(split, aware) == pytest.approx(average_token_delay(made, aware))


@pytest.mark.slow
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=10), st.floats(0.0, 2.0))
def test_what_comes_later_lags_more(gaps: list[float], later: float) -> None:
    delays = np.cumsum(gaps)
    source = float(delays[-1])
    lag = length_adaptive_average_lagging(delays.tolist(), source + 5)
    assert length_adaptive_average_lagging((delays + later).tolist(), source + 5) == pytest.approx(lag + later)
