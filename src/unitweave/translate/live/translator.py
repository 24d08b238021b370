"""Live translation from Python: chunks of samples in, events out."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from unitweave.config.live import LiveSettings
from unitweave.translate.constraints import ForcedPrefix
from unitweave.translate.live.decoding import LiveDecoder, check_live
from unitweave.translate.live.events import LiveEvent
from unitweave.translate.live.hypotheses import Answer, Request
from unitweave.translate.live.session import LiveSession
from unitweave.translate.translator import Translator
from unitweave.translate.vad import SpeechDetector


class Answers(Protocol):
    """What answers a session's requests, and says how many seconds that took."""

    def answer(self, request: Request) -> tuple[Answer, float]:
        """The answer, and the seconds that it took."""


class LiveTranslator:
    """Translates speech while it is being said.

    Feed it chunks of any size as they come. A call returns when all that the chunk calls for is computed; what is said
    meanwhile is to be fed afterwards. Memory does not grow with the length of the session.

    Args:
        translator: The model.
        settings: When to translate and to speak.
        language: Of the source; None leaves it to the model.
        target_language: To translate into; needed where the model has several.

    Raises:
        InputError: The model does not allow the policy or the language, or silero-vad is missing.
    """

    def __init__(
        self,
        translator: Translator,
        settings: LiveSettings | None = None,
        language: str | None = None,
        target_language: str | None = None,
    ) -> None:
        settings, forced = settings or LiveSettings(), ForcedPrefix(language=language, target_language=target_language)
        settings = check_live(translator, settings, forced)
        decoder = LiveDecoder(translator)
        self.decoder: Answers = decoder
        detector = SpeechDetector()
        self.session = LiveSession(settings, detector.probability, forced, decoder.has_texts, decoder.early_speech)

    def feed(self, samples: np.ndarray) -> list[LiveEvent]:
        """Take in samples, float32 at 16 kHz; returns what happened."""
        return self._answered(self.session.feed(samples))

    def finish(self) -> list[LiveEvent]:
        """End the session, and with it the last utterance; returns what happened."""
        return self._answered(self.session.finish())

    def translate(self, chunks: Iterable[np.ndarray]) -> Iterator[LiveEvent]:
        """The events of chunks of samples, float32 at 16 kHz, each as soon as it is known."""
        for chunk in chunks:
            yield from self._run(self.session.feed(chunk))
        yield from self._run(self.session.finish())

    def _answered(self, events: list[LiveEvent]) -> list[LiveEvent]:
        return list(self._run(events))

    def _run(self, events: list[LiveEvent]) -> Iterator[LiveEvent]:
        yield from events
        while (request := self.session.request) is not None:
            yield from self.session.answer(*self.decoder.answer(request))
