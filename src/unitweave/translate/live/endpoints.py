"""Where utterances begin and end, window by window, from the probability of speech. Pure: no model, no clock."""

from dataclasses import dataclass

from unitweave.config.live import LiveSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.translate.vad import WINDOW

_HYSTERESIS, _LOWEST = 0.15, 0.01  # speech ends so far below the probability at which it begins: Silero's own rules


@dataclass
class Endpointer:
    """The utterance that is being said.

    Attributes:
        start: The window in which it began; None while nobody speaks.
        silence: The window from which on it has been silent; None while somebody speaks.
    """

    settings: LiveSettings
    start: int | None = None
    silence: int | None = None
    _window: int = -1
    _quietest: tuple[float, int] = (2.0, 0)

    def advance(self, probability: float) -> tuple[int, int] | None:
        """Take in the next window.

        Returns:
            Windows [first, last) of an utterance that has ended with it. Sounds that are too short are dropped.
        """
        s = self.settings
        self._window += 1
        at = self._window
        if self.start is None:
            if probability >= s.vad_threshold:
                self.start, self.silence, self._quietest = at, None, (2.0, at)
            return None
        if probability >= s.vad_threshold:
            self.silence = None
        elif probability < max(s.vad_threshold - _HYSTERESIS, _LOWEST) and self.silence is None:
            self.silence = at
        length = at + 1 - self.start
        if self.silence is not None and at + 1 - self.silence >= windows(s.endpoint_seconds):
            return self._end(self.silence)
        # In the last third of what an utterance may be, the quietest place is where it will be cut.
        if length > 2 * windows(s.max_utterance_seconds) // 3 and probability <= self._quietest[0]:
            self._quietest = probability, at
        if length >= windows(s.max_utterance_seconds):
            start, cut = self.start, max(self.start + 1, self._quietest[1])
            self.start, self.silence, self._quietest = cut, None, (2.0, cut)
            return start, cut
        return None

    def finish(self) -> tuple[int, int] | None:
        """The utterance that the end of the input ends, if there is one."""
        if self.start is None:
            return None
        return self._end(self._window + 1 if self.silence is None else self.silence)

    @property
    def speech_windows(self) -> int:
        """How long somebody has been speaking, less the silence at the end."""
        if self.start is None:
            return 0
        return (self._window + 1 if self.silence is None else self.silence) - self.start

    def _end(self, last: int) -> tuple[int, int] | None:
        start, self.start, self.silence = self.start, None, None
        assert start is not None
        return (start, last) if last - start >= windows(self.settings.min_speech_seconds) else None


def windows(seconds: float) -> int:
    """How many windows some seconds are, at least one."""
    return max(1, round(seconds * SAMPLE_RATE / WINDOW))
