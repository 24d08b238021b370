"""Kokoro 82M as a speech engine: the folder that `unitweave fetch kokoro` writes, with onnxruntime and misaki."""

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from safetensors import SafetensorError
from safetensors.numpy import load_file

from unitweave.config.corpus import SpeakSettings
from unitweave.core.errors import InputError
from unitweave.core.files import file_digest, read_json_object
from unitweave.corpus.speech_engines import SynthesisResult, Text

# Language: eSpeak's name for the phonemes, and a voice.
_LANGUAGES = {
    "en": ("en-us", "af_heart"),
    "es": ("es", "ef_dora"),
    "fr": ("fr-fr", "ff_siwis"),
    "it": ("it", "if_sara"),
    "pt": ("pt-br", "pf_dora"),
}
_MAX_PHONEMES = 509  # the voices have a style for each number of them


class KokoroEngine:
    """Reads texts aloud in one of Kokoro's voices; on one busy core in about the time that the speech lasts."""

    def __init__(self, settings: SpeakSettings) -> None:
        """Raises InputError where the folder or a package is missing."""
        if not settings.model:
            raise InputError("--engine kokoro: name the folder of 'unitweave fetch kokoro' with --model")
        folder = Path(settings.model)
        try:
            import onnxruntime
            from misaki import espeak
        except ImportError as error:
            raise InputError(
                f"--engine kokoro needs onnxruntime and misaki ({error.name} is missing): "
                "pip install onnxruntime 'misaki[en]==0.9.4'"
            ) from None
        config = read_json_object(folder / "config.json")
        vocabulary = config.get("vocab")
        vocabulary = vocabulary.get("vocab", vocabulary) if isinstance(vocabulary, dict) else None
        if not isinstance(vocabulary, dict) or not (folder / "model.onnx").is_file():
            raise InputError(f"--model {folder}: not a folder that 'unitweave fetch kokoro' wrote")
        try:
            self._voices = load_file(folder / "voices.safetensors")
        except (OSError, SafetensorError) as error:
            raise InputError(f"{folder / 'voices.safetensors'}: could not be read ({error})") from None
        self.settings, self._vocabulary, self._rate = settings, vocabulary, int(config.get("sample_rate", 24_000))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.workers
        self._model = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._phonemes = cache(lambda language: espeak.EspeakG2P(language=_LANGUAGES[language][0]))
        digest = file_digest(folder / "model.onnx")
        self.identity: dict[str, Any] = {"engine": "kokoro", "voice": settings.voice, "model": digest}

    def _voice(self, language: str) -> str:
        if language not in _LANGUAGES:
            raise InputError(f"kokoro does not support {language}, only {', '.join(_LANGUAGES)}")
        voice = self.settings.voice or _LANGUAGES[language][1]
        if voice not in self._voices:
            raise InputError(f"--voice {voice}: must be one of {', '.join(sorted(self._voices))}")
        return voice

    def check(self, languages: Iterable[str]) -> None:
        """Raise InputError for a language or a voice that Kokoro does not have."""
        for language in languages:
            self._voice(language)

    def speak(self, texts: Sequence[Text]) -> Iterator[SynthesisResult]:
        """One after the other: the model itself uses all cores."""
        names = [entry.name for entry in self._model.get_inputs()]  # tokens, style, speed
        for text in texts:
            phonemes, _ = self._phonemes(text.language)(text.text)
            ids = [self._vocabulary[sign] for sign in phonemes if sign in self._vocabulary]
            if not 0 < len(ids) <= _MAX_PHONEMES:
                yield SynthesisResult(text, b"", f"it has {len(ids)} phonemes, at most {_MAX_PHONEMES} can be spoken")
                continue
            style = self._voices[self._voice(text.language)][len(ids)].reshape(1, -1).astype(np.float32)
            inputs = (np.array([[0, *ids, 0]], np.int64), style, np.ones(1, np.float32))
            samples = self._model.run(None, dict(zip(names, inputs, strict=True)))[0]
            file = io.BytesIO()
            soundfile.write(file, np.asarray(samples, np.float32).squeeze(), self._rate, format="WAV", subtype="FLOAT")
            yield SynthesisResult(text, file.getvalue())
