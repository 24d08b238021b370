"""What happens while somebody is speaking. Times are seconds since the first sample of the session."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unitweave.core.audio import SAMPLE_RATE


@dataclass(frozen=True)
class LiveEvent:
    """Something that happened.

    Attributes:
        utterance: Which utterance it belongs to, counted from 0.
        heard: Seconds of input that it is based on.
        time: When it happened, computing included.
    """

    utterance: int
    heard: float
    time: float

    kind = ""

    def plain(self) -> dict[str, Any]:
        """As JSON has it, without waveforms."""
        values = {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in vars(self).items()
            if not isinstance(value, np.ndarray)
        }
        return {"event": self.kind, **values}


@dataclass(frozen=True)
class PartialTranscript(LiveEvent):
    """What has been said so far, and how it would be translated; the next one replaces it."""

    transcript: str
    translation: str

    kind = "transcript"


@dataclass(frozen=True)
class CommittedText(LiveEvent):
    """Words of the translation that are never taken back.

    The texts of an utterance, one behind the other, are its translation: each has the space before it, where its script
    has one.
    """

    text: str

    kind = "translation"


@dataclass(frozen=True)
class SpeechChunk(LiveEvent):
    """Speech of committed words, float32 [samples] at 16 kHz; `start` is when it is played, after what came before."""

    start: float
    waveform: np.ndarray

    kind = "speech"

    def plain(self) -> dict[str, Any]:
        """As JSON has it, with how long the waveform is."""
        return super().plain() | {"seconds": round(len(self.waveform) / SAMPLE_RATE, 4)}


@dataclass(frozen=True)
class UtteranceEnd(LiveEvent):
    """An utterance is over, and all of its translation is committed and spoken.

    Attributes:
        start: When it began in the input, in seconds.
        end: When it ended.
        language: Of the source, as the model identified it.
        transcript: What was said.
        translation: All committed words.
        complete: False where a limit cut the model off.
    """

    start: float
    end: float
    language: str
    transcript: str
    translation: str
    complete: bool

    kind = "end"
