"""BLEU and chrF, by sacrebleu throughout: scores, bootstrap intervals, and counts that add up to corpus BLEU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from unitweave.metrics.intervals import Interval, check_same_length

_TOKENIZERS = {"zh": "zh"} | dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")
_ORDERS = 4  # n-grams of 1 to 4 words


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    samples: int = 1000,
    language: str = "en",
    further: Sequence[Sequence[str]] = (),
) -> tuple[Interval, str]:
    """Corpus BLEU (sacrebleu, tokenizer 13a; zh for Chinese and char for other scripts without spaces).

    Args:
        hypotheses: One text per reference.
        references: The texts to compare with.
        samples: Bootstrap resamples of the utterances for the interval; below 2 there is none.
        language: Of natural text; normalized text has its words between spaces in every language.
        further: More references of each text, of any number; empty for one each.

    Returns:
        The score with its interval, and sacrebleu's signature.

    Raises:
        InputError: The two differ in number or are empty.
    """
    return _sacrebleu(BLEU(tokenize=_TOKENIZERS.get(language)), hypotheses, references, samples, further)


def chrf(
    hypotheses: Sequence[str],
    references: Sequence[str],
    samples: int = 1000,
    further: Sequence[Sequence[str]] = (),
) -> tuple[Interval, str]:
    """Corpus chrF2 (sacrebleu); arguments and result as for `bleu`."""
    return _sacrebleu(_Chrf(), hypotheses, references, samples, further)


def reference_streams(references: Sequence[str], further: Sequence[Sequence[str]] = ()) -> list[list[Any]]:
    """References as sacrebleu takes them: the first of each text, the second of each, ...; None where there is none."""
    streams: list[list[Any]] = [list(references)]
    for i in range(max(map(len, further), default=0)):
        streams.append([texts[i] if i < len(texts) else None for texts in further])
    return streams


def sentence_counts(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What sacrebleu's corpus BLEU adds up, per sentence.

    Returns:
        int64 [utterances, 10]: matches and n-grams of each order, length of hypothesis and reference.
    """
    metric = BLEU(effective_order=True)
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        score = metric.sentence_score(hypothesis, [reference])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, dtype=np.int64)


def bleu_of_counts(counts: np.ndarray) -> float:
    """Corpus BLEU of summed `sentence_counts`, [10], by sacrebleu's own formula."""
    matches, ngrams = counts[:_ORDERS].tolist(), counts[_ORDERS : 2 * _ORDERS].tolist()
    # Corpus BLEU is smoothed with "exp" by default; compute_bleu's own default is no smoothing.
    score = BLEU.compute_bleu(matches, ngrams, int(counts[-2]), int(counts[-1]), smooth_method="exp")
    return float(score.score)


class _Chrf(CHRF):
    """sacrebleu 2.6 mixes float and numpy float32 when a resample scores 0, and its mean then fails."""

    def _compute_f_score(self, statistics: Any) -> float:
        return float(super()._compute_f_score(statistics))


def _sacrebleu(
    metric: BLEU | CHRF,
    hypotheses: Sequence[str],
    references: Sequence[str],
    samples: int,
    further: Sequence[Sequence[str]],
) -> tuple[Interval, str]:
    check_same_length(hypotheses, references)
    score: Any = metric.corpus_score(
        list(hypotheses), reference_streams(references, further), n_bootstrap=max(1, samples)
    )
    if samples < 2:
        return Interval(score.score), str(metric.get_signature())
    mean, half = float(score._mean), float(score._ci)  # sacrebleu prints these two as "mu" and "+/-"
    return Interval(score.score, max(0.0, mean - half), min(100.0, mean + half)), str(metric.get_signature())
