"""What a live session leaves: the translation as a wav file, timed as it was heard, and its subtitles.

Both are valid whenever writing stops, so that an interrupted session keeps what was said so far.
"""

import contextlib
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.core.files import write_text
from unitweave.translate.live.events import CommittedText, LiveEvent, SpeechChunk, UtteranceEnd
from unitweave.translate.subtitles import Cue, readable, srt, vtt


class LiveRecording:
    """Writes STEM.wav as speech is made, STEM.srt and STEM.vtt after each utterance; a context manager.

    Args:
        stem: Where the files go, without their suffixes.
        speech: Whether there is speech; without it no wav file is written.
    """

    def __init__(self, stem: Path, speech: bool = True) -> None:
        self._stem = stem
        self.audio = stem.with_name(stem.name + ".wav") if speech else None
        self._subtitles = [
            (stem.with_name(stem.name + suffix), make) for suffix, make in ((".srt", srt), (".vtt", vtt))
        ]
        self._file: BinaryIO | None = None
        self._track: wave.Wave_write | None = None
        self._at = 0  # samples written
        self._cues: list[Cue] = []
        self._open: list[CommittedText] = []  # words of the utterance that is not over

    def __enter__(self) -> Self:
        with self._errors():
            self._stem.parent.mkdir(parents=True, exist_ok=True)
            if self.audio is not None:
                # Not under a temporary name: whoever listens to a long session can open it while it grows.
                self._file = self.audio.open("wb")
                self._track = wave.open(self._file, "wb")
                self._track.setnchannels(1)
                self._track.setsampwidth(2)
                self._track.setframerate(SAMPLE_RATE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._errors():
            try:
                if self._track is not None and self._file is not None:
                    with self._file:
                        self._track.close()
            finally:
                self._write_subtitles()

    @property
    def written(self) -> str:
        """What there is, in a line."""
        texts = " and ".join(str(path) for path, _ in self._subtitles)
        return texts if self.audio is None else f"{self._at / SAMPLE_RATE:.1f} s of speech in {self.audio}; {texts}"

    def write(self, event: LiveEvent) -> None:
        """Take in what happened. Raises InputError where the files cannot be written."""
        with self._errors():
            if isinstance(event, SpeechChunk):
                self._write_speech(event)
            elif isinstance(event, CommittedText):
                self._open.append(event)
            elif isinstance(event, UtteranceEnd):
                self._cues.append(Cue(event.start, event.end, event.translation))
                self._open = []
                self._write_subtitles()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, struct.error) as error:  # the latter where a header cannot say how much there is
            reason = error.strerror if isinstance(error, OSError) else "a wav file holds at most 4 GiB, 37 hours"
            raise InputError(
                f"-o {self._stem}: cannot be written ({reason}); what was written before is kept"
            ) from None

    def _write_subtitles(self) -> None:
        for path, make in self._subtitles:
            write_text(path, make(readable([*self._cues, *self._unfinished()])))

    def _write_speech(self, event: SpeechChunk) -> None:
        if self._track is None:
            return
        silence = max(0, round(event.start * SAMPLE_RATE) - self._at)
        for first in range(0, silence, SAMPLE_RATE):
            self._track.writeframes(bytes(2 * min(SAMPLE_RATE, silence - first)))
        # With the header brought up to date each time, which a killed process could not do.
        self._track.writeframes((np.clip(event.waveform, -1, 1) * 32767).astype("<i2").tobytes())
        self._at += silence + len(event.waveform)

    def _unfinished(self) -> list[Cue]:
        if not self._open:
            return []
        return [Cue(self._open[0].heard, self._open[-1].time, "".join(event.text for event in self._open))]
