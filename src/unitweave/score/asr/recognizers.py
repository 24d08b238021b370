"""Speech recognizers for ASR-BLEU, each with the text normalization that its protocol prescribes.

A recognizer cannot stand in for another: the same speech gets a different score from each. So each one
carries a signature that names it down to its revision and goes with every number. A new one is a module
with a class like `Recognizer`, and a line in `RECOGNIZERS`.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from unitweave.core.errors import InputError
from unitweave.score.asr.fairseq_ctc import FairseqCtc
from unitweave.score.asr.moonshine import Moonshine
from unitweave.score.asr.whisper import Whisper


class Recognizer(Protocol):
    """English speech to text, with the normalization of both sides before they are compared.

    Attributes:
        signature: Names the recognizer, its revision and how it is run.
        normalizer: Names what `clean_hypothesis` and `clean_reference` do.
    """

    signature: str
    normalizer: str

    @classmethod
    def load(cls, model: str, device: str) -> "Recognizer":
        """Load it. `model` replaces the protocol's own checkpoint (empty: none), `device` may be "auto"."""

    @staticmethod
    def identity(model: str) -> str:
        """Which recognizer `load` would give, without loading it."""

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz, in their order."""

    def clean_hypothesis(self, text: str) -> str:
        """The transcript as it goes into the score."""

    def clean_reference(self, text: str) -> str:
        """The reference text as it goes into the score."""


RECOGNIZERS: dict[str, type[Recognizer]] = {"moonshine": Moonshine, "fairseq": FairseqCtc, "whisper": Whisper}


def load_recognizer(name: str, model: str = "", device: str = "auto") -> Recognizer:
    """Load a recognizer.

    Args:
        name: One of `RECOGNIZERS`.
        model: Local folder or hub name that replaces the protocol's own checkpoint; the signature names it.
        device: "auto" (CUDA where there is one), "cpu", "cuda", ...; moonshine always runs on the CPU.

    Raises:
        InputError: There is no such recognizer, or it could not be loaded.
    """
    return _registered(name).load(model, device)


def identity(name: str, model: str = "") -> str:
    """Which recognizer `load_recognizer` would load, without loading it; a hub model by its name."""
    return _registered(name).identity(model)


def _registered(name: str) -> type[Recognizer]:
    if name not in RECOGNIZERS:
        raise InputError(f"score.recognizer must be one of {', '.join(RECOGNIZERS)} (got {name!r})")
    return RECOGNIZERS[name]
