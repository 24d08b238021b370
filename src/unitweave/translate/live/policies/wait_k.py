"""wait-k: the translation stays k words behind the source (Ma et al. 2019, arXiv 1810.08398)."""

from collections.abc import Sequence

from unitweave.translate.live.hypotheses import Hypothesis


def words_behind(hypotheses: Sequence[Hypothesis], wait_words: int) -> int:
    """Word i of the translation after i + k - 1 words of the source; all words of a final hypothesis.

    Words of the source are those of the transcript, the last of which may not be whole yet.
    """
    latest = hypotheses[-1]
    if latest.final:
        return len(latest.translation)
    return min(len(latest.translation), max(0, len(latest.transcript.split()) - wait_words + 1))
