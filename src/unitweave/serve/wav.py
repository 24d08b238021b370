"""Speech as 16-bit wav files, whole or while it is made."""

import struct

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, encode_audio

_UNKNOWN = 0xFFFFFFFF  # a length that streaming players accept


def to_pcm(waveform: np.ndarray) -> np.ndarray:
    """A waveform in [-1, 1] as 16-bit integers [samples]."""
    return (np.clip(waveform, -1, 1) * 32767).astype("<i2")


def wav_header(sampling_rate: int = SAMPLE_RATE) -> bytes:
    """The header of a 16-bit mono wav file whose length is not known yet."""
    byte_rate, block_align, bits = 2 * sampling_rate, 2, 16
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", _UNKNOWN, b"WAVE"),
        *(b"fmt ", 16, 1, 1, sampling_rate, byte_rate, block_align, bits),
        *(b"data", _UNKNOWN),
    )


def wav_bytes(waveform: np.ndarray, sampling_rate: int = SAMPLE_RATE) -> bytes:
    """A whole wav file of a waveform in [-1, 1]."""
    return encode_audio(np.clip(waveform, -1, 1), sampling_rate, "WAV")
