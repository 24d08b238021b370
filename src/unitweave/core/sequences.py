"""Small operations on sequences that several stages share: runs of equal values, and evenly spaced samples."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")


def run_starts(values: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin: bool [values]."""
    starts = np.ones(len(values), dtype=bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def deduplicate(values: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shorten runs of equal values to one.

    Args:
        values: For instance units at 50 Hz [frames].

    Returns:
        The values without repetitions [runs], and how long each run was: int64 [runs], in frames.
    """
    values = np.asarray(values)
    starts = np.flatnonzero(run_starts(values))
    return values[starts], np.diff(np.append(starts, len(values)))


def collapse_ctc(path: Sequence[int], blank: int) -> list[int]:
    """Greedy CTC decoding of a path [frames]: repeated labels merged, then blanks dropped."""
    return [int(label) for label in deduplicate(path)[0] if label != blank]


def evenly_spaced(items: Sequence[Value], count: int, centered: bool = False) -> list[Value]:
    """At most `count` items at equal distances, in order.

    Args:
        items: What to choose from.
        count: How many to choose.
        centered: Take the middle of each of `count` equal parts instead of its first item.
    """
    count = min(count, len(items))
    return [items[(2 * i + centered) * len(items) // (2 * count)] for i in range(count)]
