"""Which words of an utterance are written as text: spans of Poisson-distributed length.

Pure functions of their arguments and a random generator.
"""

import math
from bisect import bisect_right
from functools import lru_cache
from random import Random

import numpy as np


def draw_spans(words: int, ratio: float, mean_length: float, rng: Random) -> list[tuple[int, int]]:
    """Draw disjoint spans [first, last) out of `words` words that together hold the share `ratio` of them.

    The number of words drawn is floor(ratio * words) or one more, by chance, such that its expectation
    is ratio * words exactly, for every number of words, also for one. Span lengths are Poisson with
    mean `mean_length`, redrawn when 0, the last one cut to what is still missing. The words stand in a
    circle, on which every arrangement of the spans is equally likely; so each word, also the first and
    the last, is drawn with probability `ratio`. A span across the circle's seam becomes two; touching
    spans are merged.
    """
    wanted = ratio * words
    count = int(wanted)
    count += rng.random() < wanted - count
    if count <= 0:
        return []
    if count >= words:
        return [(0, words)]
    table, random = _poisson_table(mean_length), rng.random
    lengths = []
    left = count
    while left > 0:
        lengths.append(min(left, 1 + bisect_right(table, random())))
        left -= lengths[-1]
    # A circle of `words - count` words of speech and `len(lengths)` spans: which of its places are spans.
    slots = _draw_slots(words - count + len(lengths), len(lengths), rng)
    before = _below(words, rng)  # how far the circle is turned; then what comes before a span besides its slot
    spans: list[tuple[int, int]] = []  # those up to the circle's seam
    after: list[tuple[int, int]] = []  # those after it, which come first
    for slot, length in zip(slots, lengths, strict=True):
        first = slot + before
        last = first + length
        before += length - 1  # the span takes the room of its words, and not that of its slot
        part = spans
        if last > words:
            if first < words:
                _add_span(spans, first, words)
            part, first, last = after, max(0, first - words), last - words
        _add_span(part, first, last)
    if after and spans and after[-1][1] == spans[0][0]:
        spans[0] = (after.pop()[0], spans[0][1])
    return after + spans


def _add_span(spans: list[tuple[int, int]], first: int, last: int) -> None:
    """Add a span behind the others; one that touches the last becomes part of it."""
    if spans and spans[-1][1] == first:
        spans[-1] = (spans[-1][0], last)
    else:
        spans.append((first, last))


def _below(number: int, rng: Random) -> int:
    """What `rng.randrange(number)` draws, without its checks, which take several times as long."""
    bits = number.bit_length()
    drawn = rng.getrandbits(bits)
    while drawn >= number:
        drawn = rng.getrandbits(bits)
    return drawn


def _draw_slots(slots: int, count: int, rng: Random) -> list[int]:
    """What `sorted(rng.sample(range(slots), count))` draws; for the usual few slots without its checks."""
    if count == 1:
        return [_below(slots, rng)]
    if slots > 21:  # `sample` draws from a list up to there
        return sorted(rng.sample(range(slots), count))
    left, drawn = list(range(slots)), []
    for size in range(slots, slots - count, -1):
        place = _below(size, rng)
        drawn.append(left[place])
        left[place] = left[size - 1]
    return sorted(drawn)


@lru_cache(maxsize=16)
def _poisson_table(mean: float) -> list[float]:
    """Cumulative probabilities of the lengths 1, 2, ... of a Poisson variable that is not 0."""
    total = -math.expm1(-mean)
    table, cumulative, term = [], 0.0, math.exp(-mean)
    for k in range(1, 200):
        term *= mean / k
        cumulative += term / total
        if cumulative >= 1 - 1e-12:
            break
        table.append(cumulative)
    return table


def spread_over(spans: list[tuple[int, int]], eligible: np.ndarray) -> list[tuple[int, int]]:
    """Map spans over the eligible words to spans over all words; an ineligible word between splits a span."""
    result: list[tuple[int, int]] = []
    for first, last in spans:
        for word in eligible[first:last].tolist():
            if result and result[-1][1] == word:
                result[-1] = (result[-1][0], word + 1)
            else:
                result.append((word, word + 1))
    return result


def word_cuts(starts: np.ndarray, ends: np.ndarray, frames: int) -> np.ndarray:
    """Cut points int [words + 1] that give every frame to exactly one word.

    Word i owns the frames [cuts[i], cuts[i + 1]). A pause between two words is shared half and half;
    silence before the first word and after the last belongs to those, so that text in place of all
    words leaves no unit behind. Where no word has frames (all starts and ends 0) the last one owns all
    of them, so such words must not stand as text.
    """
    cuts = np.zeros(len(starts) + 1, dtype=np.int64)
    if len(starts):
        cuts[1:-1] = (ends[:-1] + starts[1:]) // 2
        cuts[0], cuts[-1] = 0, frames
        np.maximum.accumulate(cuts, out=cuts)
        np.minimum(cuts, frames, out=cuts)
    return cuts


def uniform_cuts(words: int, frames: int) -> np.ndarray:
    """Cut points int [words + 1] at equal distances: the paper's ablation without an alignment."""
    return np.arange(words + 1, dtype=np.int64) * frames // max(words, 1)
