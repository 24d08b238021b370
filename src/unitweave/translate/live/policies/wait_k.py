"""wait-k: the translation stays k words behind the source (Ma et al. 2019, arXiv 1810.08398)."""

from collections.abc import Sequence

from unitweave.core.scripts import split_clusters
from unitweave.translate.live.hypotheses import Hypothesis
from unitweave.translate.live.policies import CommitPolicy


class WaitK(CommitPolicy):
    """Word i of the translation after i + k - 1 words of the source; all words of a final hypothesis.

    Words of the source are those of the transcript that were heard, the last of which may not be whole yet.
    """

    def committed_words(self, hypotheses: Sequence[Hypothesis]) -> int:
        latest = hypotheses[-1]
        if latest.final:
            return len(latest.translation)
        source_words = int(latest.supported * len(split_clusters(latest.transcript).split()) + 1e-9)
        return min(len(latest.translation), max(0, source_words - self.settings.wait_words + 1))
