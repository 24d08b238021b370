"""The rules of decoding: which tokens a stage may say, how long it may last, and what has been given."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.core.text import normalize
from unitweave.lm.data.dataset import WordTokens
from unitweave.lm.model.vocabulary import Vocabulary

TRANSCRIPT_TAG, TRANSCRIPT, TRANSLATION_TAG, TRANSLATION, UNITS, DONE = range(6)
# What results call the stages; the language tag counts as a part of its text.
STAGE_NAMES = {
    "transcript": (TRANSCRIPT_TAG, TRANSCRIPT),
    "translation": (TRANSLATION_TAG, TRANSLATION),
    "units": (UNITS,),
}

LOOP_WINDOW = 120  # units (2.4 s) that a loop has to last
_LONGEST_PERIOD = 40
_LOOK_EVERY = 20


@dataclass(frozen=True)
class ForcedPrefix:
    """What is known about an utterance beforehand; None is for the model to find out.

    A transcript or translation is normalized as training texts are; language codes are the model's.
    """

    transcript: str | None = None
    translation: str | None = None
    language: str | None = None


@dataclass
class Translation:
    """What the model said about one utterance.

    language     of the source, as the model heard it; transcript, translation
    units        int64 [frames] of the spoken translation (without repetitions for a model that says them so)
    complete     False where a length limit or the loop detector cut it off
    score        mean log-probability of all tokens; scores: of those of "transcript", "translation", "units"
    seconds      wall time of each of these stages, each step's time being shared by the utterances in it
    """

    language: str = ""
    transcript: str = ""
    translation: str = ""
    units: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    complete: bool = True
    score: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Rules:
    """What each stage may say, for one vocabulary.

    allowed  float32 [stages, rows of the output layer]: 0 where a stage may say a token, -inf elsewhere
    closing  int64 [stages]: the marker that ends a stage, -1 for a stage of one token
    first    the stage that decoding begins with: the units for a model that says no texts
    """

    def __init__(
        self, vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase, rows: int, device: torch.device
    ) -> None:
        self.vocabulary, self._words = vocabulary, WordTokens(tokenizer)
        self.first = TRANSCRIPT_TAG if vocabulary.has_texts else UNITS
        markers = vocabulary.markers
        special = set(tokenizer.all_special_ids)
        self.text = [i for i in range(vocabulary.text_size) if i not in special]
        allowed = torch.full((DONE + 1, rows), -torch.inf)
        for stage, tokens in self.tokens().items():
            allowed[stage, tokens] = 0
        self.allowed = allowed.to(device)
        closing = [-1, markers["translation"], -1, markers["target"], markers["end"], markers["end"]]
        self.closing = torch.tensor(closing, device=device)

    def tokens(self) -> dict[int, list[int]]:
        """The tokens that each stage may say, its closing marker included."""
        v, markers = self.vocabulary, self.vocabulary.markers
        tags = list(v.languages.values())
        return {
            TRANSCRIPT_TAG: tags,
            TRANSCRIPT: [*self.text, markers["translation"]],
            TRANSLATION_TAG: tags,
            TRANSLATION: [*self.text, markers["target"]],
            UNITS: [*range(v.unit_offset, v.unit_offset + v.num_units), markers["end"]],
            DONE: [markers["end"]],
        }

    def forced(self, given: ForcedPrefix | None) -> dict[int, list[int]]:
        """Tokens that stages have to say because the caller gave them.

        Raises InputError on an unknown language, and on anything given to a model that says no texts.
        """
        found: dict[int, list[int]] = {}
        if given is None or given == ForcedPrefix():
            return found
        if self.first == UNITS:
            raise InputError(
                "this model goes from speech to speech without texts; it takes no transcript, translation or language"
            )
        language = given.language or ""
        if language:
            if language not in self.vocabulary.languages:
                known = ", ".join(sorted(self.vocabulary.languages))
                raise InputError(f"language {language!r} is none of the model's: {known}")
            found[TRANSCRIPT_TAG] = [self.vocabulary.languages[language]]
        for stage, text, code in ((TRANSCRIPT, given.transcript, language), (TRANSLATION, given.translation, "en")):
            if text is not None:
                tokens = self._words.text(normalize(text, code)).tolist()
                found[stage] = [*tokens, int(self.closing[stage])]
        return found


class State:
    """Where each row of a batch stands; all tensors have one entry per row.

    stage    the stage that the next token belongs to;  at: tokens said in it;  left: tokens left to it
    last     the last token;  repeats: how often it was said in a row
    cut      whether a limit cut the row off;  score, count: log-probability and tokens, [rows, stages]
    """

    def __init__(
        self, frames: Sequence[int], forced: Sequence[dict[int, list[int]]], settings: DecodingSettings, rules: Rules
    ) -> None:
        device, rows = rules.closing.device, len(frames)
        length = torch.tensor(frames, device=device)
        self._settings, self._rules = settings, rules
        self.text_limit = (length / 50 * settings.max_text_tokens_per_second + 16).long()
        self.unit_limit = (length * settings.max_units_per_frame + 50).long()
        self.stage = torch.full((rows,), rules.first, device=device)
        self.at = torch.zeros(rows, dtype=torch.long, device=device)
        self.left = (self.unit_limit if rules.first == UNITS else self.text_limit).clone()
        self.last = torch.zeros(rows, dtype=torch.long, device=device)
        self.repeats = torch.zeros(rows, dtype=torch.long, device=device)
        self.cut = torch.zeros(rows, dtype=torch.bool, device=device)
        self.score = torch.zeros(rows, DONE + 1, device=device)
        self.count = torch.zeros(rows, DONE + 1, dtype=torch.long, device=device)
        longest = max((len(tokens) for one in forced for tokens in one.values()), default=0)
        self.forced = torch.full((rows, DONE + 1, longest + 1), -1, device=device)
        for row, one in enumerate(forced):
            for stage, tokens in one.items():
                self.forced[row, stage, : len(tokens)] = torch.tensor(tokens, device=device)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value[rows])

    def constrain(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities [rows, vocabulary] under the rules, and the token that a row has no choice about, or -1."""
        rules, stage = self._rules, self.stage
        logits = logits.float() + rules.allowed[stage]
        stuck = (stage == UNITS) & (self.repeats >= self._settings.max_unit_repeats)
        logits[stuck.nonzero().flatten(), self.last[stuck]] = -torch.inf
        rows = torch.arange(len(stage), device=stage.device)
        given = self.forced[rows, stage, self.at.clamp(max=self.forced.shape[2] - 1)]
        over = (self.left <= 0) & (rules.closing[stage] >= 0) & (given < 0) & (stage != DONE)
        self.cut |= over
        return logits.log_softmax(-1), torch.where(over, rules.closing[stage], given)

    def advance(self, token: torch.Tensor, log_prob: torch.Tensor) -> None:
        """Take note of the token [rows] that each row said, and of its log-probability."""
        stage, markers = self.stage, self._rules.vocabulary.markers
        rows = torch.arange(len(stage), device=stage.device)
        self.score[rows, stage] += log_prob
        self.count[rows, stage] += 1
        self.repeats = torch.where(token == self.last, self.repeats + 1, 1)
        self.last = token
        after_text = DONE if self._settings.text_only else UNITS
        new = torch.where((stage == TRANSCRIPT_TAG) | (stage == TRANSLATION_TAG), stage + 1, stage)
        new = torch.where((stage == TRANSCRIPT) & (token == markers["translation"]), TRANSLATION_TAG, new)
        new = torch.where((stage == TRANSLATION) & (token == markers["target"]), after_text, new)
        self.stage = torch.where((stage == UNITS) & (token == markers["end"]), DONE, new)
        entered = self.stage != stage
        self.at = torch.where(entered, 0, self.at + 1)
        limit = torch.where(self.stage == UNITS, self.unit_limit, self.text_limit)
        self.left = torch.where(entered, limit, self.left - 1)


def in_a_loop(units: Sequence[int]) -> bool:
    """Whether the last LOOP_WINDOW units do nothing but repeat a pattern of at most 40 units (0.8 s).

    Looked for only now and then, at lengths that do not depend on the batch.
    """
    if len(units) < LOOP_WINDOW or len(units) % _LOOK_EVERY:
        return False
    tail = np.asarray(units[-LOOP_WINDOW:])
    return any(bool((tail[period:] == tail[:-period]).all()) for period in range(1, _LONGEST_PERIOD + 1))
