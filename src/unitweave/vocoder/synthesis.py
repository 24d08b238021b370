"""Units to speech: many utterances at once, or one as its units arrive."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from unitweave.core.errors import InputError
from unitweave.vocoder.durations import DurationPredictor
from unitweave.vocoder.excitation import Position, frame_cycles
from unitweave.vocoder.model import UnitVocoder

_BUCKET = 32  # batches are padded to a multiple of so many frames: few shapes, so few compiled kernels
_BATCH_FRAMES = 4000  # 80 s of speech in a batch at most


class Vocoder:
    """A trained unit vocoder, ready to synthesize."""

    def __init__(self, model: UnitVocoder, device: str | torch.device = "cpu") -> None:
        self.model = model.eval().to(device)
        self.device = torch.device(device)

    @classmethod
    def from_pretrained(cls, folder: Path, codebook: str | None = None, device: str | torch.device = "cpu") -> Self:
        """Load from the folder that training left. Raises InputError as UnitVocoder.from_pretrained does."""
        return cls(UnitVocoder.from_pretrained(folder, codebook), device)

    @torch.inference_mode()
    def synthesize(
        self, units: Sequence[np.ndarray], speaker: str | None = None, deduplicated: bool = False
    ) -> list[np.ndarray]:
        """Synthesize utterances. Each one sounds the same whatever it is batched with.

        Args:
            units: Units at 50 Hz, int [frames] per utterance; an empty array gives an empty waveform.
            speaker: A name from config.speakers; None takes the first, or the only voice.
            deduplicated: The units have no repetitions; the duration predictor gives each its frames.

        Returns:
            float32 [frames * 320] at 16 kHz per utterance, in the same order.

        Raises:
            InputError: A unit is outside the codebook, there is no such speaker, or no duration predictor.
        """
        index = self._speaker(speaker)
        units = [self._checked(row, f"utterance {i}") for i, row in enumerate(units)]
        if deduplicated:
            units = [self._durations().expand(row) if len(row) else row for row in units]
        waveforms = [np.zeros(0, np.float32)] * len(units)
        for rows in _buckets([len(row) for row in units]):
            max_frames = max(len(units[row]) for row in rows)
            padded = torch.zeros(len(rows), -(-max_frames // _BUCKET) * _BUCKET, dtype=torch.long)
            for i, row in enumerate(rows):
                padded[i, : len(units[row])] = torch.from_numpy(units[row])
            lengths = torch.tensor([len(units[row]) for row in rows], device=self.device)
            speakers = None if index is None else index.expand(len(rows))
            made = self.model(padded.to(self.device), speakers, lengths).cpu().numpy()
            for i, row in enumerate(rows):
                waveforms[row] = made[i, : len(units[row]) * self.model.config.hop].copy()
        return waveforms

    @torch.inference_mode()
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
            units: Integers in [0, num_units), 50 a second unless deduplicated.
            chunk_frames: Frames of a chunk.
            speaker: A name from config.speakers; None takes the first, or the only voice.
            deduplicated: The units are without repetitions; the duration predictor gives each its frames.

        Yields:
            Float32 waveforms [chunk_frames * 320] at 16 kHz, the last one shorter.

        Raises:
            InputError: A unit is outside the codebook, or deduplicated units meet a vocoder without durations.
        """
        if chunk_frames < 1:
            raise InputError("chunk_frames must be at least 1")
        units = (int(self._checked(np.asarray([unit]), "the stream")[0]) for unit in units)
        if deduplicated:
            units = self._durations().expand_stream(units)
        index, context = self._speaker(speaker), self.model.context_frames
        held: list[int] = []  # units from frame `first` on
        first = spoken = 0
        cycles: Tensor | None = None
        for unit in units:
            held.append(unit)
            if first + len(held) - spoken == chunk_frames + context:
                waveform, cycles = self._chunk(held, first, spoken, spoken + chunk_frames, cycles, index)
                spoken += chunk_frames
                drop = max(0, spoken - context - first)
                held, first = held[drop:], first + drop
                yield waveform
        end = first + len(held)
        while spoken < end:
            upto = min(spoken + chunk_frames, end)
            waveform, cycles = self._chunk(held, first, spoken, upto, cycles, index)
            spoken = upto
            yield waveform

    def _chunk(
        self, held: list[int], first: int, start: int, stop: int, cycles: Tensor | None, speaker: Tensor | None
    ) -> tuple[np.ndarray, Tensor | None]:
        """Frames [start, stop) of an utterance whose units from frame `first` on are `held`.

        `cycles` is how far the pulse train is at `start`; the value returned with the waveform, at `stop`.
        """
        position = Position(frame=first, anchor=start - first, cycles=cycles)
        units = torch.tensor([held], device=self.device)
        waveform, f0 = self.model.generate(units, speaker, position=position)
        hop = self.model.config.hop
        if f0 is not None:
            passed = frame_cycles(f0, hop, self.model.config.sample_rate)[:, start - first : stop - first].sum(dim=1)
            cycles = (passed if cycles is None else cycles + passed) % 1.0
        return waveform[0, (start - first) * hop : (stop - first) * hop].cpu().numpy(), cycles

    def _checked(self, units: np.ndarray, name: str) -> np.ndarray:
        units = np.asarray(units)
        if units.ndim != 1 or (units.size and not np.issubdtype(units.dtype, np.integer)):
            raise InputError(f"vocoder: {name}: units must be a one-dimensional array of integers")
        units = units.astype(np.int64)
        wrong = units[(units < 0) | (units >= self.model.config.num_units)]
        if wrong.size:
            raise InputError(
                f"vocoder: {name}: unit {wrong[0]} is outside the codebook of {self.model.config.num_units} units"
            )
        return units

    def _durations(self) -> DurationPredictor:
        if self.model.durations is None:
            raise InputError(
                "the vocoder has no duration predictor; train with 'duration_predictor: true' or keep repeated units"
            )
        return self.model.durations

    def _speaker(self, name: str | None) -> Tensor | None:
        names = self.model.config.speakers
        if not names:
            if name is not None:
                raise InputError(f"the vocoder has a single voice, no speaker {name!r}")
            return None
        name = names[0] if name is None else name
        if name not in names:
            raise InputError(f"speaker must be one of {', '.join(names)} (got {name!r})")
        return torch.tensor([names.index(name)], device=self.device)


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
