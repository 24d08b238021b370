"""Log-mel features, equal to transformers' SeamlessM4TFeatureExtractor but for a whole batch at once.

80 Kaldi mel bins every 10 ms, normalised per utterance and bin, two frames stacked: [frames, 160] at
50 frames a second. A frame whose second half is missing is dropped, as the extractor's mask does.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from transformers import SeamlessM4TFeatureExtractor

WINDOW, HOP, FFT = 400, 160, 512  # samples at 16 kHz
FEATURE_SIZE = 160
MEL_FLOOR = 1.192092955078125e-07
_FRAMES_AT_ONCE = 2_048  # spectra of one chunk stay in the processor's cache


@lru_cache(maxsize=1)
def _constants() -> tuple[torch.Tensor, torch.Tensor]:
    extractor = SeamlessM4TFeatureExtractor()
    window = torch.from_numpy(extractor.window).float()
    return window, torch.from_numpy(extractor.mel_filters).float()  # [400], [257, 80]


def num_frames(num_samples: int) -> int:
    """How many stacked frames (and so units) a waveform of `num_samples` at 16 kHz has."""
    return (1 + (num_samples - WINDOW) // HOP) // 2 if num_samples >= WINDOW else 0


def extract_features(waveforms: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Features of each waveform (float32 [samples], 16 kHz, [-1, 1]): float32 [frames, 160].

    A waveform shorter than two mel frames (560 samples) gives a tensor without frames.
    """
    counts = [2 * num_frames(len(waveform)) for waveform in waveforms]
    stacked: list[torch.Tensor] = []
    for first, last in _chunks(counts):
        stacked += _features_of_chunk(waveforms[first:last], counts[first:last])
    return stacked


def _chunks(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of utterances whose mel frames together stay under the memory bound."""
    bounds, first, total = [], 0, 0
    for i, count in enumerate(counts):
        if total and total + count > _FRAMES_AT_ONCE:
            bounds.append((first, i))
            first, total = i, 0
        total += count
    return [*bounds, (first, len(counts))] if counts else []


def _features_of_chunk(waveforms: Sequence[np.ndarray], counts: Sequence[int]) -> list[torch.Tensor]:
    window, mel = _constants()
    # Normalisation uses every mel frame, also an odd last one that stacking drops.
    all_counts = [max(0, 1 + (len(w) - WINDOW) // HOP) for w in waveforms]
    frames = torch.cat(
        [
            torch.from_numpy(np.ascontiguousarray(w, dtype=np.float32)).unfold(0, WINDOW, HOP)
            if len(w) >= WINDOW
            else torch.empty(0, WINDOW)
            for w in waveforms
        ]
    )  # [all mel frames, 400]
    frames = frames * 2.0**15  # Kaldi works on 16-bit integers
    frames = frames - frames.mean(dim=1, keepdim=True)
    frames = torch.cat([frames[:, :1] * (1 - 0.97), frames[:, 1:] - 0.97 * frames[:, :-1]], dim=1) * window
    spectrum = torch.fft.rfft(frames, n=FFT)  # [all mel frames, 257]
    power = spectrum.real.square() + spectrum.imag.square()
    log_mel = (power @ mel).clamp_min(MEL_FLOOR).log()  # [all mel frames, 80]
    result = []
    for one, even in zip(log_mel.split(all_counts), counts, strict=True):
        if even == 0:
            result.append(one.new_empty(0, FEATURE_SIZE))
            continue
        variance, mean = torch.var_mean(one, dim=0, correction=1)
        result.append(((one - mean) / (variance + 1e-7).sqrt())[:even].reshape(-1, FEATURE_SIZE))
    return result


def pad_features(features: Sequence[torch.Tensor], multiple: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack to ([batch, frames, 160], mask [batch, frames]), the length rounded up to `multiple`.

    Few different lengths keep oneDNN from compiling and caching a kernel for every batch.
    """
    longest = max(len(f) for f in features)
    longest = -(-longest // multiple) * multiple
    batch = torch.zeros(len(features), longest, FEATURE_SIZE)
    mask = torch.zeros(len(features), longest, dtype=torch.long)
    for i, one in enumerate(features):
        batch[i, : len(one)] = one
        mask[i, : len(one)] = 1
    return batch, mask
