"""Seamless's ASR-BLEU recognizer: Whisper medium.en with Whisper's own English normalizer."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from unitweave.core.audio import SAMPLE_RATE
from unitweave.score.asr import checkpoints
from unitweave.training.devices import device_of

DEFAULT_MODEL = "openai/whisper-medium.en"


class Whisper:
    """Seamless's ASR-BLEU: Whisper medium.en, greedy, and Whisper's English normalizer on both sides.

    The normalizer folds British into American spelling with a table that comes with the checkpoint
    (normalizer.json); a checkpoint without it says so in its signature.
    """

    batch = 8

    def __init__(self, model: str, device: torch.device) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        self._processor = checkpoints.load(WhisperProcessor, model)
        self._model = checkpoints.load(WhisperForConditionalGeneration, model).to(device).eval()
        self._device = device
        spelling = self._processor.tokenizer.english_spelling_normalizer
        self._normalize: Callable[[str], str] = EnglishTextNormalizer(spelling or {})
        self.normalizer = "whisper-english both sides" + ("" if spelling else " (without its spelling table)")
        self.signature = f"whisper-greedy,{checkpoints.revision(model, self._model)}"
        # English-only checkpoints take neither language nor task.
        multilingual = getattr(self._model.generation_config, "is_multilingual", False)
        self._options = {"language": "en", "task": "transcribe"} if multilingual else {}

    @classmethod
    def load(cls, model: str, device: str) -> "Whisper":
        """The protocol's own checkpoint, or `model`: a folder, a hub name, or a hub name@revision."""
        return cls(model or DEFAULT_MODEL, device_of(device))

    @staticmethod
    def identity(model: str) -> str:
        """Digest of a local folder, or name on the hub, without loading anything."""
        return f"whisper {checkpoints.identity(model or DEFAULT_MODEL)}"

    @torch.inference_mode()
    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz, in their order; 30 s windows."""
        texts: list[str] = []
        for start in range(0, len(waveforms), self.batch):
            batch = [np.asarray(waveform) for waveform in waveforms[start : start + self.batch]]
            if max(len(waveform) for waveform in batch) > 30 * SAMPLE_RATE:
                texts += [self._generate([waveform])[0] for waveform in batch]
            else:
                texts += self._generate(batch)
        return texts

    def clean_hypothesis(self, text: str) -> str:
        """Whisper's English text normalizer."""
        return self._normalize(text).strip()

    clean_reference = clean_hypothesis

    def _generate(self, batch: list[np.ndarray]) -> list[str]:
        long = max(len(waveform) for waveform in batch) > 30 * SAMPLE_RATE
        shape = {"truncation": False, "padding": "longest"} if long else {}
        features = self._processor(
            batch, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **shape
        )
        tokens = self._model.generate(
            features.input_features.to(self._device),
            attention_mask=features.attention_mask.to(self._device),
            return_timestamps=long,
            num_beams=1,
            do_sample=False,
            **self._options,
        )
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]
