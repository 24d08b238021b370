"""Audio in and out: every waveform inside unitweave is mono float32 at 16 kHz in [-1, 1]."""

import io
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path

SAMPLE_RATE = 16_000
SILENCE = 1e-3  # a recording whose largest excursion from its mean stays below this (-60 dB) is silent

TOO_LONG = "the recording is too long"
UNREADABLE = "not readable as audio"

_RATES = (1_000, 1_000_000)  # outside of it a header is damaged, and resampling by it would fill the memory
_SAMPLES_A_SECOND = 2 * 48_000  # stereo at 48 kHz; a time limit alone bounds no memory, for headers may say more
_UNKNOWN = 2**63 - 1  # libsndfile's number of frames for a stream whose header has none


class AudioError(InputError):
    """A recording that cannot be used; `problem` says in a few words why, the same words for the same cause."""

    def __init__(self, name: str, problem: str, detail: str = "") -> None:
        self.problem, self.detail = problem, detail
        super().__init__(f"{name}: {problem}" + (f" ({detail})" if detail else ""))


def read_audio(source: Path | str | bytes, name: str | None = None, max_seconds: float | None = None) -> np.ndarray:
    """Read any file that soundfile reads, or the bytes of one, as mono 16 kHz.

    max_seconds  longer recordings are refused by their header, before they fill the memory: a few kilobytes of
                 FLAC can be hours of silence. So is what has more samples than this time has in stereo at 48 kHz

    Returns float32 of shape [samples]. Raises AudioError, an InputError naming the file (or `name`), when it is
    missing, unreadable, empty, too long or holds values that are no numbers.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "audio")
    with _open(source, name) as file:
        _check_header(file, name, max_seconds)
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioError(name, UNREADABLE, _reason(error)) from None
        return to_mono_16k(samples, file.samplerate, name)


def _open(source: Path | str | bytes, name: str) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    # TypeError: a headerless .raw file. ValueError: a path that no file can have
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        if not isinstance(source, bytes) and not os.path.exists(source):  # noqa: PTH110  # Path's raises for long names
            raise AudioError(name, "no such audio file") from None
        raise AudioError(name, UNREADABLE, _reason(error)) from None


def _check_header(file: soundfile.SoundFile, name: str, max_seconds: float | None) -> None:
    """Raise AudioError for what is not to be decoded."""
    _check_rate(file.samplerate, name)
    if file.frames == _UNKNOWN:
        raise AudioError(name, UNREADABLE, "its header does not say how long it is")
    seconds = file.frames / file.samplerate
    if max_seconds is None:
        return
    if seconds > max_seconds:
        raise AudioError(name, TOO_LONG, f"{seconds:.0f} s")
    if file.frames * file.channels > max_seconds * _SAMPLES_A_SECOND:
        raise AudioError(name, TOO_LONG, f"{seconds:.0f} s at {file.samplerate} Hz, channels: {file.channels}")


def to_mono_16k(samples: np.ndarray, rate: int, name: str = "audio") -> np.ndarray:
    """Mix [samples, channels] (or [samples]) down to mono and resample it to 16 kHz (soxr, high quality)."""
    if samples.size == 0:
        raise AudioError(name, "the audio is empty")
    _check_rate(rate, name)
    mono = samples.mean(axis=1) if samples.ndim == 2 else samples
    if not np.isfinite(mono).all():
        raise AudioError(name, "the audio holds values that are no numbers", "NaN or infinite")
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
        if mono.size == 0:
            raise AudioError(name, "the audio is empty")
    return np.ascontiguousarray(mono, dtype=np.float32)


def _check_rate(rate: int, name: str) -> None:
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(name, "impossible sampling rate", f"{rate} Hz")


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
