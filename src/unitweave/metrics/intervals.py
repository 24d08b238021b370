"""A score with its 95 % interval, and the seed of all resampling."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unitweave.core.errors import InputError


@dataclass(frozen=True)
class Interval:
    """A corpus score and its 95 % interval from bootstrap resampling over utterances.

    Attributes:
        score: The score of the whole corpus.
        low: Lower end of the interval; None where no interval was asked for.
        high: Upper end of the interval; None likewise.
    """

    score: float
    low: float | None = None
    high: float | None = None

    def rounded(self) -> "Interval":
        """The same to four decimals, as scores are stored."""
        low, high = (None if value is None else round(value, 4) for value in (self.low, self.high))
        return Interval(round(self.score, 4), low, high)


def bootstrap_seed() -> int | None:
    """The seed of all resampling: sacrebleu's own, from SACREBLEU_SEED (default 12345).

    Returns:
        The seed; None for "none", with which each call resamples differently.

    Raises:
        InputError: SACREBLEU_SEED is neither a number nor "none".
    """
    seed = os.environ.get("SACREBLEU_SEED", "12345")
    if seed.lower() == "none":
        return None
    if not seed.isdigit():
        raise InputError(f"SACREBLEU_SEED must be a number or 'none' (got {seed!r})")
    return int(seed)


def check_same_length(hypotheses: Sequence[Any], references: Sequence[Any]) -> None:
    """Raise InputError unless there is one hypothesis per reference, and at least one of them."""
    if len(hypotheses) != len(references):
        raise InputError(f"{len(hypotheses)} hypotheses but {len(references)} references; each reference needs one")
    if not len(references):
        raise InputError("nothing to score: there are no references")
