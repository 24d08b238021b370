"""Answers the requests of live sessions with a Translator: several sessions in one batch."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unitweave.config.live import MAX_UTTERANCE_SECONDS, LiveSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.translate.constraints import TRANSCRIPT, TRANSLATION, Continuation, ForcedPrefix, Translation
from unitweave.translate.decode import Wanted
from unitweave.translate.live.hypotheses import (
    Answer,
    Hypothesis,
    Request,
    SpeechRequest,
    Spoken,
    TextRequest,
    Word,
    words_as_text,
)
from unitweave.translate.translator import Translator
from unitweave.translate.utterances import utterance_limit
from unitweave.vocoder.base import at_16khz

_UNITS_AT_ONCE = 40  # so that speech begins soon, and no session waits long for another
_CHUNK_FRAMES = 25
_FADE_SAMPLES = 80  # 5 ms
_MIN_WORD_SECONDS = 0.06
_MIN_WORD_SCORE = 0.3  # of the alignment, below which a word of the transcript was not heard yet


class LiveDecoder:
    """Encoder, language model and vocoder for the sessions of one model."""

    def __init__(self, translator: Translator) -> None:
        self.translator = translator

    @property
    def has_texts(self) -> bool:
        """Whether the model has texts."""
        return self.translator.decoder.vocabulary.has_texts

    @property
    def early_speech(self) -> bool:
        """Whether speech can be ended behind a word of a text, so that committed words are spoken at once."""
        return self.translator.extractor is not None or self.translator.decoder.vocabulary.target_prefixes

    def answer(self, request: Request) -> tuple[Answer, float]:
        """The answer to a request, and the seconds that it took."""
        start = time.perf_counter()
        answer = self.answer_all([request])[0]
        return answer, time.perf_counter() - start

    def answer_all(self, requests: Sequence[Request], wanted: Wanted | None = None) -> list[Answer]:
        """The answers to requests of several sessions, which do not depend on each other.

        `wanted` is called at each step, and may raise what is to end all of them.
        """
        texts = [request for request in requests if isinstance(request, TextRequest)]
        speech = [request for request in requests if isinstance(request, SpeechRequest)]
        hypotheses, spoken = iter(self._texts(texts, wanted)), iter(self._speech(speech, wanted))
        return [next(hypotheses if isinstance(request, TextRequest) else spoken) for request in requests]

    def _texts(self, requests: Sequence[TextRequest], wanted: Wanted | None) -> list[Answer]:
        if not requests:
            return []
        decoder = self.translator.decoder
        encoded = self.translator.encode([request.waveform for request in requests])
        sources = [units for units, _ in encoded]
        if not self.has_texts:
            return [Hypothesis(r.heard, r.final, units=units) for r, units in zip(requests, sources, strict=True)]
        settings = replace(self.translator.settings, text_only=True)
        forced = []
        for request in requests:
            given = decoder.constraints.forced(request.forced, settings.target_language)
            given[TRANSLATION] = [token for word in request.committed for token in word.tokens]
            forced.append({phase: tokens for phase, tokens in given.items() if tokens})
        kept = [request.cache for request in requests]
        translations = decoder.translate(sources, settings, forced, kept=kept, wanted=wanted)
        scores = self.translator.transcript_scores([log_probs for _, log_probs in encoded], translations)
        return [self._hypothesis(*each) for each in zip(requests, sources, translations, scores, strict=True)]

    def _hypothesis(
        self,
        request: TextRequest,
        units: np.ndarray,
        translation: Translation,
        scores: tuple[list[str], np.ndarray] | None,
    ) -> Hypothesis:
        constraints, tokens = self.translator.decoder.constraints, translation.tokens
        begin = tokens.index(int(constraints.closing[TRANSCRIPT])) + 2  # its marker and the next language tag
        return Hypothesis(
            heard=request.heard,
            final=request.final,
            transcript=translation.transcript,
            translation=self._words(tokens[begin : tokens.index(int(constraints.closing[TRANSLATION]))]),
            head=tuple(tokens[:begin]),
            units=units,
            language=translation.language,
            target_language=translation.target_language,
            complete=translation.complete,
            supported=1.0 if scores is None else _supported(scores[1]),
            cache=translation.cache,
        )

    def _words(self, tokens: Sequence[int]) -> tuple[Word, ...]:
        constraints = self.translator.decoder.constraints
        starts, spaced = constraints.word_starts, constraints.spaced
        groups: list[list[int]] = []
        for token in tokens:
            if starts[token] or not groups:
                groups.append([])
            groups[-1].append(token)
        decode = self.translator.decoder.tokenizer.decode
        return tuple(Word(decode(group).strip(), tuple(group), bool(spaced[group[0]])) for group in groups)

    def _speech(self, requests: Sequence[SpeechRequest], wanted: Wanted | None) -> list[Answer]:
        if not requests:
            return []
        # A word is not spoken in less; without a limit, a model whose speech has ended once likes to leave it at that.
        aligned = self.translator.extractor is not None
        min_units = max(1, round(_MIN_WORD_SECONDS * self.translator.decoder.vocabulary.frame_rate))
        continuations = [
            Continuation(
                self._all_texts(r),
                (*r.spoken, *r.draft),
                _UNITS_AT_ONCE,
                0 if aligned else r.begun + min_units * r.new_words,
            )
            for r in requests
        ]
        sources = [request.hypothesis.units for request in requests]
        kept = [request.cache for request in requests]
        decoder, settings = self.translator.decoder, self.translator.settings
        continued = decoder.continue_units(sources, continuations, settings, kept, wanted)
        return [self._spoken(request, hypothesis) for request, hypothesis in zip(requests, continued, strict=True)]

    def _has_draft(self, request: SpeechRequest) -> bool:
        """Whether more than the committed words is decoded, of which only they are spoken.

        A model that has seen whole texts alone speaks those well, and no other; the encoder finds where a word ends.
        """
        return self.has_texts and not request.hypothesis.final and self.translator.extractor is not None

    def _all_texts(self, request: SpeechRequest) -> tuple[int, ...]:
        if not self.has_texts:
            return ()
        said = request.hypothesis.translation if self._has_draft(request) else request.committed
        words = (token for word in said for token in word.tokens)
        return (*request.hypothesis.head, *words, self.translator.decoder.vocabulary.markers["target"])

    def _spoken(self, request: SpeechRequest, translation: Translation) -> Spoken:
        units = tuple(translation.units.tolist())
        last = len(units)
        if self._has_draft(request):
            last = self._end_of_words(request, translation.units) if translation.ended and translation.complete else 0
            last = max(last, len(request.spoken))
        voice = self.translator.speech_vocoder
        stream = request.stream or voice.open_stream(
            _CHUNK_FRAMES,
            self.translator.settings.speaker,
            self.translator.decoder.vocabulary.deduplicate,
            _FADE_SAMPLES,
        )
        stream.speed = request.speed
        waveforms = stream.push(units[len(request.spoken) : last])
        if translation.ended:
            waveforms += stream.flush(units[last:])
        waveforms = [at_16khz(waveform, voice.sample_rate) for waveform in waveforms]
        complete = translation.complete or self._has_draft(request)  # what is cut off of a draft is not missing
        return Spoken(
            units[:last], tuple(waveforms), stream, translation.ended, complete, translation.cache, units[last:]
        )

    def _end_of_words(self, request: SpeechRequest, units: np.ndarray) -> int:
        """How many of the units say the committed words; 0 where they cannot be found in the speech.

        A last word that no other follows is held back: it would sound like the end of a sentence.
        """
        voice, vocabulary = self.translator.speech_vocoder, self.translator.decoder.vocabulary
        (waveform,) = voice.synthesize([units], self.translator.settings.speaker, vocabulary.deduplicate)
        waveform = at_16khz(waveform, voice.sample_rate)
        translation = words_as_text(request.hypothesis.translation)
        aligned = self.translator.align(waveform, translation, request.hypothesis.target_language)
        wanted = len("".join(words_as_text(request.committed).split()))
        lengths = np.cumsum([len("".join(piece.split())) for piece, _, _ in aligned])
        last = int(np.searchsorted(lengths, wanted))
        last = min(last, len(aligned) - 2)
        if last < 0 or min(aligned[last][2], aligned[last + 1][2]) <= 0:
            return 0
        cut = (aligned[last][2] + aligned[last + 1][1]) / 2
        frames = np.cumsum(voice.frame_counts(units, vocabulary.deduplicate))
        return int(np.searchsorted(frames, cut * SAMPLE_RATE / len(waveform) * frames[-1]))


def _supported(scores: np.ndarray) -> float:
    """The fraction of a text before the first word of which the encoder finds nothing."""
    below = np.flatnonzero(scores < _MIN_WORD_SCORE)
    return float(below[0]) / len(scores) if len(below) else 1.0


def check_live(
    translator: Translator, settings: LiveSettings, forced: ForcedPrefix, max_seconds: float = MAX_UTTERANCE_SECONDS
) -> LiveSettings:
    """The settings for a model: utterances as long as those it was trained on, texts alone where it has no speech.

    Args:
        translator: The model.
        settings: When to translate and to speak.
        forced: The languages.
        max_seconds: Maximum seconds of an utterance where the settings have none.

    Raises:
        InputError: The model does not allow the policy or the language, or does not translate.
    """
    vocabulary = translator.decoder.vocabulary
    translator.check_prefix(forced)
    if vocabulary.task == "asr":
        raise InputError("live: this model was trained only to transcribe, not to translate")
    if settings.policy != "utterance" and not vocabulary.has_texts:
        raise InputError(
            f"policy: {settings.policy} needs a model with texts, and this one was trained without; use utterance"
        )
    longest = min(utterance_limit(translator), MAX_UTTERANCE_SECONDS, max_seconds)
    return replace(
        settings,
        max_utterance_seconds=settings.max_utterance_seconds or max(longest, 2 * settings.endpoint_seconds),
        text_only=settings.text_only or not vocabulary.has_speech,
    )
