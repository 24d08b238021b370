"""Where utterances begin and end, window by window, from the probability of speech. Pure: no model, no clock."""

from dataclasses import dataclass

from unitweave.config.live import MAX_UTTERANCE_SECONDS, LiveSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.translate.vad import WINDOW

_SHORTEST_PAUSE = 0.1  # seconds that end an utterance of the maximum length
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
    _longest_pause: tuple[int, int] = (0, 0)  # windows, and the one in which it began

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
                self._begin(at)
            return None
        if probability >= s.vad_threshold:
            if self.silence is not None:
                self._longest_pause = max(self._longest_pause, (at - self.silence, self.silence))
            self.silence = None
        elif probability < max(s.vad_threshold - _HYSTERESIS, _LOWEST) and self.silence is None:
            self.silence = at
        length = at + 1 - self.start
        if self.silence is not None and at + 1 - self.silence >= self._pause(self.silence - self.start):
            return self._end(self.silence)
        # It will be cut in its longest pause; where there was none, at the quietest place of the last third.
        if length > 2 * self._longest // 3 and probability <= self._quietest[0]:
            self._quietest = probability, at
        if length >= self._longest:
            paused, pause = self._longest_pause
            start, cut = self.start, pause if paused >= windows(_SHORTEST_PAUSE) else self._quietest[1]
            cut = max(start + 1, cut)
            self._begin(cut)
            return start, cut
        return None

    @property
    def _longest(self) -> int:
        return windows(self.settings.max_utterance_seconds or MAX_UTTERANCE_SECONDS)

    def _pause(self, spoken: int) -> int:
        """Windows of silence that end an utterance of so many: ever fewer, the longer it is."""
        full, least = windows(self.settings.endpoint_seconds), windows(_SHORTEST_PAUSE)
        share = min(1.0, spoken / self._longest)
        return min(full, round(full + share * (least - full)))

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

    def _begin(self, start: int) -> None:
        self.start, self.silence, self._quietest, self._longest_pause = start, None, (2.0, start), (0, start)

    def _end(self, last: int) -> tuple[int, int] | None:
        start, self.start, self.silence = self.start, None, None
        assert start is not None
        return (start, last) if last - start >= windows(self.settings.min_speech_seconds) else None


def windows(seconds: float) -> int:
    """How many windows some seconds are, at least one."""
    return max(1, round(seconds * SAMPLE_RATE / WINDOW))
