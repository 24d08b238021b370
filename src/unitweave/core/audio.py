"""Audio in and out: every waveform inside unitweave is mono float32 at 16 kHz in [-1, 1].

soundfile reads wav, flac, ogg, opus, mp3, aiff and more; what it does not know goes through ffmpeg, where that is
installed. Everything is read in blocks, so that a bound on the length holds whatever a file's header claims. Files that
were put one after the other are read to their end, and floats at the scale of integers are scaled down.
"""

import contextlib
import io
import itertools
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from unitweave.core.errors import AudioError
from unitweave.core.ffmpeg import UNREADABLE, decode
from unitweave.core.file_kinds import file_kind, is_text
from unitweave.core.files import atomic_path
from unitweave.core.joined import JoinedRecording, locate_recordings

SAMPLE_RATE = 16_000
SILENCE = 1e-3  # a recording whose largest excursion from its mean stays below this (-60 dB) is silent
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".sph", ".gsm", ".mp2"),
    *(".m4a", ".m4b", ".mp4", ".m4v", ".aac", ".webm", ".weba", ".mkv", ".mka", ".mov", ".wma", ".amr", ".3gp", ".ac3"),
    ".spx",
)

TOO_LONG = "the recording is too long"
EMPTY = "the audio is empty"

_RATES = (1_000, 768_000)  # Hz; outside of it a header is damaged, and resampling by it would fill the memory
_SAMPLES_A_SECOND = 2 * 48_000  # stereo at 48 kHz; a time limit alone bounds no work, for headers may say more
_UNKNOWN = 2**63 - 1  # libsndfile's number of frames for a stream whose header has none
_COPY_BYTES = 1 << 20
_BLOCK_VALUES = 1_000_000  # samples of all channels in a block
_SLACK_SECONDS = 0.1  # by which a recording may differ from its manifest, next to a hundredth of its length
_MAX_MISSING = 0.05  # of the sound that a header announces
_CANCELLED = 0.01  # power of the mix, of one channel's, below which the channels have cancelled each other
_LOUD = 2.0  # floats beyond it are no overshoot of full scale any more
_INTEGER_SCALES = (1 << 15, 1 << 23, 1 << 31)  # full scale of integers, where floats have it in place of 1
_GSM_FRAME = 33  # bytes of a frame of GSM 06.10, which begins with 1101
_WHOLE_VALUES = 1 << 29  # a file with more of them (93 minutes of stereo at 48 kHz) is read in blocks in any case


def read_audio(
    source: Path | str | bytes,
    name: str | None = None,
    max_seconds: float | None = None,
    expected_seconds: float | None = None,
    sample_rate: int = SAMPLE_RATE,
    complete: bool = False,
) -> np.ndarray:
    """Read a whole recording.

    Args:
        source: A file of any format that soundfile or ffmpeg reads, or the bytes of one.
        name: What errors call the recording (default: its path).
        max_seconds: Longer recordings are refused, by their header where it is honest: a few kilobytes of FLAC can be
            hours of silence. So is a header with more samples than this time has in stereo at 48 kHz.
        expected_seconds: How long the manifest says that it lasts; 0 and None where nobody knows. A recording that
            lasts otherwise is refused: it was cut or replaced after the corpus was built.
        sample_rate: Hz that it is wanted at.
        complete: Refuse a WAV or MP3 of which less is there than its header announces, as after a broken download.

    Returns:
        float32 [samples] at `sample_rate`, 16 kHz by default.

    Raises:
        AudioError: The recording is missing, unreadable, empty, too long, not as long as expected, or has an impossible
            sampling rate or values that are not numbers.
    """
    name = _source_name(source, name)
    with _decoded(source, name, max_seconds, whole=True, complete=complete) as (rate, blocks):
        mono = np.concatenate([np.zeros(0, np.float32), *blocks])
    # Resampled in one piece: in blocks, as `stream_audio` does it, the last digits differ.
    if mono.size and rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    if mono.size == 0:
        raise AudioError(name, EMPTY)
    seconds = mono.size / sample_rate
    if expected_seconds and abs(seconds - expected_seconds) > _SLACK_SECONDS + 0.01 * expected_seconds:
        detail = f"{seconds:.2f} s, {expected_seconds:.2f} s in the manifest; build the corpus again"
        raise AudioError(name, "changed after the corpus was built", detail)
    return np.ascontiguousarray(mono, dtype=np.float32)


