"""Sound in memory as the content of an audio file, for the one reader of all recordings."""

from pathlib import Path
from typing import Any

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, encode_audio, read_audio
from unitweave.core.errors import InputError

AudioInput = np.ndarray | tuple[np.ndarray, int] | bytes | Path | str  # a recording as Python programs hold it


def as_waveform(recording: Any) -> np.ndarray:
    """A recording as float32 [samples] at 16 kHz.

    Args:
        recording: A file, or what `audio_file` takes. float32 [samples] come back as they are.

    Raises:
        InputError: It cannot be read as audio.
    """
    if isinstance(recording, str | Path):
        return read_audio(Path(recording))
    plain = isinstance(recording, np.ndarray) and recording.dtype == np.float32 and recording.ndim == 1
    if plain and (recording.size == 0 or np.isfinite(recording).all()):
        return np.asarray(recording)
    return read_audio(audio_file(recording), "the recording")


def _floats(samples: np.ndarray) -> np.ndarray:
    """Samples as float32, of integers of any size at the scale of 1."""
    if samples.dtype.kind not in "iu" or samples.dtype.itemsize > 4:
        return samples.astype(np.float32)
    full = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return ((samples.astype(np.float64) - (full if samples.dtype.kind == "u" else 0)) / full).astype(np.float32)


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
        waveform, rate = _floats(np.asarray(samples)).squeeze(), int(rate)
    except (TypeError, ValueError):
        waveform = np.zeros((), np.float32)
    if waveform.ndim == 2 and waveform.shape[0] < waveform.shape[1]:
        waveform = waveform.T  # the channels come first, as torch has them
    if waveform.ndim not in (1, 2) or not 1_000 <= rate <= 768_000:
        raise InputError("sound must be samples, (samples, rate in Hz), or the bytes of an audio file")
    return encode_audio(waveform, rate, "WAV", "FLOAT")
