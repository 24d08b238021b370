"""Kokoro 82M as a speech engine: the folder that `unitweave fetch kokoro` writes, with onnxruntime and misaki."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from unitweave.core.errors import InputError
from unitweave.core.files import file_digest, read_json_object

# First letter of a voice's name: its language, and eSpeak's name for the phonemes.
_LETTERS = {
    "a": ("en", "en-us"),
    "b": ("en", "en-gb"),
    "e": ("es", "es"),
    "f": ("fr", "fr-fr"),
    "i": ("it", "it"),
    "p": ("pt", "pt-br"),
}
_FIRST = {"en": "af_heart", "es": "ef_dora", "fr": "ff_siwis", "it": "if_sara", "pt": "pf_dora"}
LANGUAGES = tuple(_FIRST)
_MAX_PHONEMES = 509  # the voices have a style for each number of them


@cache
def voices(folder: str) -> tuple[str, ...]:
    """Names of the voices in a folder, in order. Raises InputError where it is not one of Kokoro's."""
    config = read_json_object(Path(folder) / "config.json")
    if not isinstance(config.get("vocab"), dict) or not (Path(folder) / "model.onnx").is_file():
        raise InputError(f"{folder}: not a folder that 'unitweave fetch kokoro' wrote")
    path = Path(folder) / "voices.safetensors"
    try:
        with safe_open(path, "numpy") as tensors:
            return tuple(sorted(tensors.keys()))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: could not be read ({error})") from None


def list_voices(folder: str, language: str) -> list[str]:
    """Those of a folder's voices that are of a language."""
    return [name for name in voices(folder) if _LETTERS.get(name[0], ("",))[0] == language]


def engine_name(folder: str, language: str, voice: str | None = None) -> str:
    """Phonemes and voice as `Voice.voice` has them: "es+ef_dora".

    Args:
        folder: Kokoro's folder.
        language: ISO 639-1 code of the texts.
        voice: One of the folder's voices, of any language; None for the first one of the texts' language.

    Raises:
        InputError: Kokoro does not speak the language, or has no such voice.
    """
    if language not in LANGUAGES:
        raise InputError(f"kokoro does not support {language}, only {', '.join(LANGUAGES)}")
    name = voice or _FIRST[language]
    if name not in voices(folder):
        known = ", ".join(list_voices(folder, language))
        raise InputError(f"kokoro has no voice {name!r} in {folder}; its voices for {language}: {known}")
    voice_language, phonemes = _LETTERS.get(name[0], ("", ""))
    return f"{phonemes if voice_language == language else dict(_LETTERS.values())[language]}+{name}"


@cache
def model_digest(folder: str) -> str:
    """Digest of the model's file. Raises InputError where the folder is not one of Kokoro's."""
    voices(folder)
    return file_digest(Path(folder) / "model.onnx")


class Kokoro:
    """A loaded model, for one process: it computes in one thread, so that a fork of the process can use it."""

    def __init__(self, folder: str) -> None:
        import onnxruntime

        config = read_json_object(Path(folder) / "config.json")
        vocabulary = config["vocab"]
        self._vocabulary: dict[str, int] = vocabulary.get("vocab", vocabulary)
        self.sample_rate = int(config.get("sample_rate", 24_000))
        self._styles = load_file(Path(folder) / "voices.safetensors")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        onnxruntime.set_seed(0)  # the vocoder in it draws noise; each fork begins with the same
        model = Path(folder) / "model.onnx"
        self._model = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._model.get_inputs()]  # tokens, style, speed

    def tokens(self, text: str, voice: str) -> list[int]:
        """Phonemes of a text as ids, for a voice as `engine_name` gives it.

        Raises:
            InputError: There are too many of them, or none.
        """
        phonemes, _ = _phonemizer(voice.partition("+")[0])(text)
        ids = [self._vocabulary[sign] for sign in phonemes if sign in self._vocabulary]
        if not 0 < len(ids) <= _MAX_PHONEMES:
            raise InputError(f"kokoro: the text has {len(ids)} phonemes; the maximum is {_MAX_PHONEMES}")
        return ids

    def pcm(self, ids: Sequence[int], voice: str, speed: float) -> bytes:
        """16-bit samples at `sample_rate` Hz of some phonemes."""
        style = self._styles[voice.partition("+")[2]][len(ids)].reshape(1, -1).astype(np.float32)
        inputs = (np.array([[0, *ids, 0]], np.int64), style, np.array([speed], np.float32))
        samples = self._model.run(None, dict(zip(self._names, inputs, strict=True)))[0]
        return bytes((np.clip(np.ravel(samples), -1, 1) * 32767).astype(np.int16).tobytes())


@cache
def _phonemizer(language: str) -> Any:
    from misaki import espeak

    return espeak.EspeakG2P(language=language)
