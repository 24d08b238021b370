"""Recordings in any format, any sampling rate and any number of channels, as blocks of mono 16 kHz.

soundfile reads wav, flac, ogg, opus, mp3, aiff and more; what it does not know goes through ffmpeg, where
that is installed. Memory does not depend on the length of the recording.
"""

import io
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from unitweave.core.audio import SAMPLE_RATE, AudioError

SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64"),
    *(".m4a", ".mp4", ".aac", ".webm", ".mkv", ".mov", ".wma", ".amr", ".3gp", ".ac3"),
)
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz; what lies outside is a damaged header
_BLOCK_VALUES = 1_000_000  # samples of all channels in a block
_UNKNOWN = 2**63 - 1  # libsndfile's number of frames where a header has none
_FFMPEG_PATIENCE = 30.0  # seconds without a byte after which ffmpeg is given up
# Containers and codecs only: no playlists, which could name other files or addresses.
_FFMPEG_FORMATS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,ogg,w64,wav"


def stream_audio(path: Path, name: str | None = None, max_seconds: float | None = None) -> Iterator[np.ndarray]:
    """Read a recording: yields float32 [samples] at 16 kHz, block by block.

    name         what errors call the recording (default: its path)
    max_seconds  a longer recording is refused
    Raises AudioError, an InputError, when the recording is missing, unreadable, empty, longer than
    max_seconds, has an impossible sampling rate or holds values that are no numbers.
    """
    name = name or str(path)
    try:
        if not Path(path).is_file():
            raise AudioError(name, "no such audio file")
        size = Path(path).stat().st_size
    except OSError as error:
        raise AudioError(name, "not readable", error.strerror or "") from None
    if size == 0:
        raise AudioError(name, "the file is empty")
    seen = 0
    for block in _decoded(Path(path), name):
        if not np.isfinite(block).all():
            raise AudioError(name, "the audio holds values that are no numbers", "NaN or infinite")
        seen += len(block)
        if max_seconds is not None and seen > max_seconds * SAMPLE_RATE:
            raise AudioError(name, f"longer than the {max_seconds:g} seconds that are allowed here")
        if len(block):
            yield block
    if not seen:
        raise AudioError(name, "the audio is empty")


def load_audio(path: Path, name: str | None = None, max_seconds: float | None = None) -> np.ndarray:
    """A whole recording, float32 [samples] at 16 kHz; errors as `stream_audio`."""
    return np.concatenate(list(stream_audio(path, name, max_seconds)))


def seconds_of(path: Path) -> float | None:
    """How long a recording lasts by its header, in seconds; None where only decoding it would tell."""
    try:
        with Path(path).open("rb") as file:  # by its content, and soundfile does not take every name
            about = soundfile.info(file)
    except (soundfile.SoundFileError, OSError, TypeError):
        return None
    if not LOWEST_RATE <= about.samplerate <= HIGHEST_RATE or about.frames == _UNKNOWN:
        return None
    return about.frames / about.samplerate


def lasts_longer(path: Path, seconds: float) -> bool:
    """Whether a recording is longer than that, by its header or else by decoding so much of it; errors as there."""
    told = seconds_of(path)
    if told is not None:
        return told > seconds
    seen = 0
    for block in stream_audio(path):
        seen += len(block)
        if seen > seconds * SAMPLE_RATE:
            return True
    return False


def _decoded(path: Path, name: str) -> Iterator[np.ndarray]:
    try:
        content = io.BufferedReader(path.open("rb", buffering=0))
    except OSError as error:
        raise AudioError(name, "not readable", error.strerror or "") from None
    try:
        # By its content: a file's name may say anything.
        file = soundfile.SoundFile(content)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        yield from _ffmpeg(path, name, str(error).rstrip(".").rsplit(": ", 1)[-1])
        return
    with file:
        rate, channels = file.samplerate, file.channels
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(name, "impossible sampling rate", f"{rate} Hz")
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32") if rate != SAMPLE_RATE else None
        size = max(1024, _BLOCK_VALUES // channels)
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise AudioError(name, "not readable as audio", str(error)) from None
            mono = block.mean(axis=1)
            last = len(block) < size
            yield mono if resampler is None else resampler.resample_chunk(mono, last=last)
            if last:
                return


def _ffmpeg(path: Path, name: str, reason: str) -> Iterator[np.ndarray]:
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(name, "not readable as audio", f"{reason}; with ffmpeg installed more formats can be read")
    command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", _FFMPEG_FORMATS]
    command += ["-i", f"file:{path.absolute()}", "-vn", "-map", "0:a:0", "-ac", "1", "-ar", str(SAMPLE_RATE)]
    command += ["-f", "f32le", "pipe:1"]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
        assert process.stdout is not None
        try:
            rest = b""
            while True:
                if not select.select([process.stdout], [], [], _FFMPEG_PATIENCE)[0]:
                    raise AudioError(name, "ffmpeg does not get on with this file")
                data = process.stdout.read1(4 * _BLOCK_VALUES)  # type: ignore[attr-defined]
                if not data:
                    break
                data = rest + data
                whole = len(data) // 4 * 4
                rest = data[whole:]
                yield np.frombuffer(data[:whole], dtype="<f4")
            if process.wait() != 0:
                complaints.seek(0)
                said = complaints.read(4000).decode("utf-8", "replace").strip().splitlines()
                told = said[-1].rsplit(": ", 1)[-1] if said else reason
                raise AudioError(name, "not readable as audio", told)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
