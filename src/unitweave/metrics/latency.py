"""Latency of simultaneous translation, as the field defines it; times are seconds from the first sample of the source.

A delay is how much of the source was heard when something was put out; counting computing time, when it was put out.
The definitions are those of SimulEval (arXiv 2007.16193), whose numbers these functions give.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

TOKEN_SECONDS = 0.3  # of speech that count as one token in average token delay


@dataclass(frozen=True)
class Chunk:
    """A piece of translated speech.

    Attributes:
        delay: Seconds of the source that were heard when it was put out.
        seconds: How long it lasts.
        elapsed: When it was put out, computing included.
    """

    delay: float
    seconds: float
    elapsed: float


def play_times(starts: Sequence[float], lengths: Sequence[float]) -> list[float]:
    """When pieces of speech are played that were put out at `starts`: each after the one before it."""
    times: list[float] = []
    end = 0.0
    for start, length in zip(starts, lengths, strict=True):
        times.append(max(start, end))
        end = times[-1] + length
    return times


def start_offset(delays: Sequence[float]) -> float:
    """StartOffset: when the translation begins."""
    return delays[0]


def end_offset(delays: Sequence[float], source_seconds: float) -> float:
    """EndOffset: how long after the end of the source the translation ends."""
    return delays[-1] - source_seconds


def length_adaptive_average_lagging(
    delays: Sequence[float], source_seconds: float, reference_words: int | None = None
) -> float:
    """LAAL (Papi et al. 2022, arXiv 2206.05807): how far the words lag behind an ideal translation, on average.

    The ideal one says its words at even distances from the first moment on. Words count up to and with the first one
    that comes when the source is over.

    Args:
        delays: Of each word of the translation.
        source_seconds: Length of the source.
        reference_words: Words of the reference; the longer of the two translations sets the ideal distance.
    """
    if delays[0] > source_seconds:
        return delays[0]
    step = source_seconds / max(len(delays), reference_words or 0)
    lags = []
    for number, delay in enumerate(delays):
        lags.append(delay - number * step)
        if delay >= source_seconds:
            break
    return sum(lags) / len(lags)


def average_token_delay(chunks: Sequence[Chunk], computation_aware: bool = False) -> float:
    """ATD of speech (Kano, Sudoh, Nakamura 2023, arXiv 2211.13173), with tokens of 0.3 s on both sides.

    The end of each token of the translation less the end of the token of the source that it answers: the one of the
    same number, moved back by what the translation was longer than the source so far, and no later than what was heard.

    Args:
        chunks: The pieces of the translation, in order.
        computation_aware: Whether computing time counts.
    """
    merged = _by_delay(chunks)
    source_ends, target_ends = [0.0], [0.0]
    source_count, target_count = [0], [0]  # tokens up to and with each chunk
    answered: list[int] = []
    previous_delay = 0.0
    for delay, seconds, computing in merged:
        for length in _tokens(delay - previous_delay):
            source_ends.append(source_ends[-1] + length)
        previous_delay = delay
        source_count.append(len(source_ends) - 1)
        ahead = max(0, target_count[-1] - source_count[-2])
        lengths = _tokens(seconds)
        for length in lengths:
            spent = computing / len(lengths) if computation_aware else 0.0
            target_ends.append(max(delay, target_ends[-1]) + length + spent)
            answered.append(min(len(target_ends) - 1 - ahead, source_count[-1]))
        target_count.append(len(target_ends) - 1)
    delays = [end - source_ends[token] for end, token in zip(target_ends[1:], answered, strict=True)]
    return sum(delays) / len(delays)


def _by_delay(chunks: Sequence[Chunk]) -> list[tuple[float, float, float]]:
    """Delay, length and computing time of what was put out at the same delay."""
    delays, before = [], 0.0
    for delay, group in itertools.groupby(chunks, key=lambda chunk: chunk.delay):
        seconds = computing = 0.0
        for chunk in group:
            spent = chunk.elapsed - chunk.delay
            seconds, computing, before = seconds + chunk.seconds, computing + spent - before, spent
        delays.append((delay, seconds, computing))
    return delays


def _tokens(seconds: float) -> list[float]:
    """Lengths of tokens of 0.3 s that make up some seconds, the last one shorter."""
    whole = math.floor(round(seconds / TOKEN_SECONDS, 6))
    rest = seconds - whole * TOKEN_SECONDS
    return [TOKEN_SECONDS] * whole + ([rest] if rest > 1e-6 else [])
