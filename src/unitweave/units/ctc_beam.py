"""CTC beam search with a character n-gram language model: better transcripts than the best path, at more cost.

Units and alignment do not use it, so it changes neither.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unitweave.core.sequences import evenly_spaced
from unitweave.metrics.error_rates import character_error_rate
from unitweave.units.encoder import CharacterVocabulary

LM_WEIGHTS, BLANK_BIASES = (0.2, 0.35, 0.5, 0.65), (0.0, 0.5, 1.0)  # of which the dev split chooses
MAX_CHARACTERS = 500_000  # of a language model's texts
_IMPOSSIBLE = -math.inf


class CharacterLM:
    """A character n-gram model of texts, smoothed after Witten and Bell (1991) down to equal probabilities.

    Args:
        texts: Normalized texts; a space stands before the first word and after the last one.
        order: Characters that are looked at, the predicted one included.
    """

    def __init__(self, texts: Iterable[str], order: int = 8) -> None:
        self.order = order
        self._counts: Counter[str] = Counter()  # of each n-gram
        for text in texts:
            padded = f" {text} "
            for i in range(1, len(padded)):
                self._counts.update(padded[start : i + 1] for start in range(max(0, i - order + 1), i + 1))
        self._totals: Counter[str] = Counter()  # how often something follows a context
        self._kinds: Counter[str] = Counter()  # and how many different characters do
        for gram, count in self._counts.items():
            self._totals[gram[:-1]] += count
            self._kinds[gram[:-1]] += 1
        self._known: dict[tuple[str, str], float] = {}

    def log_prob(self, context: str, character: str) -> float:
        """Natural logarithm of the probability that `character` follows `context`, relative to any character's.

        Relative to one of equal probabilities, so that a text does not lose by being longer.
        """
        key = (context[-self.order + 1 :] if self.order > 1 else "", character)
        if key not in self._known:
            alphabet = max(1, self._kinds[""])
            probability = 1 / alphabet
            for start in range(len(key[0]), -1, -1):
                part = key[0][start:]
                total, kinds = self._totals.get(part, 0), self._kinds.get(part, 0)
                if not total:
                    break
                probability = (self._counts.get(part + character, 0) + kinds * probability) / (total + kinds)
            self._known[key] = math.log(probability * alphabet)
        return self._known[key]


def sample_characters(texts: Sequence[str]) -> list[str]:
    """Texts of at most MAX_CHARACTERS in all, spread over their order: n-grams take memory."""
    total = sum(map(len, texts))
    return list(texts) if total <= MAX_CHARACTERS else evenly_spaced(texts, len(texts) * MAX_CHARACTERS // total)


@dataclass(frozen=True)
class BeamSearch:
    """How CTC output becomes text.

    Attributes:
        width: Beginnings of the text that are followed at a time; 1 without a language model is the best path.
        lm: Language model of the characters, or None.
        lm_weight: Factor of its log-probabilities.
        blank_bias: What is subtracted from the blank's log-probability: more characters are written.
    """

    width: int = 16
    lm: CharacterLM | None = None
    lm_weight: float = 0.0
    blank_bias: float = 0.0

    def __call__(self, log_probs: np.ndarray, vocabulary: CharacterVocabulary, margin: float = 6.0) -> str:
        """The text whose best path, with the language model, is best.

        Args:
            log_probs: float [frames, characters], log-softmaxed.
            vocabulary: Of the characters.
            margin: Characters so much (natural logarithm) less probable than a frame's best one are not tried.
        """
        log_probs = np.asarray(log_probs, np.float64).copy()
        log_probs[:, vocabulary.blank] -= self.blank_bias
        # Text, with a space before it -> score of the language model, and of the best path that ends in a blank or in
        # the text's last character. A blank and the unknown character are alike: both write nothing and part repeats.
        beam = {" ": (0.0, 0.0, _IMPOSSIBLE)}
        for frame in log_probs:
            near = np.flatnonzero(frame >= frame.max() - margin)
            tried = [(float(frame[i]), _sign(vocabulary, int(i))) for i in near]
            grown: dict[str, list[float]] = {}
            for text, (lm_score, blank, last) in beam.items():
                best = max(blank, last)
                for score, sign in tried:
                    if sign == "":
                        _keep(grown, text, lm_score, best + score, _IMPOSSIBLE)
                    elif sign == text[-1]:
                        # Spaces do not add up. Another character needs a blank before it to stand twice.
                        _keep(grown, text, lm_score, _IMPOSSIBLE, (best if sign == " " else last) + score)
                        if sign != " ":
                            self._write(grown, text, lm_score, blank + score, sign)
                    else:
                        self._write(grown, text, lm_score, best + score, sign)
            kept = sorted(grown.items(), key=lambda item: -(item[1][0] + max(item[1][1:])))[: self.width]
            beam = {text: (scores[0], scores[1], scores[2]) for text, scores in kept}
        totals = {text: self._grown(lm, text, " ") + max(b, p) for text, (lm, b, p) in beam.items()}
        return max(totals, key=lambda text: totals[text]).strip()

    def _write(self, grown: dict[str, list[float]], text: str, lm_score: float, score: float, sign: str) -> None:
        if score > _IMPOSSIBLE:
            _keep(grown, text + sign, self._grown(lm_score, text, sign), _IMPOSSIBLE, score)

    def _grown(self, lm_score: float, text: str, sign: str) -> float:
        if self.lm is None or (sign == " " and text.endswith(" ")):
            return lm_score
        return lm_score + self.lm_weight * self.lm.log_prob(text, sign)


def _sign(vocabulary: CharacterVocabulary, id: int) -> str:
    if id in (vocabulary.blank, vocabulary.unknown):
        return ""
    return " " if id == vocabulary.delimiter else vocabulary.tokens[id]


def _keep(grown: dict[str, list[float]], text: str, lm_score: float, blank: float, last: float) -> None:
    """The better one of the paths to a text, for each of both ends."""
    known = grown.setdefault(text, [lm_score, _IMPOSSIBLE, _IMPOSSIBLE])
    known[1], known[2] = max(known[1], blank), max(known[2], last)


def choose_search(
    outputs: Sequence[tuple[str, np.ndarray]],
    vocabulary: CharacterVocabulary,
    lm: CharacterLM,
    width: int,
    plain: Callable[[str], str] = str,
) -> BeamSearch:
    """The beam search of this width whose weight and bias give the lowest character error rate.

    Args:
        outputs: Reference and CTC log-probabilities [frames, characters] of recordings that are not tested on.
        vocabulary: Of the characters.
        lm: Language model.
        width: Of the search; it is chosen with a narrow one.
        plain: What is done to both texts before they are compared.
    """
    references = [plain(reference) for reference, _ in outputs]

    def rate(search: BeamSearch) -> float:
        texts = [plain(search(log_probs, vocabulary)) for _, log_probs in outputs]
        return character_error_rate(texts, references, samples=0).score

    tried = [BeamSearch(min(width, 8), lm, weight, bias) for weight in LM_WEIGHTS for bias in BLANK_BIASES]
    return replace(min(tried, key=rate), width=width)
