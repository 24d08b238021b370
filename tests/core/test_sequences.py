"""Runs of equal values, greedy CTC decoding, evenly spaced samples."""

import numpy as np
import pytest

from unitweave.core.sequences import collapse_ctc, deduplicate, evenly_spaced


def test_runs_are_shortened_to_one_value_and_counted() -> None:
    values, lengths = deduplicate(np.array([4, 4, 1, 1, 1, 4], np.uint16))
    assert values.tolist() == [4, 1, 4] and lengths.tolist() == [2, 3, 1]
    assert values.dtype == np.uint16
    assert deduplicate([])[0].tolist() == [] and deduplicate([])[1].tolist() == []


def test_a_ctc_path_loses_repetitions_before_blanks() -> None:
    assert collapse_ctc([0, 3, 3, 0, 3, 5, 5, 0], blank=0) == [3, 3, 5]
    assert collapse_ctc([], blank=0) == []


@pytest.mark.parametrize(
    ("count", "centered", "expected"),
    [(5, False, [0, 2, 4, 6, 8]), (2, True, [2, 7]), (3, False, [0, 3, 6]), (99, True, list(range(10))), (0, True, [])],
)
def test_samples_are_at_equal_distances(count: int, centered: bool, expected: list[int]) -> None:
    assert evenly_spaced(list(range(10)), count, centered) == expected
