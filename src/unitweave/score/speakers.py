"""How similar the voice of a translation is to the speaker's: the cosine of two embeddings of voices."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from unitweave.config.score import ScoreSettings
from unitweave.core.arrays import about_array, as_array
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError, error_prefix
from unitweave.core.functions import function_errors, imported
from unitweave.score.asr import checkpoints
from unitweave.training.devices import resolve_device
from unitweave.training.model_files import SAFE_LOADING, check_model_folder, loading_errors

_MIN_SECONDS = 1.0  # shorter speech is repeated: the convolutions over time of an x-vector head need some frames


class SpeakerModel(Protocol):
    """Embeds voices. `signature` names it and its revision."""

    signature: str

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """The embedding, float [dimensions], of float32 [samples] at 16 kHz."""


def load_speaker_model(settings: ScoreSettings) -> SpeakerModel | None:
    """The model that the settings name, or None. Raises InputError where it could not be loaded."""
    if settings.speaker_function:
        return FunctionSpeakers(settings.speaker_function)
    return XVectors(settings.speaker_model, resolve_device(settings.device)) if settings.speaker_model else None


class XVectors:
    """A speaker-verification model of transformers: wav2vec 2.0, WavLM, UniSpeech-SAT, ... with an x-vector head."""

    def __init__(self, model: str, device: torch.device) -> None:
        from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

        name, _, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
        options: dict[str, Any] = {"revision": revision} if revision else {}
        with error_prefix("score.speaker_model"):
            check_model_folder(name)
        with loading_errors(f"score.speaker_model {model}"):
            self._extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False, **options)
            network, report = AutoModelForAudioXVector.from_pretrained(
                name, output_loading_info=True, **options, **SAFE_LOADING
            )
        if (rate := getattr(self._extractor, "sampling_rate", None)) != SAMPLE_RATE:
            raise InputError(f"score.speaker_model {model}: must take speech at {SAMPLE_RATE} Hz (got {rate})")
        # Weights that only training uses (the mask, the loss over its speakers) may be missing; the rest must be there.
        missing = [key for key in report["missing_keys"] if not key.startswith("objective") and "masked" not in key]
        if missing:
            raise InputError(
                f"score.speaker_model {model}: not a speaker-verification model; it lacks {sorted(missing)[0]}; "
                "use one with an x-vector head, such as microsoft/wavlm-base-plus-sv"
            )
        self._model, self._device = network.to(device).eval(), device
        self.signature = f"{type(network).__name__},{checkpoints.revision(model, network)}"

    @torch.inference_mode()
    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """The x-vector, float32 [dimensions]."""
        times = int(np.ceil(_MIN_SECONDS * SAMPLE_RATE / len(waveform)))
        inputs = self._extractor(np.tile(waveform, times), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return np.asarray(self._model(**inputs.to(self._device)).embeddings[0].float().cpu())


class FunctionSpeakers:
    """A Python function `module:name` of the samples."""

    def __init__(self, function: str) -> None:
        self.signature, self._name = f"function {function}", function
        self._function = imported(function, "score.speaker_function")

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """What the function returns. Raises InputError unless that is a vector of numbers."""
        with function_errors(self._name, f"score.speaker_{self.signature}"):
            returned = self._function(waveform.copy())  # it may work in place; others read it after this
        vector = as_array(returned)
        if vector is None or vector.ndim != 1 or not len(vector) or vector.dtype.kind not in "iuf":
            got = about_array(returned, vector)
            raise InputError(f"score.speaker_{self.signature}: must return one vector of numbers (got {got})")
        if not np.isfinite(vector).all():
            raise InputError(f"score.speaker_{self.signature}: must return finite numbers")
        return vector.astype(np.float64)  # a copy: the function may return one buffer each time, and narrow integers


class SpeakerComparison:
    """Compares speech with the source recordings of the same utterances, each of which is embedded once.

    Args:
        model: Embeds voices.
        sources: Gives the source recordings, float32 [samples] at 16 kHz, of some ids.
    """

    def __init__(self, model: SpeakerModel, sources: Callable[[Sequence[str]], list[np.ndarray | None]]) -> None:
        self.signature, self._model, self._sources = model.signature, model, sources
        self._cache: dict[str, np.ndarray | None] = {}

    def similarity(self, id: str, waveform: np.ndarray) -> float | None:
        """Cosine, -1 to 1, of the two voices' embeddings; None where an utterance has no source recording."""
        if id not in self._cache:
            (source,) = self._sources([id])
            self._cache[id] = None if source is None else self._model.embed(source)
        theirs = self._cache[id]
        if theirs is None:
            return None
        ours = self._model.embed(waveform)
        if ours.shape != theirs.shape:
            raise InputError(f"{self.signature}: embeddings of two lengths ({len(ours)}, {len(theirs)})")
        return float(ours @ theirs / max(1e-12, np.linalg.norm(ours) * np.linalg.norm(theirs)))
