"""What can be measured on a waveform without a model."""

from collections.abc import Sequence

import numpy as np

SILENCE_DECIBELS = -40.0  # below the loudest frame
SILENCE_FRAME = 320  # samples, 20 ms


def silence_ratio(waveform: np.ndarray) -> float:
    """Ratio of 20 ms frames whose level is 40 dB or more below the loudest one.

    Args:
        waveform: [samples] at 16 kHz.

    Returns:
        0 to 1; 1 for a waveform that is all zero or shorter than a frame.
    """
    frames = waveform[: len(waveform) // SILENCE_FRAME * SILENCE_FRAME].reshape(-1, SILENCE_FRAME)
    if not len(frames):
        return 1.0
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    if power.max() <= 0:
        return 1.0
    return float((power < power.max() * 10 ** (SILENCE_DECIBELS / 10)).mean())


def speech_rate(texts: Sequence[str], seconds: Sequence[float]) -> float:
    """Words per second over the corpus, silence included."""
    return sum(len(text.split()) for text in texts) / max(1e-9, sum(seconds))
