"""The recordings of a corpus: in batches for the encoder, and a bounded sample of them for the codebook."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from unitweave.core.manifest import Pair


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


def recordings_of(pairs: Sequence[Pair]) -> list[Recording]:
    """The recordings of pairs, sides in the order src, tgt."""
    items = []
    for p in pairs:
        if p.src_audio:
            items.append(Recording(p.id, "src", p.src_lang, p.src_audio, p.src_text, p.src_seconds, p.speaker))
        if p.tgt_audio:
            items.append(Recording(p.id, "tgt", p.tgt_lang, p.tgt_audio, p.tgt_text, p.tgt_seconds))
    return items


def batches_by_length(items: Sequence[Recording], batch_seconds: float) -> list[list[int]]:
    """Group recordings of similar length, longest first.

    Returns:
        Indices of `items` in batches of at most `batch_seconds` of padded speech.
    """
    batches: list[list[int]] = []
    max_seconds = 0.0
    for i in sorted(range(len(items)), key=lambda i: (-items[i].seconds, i)):
        if batches and max_seconds * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(i)
        else:
            batches.append([i])
            max_seconds = items[i].seconds
    return batches


def sample_recordings(items: Sequence[Recording], max_frames: int, seed: int, frame_rate: float) -> list[Recording]:
    """Draw recordings of about `max_frames` frames (at `frame_rate` Hz), spread evenly over languages and speakers.

    A language that has less than its quota leaves the rest to the others. Within a language the speakers take
    turns in a random order, so that no speaker and no part of the corpus dominates the sample.
    """
    by_language: dict[str, list[Recording]] = {}
    for item in items:
        by_language.setdefault(item.language, []).append(item)
    rng = random.Random(seed)
    chosen: list[Recording] = []
    left = float(max_frames)
    # Smallest language first: what it cannot use goes to the others.
    ordered = sorted(by_language.values(), key=lambda group: sum(i.seconds for i in group))
    for number, group in enumerate(ordered):
        quota, used = left / (len(ordered) - number), 0.0
        for item in _round_robin(group, rng):
            if used >= quota:
                break
            used += item.seconds * frame_rate
            chosen.append(item)
        left -= used
    return chosen


def _round_robin(items: Sequence[Recording], rng: random.Random) -> list[Recording]:
    """The recordings in an order in which each round has one recording of each speaker."""
    by_speaker: dict[str, list[Recording]] = {}
    for item in items:
        by_speaker.setdefault(item.speaker, []).append(item)
    turns: list[tuple[int, float, Recording]] = []
    for own in by_speaker.values():
        rng.shuffle(own)
        turns += [(number, rng.random(), item) for number, item in enumerate(own)]
    return [item for _, _, item in sorted(turns, key=lambda turn: turn[:2])]
