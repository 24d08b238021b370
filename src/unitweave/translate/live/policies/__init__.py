"""Policies: how many words of the translation of a growing utterance are committed. Each is a file of its own."""

from collections.abc import Sequence

from unitweave.config.live import LiveSettings
from unitweave.translate.live.hypotheses import Hypothesis


class CommitPolicy:
    """A policy; words that are committed already stay so.

    Attributes:
        incremental: Whether it wants hypotheses of utterances that are not over.
        history: How many of the last hypotheses it wants.
    """

    incremental = True
    history = 1

    def __init__(self, settings: LiveSettings) -> None:
        self.settings = settings

    def committed_words(self, hypotheses: Sequence[Hypothesis]) -> int:
        """How many words of the last hypothesis may be committed, given those so far of the utterance, in order."""
        raise NotImplementedError
