"""Our own vocoders: many utterances at once, or one as its units arrive."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from unitweave.core.errors import InputError
from unitweave.vocoder.base import PhraseStream, Vocoder
from unitweave.vocoder.durations import DurationPredictor, DurationStream
from unitweave.vocoder.excitation import Position, frame_cycles
from unitweave.vocoder.model import UnitVocoder

_BUCKET = 32  # batches are padded to a multiple of so many frames: few shapes, so few compiled kernels
_BATCH_FRAMES = 4000  # 80 s of speech in a batch at most


class TrainedVocoder(Vocoder):
    """A unit vocoder of ours, ready to synthesize."""

    def __init__(self, model: UnitVocoder, device: str | torch.device = "cpu") -> None:
        config = model.config
        super().__init__(
            config.num_units, config.codebook, config.frame_rate, config.sample_rate, config.speakers, config.durations
        )
        self.model = model.eval().to(device)
        self.device = torch.device(device)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Self:
        """Load from the folder that training left. Raises InputError as UnitVocoder.from_pretrained does."""
        return cls(UnitVocoder.from_pretrained(folder), device)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        self.model.save_pretrained(folder)

    @torch.inference_mode()
    def synthesize(
        self, units: Sequence[np.ndarray], speaker: str | None = None, deduplicated: bool = False
    ) -> list[np.ndarray]:
        """Synthesize utterances. Each one sounds the same whatever it is batched with.

        Args:
            units: Units, int [frames] per utterance; an empty array gives an empty waveform.
            speaker: A name from config.speakers; None takes the first, or the only voice.
            deduplicated: The units have no repetitions; the duration predictor gives each its frames.

        Returns:
            float32 [frames * hop] per utterance, in the same order.

        Raises:
            InputError: A unit is outside the codebook, there is no such speaker, or no duration predictor.
        """
        index = self.speaker(speaker)
        units = [self.checked(row, f"utterance {i}") for i, row in enumerate(units)]
        if deduplicated:
            units = [self.durations().expand(row) if len(row) else row for row in units]
        waveforms = [np.zeros(0, np.float32)] * len(units)
        for rows in _buckets([len(row) for row in units]):
            max_frames = max(len(units[row]) for row in rows)
            padded = torch.zeros(len(rows), -(-max_frames // _BUCKET) * _BUCKET, dtype=torch.long)
            for i, row in enumerate(rows):
                padded[i, : len(units[row])] = torch.from_numpy(units[row])
            lengths = torch.tensor([len(units[row]) for row in rows], device=self.device)
            speakers = None if index is None else index.expand(len(rows))
            generated = self.model(padded.to(self.device), speakers, lengths).cpu().numpy()
            for i, row in enumerate(rows):
                waveforms[row] = generated[i, : len(units[row]) * self.model.config.hop].copy()
        return waveforms

    def stream(
        self,
        units: Iterable[int],
        chunk_frames: int = 50,
        speaker: str | None = None,
        deduplicated: bool = False,
    ) -> Iterator[np.ndarray]:
        """Synthesize units as they come, with the samples that `synthesize` gives for the whole utterance.

        A chunk can be made once the `model.context_frames` frames after it are known, so that is the delay;
        deduplicated units wait for `durations.context_runs` units more.

        Args:
            units: Integers in [0, num_units).
            chunk_frames: Frames of a chunk.
            speaker: A name from config.speakers; None takes the first, or the only voice.
            deduplicated: The units are without repetitions; the duration predictor gives each its frames.

        Yields:
            Float32 waveforms [chunk_frames * hop], the last one shorter.

        Raises:
            InputError: A unit is outside the codebook, or deduplicated units meet a vocoder without durations.
        """
        stream = self.open_stream(chunk_frames, speaker, deduplicated)
        for unit in units:
            yield from stream.push([unit])
        yield from stream.flush()

    def open_stream(
        self, chunk_frames: int = 50, speaker: str | None = None, deduplicated: bool = False, fade_samples: int = 0
    ) -> "SpeechStream":
        """As `Vocoder.open_stream`: chunks come as soon as no later unit can change them."""
        return SpeechStream(self, chunk_frames, speaker, deduplicated, fade_samples)

    def frame_counts(self, units: np.ndarray, deduplicated: bool = False) -> np.ndarray:
        """As `Vocoder.frame_counts`."""
        return self.durations().frames(units) if deduplicated else super().frame_counts(units)

    def durations(self) -> DurationPredictor:
        """The duration predictor. Raises InputError where there is none."""
        if self.model.durations is None:
            raise InputError(
                "the vocoder has no duration predictor; train with 'duration_predictor: true' or keep repeated units"
            )
        return self.model.durations

    def speaker(self, name: str | None) -> Tensor | None:
        """The index of a speaker, int64 [1]; None where there is a single voice. Raises InputError."""
        index = self.speaker_index(name)
        return None if index is None else torch.tensor([index], device=self.device)


class SpeechStream(PhraseStream):
    """The speech of units that come bit by bit, with the vocoder's context on both sides.

    Args:
        vocoder: The vocoder.
        chunk_frames: Frames of a chunk.
        speaker: A name from the vocoder's speakers; None takes the first, or the only voice.
        deduplicated: The units are without repetitions; the duration predictor gives each its frames.
        fade_samples: Samples that fade in after a pause and out before it, and at both ends, so that nothing clicks.

    Attributes:
        speed: How much faster than its units it speaks. Frames that repeat the one before are left out, so the pitch
            stays, and no unit is lost.

    Raises:
        InputError: As `Vocoder.stream`.
    """

    def __init__(
        self,
        vocoder: TrainedVocoder,
        chunk_frames: int = 50,
        speaker: str | None = None,
        deduplicated: bool = False,
        fade_samples: int = 0,
    ) -> None:
        if chunk_frames < 1:
            raise InputError("chunk_frames must be at least 1")
        self.speed = 1.0
        self._vocoder, self._chunk_frames, self._fade_samples = vocoder, chunk_frames, fade_samples
        self._durations = DurationStream(vocoder.durations()) if deduplicated else None
        self._speaker, self._context = vocoder.speaker(speaker), vocoder.model.context_frames
        self._held: list[int] = []  # units from frame `_first` on
        self._first = self._spoken = 0
        self._cycles: Tensor | None = None  # how far the pulse train is at `_spoken`
        self._fade_in = fade_samples > 0
        self._debt, self._last = 0.0, -1  # frames still to be left out; the last frame's unit

    def push(self, units: Iterable[int]) -> list[np.ndarray]:
        """Take in units; returns the chunks, float32, that no later unit can change."""
        chunks = []
        for unit in units:
            unit = int(self._vocoder.checked(np.asarray([unit]), "the stream")[0])
            for frame in self._durations.push(unit) if self._durations else [unit]:
                chunks += self._add(frame)
        return chunks

    def flush(self, following: Sequence[int] = ()) -> list[np.ndarray]:
        """The rest, as if no unit followed, or these. Those that come after all go on from here, with this as context.

        Args:
            following: Units that are likely to come next: a word in the middle of a sentence does not sound like its
                end. They are not spoken.
        """
        chunks = []
        ahead = list(following)
        if self._durations:
            frames, ahead = self._durations.flush(following)
            for frame in frames:
                chunks += self._add(frame)
        end = self._first + len(self._held)
        self._held += ahead[: self._context]
        while self._spoken < end:
            chunks.append(self._chunk(min(self._spoken + self._chunk_frames, end)))
        del self._held[end - self._first :]
        if chunks and self._fade_samples:
            fade = min(self._fade_samples, len(chunks[-1]))
            chunks[-1][len(chunks[-1]) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
            self._fade_in = True
        return chunks

    def _add(self, frame: int) -> list[np.ndarray]:
        if self.speed > 1:
            self._debt = min(self._debt + 1 - 1 / self.speed, float(self._chunk_frames))
            if frame == self._last and self._debt >= 1:
                self._debt -= 1
                return []
        self._last = frame
        self._held.append(frame)
        ready = self._first + len(self._held) - self._spoken == self._chunk_frames + self._context
        return [self._chunk(self._spoken + self._chunk_frames)] if ready else []

    @torch.inference_mode()
    def _chunk(self, stop: int) -> np.ndarray:
        """The frames from `_spoken` to `stop`."""
        model, first, start = self._vocoder.model, self._first, self._spoken
        position = Position(frame=first, anchor=start - first, cycles=self._cycles)
        units = torch.tensor([self._held], device=self._vocoder.device)
        generated, f0 = model.generate(units, self._speaker, position=position)
        hop = model.config.hop
        if f0 is not None:
            passed = frame_cycles(f0, hop, model.config.sample_rate)[:, start - first : stop - first].sum(dim=1)
            self._cycles = (passed if self._cycles is None else self._cycles + passed) % 1.0
        self._spoken = stop
        drop = max(0, stop - self._context - first)
        self._held, self._first = self._held[drop:], first + drop
        waveform = generated[0, (start - first) * hop : (stop - first) * hop].cpu().numpy()
        if self._fade_in:
            waveform = waveform.copy()
            fade = min(self._fade_samples, len(waveform))
            waveform[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
            self._fade_in = False
        return waveform


def _buckets(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of the non-empty rows, longest first, in batches of at most _BATCH_FRAMES padded frames."""
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * (lengths[batch[0]] + _BUCKET) > _BATCH_FRAMES:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
