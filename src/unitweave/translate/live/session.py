"""One live session as a state machine: samples and answers of the model in, events and requests to the model out.

It has no clock and no thread. Time is the samples that it was fed and the decoding times that it is told, so what it
does depends on neither the sizes of the chunks nor when they come: while a request is open, input is only kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from unitweave.config.live import POLICIES, LiveSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.choices import chosen
from unitweave.core.errors import InputError
from unitweave.translate.constraints import ForcedPrefix
from unitweave.translate.live.endpoints import Endpointer, windows
from unitweave.translate.live.events import CommittedText, LiveEvent, PartialTranscript, SpeechChunk, UtteranceEnd
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
from unitweave.translate.live.policies import CommitPolicy
from unitweave.translate.prefix_cache import PrefixCache
from unitweave.translate.vad import WINDOW
from unitweave.vocoder.base import PhraseStream

_MIN_SAMPLES = 1600  # of what is translated: encoders have frames of up to 50 ms
_LOUDEST = 16.0  # of a sample; resampling and gain may go beyond 1


@dataclass
class _Utterance:
    """What is known of the utterance that is being translated; `first` is its first sample, padding included."""

    number: int
    first: int
    next_decoding: float
    end: int | None = None
    hypotheses: list[Hypothesis] = field(default_factory=list)
    committed: tuple[Word, ...] = ()
    spoken: tuple[int, ...] = ()
    stream: PhraseStream | None = None
    speed: float = 1.0
    complete: bool = True
    text_cache: PrefixCache | None = None
    speech_cache: PrefixCache | None = None
    new_words: int = 0
    begun: int = 0
    draft: tuple[int, ...] = ()


class LiveSession:
    """Translates one stream of speech.

    Args:
        settings: When to translate and to speak.
        probability: The probability of speech in the next window of 512 samples; it may keep a state of its own.
        forced: The languages of source and translation, where they are known.
        has_texts: Whether the model has texts; without them everything is committed at the end of an utterance.
        early_speech: Whether committed words are spoken at once; else all are at the end of the utterance, by a model
            that cannot end its speech where a text breaks off.

    Attributes:
        request: What the model has to answer before anything else happens; None where more input is needed.
    """

    def __init__(
        self,
        settings: LiveSettings,
        probability: Callable[[np.ndarray], float],
        forced: ForcedPrefix | None = None,
        has_texts: bool = True,
        early_speech: bool = True,
    ) -> None:
        self.settings = settings
        self.request: Request | None = None
        self._probability, self._forced = probability, forced or ForcedPrefix()
        self._has_texts, self._early_speech = has_texts, early_speech
        self._policy: CommitPolicy = chosen(POLICIES, settings.policy)(settings)
        self._endpointer = Endpointer(settings)
        self._inbox: list[np.ndarray] = []  # samples that no window has been made of, `_waiting` of them
        self._waiting = 0
        self._kept: list[np.ndarray] = []  # windows from sample `_kept_from` on: the utterance, or the padding before
        self._kept_from = self._seen = 0  # samples; `_seen` is the end of the last window
        self._busy_until = self._spoken_until = 0.0
        self._count = 0
        self._utterance: _Utterance | None = None
        self._finished = False
        self._pad = round(settings.speech_pad_seconds * SAMPLE_RATE)

    @property
    def seconds(self) -> float:
        """Seconds of input that it has taken note of."""
        return self._seen / SAMPLE_RATE

    @property
    def backlog_seconds(self) -> float:
        """Seconds of input that wait for the model."""
        return self._waiting / SAMPLE_RATE

    def feed(self, samples: np.ndarray) -> list[LiveEvent]:
        """Take in samples at 16 kHz in [-1, 1], any number of them.

        Raises:
            InputError: They are of another kind, or the session is over; nothing has changed, and it can go on.
        """
        if self._finished:
            raise InputError("live: this session is over; begin another one")
        self._inbox += [check_samples(samples)] if len(samples) else []
        self._waiting += len(samples)
        return self._advance([])

    def finish(self) -> list[LiveEvent]:
        """Nothing more is to come; the last utterance ends here. Requests may still have to be answered."""
        self._finished = True
        return self._advance([])

    def answer(self, answer: Answer, seconds: float) -> list[LiveEvent]:
        """Take in the answer to `request`, which took so many seconds."""
        assert self.request is not None and self._utterance is not None
        self.request, utterance = None, self._utterance
        self._busy_until = max(self._seen / SAMPLE_RATE, self._busy_until) + seconds
        events: list[LiveEvent] = []
        if isinstance(answer, Hypothesis):
            self._take_texts(utterance, answer, events)
        else:
            self._take_speech(utterance, answer, events)
        return self._advance(events)

    def _advance(self, events: list[LiveEvent]) -> list[LiveEvent]:
        while self.request is None and (window := self._next_window()) is not None:
            self._kept.append(window)
            self._seen += WINDOW
            span = self._endpointer.advance(self._probability(window))
            self._react(span)
        if self.request is None and self._finished:
            self._react(self._endpointer.finish())
        return events

    def _next_window(self) -> np.ndarray | None:
        have = self._waiting
        if have < WINDOW and not (self._finished and have):
            return None
        joined = np.concatenate(self._inbox) if len(self._inbox) > 1 else self._inbox[0]
        self._inbox = [joined[WINDOW:]] if have > WINDOW else []
        self._waiting = max(0, have - WINDOW)
        return np.pad(joined[:WINDOW], (0, max(0, WINDOW - have)))

    def _react(self, span: tuple[int, int] | None) -> None:
        """Ask the model for what this window calls for, and forget samples that are not needed any more."""
        now, detector = self._seen / SAMPLE_RATE, self._endpointer
        if self._utterance is None and (span is not None or detector.start is not None):
            start = span[0] if span is not None else detector.start
            assert start is not None
            first = max(self._kept_from, start * WINDOW - self._pad)
            self._utterance = _Utterance(self._count, first, now + self.settings.chunk_seconds)
        utterance = self._utterance
        if utterance is not None and span is not None:
            utterance.end = min(self._seen, span[1] * WINDOW + self._pad)
            self._request_texts(utterance, utterance.end)
        elif utterance is not None and detector.start is None:
            self._utterance = None  # too short to be speech
        elif (
            utterance is not None
            and self._policy.incremental
            and self._has_texts
            and now >= max(utterance.next_decoding, self._busy_until)
            and detector.speech_windows >= windows(self.settings.min_speech_seconds)
        ):
            utterance.next_decoding = now + self.settings.chunk_seconds
            self._request_texts(utterance, self._seen)
        if self._utterance is None:
            self._forget(self._seen - self._pad - WINDOW)

    def _forget(self, before: int) -> None:
        while self._kept and self._kept_from + WINDOW <= before:
            del self._kept[0]
            self._kept_from += WINDOW

    def _request_texts(self, utterance: _Utterance, end: int) -> None:
        samples = np.concatenate(self._kept)[utterance.first - self._kept_from : end - self._kept_from]
        samples = np.pad(samples, (0, max(0, _MIN_SAMPLES - len(samples))))
        heard, final = (end - utterance.first) / SAMPLE_RATE, utterance.end is not None
        self.request = TextRequest(samples, utterance.committed, heard, final, self._forced, utterance.text_cache)

    def _take_texts(self, utterance: _Utterance, hypothesis: Hypothesis, events: list[LiveEvent]) -> None:
        stamp = (utterance.number, self._seen / SAMPLE_RATE, self._busy_until)
        utterance.text_cache = utterance.speech_cache = hypothesis.cache
        hypothesis = replace(hypothesis, cache=None)  # the older ones need theirs no more
        utterance.hypotheses = [*utterance.hypotheses, hypothesis][-self._policy.history :]
        if self._has_texts:
            text = words_as_text(hypothesis.translation)
            events.append(PartialTranscript(*stamp, hypothesis.transcript, text))
        # What a limit cut off is a loop more often than a text, and so it is not trusted before there is no other.
        trusted = hypothesis.complete or hypothesis.final
        count = self._policy.committed_words(utterance.hypotheses) if trusted else 0
        new = hypothesis.translation[len(utterance.committed) : count]
        before = len(words_as_text(utterance.committed))
        utterance.committed += new
        if new:
            events.append(CommittedText(*stamp, words_as_text(utterance.committed)[before:]))
        if hypothesis.final:
            utterance.complete &= hypothesis.complete
        # Of a final one also what was committed before: some of it may not have been spoken yet.
        wanted = (
            bool(utterance.committed) or not self._has_texts if hypothesis.final else bool(new and self._early_speech)
        )
        if wanted and not self.settings.text_only:
            utterance.speed = self._speed()
            utterance.new_words = len(new if self._early_speech else utterance.committed)
            utterance.begun, utterance.draft = len(utterance.spoken), ()
            self._request_speech(utterance)
        elif hypothesis.final:
            self._end(utterance, events)

    def _speed(self) -> float:
        """Faster by as much as new speech has to wait too long for older speech."""
        wait, allowed = self._spoken_until - self._busy_until, self.settings.max_lag_seconds
        return min(self.settings.max_speed, 1 + max(0.0, wait - allowed) / max(allowed, 0.5))

    def _request_speech(self, utterance: _Utterance) -> None:
        self.request = SpeechRequest(
            utterance.hypotheses[-1],
            utterance.committed,
            utterance.spoken,
            utterance.stream,
            utterance.speed,
            utterance.speech_cache,
            utterance.new_words,
            utterance.begun,
            utterance.draft,
        )

    def _take_speech(self, utterance: _Utterance, spoken: Spoken, events: list[LiveEvent]) -> None:
        utterance.spoken, utterance.stream, utterance.speech_cache = spoken.units, spoken.stream, spoken.cache
        utterance.draft = spoken.draft
        utterance.complete &= spoken.complete
        for waveform in filter(len, spoken.waveforms):
            start = max(self._busy_until, self._spoken_until)
            self._spoken_until = start + len(waveform) / SAMPLE_RATE
            seconds = self._seen / SAMPLE_RATE
            events.append(SpeechChunk(utterance.number, seconds, self._busy_until, start, waveform))
        if not spoken.ended:
            self._request_speech(utterance)
        elif utterance.end is not None:
            self._end(utterance, events)

    def _end(self, utterance: _Utterance, events: list[LiveEvent]) -> None:
        assert utterance.end is not None
        last = utterance.hypotheses[-1]
        events.append(
            UtteranceEnd(
                utterance.number,
                self._seen / SAMPLE_RATE,
                self._busy_until,
                start=utterance.first / SAMPLE_RATE,
                end=utterance.end / SAMPLE_RATE,
                language=last.language,
                transcript=last.transcript,
                translation=words_as_text(utterance.committed),
                complete=utterance.complete,
            )
        )
        self._count += 1
        self._utterance = None
        self._forget(utterance.end if self._endpointer.start is not None else self._seen - self._pad - WINDOW)


def check_samples(samples: np.ndarray) -> np.ndarray:
    """A copy of samples as float32. Raises InputError where they are not numbers from -1 to 1, or nearly so."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise InputError("live: samples must be a one-dimensional array of floating-point numbers at 16 kHz")
    with np.errstate(over="ignore"):
        samples = samples.astype(np.float32)
    loudest = np.abs(samples).max(initial=0.0)
    if not loudest <= _LOUDEST:  # nor NaN, with which the detector would never find speech again
        raise InputError(
            f"live: samples must lie between -1 and 1 (got {loudest:g}); 16-bit samples are divided by 32768"
            if np.isfinite(loudest)
            else "live: samples must be finite numbers (got NaN or infinity)"
        )
    return samples
