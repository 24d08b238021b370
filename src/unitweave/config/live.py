"""Settings of live translation: when something is translated, and when it is spoken."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unitweave.config.types import NonNegativeNumber, OneOrMore, PositiveInt, PositiveNumber, Ratio, Settings, TwoOrMore
from unitweave.core.choices import choices
from unitweave.core.errors import InputError

_MOST = 60.0  # seconds
POLICIES = "translate/live/policies"  # each file there is one
if TYPE_CHECKING:
    Policy = str
else:
    Policy = Literal[choices(POLICIES, "utterance")]
MAX_PAD_SECONDS = 5.0
MAX_UTTERANCE_SECONDS = 20.0  # where nothing is known of the model


@dataclass
class LiveSettings(Settings):
    """How speech is translated while it is being said."""

    policy: Policy = "utterance"
    """When words are committed: at the end of an utterance, when successive hypotheses agree, or k words late."""
    chunk_seconds: PositiveNumber = 0.5
    """Seconds between two decodings of an utterance that is not over (agreement and wait-k)."""
    agreement: TwoOrMore = 2
    """Successive hypotheses that have to agree on a word (agreement)."""
    wait_words: PositiveInt = 3
    """Number of words that the translation stays behind the source (wait-k)."""
    endpoint_seconds: PositiveNumber = 0.5
    """Seconds of silence that end an utterance; the longer the utterance, the less is needed."""
    vad_threshold: Ratio = 0.5
    """Probability above which speech begins; it ends 0.15 below that."""
    min_speech_seconds: NonNegativeNumber = 0.2
    """Minimum seconds of speech; shorter sounds are left out."""
    speech_pad_seconds: NonNegativeNumber = 0.12
    """Seconds kept before and after an utterance."""
    max_utterance_seconds: PositiveNumber | None = None
    """Maximum seconds of an utterance; a longer one is cut in its longest pause or at its least probable speech.
    null: as long as the recordings that the model was trained on, at most 20."""
    max_speed: OneOrMore = 1.25
    """How much faster than normal the translation may be spoken to catch up."""
    max_lag_seconds: NonNegativeNumber = 1.0
    """Seconds that new speech may wait for older speech before speaking gets faster."""
    text_only: bool = False
    """Text only; no speech."""

    def check(self) -> None:
        """Raise InputError for values that no policy can work with."""
        if self.speech_pad_seconds > MAX_PAD_SECONDS:  # it is kept all the time, and belongs to every utterance
            raise InputError(
                f"speech_pad_seconds: must be at most {MAX_PAD_SECONDS:g} (got {self.speech_pad_seconds:g})"
            )
        longest = self.max_utterance_seconds
        if longest is not None and not 1 <= longest <= _MOST:
            raise InputError(f"max_utterance_seconds: must be from 1 to {_MOST:g} (got {longest:g})")
        for name in ("chunk_seconds", "min_speech_seconds", "max_speed", "max_lag_seconds"):
            if (value := getattr(self, name)) > _MOST:
                raise InputError(f"{name}: must be at most {_MOST:g} (got {value:g})")
        if (longest or MAX_UTTERANCE_SECONDS) <= self.endpoint_seconds:
            raise InputError(
                f"endpoint_seconds: must be below max_utterance_seconds, {longest or MAX_UTTERANCE_SECONDS:g} "
                f"(got {self.endpoint_seconds:g})"
            )
