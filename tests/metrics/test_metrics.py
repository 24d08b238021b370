"""Scores equal sacrebleu's and jiwer's own; what we measure ourselves equals hand-computed examples."""

import jiwer
import numpy as np
import pytest
import sacrebleu

from unitweave.core.errors import InputError
from unitweave.metrics.bleu import bleu, chrf
from unitweave.metrics.error_rates import character_error_rate, unit_error_rate, word_error_rate
from unitweave.metrics.signals import silence_ratio
from unitweave.metrics.significance import compare_systems

REFERENCES = [
    "the cat sat on the mat",
    "i would like two tickets please",
    "where is the station",
    "it is raining again",
]
GOOD = ["the cat sat on the mat", "i would like two tickets", "where is the stations", "it is raining again"]
BAD = ["a cat on mat", "i like ticket please", "", "it rains"]


def test_bleu_and_chrf_equal_sacrebleus_own():
    for hypotheses in (GOOD, BAD):
        score, signature = bleu(hypotheses, REFERENCES)
        assert score.score == sacrebleu.corpus_bleu(hypotheses, [REFERENCES]).score
        assert chrf(hypotheses, REFERENCES)[0].score == pytest.approx(
            sacrebleu.corpus_chrf(hypotheses, [REFERENCES]).score
        )
        assert "tok:13a" in signature and "bs:1000" in signature
        assert score.low <= score.score <= score.high


def test_error_rates_equal_jiwers_own():
    for hypotheses in (GOOD, BAD):
        wer, cer = (rate(hypotheses, REFERENCES) for rate in (word_error_rate, character_error_rate))
        assert wer.score == pytest.approx(100 * jiwer.wer(REFERENCES, hypotheses))
        assert cer.score == pytest.approx(100 * jiwer.cer(REFERENCES, hypotheses))
        assert wer.low <= wer.score <= wer.high


def test_intervals_are_the_same_on_every_call_and_can_be_left_out():
    assert word_error_rate(BAD, REFERENCES) == word_error_rate(BAD, REFERENCES)
    assert bleu(BAD, REFERENCES) == bleu(BAD, REFERENCES)
    assert bleu(BAD, REFERENCES, samples=0)[0].low is None


def test_a_clearly_better_system_is_significant_and_the_same_system_is_not():
    references, good, bad = REFERENCES * 15, GOOD * 15, BAD * 15
    (better,) = compare_systems({"bad": bad, "good": good}, references, 300)
    (same,) = compare_systems({"bad": bad, "copy": list(bad)}, references, 300)
    assert better.p_value < 0.05 < same.p_value
    assert better.difference > 0 == same.difference


def test_systems_of_equal_score_have_p_1_however_their_texts_differ():
    references, words = REFERENCES * 15, ["nothing"] * 60  # BLEU 0 against every reference
    (equal,) = compare_systems({"one": words, "other": ["else"] * 60}, references, 300)
    assert (equal.difference, equal.p_value) == (0.0, 1.0)


def test_unit_error_rate_counts_edits_over_the_length_of_the_references():
    # One substitution and one deletion in 4 + 2 reference units.
    assert unit_error_rate([[1, 9, 3], [5, 6]], [np.array([1, 2, 3, 4]), np.array([5, 6])]) == pytest.approx(200 / 6)


def test_silence_ratio_of_half_a_tone():
    tone = np.sin(np.arange(16_000) * 0.3).astype(np.float32)
    assert silence_ratio(np.concatenate([tone, np.zeros(16_000, np.float32)])) == pytest.approx(0.5, abs=0.02)
    assert silence_ratio(np.zeros(16_000, np.float32)) == 1.0
    assert silence_ratio(np.zeros(0, np.float32)) == 1.0


def test_unequal_numbers_and_empty_references_are_bad_input():
    with pytest.raises(InputError, match="3 hypotheses but 4 references"):
        bleu(GOOD[:3], REFERENCES)
    with pytest.raises(InputError, match="nothing to score"):
        bleu([], [])
    with pytest.raises(InputError, match="reference 2 of 2 is empty"):
        word_error_rate(["a", "b"], ["a", " "])
