"""Everything at the end of the utterance: what the model was trained for, and the safe choice."""

from collections.abc import Sequence

from unitweave.translate.live.hypotheses import Hypothesis
from unitweave.translate.live.policies import CommitPolicy


class Utterance(CommitPolicy):
    """All words once the utterance is over, none before."""

    incremental = False

    def committed_words(self, hypotheses: Sequence[Hypothesis]) -> int:
        return len(hypotheses[-1].translation) if hypotheses[-1].final else 0
