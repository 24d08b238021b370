"""Error rates: words and characters by jiwer, speech units by rapidfuzz."""

from collections.abc import Callable, Sequence
from typing import Any

import jiwer
import numpy as np
from rapidfuzz.distance import Levenshtein

from unitweave.core.errors import InputError
from unitweave.metrics.intervals import Interval, bootstrap_seed, check_same_length

Units = Sequence[int] | np.ndarray


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str], samples: int = 1000) -> Interval:
    """Corpus WER in percent.

    Args:
        hypotheses: One text per reference.
        references: Texts with at least one word each.
        samples: Bootstrap resamples of the utterances for the percentile interval; below 2 there is none.

    Raises:
        InputError: The two differ in number, or a reference is empty.
    """
    return _error_rate(jiwer.process_words, hypotheses, references, samples)


def character_error_rate(hypotheses: Sequence[str], references: Sequence[str], samples: int = 1000) -> Interval:
    """Corpus CER in percent; arguments and errors as for `word_error_rate`."""
    return _error_rate(jiwer.process_characters, hypotheses, references, samples)


def closest_references(
    hypotheses: Sequence[str], references: Sequence[str], further: Sequence[Sequence[str]]
) -> list[str]:
    """Of several references of each text the one with the lowest word error rate, of equal ones the first."""
    chosen = []
    for hypothesis, first, more in zip(hypotheses, references, further, strict=True):
        nonempty = [text for text in (first, *more) if text.strip()]
        rates = [np.divide(*_counts(jiwer.process_words(text, hypothesis))) for text in nonempty]
        chosen.append(nonempty[int(np.argmin(rates))] if nonempty else first)
    return chosen


def unit_error_rate(hypotheses: Sequence[Units], references: Sequence[Units]) -> float:
    """Edits between unit sequences in percent of the references' length, over the whole corpus.

    Repeats count, so a voice that is faster or slower than the reference is charged for it.
    """
    check_same_length(hypotheses, references)
    edits = sum(
        Levenshtein.distance([int(unit) for unit in a], [int(unit) for unit in b])
        for a, b in zip(hypotheses, references, strict=True)
    )
    return 100.0 * edits / max(1, sum(len(reference) for reference in references))


def _error_rate(
    process: Callable[[str, str], Any], hypotheses: Sequence[str], references: Sequence[str], samples: int
) -> Interval:
    check_same_length(hypotheses, references)
    empty = [i for i, reference in enumerate(references) if not reference.strip()]
    if empty:
        raise InputError(f"reference {empty[0] + 1} of {len(references)} is empty, so it has no error rate")
    counts = np.array([_counts(process(r, h)) for r, h in zip(references, hypotheses, strict=True)])  # [utterances, 2]
    errors, length = counts.sum(axis=0)
    score = 100.0 * float(errors / length)
    if samples < 2:
        return Interval(score)
    random = np.random.default_rng(bootstrap_seed())
    drawn = counts[random.integers(0, len(counts), (samples, len(counts)))].sum(axis=1)  # [samples, 2]
    low, high = np.percentile(100.0 * drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
    return Interval(score, float(low), float(high))


def _counts(output: Any) -> tuple[int, int]:
    """Errors, and the length of the reference."""
    errors = output.substitutions + output.deletions + output.insertions
    return errors, output.hits + output.substitutions + output.deletions
