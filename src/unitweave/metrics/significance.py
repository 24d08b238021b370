"""Whether two systems differ: sacrebleu's paired tests, and resampling over utterances and over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from unitweave.metrics.bleu import bleu_of_counts
from unitweave.metrics.intervals import bootstrap_seed, check_same_length

ESTABLISHED_SEEDS = 3  # fewer seeds establish nothing
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # 97.5 %, 1 to 10 degrees of freedom
_TESTS: dict[Literal["bs", "ar"], str] = {"bs": "paired bootstrap", "ar": "approximate randomization"}


@dataclass(frozen=True)
class SignificanceTest:
    """Whether the BLEU of one system differs from another's, by one of sacrebleu's paired tests.

    Attributes:
        difference: BLEU of `system` less that of `against`.
        test: "paired bootstrap" or "approximate randomization".
        signature: sacrebleu's signature of the test.
        language: Source language of the utterances; None for all of them.
    """

    system: str
    against: str
    difference: float
    p_value: float
    test: str
    signature: str
    language: str | None = None


def compare_systems(
    hypotheses: Mapping[str, Sequence[str]],
    references: Sequence[str],
    test: Literal["bs", "ar"] = "bs",
    samples: int = 0,
    language: str | None = None,
) -> list[SignificanceTest]:
    """Compare each system's BLEU with the first one's.

    Args:
        hypotheses: System -> one text per reference; the first system is the one compared against.
        references: The texts to compare with.
        test: "bs" paired bootstrap (Koehn 2004) or "ar" approximate randomization (Riezler and Maxwell 2005).
        samples: Resamples; 0 for sacrebleu's defaults, 1,000 and 10,000.
        language: Source language of the utterances, noted in the result.

    Returns:
        A test per system but the first. Systems of equal score get p = 1: there is no difference to
        explain, and sacrebleu's resamples around a difference of 0 would give a small p.
    """
    if len(hypotheses) < 2:
        return []
    for texts in hypotheses.values():
        check_same_length(texts, references)
    paired = PairedTest(
        [(name, list(texts)) for name, texts in hypotheses.items()],
        {"BLEU": BLEU()},
        [list(references)],
        test_type=test,
        n_samples=samples,
    )
    signatures, scores = paired()
    first, *others = (cast(Any, result) for result in scores["BLEU"])
    against, *names = hypotheses
    return [
        SignificanceTest(
            name,
            against,
            round(result.score - first.score, 4),
            1.0 if result.score == first.score else round(float(result.p_value), 5),
            _TESTS[test],
            str(signatures["BLEU"]),
            language,
        )
        for name, result in zip(names, others, strict=True)
    ]


@dataclass(frozen=True)
class Difference:
    """How much higher one system's BLEU is than another's.

    Attributes:
        mean: Mean difference over the seeds.
        low: Lower end of the 95 % interval: over utterances, and from 3 seeds on over seeds as well.
        high: Its upper end.
        by_seed: Seed -> difference.
    """

    mean: float
    low: float
    high: float
    by_seed: dict[int, float]

    @property
    def verdict(self) -> str:
        """ "established", "indicated" or "open"; see `VERDICTS`."""
        values = self.by_seed.values()
        one_sign = all(value > 0 for value in values) or all(value < 0 for value in values)
        if not (self.low > 0 or self.high < 0) or not one_sign:
            return "open"
        return "established" if len(self.by_seed) >= ESTABLISHED_SEEDS else "indicated"


VERDICTS = {
    "established": f"at least {ESTABLISHED_SEEDS} seeds, all of the same sign, and the 95 % interval excludes 0",
    "indicated": f"the same with fewer than {ESTABLISHED_SEEDS} seeds, with an interval over the utterances alone",
    "open": "the interval includes 0, or the seeds disagree in sign",
}


def difference(ours: dict[int, np.ndarray], theirs: dict[int, np.ndarray], samples: int = 1000) -> Difference:
    """BLEU of one system less that of another, with an interval over utterances and seeds.

    Each resample draws utterances with replacement, the same ones for all seeds (the paired bootstrap). From
    3 seeds on the interval is widened by Student's t over the seeds' differences, as the root of the sum of
    squares: resampling three seeds would never go beyond the lowest and the highest of them. SACREBLEU_SEED
    sets the seed of the resampling.

    Args:
        ours: Seed -> `bleu.sentence_counts` of the one system, [utterances, 10].
        theirs: The same of the other system.
        samples: Resamples.
    """
    seeds = sorted(ours)
    if seeds != sorted(theirs) or not seeds:
        raise ValueError("the two systems have different seeds")
    rng = np.random.default_rng(bootstrap_seed())
    number = len(ours[seeds[0]])
    by_seed = {s: bleu_of_counts(ours[s].sum(0)) - bleu_of_counts(theirs[s].sum(0)) for s in seeds}
    drawn = np.empty(samples)
    for i in range(samples):
        rows = rng.integers(0, number, number)
        drawn[i] = np.mean(
            [bleu_of_counts(ours[s][rows].sum(0)) - bleu_of_counts(theirs[s][rows].sum(0)) for s in seeds]
        )
    low, high = np.percentile(drawn, (2.5, 97.5))
    values = np.array(list(by_seed.values()))
    mean, over_seeds = float(values.mean()), 0.0
    if len(seeds) >= ESTABLISHED_SEEDS:
        student = _STUDENT[min(len(seeds) - 1, len(_STUDENT)) - 1]
        over_seeds = student * float(values.std(ddof=1)) / len(seeds) ** 0.5
    below, above = math.hypot(mean - low, over_seeds), math.hypot(high - mean, over_seeds)
    return Difference(mean, mean - below, mean + above, by_seed)
