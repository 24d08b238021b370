"""Whether two systems differ: sacrebleu's BLEU, resampled over utterances, and its scatter over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics import BLEU

from unitweave.metrics.scores import bootstrap_seed

ESTABLISHED_SEEDS = 3  # fewer seeds establish nothing
_ORDERS = 4  # n-grams of 1 to 4 words
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # 97.5 %, 1 to 10 degrees of freedom


@dataclass(frozen=True)
class Difference:
    """How much higher one system's BLEU is than another's.

    mean  over the seeds;  low, high  95 % interval: over utterances, and from 3 seeds on over those too
    each  seed -> difference
    """

    mean: float
    low: float
    high: float
    each: dict[int, float]

    @property
    def verdict(self) -> str:
        """ "established", "indicated" or "open"; see `VERDICTS`."""
        one_sign = all(d > 0 for d in self.each.values()) or all(d < 0 for d in self.each.values())
        if not (self.low > 0 or self.high < 0) or not one_sign:
            return "open"
        return "established" if len(self.each) >= ESTABLISHED_SEEDS else "indicated"


VERDICTS = {
    "established": f"at least {ESTABLISHED_SEEDS} seeds, all with the same sign, and the 95 % interval leaves 0 out",
    "indicated": f"the same with fewer than {ESTABLISHED_SEEDS} seeds, whose interval is over the utterances alone",
    "open": "the interval has 0 in it, or the seeds disagree in sign",
}


def sentence_counts(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What sacrebleu's corpus BLEU adds up, int64 [utterances, 10]: matches and n-grams of each order, both lengths."""
    metric = BLEU(effective_order=True)
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        score = metric.sentence_score(hypothesis, [reference])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, dtype=np.int64)


def bleu_of(counts: np.ndarray) -> float:
    """Corpus BLEU of summed counts, [10]: sacrebleu's own formula."""
    matches, ngrams = counts[:_ORDERS].tolist(), counts[_ORDERS : 2 * _ORDERS].tolist()
    # "exp" is what corpus BLEU is smoothed with by default; compute_bleu's own default is not at all.
    score = BLEU.compute_bleu(matches, ngrams, int(counts[-2]), int(counts[-1]), smooth_method="exp")
    return float(score.score)


def difference(ours: dict[int, np.ndarray], theirs: dict[int, np.ndarray], samples: int = 1000) -> Difference:
    """BLEU of `ours` less that of `theirs`; both map a seed to its sentence counts, [utterances, 10].

    Each resample draws utterances with replacement, the same for all seeds: the paired bootstrap. To its
    distances from the mean comes that of Student's t over the seeds' differences, as the root of the sum of
    squares, where there are enough seeds to know their scatter: resampling three seeds would never go beyond
    the lowest and the highest of them. SACREBLEU_SEED sets the seed.
    """
    seeds = sorted(ours)
    if seeds != sorted(theirs) or not seeds:
        raise ValueError("the two systems have different seeds")
    rng = np.random.default_rng(bootstrap_seed())
    number = len(ours[seeds[0]])
    each = {s: bleu_of(ours[s].sum(0)) - bleu_of(theirs[s].sum(0)) for s in seeds}
    drawn = np.empty(samples)
    for i in range(samples):
        rows = rng.integers(0, number, number)
        drawn[i] = np.mean([bleu_of(ours[s][rows].sum(0)) - bleu_of(theirs[s][rows].sum(0)) for s in seeds])
    low, high = np.percentile(drawn, (2.5, 97.5))
    found = np.array(list(each.values()))
    mean, beside = float(found.mean()), 0.0
    if len(seeds) >= ESTABLISHED_SEEDS:
        student = _STUDENT[min(len(seeds) - 1, len(_STUDENT)) - 1]
        beside = student * float(found.std(ddof=1)) / len(seeds) ** 0.5
    return Difference(mean, mean - math.hypot(mean - low, beside), mean + math.hypot(high - mean, beside), each)
