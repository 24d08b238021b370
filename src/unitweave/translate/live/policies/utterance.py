"""Everything at the end of the utterance: what the model was trained for, and the safe choice."""

from collections.abc import Sequence

from unitweave.translate.live.hypotheses import Hypothesis


def words_at_the_end(hypotheses: Sequence[Hypothesis]) -> int:
    """All words once the utterance is over, none before."""
    return len(hypotheses[-1].translation) if hypotheses[-1].final else 0