def stream_audio(
    source: Path | str | bytes, name: str | None = None, max_seconds: float | None = None
) -> Iterator[np.ndarray]:
    """Read a recording block by block, in memory that does not depend on its length.

    Args:
        source: As for `read_audio`.
        name: As for `read_audio`.
        max_seconds: As for `read_audio`.

    Yields:
        float32 [samples] at 16 kHz.

    Raises:
        AudioError: As `read_audio`.
    """
    name, empty = _source_name(source, name), True
    with _decoded(source, name, max_seconds) as (rate, blocks):
        for block in blocks if rate == SAMPLE_RATE else _resampled(blocks, rate):
            if len(block):
                empty = False
                yield block
    if empty:
        raise AudioError(name, EMPTY)


def read_parts(
    source: Path | str | bytes, spans: Sequence[tuple[float, float]], name: str | None = None
) -> Iterator[np.ndarray]:
    """Read parts of a recording in one pass, in memory that depends on the longest of them alone.

    Args:
        source: As for `read_audio`.
        spans: Where each part begins and ends, in seconds, in the order of their beginnings.
        name: As for `read_audio`.

    Yields:
        float32 [samples] at 16 kHz, fewer than asked for where the recording ends before.

    Raises:
        AudioError: As `read_audio`.
    """
    blocks = stream_audio(source, name)
    held, first = np.zeros(0, np.float32), 0  # samples that may still be wanted, and the place of the first of them
    more = True
    for start, end in spans:
        begin, behind = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        while more and first + len(held) < behind:
            dropped = min(max(begin - first, 0), len(held))
            block = next(blocks, None)
            more = block is not None
            held = np.concatenate([held[dropped:], block if block is not None else held[:0]])
            first += dropped
        yield held[max(begin - first, 0) : max(behind - first, 0)].copy()


def header_seconds(path: Path) -> float | None:
    """How long a recording lasts by its header, in seconds; None where only decoding it would tell."""
    try:
        with _opened(path, str(path)) as file:
            if _parts(file) is not None:
                return None
            with _sound_file(file) as sound:
                plausible = _RATES[0] <= sound.samplerate <= _RATES[1] and sound.frames != _UNKNOWN
                return float(sound.frames / sound.samplerate) if plausible else None
    except (soundfile.SoundFileError, AudioError, OSError, TypeError):
        return None


def lasts_longer(path: Path, seconds: float) -> bool:
    """Whether a recording is longer than that, by its header or else by decoding so much of it; errors as there."""
    known = header_seconds(path)
    if known is not None:
        return known > seconds
    return any(seen > seconds * SAMPLE_RATE for seen in itertools.accumulate(map(len, stream_audio(path))))


def is_silent(waveform: np.ndarray) -> bool:
    """Whether [samples] holds nothing that can be heard: a constant, or less than -60 dB around it."""
    return bool(np.abs(waveform - waveform.mean()).max() < SILENCE)


