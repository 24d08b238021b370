"""What an encoder class takes in and how its frames come out: features, padding, masks, and the frame rate.

Features of a recording are float32 [length, width]: the waveform itself (width 1), Wav2Vec2Bert's stacked
log-mel frames (160), or Whisper's log-mel frames (80 or 128) at the recording's own length. They are computed for
each recording on its own, so that they never depend on the others in a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import (
    AutoFeatureExtractor,
    FeatureExtractionMixin,
    PretrainedConfig,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.training.model_files import loading_errors
from unitweave.units import features as fbank

# The encoders that can carry a CTC head and have a time axis, by transformers' model_type.
MODEL_TYPES = (
    "data2vec-audio", "hubert", "sew", "sew-d", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-bert",
    "wav2vec2-conformer", "wavlm", "whisper",
)  # fmt: skip
# Classes of which a masked frame never reaches the others, as long as no norm is taken over time. Data2Vec's stacked
# positional convolutions, Conformer's convolutions and SEW's pooling let padding through.
_MASKED_TYPES = ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm")
_FRAME_RATES = (4, 1000)  # a second
_MEL_HOP = 160  # samples at 16 kHz
_MIN_MEL_SAMPLES = 400  # samples of Whisper's window
_CONTEXT = 15  # the part, one in so many, of a window at each of its sides that only serves as context: 2 of 30 s


@dataclass(frozen=True)
class Window:
    """A piece of a long recording: features [start, stop), of whose frames [first, last) are kept."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class FrontEnd:
    """Features of one encoder.

    Attributes:
        kind: "waveform", "fbank" (Wav2Vec2Bert) or "mel" (Whisper).
        width: Values per step of the features.
        normalize: Whether a waveform gets mean 0 and variance 1.
        convolutions: (kernel, stride) of the convolutions over a waveform.
        squeeze: CTC frames per hidden frame; above 1 for SEW, which computes at half the rate and goes back.
        masked: Whether padding with a mask leaves a recording's result as it is.
        max_length: The longest features that the encoder takes at once; 0: any.
    """

    kind: Literal["waveform", "fbank", "mel"]
    width: int = 1
    normalize: bool = False
    convolutions: tuple[tuple[int, int], ...] = ()
    squeeze: int = 1
    masked: bool = True
    max_length: int = 0

    @classmethod
    def of(cls, config: PretrainedConfig, normalize: bool = False) -> "FrontEnd":
        """The front end of an encoder's configuration; `normalize` is its feature extractor's do_normalize.

        Raises:
            InputError: It wants other features than there are, or its frames are too far apart or too close for words.
        """
        if config.model_type == "wav2vec2-bert":
            if config.feature_projection_input_dim != fbank.FEATURE_SIZE:
                raise InputError(
                    f"encoder: takes features of {config.feature_projection_input_dim} values "
                    f"(feature_projection_input_dim), but w2v-BERT's have {fbank.FEATURE_SIZE}"
                )
            return cls("fbank", fbank.FEATURE_SIZE)
        if config.model_type == "whisper":
            return cls("mel", config.num_mel_bins, max_length=2 * config.max_source_positions)
        if min(*config.conv_stride, *config.conv_kernel) < 1:
            raise InputError(f"encoder: conv_stride and conv_kernel must be 1 or more (got {list(config.conv_stride)})")
        front_end = cls(
            "waveform",
            normalize=normalize,
            convolutions=tuple(zip(config.conv_kernel, config.conv_stride, strict=True)),
            squeeze=getattr(config, "squeeze_factor", 1),
            masked=config.model_type in _MASKED_TYPES
            and config.feat_extract_norm == "layer"
            and not getattr(config, "conv_pos_batch_norm", False),  # HuBERT's, after which padding is no longer 0
        )
        slowest, fastest = _FRAME_RATES
        if not slowest <= front_end.frame_rate <= fastest:
            raise InputError(
                f"encoder: has {front_end.frame_rate:g} frames a second (conv_stride {list(config.conv_stride)}); "
                f"words and units need {slowest} to {fastest}"
            )
        return front_end

    @property
    def samples_per_frame(self) -> int:
        """Samples at 16 kHz from one hidden state, and so one unit, to the next."""
        return self.squeeze * self._step * (1 if self.kind == "waveform" else _MEL_HOP)

    @property
    def frame_rate(self) -> float:
        """Hidden states, and so units, a second."""
        return SAMPLE_RATE / self.samples_per_frame

    @property
    def max_samples(self) -> float:
        """The longest waveform that the encoder takes at once."""
        return self.max_length * _MEL_HOP if self.max_length else float("inf")

    @property
    def _step(self) -> int:
        """Steps of the features, log-mel frames or samples, per CTC frame."""
        return prod(stride for _, stride in self.convolutions) if self.kind == "waveform" else 2

    def num_frames(self, num_samples: int) -> int:
        """How many units a waveform of `num_samples` at 16 kHz has."""
        return self.ctc_frames(num_samples) // self.squeeze

    def ctc_frames(self, num_samples: int) -> int:
        """How many frames its CTC output has."""
        if self.kind == "fbank":
            return fbank.num_frames(num_samples)
        if self.kind == "mel":
            return -(-(num_samples // _MEL_HOP) // 2) if num_samples >= _MIN_MEL_SAMPLES else 0
        for kernel, stride in self.convolutions:
            num_samples = max(0, (num_samples - kernel) // stride + 1)
        return num_samples

    def encoder_frames(self, length: int) -> int:
        """CTC frames of features of this length."""
        return {"fbank": length, "mel": -(-length // 2)}.get(self.kind, self.ctc_frames(length))

    def padded(self, frames: int) -> int:
        """The length of features that give `frames` CTC frames, however long the recording is within the last one."""
        if self.kind != "waveform":
            return frames if self.kind == "fbank" else min(2 * frames, self.max_length)
        length = frames + 1  # the shortest waveform with one frame more, less a sample
        for kernel, stride in reversed(self.convolutions):
            length = (length - 1) * stride + kernel
        return length - 1

    def extract(self, waveforms: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Features float32 [length, width] of each waveform (float32 [samples], 16 kHz); [0, width] if too short."""
        if self.kind == "fbank":
            return fbank.extract_features(waveforms)
        return [self._extract(np.ascontiguousarray(waveform, dtype=np.float32)) for waveform in waveforms]

    def _extract(self, waveform: np.ndarray) -> torch.Tensor:
        if self.num_frames(len(waveform)) == 0:
            return torch.empty(0, self.width)
        if self.kind == "mel":
            features = _whisper(self.width)(waveform, sampling_rate=SAMPLE_RATE, padding=False, truncation=False)
            return torch.from_numpy(np.ascontiguousarray(np.asarray(features["input_features"][0], dtype=np.float32).T))
        if self.normalize:
            waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        return torch.from_numpy(waveform)[:, None]

    def batch(
        self, features: Sequence[torch.Tensor], length: int = 0, rows: int = 0, mask: bool = True
    ) -> dict[str, torch.Tensor]:
        """The inputs of the model for several recordings.

        Args:
            features: float32 [length, width] of each.
            length: Pad to this; 0: to the longest, rounded up to 16 CTC frames (oneDNN compiles a kernel for each).
            rows: Rows of the batch, empty ones at the end; 0: as many as there are recordings.
            mask: Whether to give an attention mask.
        """
        longest = max(map(len, features))
        length = length or max(self.padded(-(-self.encoder_frames(longest) // 16) * 16), longest)
        values = torch.zeros(rows or len(features), length, self.width)
        attention = torch.zeros(len(values), length, dtype=torch.long)
        attention[len(features) :, : self.padded(1)] = 1  # an empty row still needs something to attend to
        for i, feature in enumerate(features):
            values[i, : len(feature)] = feature
            attention[i, : len(feature)] = 1
        name = "input_values" if self.kind == "waveform" else "input_features"
        values = {"waveform": values[..., 0], "mel": values.transpose(1, 2)}.get(self.kind, values)
        return {name: values, **({"attention_mask": attention} if mask else {})}

    def windows(self, length: int) -> list[Window]:
        """How a recording's features are cut where the encoder takes no more at once; its frames follow each other."""
        if not self.max_length or length <= self.max_length:
            return [Window(0, length, 0, self.encoder_frames(length))]
        windows = []
        context = self.max_length // 2 // _CONTEXT  # frames, each of 2 steps
        for start in range(0, length - 4 * context, self.max_length - 4 * context):
            stop = min(start + self.max_length, length)
            last = self.encoder_frames(stop - start) - (context if stop < length else 0)
            windows.append(Window(start, stop, context if start else 0, last))
        return windows


@lru_cache(maxsize=4)
def _whisper(bins: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=bins)


def check_model_type(config: Mapping[str, Any], where: str) -> None:
    """Refuse what is no speech encoder with frames and a CTC head.

    Raises:
        InputError: Names its type and those that there are.
    """
    if config.get("model_type") not in MODEL_TYPES:
        # transformers would load some of them, leaving all weights random, and say so where nobody looks.
        raise InputError(
            f"{where}: must be a speech encoder that can carry a CTC head, one of {', '.join(MODEL_TYPES)} "
            f"(got {config.get('model_type')}); units of others come in with 'unitweave units import'"
        )


def load_feature_extractor(name: str | Path, config: PretrainedConfig) -> FeatureExtractionMixin:
    """The feature extractor of a checkpoint.

    Raises:
        InputError: A waveform encoder lacks its own, which says how waveforms are normalized, or it wants another
            sampling rate than 16 kHz.
    """
    if config.model_type == "wav2vec2-bert":
        return SeamlessM4TFeatureExtractor()
    if config.model_type == "whisper":
        return WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    described = ("preprocessor_config.json", "processor_config.json")
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in described):
        raise InputError(
            f"{name}: has no preprocessor_config.json, which says whether waveforms are normalized; copy it from the "
            'checkpoint\'s page, or write {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": true} '
            "(or false) into it"
        )
    with loading_errors(name, "feature extractor (preprocessor_config.json)"):
        extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
    if not isinstance(extractor, Wav2Vec2FeatureExtractor) or extractor.sampling_rate != SAMPLE_RATE:
        raise InputError(
            f"{name}: the feature extractor must be a Wav2Vec2FeatureExtractor at {SAMPLE_RATE} Hz "
            f"(got {type(extractor).__name__} at {getattr(extractor, 'sampling_rate', None)} Hz)"
        )
    return extractor
