"""Where live speech comes from and goes to: a microphone, a recording at the speed of speech, a loudspeaker."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, stream_audio
from unitweave.core.errors import InputError
from unitweave.core.progress import echo

BLOCK_SECONDS = 0.1
_BUFFER_SECONDS = 60.0
_NO_MICROPHONE = "give a recording with --audio"
_NO_LOUDSPEAKER = "write a file with -o"


def _sounddevice(what: str, instead: str) -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise InputError(f"{what} needs sounddevice: pip install 'unitweave[live]', or {instead}") from None
    except OSError as error:  # the package is there, PortAudio is not
        raise InputError(f"{what} cannot be used ({error}): install PortAudio, or {instead}") from None
    return sounddevice


def microphone() -> Iterator[np.ndarray]:
    """Blocks of the default microphone, float32 at 16 kHz, without an end.

    Where they are taken too slowly, those are lost that do not fit into the buffer of a minute.

    Raises:
        InputError: There is no microphone, or no package to record with.
    """
    sounddevice = _sounddevice("the microphone", _NO_MICROPHONE)
    return _recorded(sounddevice)


def _recorded(sounddevice: Any) -> Iterator[np.ndarray]:
    blocks: queue.Queue[np.ndarray] = queue.Queue(round(_BUFFER_SECONDS / BLOCK_SECONDS))
    size = round(BLOCK_SECONDS * SAMPLE_RATE)
    lost = 0

    def take(data: np.ndarray, *_: Any) -> None:
        nonlocal lost
        try:
            blocks.put_nowait(data[:, 0].copy())
        except queue.Full:
            lost += 1
            if lost == 1:
                echo("this computer is too slow for the model: some of what is said is lost")

    try:
        with sounddevice.InputStream(
            samplerate=SAMPLE_RATE, channels=1, dtype="float32", blocksize=size, callback=take
        ):
            while True:
                yield blocks.get()
    except sounddevice.PortAudioError as error:
        raise InputError(f"the microphone cannot be used ({error}): {_NO_MICROPHONE}") from None


def recording(path: Path, fast: bool) -> Iterator[np.ndarray]:
    """Blocks of a recording, float32 at 16 kHz, each when it would have been said, or as fast as they are taken.

    Raises:
        InputError: It cannot be read.
    """
    next(stream_audio(path))  # now, and not when the model is loaded
    return _at_the_speed_of_speech(path, fast)


def _at_the_speed_of_speech(path: Path, fast: bool) -> Iterator[np.ndarray]:
    start = time.monotonic()
    size, sent = round(BLOCK_SECONDS * SAMPLE_RATE), 0
    for samples in _blocks(stream_audio(path), size):
        sent += len(samples)
        if not fast:
            time.sleep(max(0.0, start + sent / SAMPLE_RATE - time.monotonic()))
        yield samples


def _blocks(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    rest = np.zeros(0, np.float32)
    for part in parts:
        rest = np.concatenate([rest, part])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if len(rest):
        yield rest


class Loudspeaker:
    """Plays speech as it comes, on a thread of its own."""

    def __init__(self) -> None:
        """Raises InputError where there is no loudspeaker, or no package to play with."""
        sounddevice = _sounddevice("the loudspeaker", _NO_LOUDSPEAKER)
        self._waiting, self._lock = np.zeros(0, np.float32), threading.Lock()
        try:
            self._stream = sounddevice.OutputStream(
                samplerate=SAMPLE_RATE, channels=1, dtype="float32", callback=self._fill
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise InputError(f"the loudspeaker cannot be used ({error}): {_NO_LOUDSPEAKER}") from None

    def play(self, waveform: np.ndarray) -> None:
        """Play this after all that waits."""
        with self._lock:
            self._waiting = np.concatenate([self._waiting, waveform])

    def close(self, play: bool = True) -> None:
        """Play what waits, unless it has to be quick, and end."""
        if play:
            time.sleep(len(self._waiting) / SAMPLE_RATE)
        self._stream.stop()
        self._stream.close()

    def _fill(self, out: np.ndarray, frames: int, *_: Any) -> None:
        with self._lock:
            part, self._waiting = self._waiting[:frames], self._waiting[frames:]
        out[:, 0] = 0
        out[: len(part), 0] = part