def write_audio(path: Path, waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write [samples] at `sample_rate` Hz as 16-bit PCM in the format of the suffix (.wav, .flac), whole or not at all.

    It is on the disk only once the stage that wrote it is done: there may be a hundred thousand of them.
    """
    path = Path(path)
    encoded = encode_audio(np.clip(waveform, -1.0, 1.0), sample_rate, path.suffix[1:])
    with atomic_path(path, durable=False) as temporary:
        temporary.write_bytes(encoded)  # not by libsndfile, which does not say why a file cannot be written


def encode_audio(waveform: np.ndarray, sample_rate: int, format: str, subtype: str = "PCM_16") -> bytes:
    """The bytes of a sound file of [samples] or [samples, channels]; whole, or none where the user interrupts it."""
    # A file in memory: to a buffer libsndfile writes by callbacks into Python, and an interrupt in one of them is
    # swallowed and leaves a damaged sound.
    in_memory = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create(""), "w+b") if in_memory else tempfile.TemporaryFile() as file:
        soundfile.write(file.fileno(), waveform, sample_rate, subtype, format=format, closefd=False)
        file.seek(0)
        return file.read()


def _source_name(source: Path | str | bytes, name: str | None) -> str:
    return name or ("audio" if isinstance(source, bytes) else str(source))


@contextlib.contextmanager
def _decoded(
    source: Path | str | bytes, name: str, max_seconds: float | None, whole: bool = False, complete: bool = False
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Sampling rate and mono blocks of a recording: finite numbers, no more of them than max_seconds allow."""
    with _opened(source, name) as content:
        parts = _parts(content, name if complete else "")
        if parts is not None:
            yield SAMPLE_RATE, _checked(_joined(content, parts, name), SAMPLE_RATE, name, max_seconds)
            return
        try:
            file = _sound_file(content)
        except (soundfile.SoundFileError, OSError, TypeError) as error:
            content.seek(0)
            start = content.read(512)
            if kind := file_kind(start) or is_text(start) * "text" or (not start) * "empty":
                raise AudioError(name, UNREADABLE, f"it is {kind}") from None
            blocks = decode(content, name, _reason(error), SAMPLE_RATE, max_seconds)
            yield SAMPLE_RATE, _checked(blocks, SAMPLE_RATE, name, max_seconds)
            return
        with file:
            _check_header(file, name, max_seconds)
            scale = _scale(file, name)
            blocks = _read_blocks(file, name, whole)
            if scale != 1:
                blocks = (block / scale for block in _read_blocks(file, name, whole))
            yield file.samplerate, _checked(blocks, file.samplerate, name, max_seconds)


def _sound_file(content: BinaryIO) -> soundfile.SoundFile:
    """Open with soundfile. Raises SoundFileError, OSError or TypeError for what it does not read."""
    raw: dict[str, Any] = {}
    if _is_gsm(content):
        raw = {"format": "RAW", "subtype": "GSM610", "samplerate": 8000, "channels": 1}
    # By its content, since a file's name may say anything. The descriptor of a file rather than the object:
    # libsndfile then reads it itself, outside of Python's lock.
    file = soundfile.SoundFile(content if isinstance(content, io.BytesIO) else content.fileno(), closefd=False, **raw)
    if file.frames == _UNKNOWN and file.seekable():  # reading it ends in a seek, which fails
        file.close()
        raise TypeError("its header does not say how long it is")
    return file


def _is_gsm(content: BinaryIO) -> bool:
    """Whether the content is frames of GSM 06.10 without a header, as telephone systems store them."""
    head, size = content.read(8 * _GSM_FRAME), content.seek(0, os.SEEK_END)
    content.seek(0)
    return size > 0 and size % _GSM_FRAME == 0 and all(byte >> 4 == 0b1101 for byte in head[::_GSM_FRAME])


def _parts(content: BinaryIO, complete: str = "") -> list[JoinedRecording] | None:
    """The recordings in a file of several; None for one that a decoder reads whole.

    Raises AudioError with the name `complete`, where one is given, for a recording of which a part is missing.
    """
    if isinstance(content, io.BytesIO):
        parts, size = locate_recordings(content.getbuffer()), content.getbuffer().nbytes
    elif (size := os.fstat(content.fileno()).st_size) == 0:
        return None
    else:
        with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            parts = locate_recordings(view)
    if complete and parts[-1].missing > _MAX_MISSING:
        detail = f"its header announces more; only {1 - parts[-1].missing:.0%} is there"
        raise AudioError(complete, "the recording is cut off", detail)
    first = parts[0]
    return parts if len(parts) > 1 or first.head or (first.start, first.end) != (0, size) else None


def _joined(content: BinaryIO, parts: Sequence[JoinedRecording], name: str) -> Iterator[np.ndarray]:
    """Mono blocks at 16 kHz of all parts, one after the other."""
    for part in parts:
        with tempfile.TemporaryFile() as copy:
            copy.write(part.head)
            content.seek(part.start)
            for first in range(part.start, part.end, _COPY_BYTES):
                copy.write(content.read(min(_COPY_BYTES, part.end - first)))
            copy.seek(0)
            try:
                file = _sound_file(copy)
            except (soundfile.SoundFileError, OSError, TypeError) as error:
                raise AudioError(name, UNREADABLE, f"byte {part.start}: {_reason(error)}") from None
            with file:
                _check_header(file, name, None)
                scale = _scale(file, name)
                blocks = (block / scale for block in _read_blocks(file, name, whole=False))
                yield from blocks if file.samplerate == SAMPLE_RATE else _resampled(blocks, file.samplerate)


def _scale(file: soundfile.SoundFile, name: str) -> float:
    """What the samples are to be divided by: floats may have been written at the scale of integers."""
    if file.subtype not in ("FLOAT", "DOUBLE") or not file.seekable():
        return 1.0
    peak = max((float(np.abs(block).max(initial=0)) for block in _read_blocks(file, name, whole=False)), default=0.0)
    file.seek(0)
    if not peak > _LOUD or not np.isfinite(peak):  # what is no number is refused where it is read
        return 1.0
    if peak > _INTEGER_SCALES[-1]:
        raise AudioError(name, "impossible sample values", f"up to {peak:.1g}, where 1 is full scale")
    # What is at no such scale is merely too loud, and is turned down to full scale.
    return next((scale for scale in _INTEGER_SCALES if scale // 256 < peak <= scale), peak)


def _opened(source: Path | str | bytes, name: str) -> BinaryIO:
    if isinstance(source, bytes):
        if not source:
            raise AudioError(name, UNREADABLE, "no bytes")
        return io.BytesIO(source)
    # os.path, since pathlib raises for names that no file can have.
    if not os.path.exists(source):  # noqa: PTH110
        raise AudioError(name, "no such audio file")
    if not os.path.isfile(source):  # noqa: PTH113
        raise AudioError(name, UNREADABLE, "not a file")
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise AudioError(name, UNREADABLE, error.strerror or "") from None


def _check_header(file: soundfile.SoundFile, name: str, max_seconds: float | None) -> None:
    """Raise AudioError for what is not to be decoded."""
    if not _RATES[0] <= file.samplerate <= _RATES[1]:
        raise AudioError(name, "impossible sampling rate", f"{file.samplerate} Hz")
    if max_seconds is None or file.frames == _UNKNOWN:
        return
    seconds = file.frames / file.samplerate
    if seconds > max_seconds:
        raise AudioError(name, TOO_LONG, f"{seconds:.0f} s; at most {max_seconds:g} s are read")
    if file.frames * file.channels > max_seconds * _SAMPLES_A_SECOND:
        raise AudioError(name, TOO_LONG, f"{seconds:.0f} s at {file.samplerate} Hz, channels: {file.channels}")


def _read_blocks(file: soundfile.SoundFile, name: str, whole: bool) -> Iterator[np.ndarray]:
    size = max(1024, _BLOCK_VALUES // file.channels)
    # After every read soundfile seeks to where it is, and an MP3's decoder then forgets what it carries into the next
    # frame: the last digits change. So what is wanted as a whole is read as a whole.
    if whole and file.seekable() and file.frames * file.channels <= _WHOLE_VALUES:
        size = file.frames + 1
    while True:
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioError(name, UNREADABLE, _reason(error)) from None
        yield _mixed(block)
        if len(block) < size:
            return


def _mixed(block: np.ndarray) -> np.ndarray:
    """[samples, channels] as mono; of channels that would cancel each other, the (first) loudest."""
    mono = block.mean(axis=1)
    if block.shape[1] > 1 and len(block):
        power = np.square(block).mean(axis=0)
        loudest = 0 if block.shape[1] == 2 else int(power.argmax())
        if np.square(mono).mean() < _CANCELLED * power[loudest]:
            return np.ascontiguousarray(block[:, loudest])
    return mono


def _checked(blocks: Iterator[np.ndarray], rate: int, name: str, max_seconds: float | None) -> Iterator[np.ndarray]:
    seen = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError(name, "the audio has values that are not numbers", "NaN or infinite")
        seen += len(block)
        if max_seconds is not None and seen > max_seconds * rate:
            raise AudioError(name, TOO_LONG, f"at most {max_seconds:g} s are read")
        yield block


def _resampled(blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _reason(error: Exception) -> str:
    if "possibly a pipe" in str(error):  # libsndfile's words for an MP3 in memory that has no whole frame
        return "no sound was found in it"
    return str(error).rstrip(".").rsplit(": ", 1)[-1] or type(error).__name__
