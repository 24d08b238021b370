"""What is decoded of a growing utterance, and the requests that the session makes of the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unitweave.translate.constraints import ForcedPrefix
from unitweave.translate.prefix_cache import PrefixCache
from unitweave.vocoder.base import PhraseStream


@dataclass(frozen=True)
class Word:
    """A word of a text, its token ids, and whether there is a space before it."""

    text: str
    tokens: tuple[int, ...]
    spaced: bool = True


def words_as_text(words: Sequence[Word]) -> str:
    """Words as a text, which has no spaces in scripts without them."""
    return "".join(f" {word.text}" if word.spaced else word.text for word in words).lstrip()


@dataclass(frozen=True)
class Hypothesis:
    """The texts of an utterance as far as it was heard.

    Attributes:
        heard: Seconds of the utterance that it is based on.
        final: Whether the utterance is over.
        transcript: What was said.
        translation: Words of the translation; those that were committed come first.
        head: Token ids up to where the translation begins: the transcript with its tags and markers.
        units: Units of the source, [frames].
        language: Of the source, as the model identified it.
        target_language: Of the translation; empty for a model without texts.
        complete: False where a limit cut the texts off.
        supported: Fraction of the transcript, from its beginning, that the encoder finds in what was heard. A model
            that has seen whole utterances alone goes on with what may follow.
        cache: What was computed, for the next decoding.
    """

    heard: float
    final: bool
    transcript: str = ""
    translation: tuple[Word, ...] = ()
    head: tuple[int, ...] = ()
    units: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint16))
    language: str = ""
    target_language: str = ""
    complete: bool = True
    supported: float = 1.0
    cache: PrefixCache | None = None

    @property
    def supported_words(self) -> int:
        """Words of the translation that what was heard calls for: the same fraction of it, all of a final one's."""
        return len(self.translation) if self.final else int(self.supported * len(self.translation) + 1e-9)


@dataclass(frozen=True)
class TextRequest:
    """Decode the texts of an utterance as far as it was heard.

    Attributes:
        waveform: float32 [samples] at 16 kHz.
        committed: Words that the translation has to begin with.
        heard: Seconds of the utterance.
        final: Whether it is over.
        forced: The languages, where they are known.
        cache: Of the hypothesis before.
    """

    waveform: np.ndarray
    committed: tuple[Word, ...]
    heard: float
    final: bool
    forced: ForcedPrefix = field(default_factory=ForcedPrefix)
    cache: PrefixCache | None = None


@dataclass(frozen=True)
class SpeechRequest:
    """Decode the next units of the committed words and synthesize them.

    Attributes:
        hypothesis: What was decoded last.
        committed: All words to be spoken, those that have been spoken too.
        spoken: The units of what has been spoken.
        stream: Where the utterance's speech is; None before its first word.
        speed: How much faster than normal to speak.
        cache: Of the hypothesis, or of the units so far.
        new_words: How many of the words are new.
        begun: How many units there were before them.
        draft: Units behind those that have been spoken, decoded so far: of the committed words and of what may follow.
    """

    hypothesis: Hypothesis
    committed: tuple[Word, ...]
    spoken: tuple[int, ...]
    stream: PhraseStream | None
    speed: float
    cache: PrefixCache | None = None
    new_words: int = 0
    begun: int = 0
    draft: tuple[int, ...] = ()


Request = TextRequest | SpeechRequest


@dataclass(frozen=True)
class Spoken:
    """The answer to a SpeechRequest.

    Attributes:
        units: All units that are spoken, also those of the request.
        waveforms: The new speech, float32 at 16 kHz.
        stream: Where the utterance's speech is now.
        ended: Whether all of the committed words are spoken.
        complete: False where a limit cut the units off.
        cache: What was computed, for the next units.
        draft: Units that are decoded and not spoken yet, or not at all.
    """

    units: tuple[int, ...]
    waveforms: tuple[np.ndarray, ...]
    stream: PhraseStream | None
    ended: bool
    complete: bool = True
    cache: PrefixCache | None = None
    draft: tuple[int, ...] = ()


Answer = Hypothesis | Spoken
