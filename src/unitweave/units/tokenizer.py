"""Speech tokenizers under one protocol: our encoder with its codebook, and any other that a setting names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unitweave.config.units import MAX_UNITS, ExtractionSettings
from unitweave.core.arrays import about_array, as_array
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import json_digest
from unitweave.core.functions import function_errors, imported
from unitweave.core.sequences import deduplicate

_SLACK_FRAMES = 3  # encoders yield up to 2 frames fewer than samples / 320; more means a mix-up
_MIN_AGREEMENT = 0.9  # fraction of units that a tokenizer and imported files have in common


@dataclass(frozen=True)
class SpeechTokens:
    """What a tokenizer makes of a recording.

    Attributes:
        units: Integers from 0, [frames].
        features: float32 [frames, dimensions] that the units are made of, where the tokenizer gives them.
    """

    units: np.ndarray
    features: np.ndarray | None = None


class SpeechTokenizer(Protocol):
    """Recordings in, units out.

    Attributes:
        num_units: Size of the codebook.
        frame_rate: Units a second.
        fingerprint: Names the codebook: equal ones, equal units.
    """

    @property
    def num_units(self) -> int: ...

    @property
    def frame_rate(self) -> float: ...

    @property
    def fingerprint(self) -> str: ...

    def tokenize(self, waveforms: Sequence[np.ndarray]) -> list[SpeechTokens]:
        """Tokens of each waveform, float32 [samples] at 16 kHz, one for each frame, repetitions included."""
        ...


class ExternalTokenizer:
    """A tokenizer that a function of the user returned, with checks of what it gives.

    Args:
        function: `module:name`; called with `options`, it returns an object with `num_units`, `frame_rate` and
            `tokenize`, as `SpeechTokenizer` has them; `tokenize` may also return arrays of units alone. Without a
            `fingerprint` of its own, one is made of the function's name and options.
        options: Keyword arguments.

    Raises:
        InputError: There is no such function, or it returns something else.
    """

    def __init__(self, function: str, options: dict[str, Any]) -> None:
        self.name, self._function = f"units.tokenizer {function}", function
        load = imported(function, "units.tokenizer")
        with function_errors(function, self.name):
            self._made = load(**options)
            names = ("num_units", "frame_rate", "fingerprint")  # which may be properties
            num_units, rate, given = (getattr(self._made, name, None) for name in names)
        if num_units is None or not callable(getattr(self._made, "tokenize", None)):
            raise InputError(f"{self.name}: must return an object with num_units, frame_rate and tokenize(waveforms)")
        if not isinstance(num_units, Integral) or not 0 < int(num_units) <= MAX_UNITS:
            raise InputError(f"{self.name}: its num_units must be an integer from 1 to {MAX_UNITS} (got {num_units!r})")
        if not isinstance(rate, Real) or not 0 < float(rate) <= 1000:
            raise InputError(f"{self.name}: its frame_rate must be the number of units per second (got {rate!r})")
        self.num_units, self.frame_rate = int(num_units), float(rate)
        if given is not None and not isinstance(given, str | int):
            raise InputError(f"{self.name}: its fingerprint must be a string (got {type(given).__name__})")
        self.fingerprint = str(given or f"tokenizer-{json_digest([function, options, num_units, self.frame_rate])}")

    def tokenize(self, waveforms: Sequence[np.ndarray]) -> list[SpeechTokens]:
        """As `SpeechTokenizer.tokenize`.

        Raises:
            InputError: A unit is outside the codebook, or there are too many or too few for the waveform.
        """
        with function_errors(self._function, self.name):
            returned = self._made.tokenize([waveform.copy() for waveform in waveforms])  # it may work in place
            tokens = list(returned) if isinstance(returned, Iterable) else None
            found = [(getattr(one, "units", one), getattr(one, "features", None)) for one in tokens or ()]
        if tokens is None:
            raise InputError(
                f"{self.name}: must return a list, with the units of each recording (got {returned!r:.80})"
            )
        if len(tokens) != len(waveforms):
            raise InputError(f"{self.name}: gave {len(tokens)} results for {len(waveforms)} recordings")
        return [
            self._checked(units, features, len(waveform) / 16_000)
            for (units, features), waveform in zip(found, waveforms, strict=True)
        ]

    def _checked(self, given: Any, features: Any, seconds: float) -> SpeechTokens:
        units = as_array(given)
        if units is None or units.ndim != 1 or (len(units) and units.dtype.kind not in "iu"):
            raise InputError(
                f"{self.name}: units must be a one-dimensional array of integers (got {about_array(given, units)})"
            )
        if len(units) and not 0 <= int(units.min()) <= int(units.max()) < self.num_units:
            wrong = units.min() if units.min() < 0 else units.max()
            raise InputError(f"{self.name}: gave unit {wrong}, but its num_units is {self.num_units}")
        if reason := length_mismatch(len(units), seconds * self.frame_rate):
            raise InputError(f"{self.name}: {reason} at its frame_rate of {self.frame_rate:g}")
        return SpeechTokens(units.astype(np.uint16), features)


def check_repeatable(tokenizer: SpeechTokenizer, waveforms: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """Raise InputError where a tokenizer makes other units of a recording each time, or next to other recordings."""
    alone = [tokenizer.tokenize([waveform])[0].units for waveform in waveforms]
    for name, one, other in zip(names, alone, tokenizer.tokenize(waveforms), strict=True):
        if len(one) != len(other.units) or _agreement(one, other.units) < _MIN_AGREEMENT:
            raise InputError(
                f"units.tokenizer: the units of {name} depend on the recordings next to it: "
                f"{100 * _agreement(one, other.units):.0f} % agree; tokenize(waveforms) must give a recording the same "
                "units each time"
            )


def _agreement(units: np.ndarray, others: np.ndarray) -> float:
    """The fraction of units that two results have in common, as far as both go."""
    common = min(len(units), len(others))
    return float((units[:common] == others[:common]).mean()) if common else float(len(units) == len(others))


def configured_tokenizer(settings: ExtractionSettings) -> ExternalTokenizer | None:
    """The tokenizer that the settings name; None for our own encoder and codebook. Raises InputError."""
    return None if settings.tokenizer is None else ExternalTokenizer(settings.tokenizer, settings.tokenizer_options)


def check_agreement(tokenizer: SpeechTokenizer, audio: Path, units: np.ndarray, deduplicated: bool, name: str) -> None:
    """Raise InputError where a tokenizer makes clearly other units of a recording than those that were imported."""
    (tokens,) = tokenizer.tokenize([read_audio(audio)])
    tokenized = deduplicate(tokens.units)[0] if deduplicated else tokens.units
    agreement = _agreement(tokenized, units)
    if agreement < _MIN_AGREEMENT:
        raise InputError(
            f"units.tokenizer: makes other units than the imported ones: {100 * agreement:.0f} % of those of {name} "
            "agree; give the tokenizer that made them"
        )


def length_mismatch(units: int, frames: float) -> str:
    """How many units there are for a recording of so many frames, where that cannot be; "" where it can."""
    if units > frames + _SLACK_FRAMES:
        return f"{units} units but only {int(frames)} frames of audio"
    if units < frames - _SLACK_FRAMES:
        return f"only {units} units for {int(frames)} frames of audio"
    return ""
