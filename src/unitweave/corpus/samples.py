"""Sound in memory as the content of an audio file, for the one reader of all recordings."""

from typing import Any

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, encode_audio
from unitweave.core.errors import InputError


def audio_file(result: Any) -> bytes:
    """The content of an audio file with what a speech engine or a table has as sound.

    Args:
        result: Samples at 16 kHz, (samples, rate in Hz), or the bytes of an audio file. Samples may be of any kind that
            numpy reads, [samples], or of several channels in either order.

    Raises:
        InputError: It is no sound.
    """
    if isinstance(result, bytes):
        return result
    pair = isinstance(result, tuple | list) and len(result) == 2 and np.ndim(result[1]) == 0 and np.ndim(result[0]) > 0
    samples, rate = result if pair else (result, SAMPLE_RATE)
    try:
        waveform, rate = np.asarray(samples, np.float32).squeeze(), int(rate)
    except (TypeError, ValueError):
        waveform = np.zeros((), np.float32)
    if waveform.ndim == 2 and waveform.shape[0] < waveform.shape[1]:
        waveform = waveform.T  # the channels come first, as torch has them
    if waveform.ndim not in (1, 2) or not 1_000 <= rate <= 768_000:
        raise InputError("sound must be samples, (samples, rate in Hz), or the bytes of an audio file")
    return encode_audio(waveform, rate, "WAV", "FLOAT")
