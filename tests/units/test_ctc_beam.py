"""CTC beam search with a character language model: against the best path, all paths, and what probabilities are."""

import itertools
import math

import numpy as np
import pytest

from unitweave.units.ctc_beam import MAX_CHARACTERS, BeamSearch, CharacterLM, choose_search, sample_characters
from unitweave.units.encoder import CharacterVocabulary

TEXTS = ["aba ab", "a ba", "ab ba ab", "b"]
VOCABULARY = CharacterVocabulary.from_texts(TEXTS)  # blank, unknown, |, a, b


def random_output(seed: int, frames: int, sharpness: float = 2.0) -> np.ndarray:
    logits = sharpness * np.random.default_rng(seed).normal(size=(frames, len(VOCABULARY.tokens)))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def lm_score(lm: CharacterLM, text: str) -> float:
    padded = f" {text} " if text else " "
    return sum(lm.log_prob(padded[:i], padded[i]) for i in range(1, len(padded)))


@pytest.mark.parametrize("seed", range(20))
def test_a_width_of_one_without_a_language_model_is_the_best_path(seed: int) -> None:
    log_probs = random_output(seed, 40)
    assert BeamSearch(1)(log_probs, VOCABULARY) == VOCABULARY.decode(log_probs.argmax(-1).tolist())
    biased = log_probs - 1.5 * (np.arange(5) == VOCABULARY.blank)
    assert BeamSearch(1, blank_bias=1.5)(log_probs, VOCABULARY) == VOCABULARY.decode(biased.argmax(-1).tolist())
    assert BeamSearch()(np.empty((0, 5)), VOCABULARY) == ""


@pytest.mark.parametrize("seed", range(12))
def test_a_wide_search_finds_what_trying_all_paths_finds(seed: int) -> None:
    log_probs, lm = random_output(seed, 5, sharpness=1.0), CharacterLM([*TEXTS, "aa bb", "baab", "aa"], order=3)
    search = BeamSearch(1000, lm, lm_weight=0.6, blank_bias=0.4)
    best: dict[str, float] = {}
    for path in itertools.product(range(5), repeat=5):
        text = VOCABULARY.decode(path)
        score = sum(log_probs[t, i] - 0.4 * (i == VOCABULARY.blank) for t, i in enumerate(path))
        best[text] = max(best.get(text, -math.inf), score + 0.6 * lm_score(lm, text))
    found = search(log_probs, VOCABULARY, margin=math.inf)
    assert best[found] == pytest.approx(max(best.values()), abs=1e-9)


def test_a_letter_stands_twice_only_with_a_blank_between() -> None:
    lm, a, blank = CharacterLM(["aa"] * 50), VOCABULARY.ids["a"], VOCABULARY.blank
    for path, text in (([a, a], "a"), ([a, blank, a], "aa")):
        log_probs = np.log(np.eye(5)[path] + 1e-9)
        assert BeamSearch(16, lm, lm_weight=1.0)(log_probs, VOCABULARY) == text


def test_probabilities_of_what_follows_sum_to_one_and_know_the_texts() -> None:
    lm = CharacterLM([*TEXTS, "aa bb", "baab", "aa"], order=3)
    for context in (" ", " a", "a ", "ba", "bb", "never seen", ""):
        assert sum(math.exp(lm.log_prob(context, sign)) / 3 for sign in "ab ") == pytest.approx(1)
    assert lm.log_prob(" a", "b") > 0 > lm.log_prob(" a", "a"), "more and less probable than equal chances"
    assert lm.log_prob("bba", "b") == lm.log_prob("aba", "b"), "two characters are the context of a trigram"
    assert math.exp(CharacterLM(["ab", "b"], order=1).log_prob("", "b")) / 3 == pytest.approx((2 + 3 / 3) / (5 + 3))


def test_a_language_model_mends_what_the_output_leaves_open_and_weight_and_bias_are_chosen() -> None:
    texts = ["ab ab ab", "ba ba ba", "ab ba ab"]
    lm = CharacterLM(texts)
    outputs = []
    for text in texts:  # every second character is a toss-up that the wrong one wins
        rows = []
        for i, id in enumerate(VOCABULARY.encode(text)):
            row = np.full(5, 1e-4)
            row[id] = 1.0 if i % 3 != 1 else 0.45
            row[7 - id if id > 2 else id] += 0.0 if i % 3 != 1 else 0.55
            rows += [row, np.array([1.0, *[1e-4] * 4])]
        outputs.append((text, np.log(np.array(rows))))
    best_path, plain = BeamSearch(1), [VOCABULARY.decode(log_probs.argmax(-1).tolist()) for _, log_probs in outputs]
    assert plain != texts and [best_path(log_probs, VOCABULARY) for _, log_probs in outputs] == plain
    search = choose_search(outputs, VOCABULARY, lm, 16)
    assert search.width == 16 and search.lm_weight > 0
    assert [search(log_probs, VOCABULARY) for _, log_probs in outputs] == texts


def test_texts_of_a_language_model_are_bounded() -> None:
    texts = [f"{i:010d}" for i in range(3 * MAX_CHARACTERS // 10)]
    kept = sample_characters(texts)
    assert len(kept) == MAX_CHARACTERS // 10 and kept[1] == texts[3]
    assert sample_characters(texts[:5]) == texts[:5]
