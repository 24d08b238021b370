"""The recordings of a corpus: in batches for the encoder, and as a bounded sample for the codebook."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from unitweave.core.manifest import Pair
from unitweave.units.table import FRAME_RATE


@dataclass(frozen=True)
class Item:
    """One recording to be turned into units; `text` is None where there is nothing to align."""

    id: str
    side: str
    language: str
    audio: str
    text: str | None
    seconds: float
    speaker: str = ""


def items_of(pairs: Sequence[Pair]) -> list[Item]:
    """The recordings of pairs, sides in the order src, tgt."""
    items = []
    for p in pairs:
        if p.src_audio:
            items.append(Item(p.id, "src", p.src_lang, p.src_audio, p.src_text, p.src_seconds, p.speaker))
        if p.tgt_audio:
            items.append(Item(p.id, "tgt", p.tgt_lang, p.tgt_audio, p.tgt_text, p.tgt_seconds))
    return items


def batches_of(items: Sequence[Item], batch_seconds: float) -> list[list[int]]:
    """Indices of `items` in batches of similar length and at most `batch_seconds` of padded speech, longest first."""
    batches: list[list[int]] = []
    longest = 0.0
    for i in sorted(range(len(items)), key=lambda i: (-items[i].seconds, i)):
        if batches and longest * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(i)
        else:
            batches.append([i])
            longest = items[i].seconds
    return batches


def sample(items: Sequence[Item], max_frames: int, seed: int) -> list[Item]:
    """Recordings of about `max_frames` frames in all, spread evenly over languages and, in each, over speakers.

    A language that has less than its share leaves the rest to the others. Within a language the speakers
    take turns, in a drawn order, so that neither one speaker's hours nor one part of the corpus prevail.
    """
    by_language: dict[str, list[Item]] = {}
    for item in items:
        by_language.setdefault(item.language, []).append(item)
    rng = random.Random(seed)
    chosen: list[Item] = []
    left = float(max_frames)
    # Smallest language first: what it cannot use goes to the others.
    ordered = sorted(by_language.values(), key=lambda group: sum(i.seconds for i in group))
    for number, group in enumerate(ordered):
        quota, used = left / (len(ordered) - number), 0.0
        for item in _in_turns(group, rng):
            if used >= quota:
                break
            used += item.seconds * FRAME_RATE
            chosen.append(item)
        left -= used
    return chosen


def _in_turns(items: Sequence[Item], rng: random.Random) -> list[Item]:
    """The items in an order in which each speaker says one recording per round."""
    by_speaker: dict[str, list[Item]] = {}
    for item in items:
        by_speaker.setdefault(item.speaker, []).append(item)
    turns: list[tuple[int, float, Item]] = []
    for own in by_speaker.values():
        rng.shuffle(own)
        turns += [(number, rng.random(), item) for number, item in enumerate(own)]
    return [item for _, _, item in sorted(turns, key=lambda turn: turn[:2])]
