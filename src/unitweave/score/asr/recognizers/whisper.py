"""Seamless's ASR-BLEU recognizer: Whisper medium.en with Whisper's own English normalizer; and any other Whisper."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.files import read_json_object
from unitweave.core.languages import language_code
from unitweave.core.text import NORMALIZER, normalize
from unitweave.score.asr import checkpoints

if TYPE_CHECKING:
    import torch


class Whisper(checkpoints.CheckpointRecognizer):
    """Seamless's ASR-BLEU: Whisper medium.en, greedy, and Whisper's English normalizer on both sides.

    The normalizer folds British into American spelling with a table that comes with the checkpoint
    (normalizer.json); a checkpoint without it says so in its signature. Multilingual checkpoints judge other languages
    too, with unitweave's normalization on both sides, which writes numbers out as the corpus does.
    """

    default_model = "openai/whisper-medium.en"
    batch = 8

    def __init__(self, model: str, device: "torch.device") -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        self._processor = checkpoints.load(WhisperProcessor, model)
        self._model = checkpoints.load(WhisperForConditionalGeneration, model).to(device).eval()
        self._device = device
        spelling = self._processor.tokenizer.english_spelling_normalizer
        self._normalize: Callable[[str], str] = EnglishTextNormalizer(spelling or {})
        self._english = "whisper-english both sides" + ("" if spelling else " (without its spelling table)")
        self.signature = f"whisper-greedy,{checkpoints.revision(model, self._model)}"
        # English-only checkpoints take neither language nor task.
        self._multilingual = bool(getattr(self._model.generation_config, "is_multilingual", False))

    @classmethod
    def supported_languages(cls, model: str) -> frozenset[str]:
        """English, or the languages in the generation config of a multilingual checkpoint."""
        name = model or cls.default_model
        if not Path(name).is_dir() and name.partition("@")[0].endswith(".en"):
            return frozenset({"en"})
        file = Path(name) / "generation_config.json"
        if file.is_file():  # a finished run asks for it, and need not import transformers
            config = read_json_object(file)
        else:
            from transformers import GenerationConfig

            config = checkpoints.load(GenerationConfig, name).to_dict()
        if not config.get("is_multilingual", False):
            return frozenset({"en"})
        return frozenset(tag.strip("<|>") for tag in config.get("lang_to_id") or {"<|en|>": 0})

    def transcribe(self, waveforms: Sequence[np.ndarray], language: str = "en") -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz in a language, in their order; 30 s windows."""
        texts: list[str] = []
        for start in range(0, len(waveforms), self.batch):
            batch = [np.asarray(waveform) for waveform in waveforms[start : start + self.batch]]
            if max(len(waveform) for waveform in batch) > 30 * SAMPLE_RATE:
                texts += [self._generate([waveform], language)[0] for waveform in batch]
            else:
                texts += self._generate(batch, language)
        return texts

    def normalization(self, language: str) -> str:
        """Whisper's own for English, unitweave's for other languages."""
        return self._english if language_code(language) == "en" else f"{NORMALIZER}-{language} both sides"

    def clean_hypothesis(self, text: str, language: str = "en") -> str:
        """Whisper's English text normalizer, or unitweave's of another language."""
        return self._normalize(text).strip() if language_code(language) == "en" else normalize(text, language)

    clean_reference = clean_hypothesis

    def _generate(self, batch: list[np.ndarray], language: str) -> list[str]:
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
            **({"language": language_code(language), "task": "transcribe"} if self._multilingual else {}),
        )
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]
