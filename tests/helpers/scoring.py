"""Scores as a score stage writes them, with made-up numbers."""

from typing import Any

from unitweave.metrics.intervals import Interval
from unitweave.score.scores import Signature, SystemScores

SIGNATURE = Signature("x", "y", "file@0", 40, "13a")


def system_scores(asr_bleu: Interval, utterances: int = 40, **more: Any) -> SystemScores:
    """The scores of one system."""
    return SystemScores(utterances, asr_bleu, Interval(50.0), 0, 60.0, 3.0, 0.1, **more)
