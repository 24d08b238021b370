"""The recordings of a corpus: in batches for the encoder, and a bounded sample of them for the codebook."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitweave.core.manifest import Manifest, Pair


@dataclass(frozen=True)
class Recording:
    """One side of a pair.

    Attributes:
        id: The pair's id.
        side: "src" or "tgt".
        language: ISO 639-1 code.
        audio: Path of the audio file.
        text: Normalized transcript; None where there is nothing to align.
        seconds: Duration.
        speaker: Empty where unknown.
    """

    id: str
    side: str
    language: str
    audio: str
    text: str | None
    seconds: float
    speaker: str = ""

    @property
    def name(self) -> str:
        """Id and side, as lists of skipped recordings have them."""
        return f"{self.id}/{self.side}"


class Recordings(Sequence[Recording]):
    """The recordings of pairs, kept as Arrow columns: one becomes an object when it is looked at.

    Attributes:
        seconds: float64 [recordings].
    """

    def __init__(self, pairs: Manifest, positions: np.ndarray) -> None:
        """See the class.

        Args:
            pairs: Utterance pairs.
            positions: int64 [recordings]: twice the pair's place, and 1 more for the target side.
        """
        self._pairs, self._places = pairs, positions
        self.seconds = pc.fill_null(self.column("seconds"), 0).to_numpy(zero_copy_only=False).astype(np.float64)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Recording: ...

    @overload
    def __getitem__(self, index: slice) -> "Recordings": ...

    def __getitem__(self, index: int | slice) -> "Recording | Recordings":
        if isinstance(index, slice):
            return Recordings(self._pairs, self._places[index])
        pair, side = divmod(int(self._places[index]), 2)
        return _recording(self._pairs[pair], side)

    def __iter__(self) -> Iterator[Recording]:
        for first in range(0, len(self), 1024):
            pairs, sides = np.divmod(self._places[first : first + 1024], 2)
            yield from map(_recording, self._pairs.take(pairs), sides.tolist())

    def column(self, name: str) -> pa.Array:
        """A field of all recordings: language, audio, text, seconds or speaker."""
        if name == "speaker":
            speakers = self._pairs.column("speaker").combine_chunks()
            sides = [speakers, pa.repeat(pa.scalar("", speakers.type), len(speakers))]
        else:
            field = {"language": "lang"}.get(name, name)
            sides = [self._pairs.column(f"{side}_{field}").combine_chunks() for side in ("src", "tgt")]
        pairs, side = np.divmod(self._places, 2)
        return pa.concat_arrays(sides).take(pa.array(pairs + side * len(self._pairs)))

    def take(self, chosen: np.ndarray) -> "Recordings":
        """Some of the recordings, by their places or where a mask holds."""
        return Recordings(self._pairs, self._places[chosen])


def _recording(pair: Pair, side: int) -> Recording:
    if side:
        return Recording(pair.id, "tgt", pair.tgt_lang, pair.tgt_audio or "", pair.tgt_text, pair.tgt_seconds)
    return Recording(pair.id, "src", pair.src_lang, pair.src_audio or "", pair.src_text, pair.src_seconds, pair.speaker)


def list_recordings(pairs: Manifest) -> Recordings:
    """The recordings of pairs, sides in the order src, tgt."""
    there = [pc.invert(pc.equal(pc.fill_null(pairs.column(f"{s}_audio"), ""), "")).to_numpy() for s in ("src", "tgt")]
    return Recordings(pairs, np.flatnonzero(np.stack(there, axis=1)))


def batches_by_length(seconds: np.ndarray, batch_seconds: float) -> list[list[int]]:
    """Group recordings of similar length, longest first.

    Args:
        seconds: float64 [recordings].
        batch_seconds: Padded speech in a batch, at most.

    Returns:
        Indices of the recordings of each batch.
    """
    batches: list[list[int]] = []
    max_seconds = 0.0
    for i in np.argsort(-seconds, kind="stable").tolist():
        if batches and max_seconds * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(i)
        else:
            batches.append([i])
            max_seconds = float(seconds[i])
    return batches


def group_rows(values: pa.Array) -> list[tuple[str, np.ndarray]]:
    """Where each value stands: int64 indices, ascending; values in the order in which they come first."""
    if not len(values):
        return []
    encoded = values.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(encoded.dictionary)))
    return list(zip(encoded.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=True))


def sample_recordings(items: Recordings, max_frames: int, seed: int, frame_rate: float) -> Recordings:
    """Draw recordings of about `max_frames` frames (at `frame_rate` Hz), spread evenly over languages and speakers.

    A language that has less than its quota leaves the rest to the others. Within a language the speakers take
    turns in a random order, so that no speaker and no part of the corpus dominates the sample.
    """
    rng = random.Random(seed)
    chosen: list[int] = []
    left = float(max_frames)
    speakers = items.column("speaker")
    # Smallest language first: what it cannot use goes to the others.
    groups = [group for _, group in group_rows(items.column("language"))]
    ordered = sorted(groups, key=lambda group: sum(items.seconds[group].tolist()))
    for number, group in enumerate(ordered):
        quota, used = left / (len(ordered) - number), 0.0
        for place in group[_round_robin(speakers.take(pa.array(group)), rng)]:
            if used >= quota:
                break
            used += float(items.seconds[place]) * frame_rate
            chosen.append(int(place))
        left -= used
    return items.take(np.array(chosen, np.int64))


def _round_robin(speakers: pa.Array, rng: random.Random) -> np.ndarray:
    """An order of recordings in which each round has one recording of each speaker: int64 [recordings]."""
    order, numbers, draws = (np.empty(len(speakers), kind) for kind in (np.int64, np.int64, np.float64))
    at = 0
    for _, group in group_rows(speakers):
        rows = group.tolist()
        rng.shuffle(rows)
        block = slice(at, at + len(rows))
        order[block], numbers[block] = rows, np.arange(len(rows))
        draws[block] = [rng.random() for _ in rows]
        at += len(rows)
    return order[np.lexsort((draws, numbers))]
