"""The numbers: sacrebleu's BLEU and chrF, jiwer's error rates, and what can be measured on a waveform.

Nothing here is a reimplementation of a metric: sacrebleu computes BLEU, chrF, their bootstrap
intervals and the significance tests, jiwer the word and character errors.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import jiwer
import numpy as np
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.core.files import digest_of

Units = Sequence[int] | np.ndarray

SILENCE_DECIBELS = -40.0  # below the loudest frame
SILENCE_FRAME = 320  # samples, 20 ms


@dataclass(frozen=True)
class Interval:
    """A corpus score and its 95 % interval from bootstrap resampling over utterances (None: not asked for)."""

    score: float
    low: float | None = None
    high: float | None = None

    def plain(self) -> dict[str, float | None]:
        """As JSON holds it, to two decimals (four below one, for shares)."""
        return {key: None if value is None else round(value, 4) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Signature:
    """All that a score depends on beside the speech. Scores with unequal signatures are not comparable."""

    recognizer: str
    normalizer: str
    references: str  # which text, and a digest of all of it
    utterances: int
    sacrebleu: str
    silence: str = "kept, all-silent is empty"
    sample_rate: int = SAMPLE_RATE

    def __str__(self) -> str:
        return (
            f"asr:{self.recognizer} | norm:{self.normalizer} | refs:{self.references} | n:{self.utterances} | "
            f"silence:{self.silence} | rate:{self.sample_rate} | sacrebleu:{self.sacrebleu}"
        )


def digest_of_references(source: str, references: Sequence[str]) -> str:
    """`source` and eight digits that name the reference texts in their order."""
    return f"{source}@{digest_of(list(references))[:8]}"


def bleu(hypotheses: Sequence[str], references: Sequence[str], samples: int = 1000) -> tuple[Interval, str]:
    """Corpus BLEU (sacrebleu, 13a) of one hypothesis per reference, with its interval, and its signature.

    `samples` bootstrap resamples give the interval; below 2 there is none. Raises InputError when
    the two differ in number or are empty.
    """
    return _sacrebleu(BLEU(), hypotheses, references, samples)


def chrf(hypotheses: Sequence[str], references: Sequence[str], samples: int = 1000) -> tuple[Interval, str]:
    """Corpus chrF2 (sacrebleu), otherwise as `bleu`."""
    return _sacrebleu(_Chrf(), hypotheses, references, samples)


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str], samples: int = 1000) -> Interval:
    """Corpus WER in percent (jiwer), with a percentile bootstrap interval over utterances."""
    return _error_rate(jiwer.process_words, hypotheses, references, samples)


def character_error_rate(hypotheses: Sequence[str], references: Sequence[str], samples: int = 1000) -> Interval:
    """Corpus CER in percent (jiwer), otherwise as `word_error_rate`."""
    return _error_rate(jiwer.process_characters, hypotheses, references, samples)


def unit_error_rate(hypotheses: Sequence[Units], references: Sequence[Units]) -> float:
    """Edits between unit sequences as percent of the reference's length, over the whole corpus.

    Repeats count, so a voice that speaks faster or slower than the reference is charged for it.
    """
    _same_number(hypotheses, references)
    edits = sum(
        Levenshtein.distance([int(unit) for unit in a], [int(unit) for unit in b])
        for a, b in zip(hypotheses, references, strict=True)
    )
    return 100.0 * edits / max(1, sum(len(reference) for reference in references))


def without_repeats(units: Units) -> list[int]:
    """The units with runs of one unit shortened to one."""
    return [int(unit) for i, unit in enumerate(units) if i == 0 or unit != units[i - 1]]


def compare_systems(
    hypotheses: Mapping[str, Sequence[str]], references: Sequence[str], test: str = "bs", samples: int = 0
) -> list[dict[str, Any]]:
    """Is each system's BLEU different from the first one's? sacrebleu's paired tests.

    hypotheses  system -> one text per reference; the first system is the one compared against
    test        "bs" paired bootstrap (Koehn 2004) or "ar" approximate randomisation (Riezler and
                Maxwell 2005), with `samples` resamples (0: sacrebleu's 1,000 and 10,000)

    Systems that say the same get p = 1 (sacrebleu's resamples of a difference of 0 would give a small one).
    Returns a row per system but the first: system, against, difference, p_value, signature.
    """
    if len(hypotheses) < 2:
        return []
    for texts in hypotheses.values():
        _same_number(texts, references)
    paired = PairedTest(
        [(name, list(texts)) for name, texts in hypotheses.items()],
        {"BLEU": BLEU()},
        [list(references)],
        test_type=test,
        n_samples=samples,
    )
    signatures, scores = paired()
    first, *others = (cast(Any, result) for result in scores["BLEU"])
    names = list(hypotheses)
    return [
        {
            "system": name,
            "against": names[0],
            "difference": round(result.score - first.score, 4),
            "p_value": round(float(result.p_value), 5) if list(hypotheses[name]) != list(hypotheses[names[0]]) else 1.0,
            "test": {"bs": "paired bootstrap", "ar": "approximate randomisation"}[test],
            "signature": str(signatures["BLEU"]),
        }
        for name, result in zip(names[1:], others, strict=True)
    ]


def silence_share(waveform: np.ndarray) -> float:
    """Share of 20 ms frames of [samples] whose level is 40 dB or more below the loudest one; 1 when all is zero."""
    frames = waveform[: len(waveform) // SILENCE_FRAME * SILENCE_FRAME].reshape(-1, SILENCE_FRAME)
    if not len(frames):
        return 1.0
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    if power.max() <= 0:
        return 1.0
    return float((power < power.max() * 10 ** (SILENCE_DECIBELS / 10)).mean())


def speech_rate(texts: Sequence[str], seconds: Sequence[float]) -> float:
    """Words a second over the corpus, silence included."""
    return sum(len(text.split()) for text in texts) / max(1e-9, sum(seconds))


class _Chrf(CHRF):
    """sacrebleu 2.6 mixes float and numpy float32 when a resample scores 0, and its mean then fails."""

    def _compute_f_score(self, statistics: Any) -> float:
        return float(super()._compute_f_score(statistics))


def _sacrebleu(metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str], samples: int) -> Any:
    _same_number(hypotheses, references)
    score = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=max(1, samples))
    if samples < 2:
        return Interval(score.score), str(metric.get_signature())
    middle, half = float(score._mean), float(score._ci)  # sacrebleu prints these two as "mu" and "+/-"
    return Interval(score.score, max(0.0, middle - half), min(100.0, middle + half)), str(metric.get_signature())


def _error_rate(process: Any, hypotheses: Sequence[str], references: Sequence[str], samples: int) -> Interval:
    _same_number(hypotheses, references)
    empty = [i for i, reference in enumerate(references) if not reference.strip()]
    if empty:
        raise InputError(f"reference {empty[0] + 1} of {len(references)} has no words, so no error rate can be had")
    counts = np.array([_counts(process(r, h)) for r, h in zip(references, hypotheses, strict=True)])  # [utterances, 2]
    score = 100.0 * counts[:, 0].sum() / counts[:, 1].sum()
    if samples < 2:
        return Interval(score)
    random = np.random.default_rng(bootstrap_seed())
    drawn = counts[random.integers(0, len(counts), (samples, len(counts)))].sum(axis=1)  # [samples, 2]
    low, high = np.percentile(100.0 * drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
    return Interval(float(score), float(low), float(high))


def bootstrap_seed() -> int | None:
    """sacrebleu's seed, so that all intervals come from one; its "none" draws anew each time."""
    seed = os.environ.get("SACREBLEU_SEED", "12345")
    if seed.lower() == "none":
        return None
    if not seed.isdigit():
        raise InputError(f"SACREBLEU_SEED {seed!r} is neither a number nor 'none'")
    return int(seed)


def _counts(output: Any) -> tuple[int, int]:
    errors = output.substitutions + output.deletions + output.insertions
    return errors, output.hits + output.substitutions + output.deletions


def _same_number(hypotheses: Sequence[Any], references: Sequence[Any]) -> None:
    if len(hypotheses) != len(references):
        raise InputError(f"{len(hypotheses)} hypotheses but {len(references)} references; there must be one for each")
    if not len(references):
        raise InputError("nothing to score: there are no references")
