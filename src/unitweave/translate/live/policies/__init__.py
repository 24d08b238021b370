"""Policies: how many words of the translation of a growing utterance are committed.

A policy is a function of the utterance's hypotheses so far, each with the seconds that it is based on. It returns how
many words of the last one may be committed; words that are committed already stay so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unitweave.config.live import LiveSettings
from unitweave.translate.live.hypotheses import Hypothesis
from unitweave.translate.live.policies.agreement import agreed_words
from unitweave.translate.live.policies.utterance import words_at_the_end
from unitweave.translate.live.policies.wait_k import words_behind


@dataclass(frozen=True)
class CommitPolicy:
    """A policy, and whether it wants hypotheses of utterances that are not over, and how many of the last ones."""

    committed: Callable[[Sequence[Hypothesis]], int]
    incremental: bool
    history: int = 1


def create_policy(settings: LiveSettings) -> CommitPolicy:
    """The policy of the settings."""
    if settings.policy == "agreement":
        return CommitPolicy(lambda found: agreed_words(found, settings.agreement), True, settings.agreement)
    if settings.policy == "wait-k":
        return CommitPolicy(lambda found: words_behind(found, settings.wait_words), True)
    return CommitPolicy(words_at_the_end, False)
