"""What can be said of the examples of a corpus before any of them is made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitweave.interleaving.sequence import TASKS, Markers


@dataclass(frozen=True)
class Sizes:
    """How long the segments of examples are, and how many of their words may stand as text.

    Attributes:
        tokens: int32 [4, pairs]: tokens of the source units, transcript, translation and target units, language tags
            included; -1 where a pair has none.
        words: int32 [2, pairs]: words of the source and of the target speech.
        replaceable: int32 [2, pairs]: those of them that may stand as text.
    """

    tokens: np.ndarray
    words: np.ndarray
    replaceable: np.ndarray

    def max_lengths(self, tasks: Sequence[str], markers: Markers) -> np.ndarray:
        """How long the longest sequence of a pair may become.

        Args:
            tasks: The tasks that are trained.
            markers: The stage markers, which count as tokens too.

        Returns:
            int64 [pairs]: tokens with all speech as units; -1 where the pair has the segments of none of the tasks.
        """
        lengths = np.full(self.tokens.shape[1], -1, np.int64)
        for task in tasks:
            parts = self.tokens[[segment - 1 for segment in TASKS[task]]].astype(np.int64)
            total = (1 if markers.begin is None else 2) + (parts + 1).sum(0)
            lengths = np.maximum(lengths, np.where((parts >= 0).all(0), total, -1))
        return lengths

    def take(self, kept: np.ndarray) -> "Sizes":
        """Those of some of the pairs."""
        return Sizes(self.tokens[:, kept], self.words[:, kept], self.replaceable[:, kept])
