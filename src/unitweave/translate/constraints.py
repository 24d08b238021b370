"""The constraints of decoding: which tokens each phase allows, how long it may last, and what is known beforehand.

Decoding goes through phases: language tag and transcript, language tag and translation, units. A model that was
trained without texts has the units alone; one that was trained to text only ends with its last text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.core.natural import clean_text
from unitweave.core.scripts import join_words
from unitweave.core.text import normalize
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.translate.loops import PhraseLoops, count_repeats, max_repeats
from unitweave.translate.prefix_cache import PrefixCache
from unitweave.translate.word_starts import word_starts

TRANSCRIPT_TAG, TRANSCRIPT, TRANSLATION_TAG, TRANSLATION, UNITS, DONE = range(6)
# What results call the phases; the language tag counts as a part of its text.
PHASE_NAMES = {
    "transcript": (TRANSCRIPT_TAG, TRANSCRIPT),
    "translation": (TRANSLATION_TAG, TRANSLATION),
    "units": (UNITS,),
}


@dataclass(frozen=True)
class ForcedPrefix:
    """What is known about an utterance beforehand, which the model has to repeat; None leaves it to the model.

    Attributes:
        transcript: What is said; normalized where training texts are.
        translation: Its translation; normalized likewise.
        language: Code of the source language, one of those that the model translates from.
        target_language: Code of the language to translate into; needed where the model has several from a language.
    """

    transcript: str | None = None
    translation: str | None = None
    language: str | None = None
    target_language: str | None = None


@dataclass
class Translation:
    """What the model made of one utterance.

    Attributes:
        language: Code of the source language, as the model identified it.
        target_language: Code of the language that it was translated into.
        transcript: What was said.
        translation: Its translation.
        units: int64 [units] of the spoken translation, without repetitions for a model that was trained so.
        complete: False where a length limit or the loop detector cut it off.
        score: Mean log-probability of all tokens.
        scores: The same for those of "transcript", "translation" and "units".
        seconds: Wall time of each of these, a step's time being shared by the utterances in it.
        tokens: All of it as token ids, markers included.
        ended: False where the units go on, but as many as were asked for are decoded.
        cache: What was computed, where it was to be kept for the next call.
    """

    language: str = ""
    target_language: str = ""
    transcript: str = ""
    translation: str = ""
    units: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    complete: bool = True
    score: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    ended: bool = True
    cache: PrefixCache | None = None


@dataclass(frozen=True)
class Continuation:
    """An utterance whose texts are decoded, and a part of its units.

    Attributes:
        texts: Token ids of both texts, with their language tags and closing markers; empty for a model without texts.
        units: The units so far, which the model goes on from.
        max_units: How many units to decode now, at most.
        min_total: How many units there are to be, those so far included, before they may end.
    """

    texts: tuple[int, ...]
    units: tuple[int, ...]
    max_units: int
    min_total: int = 0


class Constraints:
    """What each phase allows, for one vocabulary.

    Attributes:
        allowed: float32 [phases, rows of the output layer]: 0 where a phase allows a token, -inf elsewhere.
        closing: int64 [phases]: the marker that ends a phase, -1 for a phase of one token.
        first: The phase that decoding begins with: the units for a model without texts.
        spaced: bool [text tokens]: the tokens that have a space before them.
        word_starts: bool [text tokens]: the tokens that begin a word.
        starting: float32 [rows of the output layer]: 0 for those and for the markers, -inf for other text tokens.
        follows: int64 [rows]: for the tag of a source language with one target, the tag of that; -1 elsewhere.
    """

    def __init__(
        self, vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase, rows: int, device: torch.device
    ) -> None:
        self.vocabulary, self._words = vocabulary, WordTokens(tokenizer)
        self.first = TRANSCRIPT_TAG if vocabulary.has_texts else UNITS
        markers = vocabulary.markers
        self._special = set(tokenizer.all_special_ids)
        self.text = [i for i in range(vocabulary.text_size) if i not in self._special]
        allowed = torch.full((DONE + 1, rows), -torch.inf)
        after_transcript = markers["end" if vocabulary.task == "asr" else "translation"]
        after_translation = markers["target" if vocabulary.has_speech else "end"]
        closing = [-1, after_transcript, -1, after_translation, markers["end"], markers["end"]]
        self.closing = torch.tensor(closing, device=device)
        for phase, tokens in self.tokens().items():
            allowed[phase, tokens] = 0
        self.allowed = allowed.to(device)
        self.spaced, self.word_starts = word_starts(tokenizer, vocabulary.text_size)
        starting = torch.zeros(rows)
        starting[torch.from_numpy(np.flatnonzero(~self.word_starts))] = -torch.inf
        self.starting = starting.to(device)
        self.follows = torch.full((rows,), -1, device=device)
        for source in vocabulary.sources:
            if len(targets := vocabulary.targets_from(source)) == 1:
                self.follows[vocabulary.languages[source]] = vocabulary.languages[targets[0]]

    def tokens(self) -> dict[int, list[int]]:
        """The tokens that each phase allows, its closing marker included."""
        v, markers = self.vocabulary, self.vocabulary.markers
        tags = list(v.languages.values())
        return {
            TRANSCRIPT_TAG: tags,
            TRANSCRIPT: [*self.text, int(self.closing[TRANSCRIPT])],
            TRANSLATION_TAG: tags,
            TRANSLATION: [*self.text, int(self.closing[TRANSLATION])],
            UNITS: [*range(v.unit_offset, v.unit_offset + v.num_units), markers["end"]],
            DONE: [markers["end"]],
        }

    def forced(self, prefix: ForcedPrefix | None, target_language: str | None = None) -> dict[int, list[int]]:
        """The tokens of each phase that are not left to the model.

        Args:
            prefix: What is known about the utterance.
            target_language: The language to translate into where the prefix names none.

        Raises:
            InputError: A language is unknown or missing, a text holds markers, or the model has none and can be given
                none.
        """
        prefix = prefix or ForcedPrefix()
        source = self.vocabulary.language_code(prefix.language)
        target = self.vocabulary.language_code(prefix.target_language or target_language)
        target = self.vocabulary.target_code(source, target)
        found: dict[int, list[int]] = {}
        if self.first == UNITS:
            if prefix.transcript is not None or prefix.translation is not None or source:
                raise InputError(
                    "this model was trained without texts, so no transcript, translation or language can be set"
                )
            return found
        tags = self.vocabulary.languages
        found |= {TRANSCRIPT_TAG: [tags[source]]} if source else {}
        found |= {TRANSLATION_TAG: [tags[target]]} if target else {}
        sources = [source] if source else self.vocabulary.sources
        targets = [target] if target else self.vocabulary.targets
        natural = self.vocabulary.texts == "natural"
        for phase, name, text, codes in (
            (TRANSCRIPT, "transcript", prefix.transcript, sources),
            (TRANSLATION, "translation", prefix.translation, targets),
        ):
            if text is not None:
                text = clean_text(text) if natural else join_words(_normalized(text, codes, name))
                tokens = self._words.text(text).tolist()
                if any(token in self._special or token >= self.vocabulary.text_size for token in tokens):
                    raise InputError(f"{name}: must be text, without the model's own markers such as <|end|>")
                found[phase] = [*tokens, int(self.closing[phase])]
        return found


def _normalized(text: str, languages: Sequence[str], name: str) -> str:
    """A given text as training texts are, in the language that it must be in.

    Raises:
        InputError: It may be in several languages that are normalized differently.
    """
    forms = {normalize(text, code) for code in languages or [""]}
    if len(forms) > 1:
        key = "language" if name == "transcript" else "target_language"
        raise InputError(f"{key}: name the language of the {name}: one of {', '.join(languages)}")
    return forms.pop()


class DecoderState:
    """Where each row of a batch stands; every tensor has one entry per row.

    Attributes:
        phase: The phase that the next token belongs to.
        position: How many tokens the phase has so far.
        remaining: How many more it may have.
        last: The last token.
        repeats: How often it was repeated in a row.
        cut: Whether a limit cut the row off.
        score: Log-probability of the tokens, [rows, phases].
        count: Their number, [rows, phases].
        forced: The token that a row has to say at a position of a phase, -1 for a free choice,
            [rows, phases, positions].
        seam: Tokens of a translation that are given without its end, so that a new word has to follow; else -1.
        min_units: Units before which a row may not end.
    """

    def __init__(
        self,
        frames: Sequence[int],
        forced: Sequence[dict[int, list[int]]],
        settings: DecodingSettings,
        constraints: Constraints,
    ) -> None:
        device, rows = constraints.closing.device, len(frames)
        length = torch.tensor(frames, device=device)
        self._settings, self._constraints = settings, constraints
        rate = constraints.vocabulary.frame_rate
        self.text_limit = (length / rate * settings.max_text_tokens_per_second + 16).long()
        self.unit_limit = (length * settings.max_units_per_frame + rate).long()
        self._max_repeats = max_repeats(settings, rate)
        self.phase = torch.full((rows,), constraints.first, device=device)
        self.position = torch.zeros(rows, dtype=torch.long, device=device)
        self.remaining = (self.unit_limit if constraints.first == UNITS else self.text_limit).clone()
        self.last = torch.zeros(rows, dtype=torch.long, device=device)
        self.repeats = torch.zeros(rows, dtype=torch.long, device=device)
        self.cut = torch.zeros(rows, dtype=torch.bool, device=device)
        self.score = torch.zeros(rows, DONE + 1, device=device)
        self.count = torch.zeros(rows, DONE + 1, dtype=torch.long, device=device)
        # One position more than the longest text, always -1: what comes after it is free.
        longest = max((len(tokens) for prefix in forced for tokens in prefix.values()), default=0)
        self.forced = torch.full((rows, DONE + 1, longest + 1), -1, device=device)
        for row, prefix in enumerate(forced):
            for phase, tokens in prefix.items():
                self.forced[row, phase, : len(tokens)] = torch.tensor(tokens, device=device)
        closing = int(constraints.closing[TRANSLATION])
        given = [prefix.get(TRANSLATION, []) for prefix in forced]
        seam = [len(tokens) if tokens and tokens[-1] != closing else -1 for tokens in given]
        self.seam = torch.tensor(seam, dtype=torch.long, device=device)
        self.min_units = torch.zeros(rows, dtype=torch.long, device=device)
        self._phrases = PhraseLoops(rows, device)

    def resume(self, units: Sequence[Sequence[int]], min_units: Sequence[int]) -> None:
        """Put each row into the phase of the units, after those that are decoded; token ids."""
        device = self.phase.device
        self.phase[:] = UNITS
        self.position = torch.tensor([len(row_units) for row_units in units], dtype=torch.long, device=device)
        self.remaining = self.unit_limit - self.position
        self.last = torch.tensor(
            [row_units[-1] if row_units else 0 for row_units in units], dtype=torch.long, device=device
        )
        self.repeats = torch.tensor([count_repeats(row_units) for row_units in units], dtype=torch.long, device=device)
        self.min_units = torch.tensor(min_units, dtype=torch.long, device=device)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value[rows])
        self._phrases.select(rows)

    def constrain(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply the constraints to the logits of the next token.

        Args:
            logits: [rows, vocabulary]

        Returns:
            Log-probabilities float32 [rows, vocabulary] over the tokens that are allowed, and int64 [rows] the token
            that a row has no choice about, or -1. A forced token keeps the probability that the model gives it.
        """
        constraints, phase = self._constraints, self.phase
        logits = logits.float() + constraints.allowed[phase]
        at_seam = (phase == TRANSLATION) & (self.position == self.seam)
        if bool((self.seam >= 0).any()) and bool(at_seam.any()):
            logits[at_seam] += constraints.starting
        # Units that are decoded in parts, as in live translation, may not end before the minimum of their whole.
        early = (phase == UNITS) & (self.position < self.min_units)
        logits[early, int(constraints.closing[UNITS])] = -torch.inf
        stuck = (phase == UNITS) & (self.repeats >= self._max_repeats)
        logits[stuck.nonzero().flatten(), self.last[stuck]] = -torch.inf
        rows = torch.arange(len(phase), device=phase.device)
        forced = self.forced[rows, phase, self.position.clamp(max=self.forced.shape[2] - 1)]
        # A phase at its limit has to end; one of a single token (closing -1) ends by itself, and a known text is whole.
        over = (self.remaining <= 0) & (constraints.closing[phase] >= 0) & (forced < 0) & (phase != DONE)
        self.cut |= over
        return logits.log_softmax(-1), torch.where(over, constraints.closing[phase], forced)

    def advance(self, token: torch.Tensor, log_prob: torch.Tensor) -> None:
        """Take in the token [rows] that each row got, and its log-probability."""
        phase, vocabulary, closing = self.phase, self._constraints.vocabulary, self._constraints.closing
        rows = torch.arange(len(phase), device=phase.device)
        self.score[rows, phase] += log_prob
        self.count[rows, phase] += 1
        # Counted in all phases, since every row takes the same operations; only units are limited by it.
        self.repeats = torch.where(token == self.last, self.repeats + 1, 1)
        self.last = token
        # A tag is one token, so its phase is over; the others are over with their marker.
        after_transcript = DONE if vocabulary.task == "asr" else TRANSLATION_TAG
        after_text = DONE if self._settings.text_only or not vocabulary.has_speech else UNITS
        # A source language with a single target decides the target's tag.
        of_source = torch.where(phase == TRANSCRIPT_TAG, self._constraints.follows[token], -1)
        free = (of_source >= 0) & (self.forced[:, TRANSLATION_TAG, 0] < 0)
        self.forced[:, TRANSLATION_TAG, 0] = torch.where(free, of_source, self.forced[:, TRANSLATION_TAG, 0])
        new = torch.where((phase == TRANSCRIPT_TAG) | (phase == TRANSLATION_TAG), phase + 1, phase)
        new = torch.where((phase == TRANSCRIPT) & (token == closing[TRANSCRIPT]), after_transcript, new)
        new = torch.where((phase == TRANSLATION) & (token == closing[TRANSLATION]), after_text, new)
        self.phase = torch.where((phase == UNITS) & (token == closing[UNITS]), DONE, new)
        entered = self.phase != phase
        self.position = torch.where(entered, 0, self.position + 1)
        limit = torch.where(self.phase == UNITS, self.unit_limit, self.text_limit)
        self.remaining = torch.where(entered, limit, self.remaining - 1)
        in_text = (self.phase == TRANSCRIPT) | (self.phase == TRANSLATION)
        if bool(in_text.any()):
            # A text in a loop gets no more tokens: its closing marker comes next, and the row counts as cut off.
            self.remaining = torch.where(in_text & self._phrases.advance(token, entered), 0, self.remaining)
