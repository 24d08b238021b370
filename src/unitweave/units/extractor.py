"""An encoder with its codebook: waveforms in, units and word frames out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unitweave.config.training import Precision
from unitweave.core.errors import InputError
from unitweave.units.align import WordFrames, align_all, word_frames
from unitweave.units.codebook import Codebook
from unitweave.units.encoder import SpeechEncoder, encoder_fingerprint, load_encoder
from unitweave.units.inference import EncoderInference, single_threads
from unitweave.units.tokenizer import SpeechTokens

UnitsAndWords = tuple[np.ndarray, WordFrames | None]


class UnitExtractor:
    """Waveforms in, units out; with a transcript, word frames as well.

    The units of a recording are the same alone, in any company and on any number of threads.
    """

    def __init__(self, encoder: SpeechEncoder, codebook: Codebook, precision: Precision = "fp32") -> None:
        self.model, self.vocabulary, self.front_end = encoder
        self.codebook = codebook
        self.inference = EncoderInference(self.model, self.front_end, precision)
        self._centroids = Codebook(
            codebook.centroids.to(self.model.device), codebook.layer, codebook.encoder, codebook.fingerprint
        )

    @classmethod
    def load(
        cls, encoder: Path, codebook: Path, precision: Precision = "fp32", device: str | torch.device = "cpu"
    ) -> "UnitExtractor":
        """From an encoder folder and a codebook folder. Raises InputError when they do not belong together."""
        book = Codebook.load(codebook)
        if book.encoder != encoder_fingerprint(encoder):
            raise InputError(
                f"{codebook}: this codebook belongs to another encoder than {encoder}; make the codebook again"
            )
        return cls(load_encoder(encoder, device), book, precision)

    @classmethod
    def without_codebook(cls, encoder: Path, device: str | torch.device = "cpu") -> "UnitExtractor":
        """For alignment alone: all of its units are 0. Raises InputError when there is no encoder."""
        loaded = load_encoder(encoder, device)
        width = loaded[0].config.hidden_size
        return cls(loaded, Codebook(torch.zeros(1, width), 1, encoder_fingerprint(encoder)))

    @property
    def frame_rate(self) -> float:
        """Units a second."""
        return self.front_end.frame_rate

    @property
    def num_units(self) -> int:
        """Size of the codebook."""
        return self.codebook.num_units

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the codebook."""
        return self.codebook.fingerprint

    def tokenize(self, waveforms: Sequence[np.ndarray]) -> list[SpeechTokens]:
        """As `SpeechTokenizer.tokenize`."""
        return [SpeechTokens(units) for units, _ in self.encode(waveforms)]

    def extract(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None] | None = None
    ) -> list[UnitsAndWords]:
        """Units (uint16 [frames]) of each waveform (16 kHz), and its word frames where a text is given."""
        texts, extract = texts or [None] * len(waveforms), self.front_end.extract
        with single_threads(min(len(waveforms), torch.get_num_threads()) or 1) as pool:
            if self.inference.batched:
                features = list(pool.map(lambda waveform: extract([waveform])[0], waveforms))
                return self.from_features(features, texts)
            parts = pool.map(lambda waveform, text: self.from_features(extract([waveform]), [text]), waveforms, texts)
            return [part[0] for part in parts]

    def from_features(self, features: Sequence[torch.Tensor], texts: Sequence[str | None]) -> list[UnitsAndWords]:
        """As `extract`, from the features [length, width] of each recording, on the calling thread alone.

        For results that depend on nothing else, call it on a thread of `single_threads`.
        """
        units, log_probs = self._encode(features)
        return list(zip(units, self.align(log_probs, texts), strict=True))

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Units (uint16 [frames]) and CTC log-probabilities (float32 [rows, characters]) of waveforms at 16 kHz."""
        extract = self.front_end.extract
        with single_threads(min(len(waveforms), torch.get_num_threads()) or 1) as pool:
            if self.inference.batched:
                features = list(pool.map(lambda waveform: extract([waveform])[0], waveforms))
                return list(zip(*self._encode(features), strict=True))
            parts = pool.map(lambda waveform: self._encode(extract([waveform])), waveforms)
            return [(units[0], log_probs[0]) for units, log_probs in parts]

    def _encode(self, features: Sequence[torch.Tensor]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        spoken = [i for i, feature in enumerate(features) if len(feature)]
        encoded = self.inference([features[i] for i in spoken], [self.codebook.layer])
        units = [np.empty(0, np.uint16)] * len(features)
        log_probs = [np.empty((0, len(self.vocabulary.tokens)), np.float32)] * len(features)
        for i, ((hidden,), ctc) in zip(spoken, encoded, strict=True):
            units[i] = self._centroids.assign(hidden).cpu().numpy().astype(np.uint16)
            log_probs[i] = ctc.cpu().numpy()
        return units, log_probs

    def align(self, log_probs: Sequence[np.ndarray], texts: Sequence[str | None]) -> list[WordFrames | None]:
        """Word frames of each normalized text in the recording with these CTC log-probabilities."""
        words: list[WordFrames | None] = [None] * len(texts)
        with_text = [i for i, text in enumerate(texts) if text]
        targets = [self.vocabulary.encode(texts[i] or "") for i in with_text]
        positions, _ = align_all([log_probs[i] for i in with_text], targets, self.vocabulary.blank)
        for i, at, target in zip(with_text, positions, targets, strict=True):
            frames_of_words = word_frames(at, target, log_probs[i], self.vocabulary.delimiter)
            words[i] = frames_of_words.squeezed(self.front_end.squeeze, len(log_probs[i]) // self.front_end.squeeze)
        return words
