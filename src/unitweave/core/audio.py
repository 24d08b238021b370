"""Audio in and out: every waveform inside unitweave is mono float32 at 16 kHz in [-1, 1]."""

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path

SAMPLE_RATE = 16_000
SILENCE = 1e-3  # a recording whose largest excursion from its mean stays below this (-60 dB) is silent

_RATES = (1_000, 1_000_000)  # outside of it a header is damaged, and resampling by it would fill the memory


class AudioError(InputError):
    """A recording that cannot be used; `problem` says in a few words why, the same words for the same cause."""

    def __init__(self, name: str, problem: str, detail: str = "") -> None:
        self.problem, self.detail = problem, detail
        super().__init__(f"{name}: {problem}" + (f" ({detail})" if detail else ""))


def read_audio(source: Path | str | bytes, name: str | None = None) -> np.ndarray:
    """Read any file that soundfile reads, or the bytes of one, as mono 16 kHz.

    Returns float32 of shape [samples]. Raises AudioError, an InputError naming the file (or `name`), when it is
    missing, unreadable, empty or holds values that are no numbers.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "audio")
    try:
        samples, rate = soundfile.read(
            io.BytesIO(source) if isinstance(source, bytes) else source, dtype="float32", always_2d=True
        )
    except (soundfile.SoundFileError, OSError) as error:
        if not isinstance(source, bytes) and not Path(source).exists():
            raise AudioError(name, "no such audio file") from None
        raise AudioError(name, "not readable as audio", _reason(error)) from None
    return to_mono_16k(samples, rate, name)


def to_mono_16k(samples: np.ndarray, rate: int, name: str = "audio") -> np.ndarray:
    """Mix [samples, channels] (or [samples]) down to mono and resample it to 16 kHz (soxr, high quality)."""
    if samples.size == 0:
        raise AudioError(name, "the audio is empty")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(name, "impossible sampling rate", f"{rate} Hz")
    mono = samples.mean(axis=1) if samples.ndim == 2 else samples
    if not np.isfinite(mono).all():
        raise AudioError(name, "the audio holds values that are no numbers", "NaN or infinite")
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
        if mono.size == 0:
            raise AudioError(name, "the audio is empty")
    return np.ascontiguousarray(mono, dtype=np.float32)


def is_silent(waveform: np.ndarray) -> bool:
    """Whether [samples] holds nothing that can be heard: a constant, or less than -60 dB around it."""
    return bool(np.abs(waveform - waveform.mean()).max() < SILENCE)


def write_audio(path: Path, waveform: np.ndarray) -> None:
    """Write [samples] at 16 kHz as 16-bit PCM in the format of the suffix (.wav, .flac), atomically."""
    path = Path(path)
    # By way of memory, since libsndfile does not say why a file cannot be written.
    encoded = io.BytesIO()
    soundfile.write(encoded, np.clip(waveform, -1.0, 1.0), SAMPLE_RATE, format=path.suffix[1:], subtype="PCM_16")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def _reason(error: Exception) -> str:
    return str(error).rstrip(".").rsplit(": ", 1)[-1] or type(error).__name__
