"""Speech recognizers for ASR-BLEU, each with the text normalization that its protocol prescribes.

A recognizer cannot stand in for another: the same speech gets a different score from each. So each one
carries a signature that names it down to its revision and goes with every number. A new one is a class like
`Recognizer`: the recipe may name it as module:class; a built-in one is a file in this folder (`whisper.py` has the
class `Whisper`). Each knows which languages it supports: an English one would write down Spanish as English words and
give it a score near 0.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

import numpy as np

from unitweave.config.score import BUILT_IN_RECOGNIZERS, RECOGNIZERS
from unitweave.core.choices import chosen
from unitweave.core.errors import InputError
from unitweave.core.functions import function_errors, imported
from unitweave.core.languages import language_code


class Recognizer(Protocol):
    """Speech to text, with the normalization of both sides before they are compared.

    A class of your own may derive from this one, and then needs only a signature and `transcribe`.

    Attributes:
        signature: Names the recognizer, its revision and how it is run.
    """

    signature: str

    @classmethod
    def load(cls, model: str, device: str) -> "Recognizer":
        """Load it. `model` replaces the protocol's own checkpoint (empty: none), `device` may be "auto"."""
        return cls()

    @classmethod
    def identity(cls, model: str) -> str:
        """Which recognizer `load` would give, without loading it."""
        return f"{cls.__module__}:{cls.__qualname__} {model}".strip()

    @classmethod
    def supported_languages(cls, model: str) -> frozenset[str] | None:
        """Codes of the languages that `load` would give a recognizer of, without loading it; None if unknown."""
        return None

    def transcribe(self, waveforms: Sequence[np.ndarray], language: str = "en") -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz in this language, in their order."""

    def normalization(self, language: str) -> str:
        """Names what `clean_hypothesis` and `clean_reference` do."""
        return "none"

    def clean_hypothesis(self, text: str, language: str = "en") -> str:
        """The transcript as it goes into the score."""
        return text

    def clean_reference(self, text: str, language: str = "en") -> str:
        """The reference text as it goes into the score."""
        return text


class _UserRecognizer(Recognizer):
    """A recognizer of the user: whatever it raises becomes one line with its place, and its transcripts are checked."""

    def __init__(self, name: str, model: str, device: str) -> None:
        self._name = name
        with _errors_of_users(name, "load"):
            self._recognizer = _recognizer_class(name).load(model, device)
            self.signature = str(self._recognizer.signature)

    def transcribe(self, waveforms: Sequence[np.ndarray], language: str = "en") -> list[str]:
        """What it makes of them.

        Raises:
            InputError: It raised, or gave something else than a text for each.
        """
        with _errors_of_users(self._name, "transcribe"):
            own = [waveform.copy() for waveform in waveforms]  # it may work in place; others read them after it
            texts = list(self._recognizer.transcribe(own, language))
        for text in texts:
            self._checked("transcribe", text)
        if len(texts) != len(waveforms):
            raise InputError(
                f"score.recognizer {self._name}: transcribe must give a text for each of the {len(waveforms)} "
                f"recordings (it gave {len(texts)})"
            )
        return texts

    def normalization(self, language: str) -> str:
        """Its own."""
        with _errors_of_users(self._name, "normalization"):
            return str(self._recognizer.normalization(language))

    def clean_hypothesis(self, text: str, language: str = "en") -> str:
        """Its own."""
        with _errors_of_users(self._name, "clean_hypothesis"):
            cleaned = self._recognizer.clean_hypothesis(text, language)
        return self._checked("clean_hypothesis", cleaned)

    def clean_reference(self, text: str, language: str = "en") -> str:
        """Its own."""
        with _errors_of_users(self._name, "clean_reference"):
            cleaned = self._recognizer.clean_reference(text, language)
        return self._checked("clean_reference", cleaned)

    def _checked(self, method: str, text: object) -> str:
        if not isinstance(text, str):
            raise InputError(
                f"score.recognizer {self._name}: {method} must give text (it gave {type(text).__name__} {text!r:.60})"
            )
        return text


class NoRecognizer(Recognizer):
    """For systems that give text only: there is no speech to transcribe, and texts stay as they are."""

    signature = "none (no speech)"

    def transcribe(self, waveforms: Sequence[np.ndarray], language: str = "en") -> list[str]:
        """Nothing of each."""
        return [""] * len(waveforms)


MULTILINGUAL = "openai/whisper-base"  # what "auto" takes for other languages than English


def choose_recognizer(name: str, model: str, languages: Iterable[str]) -> tuple[str, str]:
    """The recognizer for speech in these languages, and its model.

    Args:
        name: A built-in one, module:class, or "auto": moonshine for English, else a multilingual Whisper.
        model: Folder or hub name of another checkpoint; empty for the recognizer's own.
        languages: Codes of the languages that it has to support.

    Raises:
        InputError: It does not support one of them, or its files cannot be found.
    """
    codes = sorted({language_code(language) for language in languages})
    try:
        if name == "auto":
            name, model = ("whisper", model or MULTILINGUAL) if model or codes != ["en"] else ("moonshine", "")
        supported = _supported_languages(name, model)
    except InputError as error:
        if model != MULTILINGUAL:
            raise
        raise InputError(
            f"score.recognizer: speech in {', '.join(codes)} needs a multilingual Whisper, and {MULTILINGUAL} could "
            "not be loaded; run 'unitweave fetch whisper-base -o FOLDER' and set score.recognizer_model: FOLDER"
        ) from error
    if supported is not None and (foreign := [code for code in codes if code not in supported]):
        these = f"only {', '.join(sorted(supported))}" if len(supported) < 4 else f"{len(supported)} others"
        raise InputError(
            f"score.recognizer: {' '.join(filter(None, (name, model)))} does not support {foreign[0]}; it supports "
            f"{these}. Use a multilingual Whisper: set score.recognizer to whisper and score.recognizer_model to a "
            f"folder ('unitweave fetch whisper-base' makes one) or a name on the hub such as {MULTILINGUAL}"
        )
    return name, model


def load_recognizer(name: str, model: str = "", device: str = "auto") -> Recognizer:
    """Load a recognizer.

    Args:
        name: A built-in one, or module:class.
        model: Local folder or hub name that replaces the protocol's own checkpoint; the signature names it.
        device: "auto" (CUDA where there is one), "cpu", "cuda", ...; moonshine always runs on the CPU.

    Raises:
        InputError: There is no such recognizer, or it could not be loaded.
    """
    return _UserRecognizer(name, model, device) if ":" in name else _recognizer_class(name).load(model, device)


def identity(name: str, model: str = "") -> str:
    """Which recognizer `load_recognizer` would load, without loading it; a hub model by its name."""
    kind = _recognizer_class(name)
    with _errors_of_users(name, "identity"):
        return str(kind.identity(model))


def _supported_languages(name: str, model: str) -> frozenset[str] | None:
    kind = _recognizer_class(name)
    with _errors_of_users(name, "supported_languages"):
        listed: Any = kind.supported_languages  # a class of one's own may just list them
        supported: Iterable[str] | None = listed(model) if callable(listed) else listed
        return None if supported is None else frozenset(map(language_code, supported))


def _errors_of_users(name: str, method: str) -> AbstractContextManager[None]:
    """What a class of the user raises becomes one line; what a built-in one raises is a bug here and stays."""
    return function_errors(name, f"score.recognizer {name}: {method}") if ":" in name else nullcontext()


def _recognizer_class(name: str) -> type[Recognizer]:
    if ":" not in name and name not in BUILT_IN_RECOGNIZERS:
        names = ", ".join(BUILT_IN_RECOGNIZERS)
        raise InputError(f"score.recognizer: must be one of {names}, or MODULE:CLASS (got {name!r})")
    kind = imported(name, "score.recognizer") if ":" in name else chosen(RECOGNIZERS, name)
    return cast(type[Recognizer], kind)
