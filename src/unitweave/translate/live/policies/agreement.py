"""Local agreement: words on which successive hypotheses agree (Liu, Spanakis, Niehues 2020, arXiv 2005.11185)."""

from collections.abc import Sequence

from unitweave.config.live import LiveSettings
from unitweave.translate.live.hypotheses import Hypothesis
from unitweave.translate.live.policies import CommitPolicy


class Agreement(CommitPolicy):
    """The length of the longest common prefix of the last `agreement` hypotheses; all words of a final one.

    No more of them than what was heard calls for: what a model guesses to follow, it may well guess twice.
    """

    def __init__(self, settings: LiveSettings) -> None:
        super().__init__(settings)
        self.history = settings.agreement

    def committed_words(self, hypotheses: Sequence[Hypothesis]) -> int:
        latest = hypotheses[-1]
        if latest.final:
            return len(latest.translation)
        if len(hypotheses) < self.history:
            return 0
        others = [[word.text for word in hypothesis.translation] for hypothesis in hypotheses[-self.history :]]
        count = 0
        for words in zip(*others, strict=False):
            if len(set(words)) > 1:
                break
            count += 1
        return min(count, latest.supported_words)
