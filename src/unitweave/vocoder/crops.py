"""Training data of the vocoder: random crops of units and the waveform that belongs to them."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import Manifest, read_manifest
from unitweave.units.dataset import UnitTable, read_units
from unitweave.units.tokenizer import length_mismatch

MINIMUM_FRAMES = 8
_CACHED_RECORDINGS = 4096
_EDGE_FRAMES = 6


@dataclass(frozen=True)
class UnitRecording:
    """One utterance: its audio file, its units uint16 [frames], the index of its speaker, its seconds (0: unknown)."""

    id: str
    audio: str
    units: np.ndarray
    speaker: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Crops of a training step.

    Attributes:
        units: int64 [batch, frames].
        waveform: float32 [batch, frames * hop].
        lengths: int64 [batch], in frames.
        speaker: int64 [batch].
        loss_mask: float32 [batch, frames]; 0 near a cut through an utterance, where the model lacks the units on the
            other side of the cut and a loss would be unfair.
    """

    units: Tensor
    waveform: Tensor
    lengths: Tensor
    speaker: Tensor
    loss_mask: Tensor

    def part(self, rows: slice, device: torch.device) -> "Batch":
        """Some rows of the batch, on a device."""
        return Batch(*(getattr(self, entry.name)[rows].to(device) for entry in fields(self)))


class RecordingTable(Sequence[UnitRecording]):
    """Utterances with audio and units on one side; one becomes an object when it is looked at.

    Attributes:
        frames: int64 [utterances].
    """

    def __init__(self, pairs: Manifest, rows: UnitTable, side: str, speakers: list[str], frames: np.ndarray) -> None:
        """From the pairs, all of which have units in `rows` on `side`, the speakers' names, and their frames."""
        self._pairs, self._rows, self._side, self._speakers, self.frames = pairs, rows, side, speakers, frames

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> UnitRecording: ...

    @overload
    def __getitem__(self, index: slice) -> list[UnitRecording]: ...

    def __getitem__(self, index: int | slice) -> UnitRecording | list[UnitRecording]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        pair = self._pairs[index]
        speaker = self._speakers.index(pair.speaker) if self._speakers else 0
        audio, seconds = (getattr(pair, f"{self._side}_{what}") for what in ("audio", "seconds"))
        return UnitRecording(pair.id, audio, self._rows[pair.id, self._side].units, speaker, seconds)


def find_recordings(
    corpus: Path, units: Path, side: str, split: str, speakers: list[str] | None = None
) -> tuple[RecordingTable, list[dict[str, str]]]:
    """Utterances of a split that have both audio and units on `side`; and those left out, with reasons.

    `speakers` gives each recording the index of its speaker in that list.
    """
    pairs = read_manifest(corpus, split)
    rows = read_units(units, pairs.column("id"), (side,))
    frames = rows.num_frames(pairs.column("id"), side)
    mute = pairs.column(f"{side}_audio").is_null().to_numpy()
    foreign = np.zeros(len(pairs), bool)
    if speakers:
        foreign = ~pc.is_in(pairs.column("speaker"), pa.array(speakers)).to_numpy()
    usable = ~mute & (frames >= MINIMUM_FRAMES) & ~foreign
    skipped = []
    for at in np.flatnonzero(~usable).tolist():
        pair = pairs[at]
        reason = f"speaker {pair.speaker!r} is not among those trained on"
        if mute[at] or frames[at] < 0:
            reason = "no audio" if mute[at] else "no units"
        elif frames[at] < MINIMUM_FRAMES:
            reason = f"shorter than {MINIMUM_FRAMES} frames"
        skipped.append({"id": pair.id, "reason": reason})
    kept = np.flatnonzero(usable)
    return RecordingTable(pairs.take(kept), rows, side, speakers or [], frames[kept]), skipped


@dataclass(frozen=True)
class Timing:
    """Sampling rate of the speech in Hz, and the samples of a unit."""

    sample_rate: int = 16_000
    hop: int = 320


@lru_cache(maxsize=_CACHED_RECORDINGS)
def _waveform(path: str, seconds: float, sample_rate: int) -> np.ndarray:
    """The recording as 16-bit integers [samples]: half the memory of floats."""
    waveform = read_audio(path, expected_seconds=seconds, sample_rate=sample_rate)
    return np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def load_crop(
    recording: UnitRecording, start: int, frames: int, timing: Timing = Timing()
) -> tuple[np.ndarray, np.ndarray]:
    """Units [frames] and waveform [frames * hop] from frame `start` on.

    Unit i stands at samples [hop * i, hop * (i + 1)); a waveform that ends a little early is filled
    with silence. Raises InputError when units and recording do not belong together.
    """
    waveform, hop = _waveform(recording.audio, recording.seconds, timing.sample_rate), timing.hop
    if reason := length_mismatch(len(recording.units), len(waveform) / hop):
        raise InputError(
            f"{recording.audio}: {reason} (utterance {recording.id}); extract the units again, keeping repetitions"
        )
    piece = waveform[start * hop : (start + frames) * hop].astype(np.float32) / 32767
    piece = np.pad(piece, (0, frames * hop - len(piece)))
    return recording.units[start : start + frames], piece


def draw_batch(
    recordings: Sequence[UnitRecording],
    ends: np.ndarray,
    step: int,
    batch: int,
    frames: int,
    seed: int,
    timing: Timing = Timing(),
) -> Batch:
    """The batch of a training step: a pure function of the recordings, the seed and the step.

    `ends` is the running sum of the recordings' frames: a segment lies around a frame drawn from the
    whole corpus, moved to where it fits into its utterance. So the beginnings and ends of utterances
    come as often as what lies between. Utterances shorter than `frames` are taken whole and padded.
    """
    generator = np.random.default_rng([seed, step])
    units = np.zeros((batch, frames), np.int64)
    waveform = np.zeros((batch, frames * timing.hop), np.float32)
    lengths, speaker = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
    loss_mask = np.ones((batch, frames), np.float32)
    edge = min(_EDGE_FRAMES, frames // 4)
    for i in range(batch):
        middle = int(generator.integers(ends[-1]))
        number = int(np.searchsorted(ends, middle, side="right"))
        recording = recordings[number]
        total = len(recording.units)
        length = min(frames, total)
        start = min(max(middle - (int(ends[number]) - total) - length // 2, 0), total - length)
        loss_mask[i, :edge] = start == 0
        loss_mask[i, length - edge :] *= start + length == total
        units[i, :length], waveform[i, : length * timing.hop] = load_crop(recording, start, length, timing)
        lengths[i], speaker[i] = length, recording.speaker
    return Batch(*(torch.from_numpy(array) for array in (units, waveform, lengths, speaker, loss_mask)))


def batches(
    recordings: RecordingTable,
    first_step: int,
    last_step: int,
    batch: int,
    frames: int,
    seed: int,
    timing: Timing,
) -> Iterator[Batch]:
    """Batches of the steps [first_step, last_step), each drawn in a thread while the one before is used."""
    ends = np.cumsum(recordings.frames)
    stop = threading.Event()

    def draw(step: int) -> Batch | None:
        return None if stop.is_set() else draw_batch(recordings, ends, step, batch, frames, seed, timing)

    with ThreadPoolExecutor(1) as pool:
        try:
            pending = [pool.submit(draw, step) for step in range(first_step, min(first_step + 2, last_step))]
            for step in range(first_step, last_step):
                ready = pending.pop(0).result()
                if step + 2 < last_step:
                    pending.append(pool.submit(draw, step + 2))
                assert ready is not None
                yield ready
        finally:
            stop.set()
