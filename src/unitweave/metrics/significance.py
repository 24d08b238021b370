"""Whether two systems differ: sacrebleu's randomization test, and intervals over utterances and over trainings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from unitweave.metrics.bleu import bleu_of_counts, reference_streams
from unitweave.metrics.intervals import bootstrap_seed, check_same_length

ESTABLISHED_TRAININGS = 5  # fewer trainings establish nothing
ESTABLISHED_MACHINES = 2  # kinds of machine, where a headline asks for several
_SCATTER_KNOWN = 3  # trainings from which on their scatter widens the interval
_STUDENT = (  # 97.5 %, for 1 to 20 degrees of freedom; beyond these the last one, which is slightly too wide
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
_TEST = "approximate randomization"


@dataclass(frozen=True)
class SignificanceTest:
    """Whether the BLEU of one system differs from another's, by approximate randomization.

    Attributes:
        difference: BLEU of `system` less that of `against`.
        test: Name of the test.
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
    trials: int = 0,
    language: str | None = None,
    further: Sequence[Sequence[str]] = (),
) -> list[SignificanceTest]:
    """Compare each system's BLEU with the first one's by approximate randomization (Riezler and Maxwell 2005).

    Args:
        hypotheses: System -> one text per reference; the first system is the one compared against.
        references: The texts to compare with.
        trials: Trials of the test; 0 for sacrebleu's default, 10,000.
        language: Source language of the utterances, noted in the result.
        further: More references of each text, as for `bleu`.

    Returns:
        A test per system but the first. Systems of equal score get p = 1: there is no difference to explain.
    """
    if len(hypotheses) < 2:
        return []
    for texts in hypotheses.values():
        check_same_length(texts, references)
    paired = PairedTest(
        [(name, list(texts)) for name, texts in hypotheses.items()],
        {"BLEU": BLEU()},
        reference_streams(references, further),
        test_type="ar",
        n_samples=trials,
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
            _TEST,
            str(signatures["BLEU"]),
            language,
        )
        for name, result in zip(names, others, strict=True)
    ]


@dataclass(frozen=True)
class Difference:
    """How much higher one system's BLEU is than another's.

    Attributes:
        mean: Mean difference over the trainings.
        low: Lower end of the 95 % interval: over utterances, and from 3 trainings on over trainings as well.
        high: Its upper end.
        by_training: Training (a seed, on some machine) -> difference.
    """

    mean: float
    low: float
    high: float
    by_training: dict[Any, float]

    @property
    def scatter(self) -> float | None:
        """Standard deviation of the difference between single trainings; None with fewer than two."""
        values = list(self.by_training.values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def verdict(self, machines: int | None = None) -> str:
        """ "established", "indicated" or "open"; see `VERDICTS`.

        Args:
            machines: Kinds of machine on which the trainings were done, where that counts (for a headline).
        """
        values = self.by_training.values()
        one_sign = all(value > 0 for value in values) or all(value < 0 for value in values)
        if not (self.low > 0 or self.high < 0) or not one_sign:
            return "open"
        enough = len(self.by_training) >= ESTABLISHED_TRAININGS
        return "established" if enough and (machines is None or machines >= ESTABLISHED_MACHINES) else "indicated"


def range_of_a_further_one(values: Sequence[float]) -> tuple[float, float]:
    """Where one further value lies with a probability of 95 %, after at least two others: Student's t."""
    student = _STUDENT[min(len(values) - 1, len(_STUDENT)) - 1]
    width = student * float(np.std(values, ddof=1)) * (1 + 1 / len(values)) ** 0.5
    mean = float(np.mean(values))
    return mean - width, mean + width


def half_width_of_mean(values: Sequence[float] | np.ndarray) -> float | None:
    """How far the 95 % interval of a mean over trainings reaches to either side: Student's t; None under 3 values."""
    if len(values) < _SCATTER_KNOWN:
        return None
    student = _STUDENT[min(len(values) - 1, len(_STUDENT)) - 1]
    return student * float(np.std(values, ddof=1)) / len(values) ** 0.5


VERDICTS = {
    "established": f"at least {ESTABLISHED_TRAININGS} trainings, all of the same sign, and the 95 % interval excludes "
    f"0; against the baseline it also needs {ESTABLISHED_MACHINES} kinds of machine",
    "indicated": "the same with fewer trainings or machines; with one or two trainings the interval is over the "
    "utterances alone",
    "open": "the interval includes 0, or the trainings disagree in sign",
}


def difference(ours: Mapping[Any, np.ndarray], theirs: Mapping[Any, np.ndarray], samples: int = 1000) -> Difference:
    """BLEU of one system less that of another, with an interval over utterances and trainings.

    Each resample draws utterances with replacement, the same ones for all trainings (the paired bootstrap). From
    3 trainings on the interval is widened by Student's t over the trainings' differences, as the root of the sum of
    squares: resampling three trainings would never go beyond the lowest and the highest of them. SACREBLEU_SEED
    sets the seed of the resampling.

    Args:
        ours: Training (anything that can be sorted) -> `bleu.sentence_counts` of the one system, [utterances, 10].
        theirs: The same of the other system.
        samples: Resamples.
    """
    trainings = sorted(ours)
    if trainings != sorted(theirs) or not trainings:
        raise ValueError("the two systems have different trainings")
    rng = np.random.default_rng(bootstrap_seed())
    number = len(ours[trainings[0]])
    by_training = {t: bleu_of_counts(ours[t].sum(0)) - bleu_of_counts(theirs[t].sum(0)) for t in trainings}
    drawn = np.empty(samples)
    for i in range(samples):
        rows = rng.integers(0, number, number)
        drawn[i] = np.mean(
            [bleu_of_counts(ours[t][rows].sum(0)) - bleu_of_counts(theirs[t][rows].sum(0)) for t in trainings]
        )
    low, high = np.percentile(drawn, (2.5, 97.5))
    values = np.array(list(by_training.values()))
    mean, over_trainings = float(values.mean()), half_width_of_mean(values) or 0.0
    below, above = math.hypot(mean - low, over_trainings), math.hypot(high - mean, over_trainings)
    return Difference(mean, mean - below, mean + above, by_training)
