"""Moonshine tiny English, the offline recognizer, with American spelling on both sides."""

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.core.machine import usable_cores
from unitweave.core.text import NORMALIZER, normalize

VERSION = "0.1.0"  # of moonshine-voice; later versions download their models
PADDING = 0.5  # seconds of digital silence at both ends; see docs/scoring.md

# Moonshine mixes British and American spelling; common words only, since the score's signature names this step.
_AMERICAN = {
    british + ending: american + ending
    for british, american in (
        ("neighbour", "neighbor"),
        ("colour", "color"),
        ("flavour", "flavor"),
        ("harbour", "harbor"),
        ("favourite", "favorite"),
        ("theatre", "theater"),
        ("centre", "center"),
        ("metre", "meter"),
        ("kilometre", "kilometer"),
        ("litre", "liter"),
        ("traveller", "traveler"),
        ("grey", "gray"),
    )
    for ending in ("", "s")
}


def _package() -> tuple[Any, Any, Any, str]:
    """What is used of moonshine-voice, and its version.

    Raises:
        InputError: It, or something that it needs, is not installed.
    """
    try:
        from moonshine_voice.moonshine_api import ModelArch
        from moonshine_voice.transcriber import Transcriber
        from moonshine_voice.utils import get_model_path

        return get_model_path, ModelArch, Transcriber, importlib.metadata.version("moonshine-voice")
    except ImportError as error:
        raise InputError(
            f"the moonshine recognizer is not installed ({error}); do 'pip install moonshine-voice=={VERSION}'"
        ) from None


class Moonshine:
    """Moonshine tiny English (27 million parameters, MIT), offline, from the package moonshine-voice.

    Its voice activity detector is switched off: it is one object for the whole process, so that a
    transcript would depend on what was transcribed before it, and it cuts sentences into pieces.
    Each waveform gets half a second of silence at both ends instead. One single-threaded model per
    core works through the list; the transcripts do not depend on how many there are.
    """

    def __init__(self, workers: int | None = None) -> None:
        get_model_path, ModelArch, Transcriber, version = _package()
        folder = Path(get_model_path("tiny-en"))
        if not folder.is_dir():
            raise InputError(
                f"moonshine-voice {version} has no model in its package; try: pip install moonshine-voice=={VERSION}"
            )
        options = {"vad_threshold": "0.0", "vad_max_segment_duration": "600", "return_audio_data": "false"}
        with _environment("MOONSHINE_ORT_SINGLE_THREAD", "1"):
            self._models = [
                Transcriber(folder, ModelArch.TINY, options=options) for _ in range(workers or min(8, usable_cores()))
            ]
        self.signature = f"moonshine-tiny-en,moonshine-voice-{version},vad-off,pad-{PADDING}s"

    @classmethod
    def load(cls, model: str, device: str) -> "Moonshine":
        """The recognizer; it has no other model and runs on the CPU."""
        if model:
            raise InputError("score.recognizer_model: must be empty for moonshine, whose model is in its package")
        return cls()

    @staticmethod
    def identity(model: str) -> str:
        """The installed version, without loading anything."""
        try:
            return f"moonshine-{importlib.metadata.version('moonshine-voice')}"
        except importlib.metadata.PackageNotFoundError:
            return "moonshine"

    @staticmethod
    def supported_languages(model: str) -> frozenset[str]:
        """English; installed or not is found out here, before anything is trained that it shall judge."""
        _package()
        return frozenset({"en"})

    def transcribe(self, waveforms: Sequence[np.ndarray], language: str = "en") -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz, in their order."""
        step = len(self._models)
        texts = [""] * len(waveforms)

        def work(k: int) -> None:
            for i in range(k, len(waveforms), step):
                texts[i] = self._one(self._models[k], waveforms[i])

        with ThreadPoolExecutor(step) as pool:
            for done in [pool.submit(work, k) for k in range(step)]:
                done.result()
        return texts

    def normalization(self, language: str) -> str:
        """unitweave's rules for English, and American spelling."""
        return f"{NORMALIZER}-en,american-spelling both sides"

    def clean_hypothesis(self, text: str, language: str = "en") -> str:
        """Lower case, numbers in words, no punctuation but the apostrophe within a word, American spelling."""
        return " ".join(_AMERICAN.get(word, word) for word in normalize(text, "en").split())

    clean_reference = clean_hypothesis

    @staticmethod
    def _one(model: Any, waveform: np.ndarray) -> str:
        padded = np.pad(waveform, round(PADDING * SAMPLE_RATE))
        lines = model.transcribe_without_streaming(padded.tolist(), SAMPLE_RATE).lines
        return " ".join(line.text.strip() for line in lines).strip()


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable while the block runs."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
