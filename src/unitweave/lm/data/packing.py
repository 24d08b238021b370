"""From the interleaved sequences of a step to packed micro-batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unitweave.interleave.sequence import SEGMENTS, TrainingSequence

TOKENS_MULTIPLE = 256  # packed rows come in few lengths, so that oneDNN does not compile a kernel for each
LENGTH_MULTIPLE = 32
IGNORED = -100
_BUCKET_COST = 20_000  # what one more bucket costs, in squared tokens of attention


def split_step(sequences: Sequence[TrainingSequence], parts: int) -> list[list[int]]:
    """Share a step's sequences out into `parts` micro-batches of about equal token counts and similar lengths.

    Returns indices into `sequences`, each exactly once. Depends on nothing but the lengths.
    """
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i].ids), i))
    total = sum(len(s.ids) for s in sequences)
    result: list[list[int]] = [[] for _ in range(parts)]
    before = 0
    for i in order:
        length = len(sequences[i].ids)
        result[min(parts - 1, int((before + length / 2) * parts / max(total, 1)))].append(i)
        before += length
    return result


def split_to_budget(sequences: Sequence[TrainingSequence], parts: int, budget: int | None) -> list[list[list[int]]]:
    """Like `split_step`, each part cut into equally many forward passes of at most `budget` tokens.

    The number of passes is the same for all parts, since processes have to take them together. A
    single sequence longer than the budget is a pass of its own; the others are not cut finer for its sake.
    """

    def fits(piece: Sequence[int]) -> bool:
        return budget is None or len(piece) <= 1 or sum(len(sequences[i].ids) for i in piece) <= budget

    passes = 1
    while True:
        pieces = split_step(sequences, parts * passes)
        if all(fits(piece) for piece in pieces):
            return [pieces[part * passes : (part + 1) * passes] for part in range(parts)]
        passes += 1


def pack(sequences: Sequence[TrainingSequence], loss_weights: Sequence[float], pad: int = 0) -> dict[str, Any]:
    """Pack sequences into one row, the shortest first.

    loss_weights  weight of each segment code (0: none, then source, transcript, translation, target)
    Returns input_ids, position_ids [1, tokens]; layout, place, shapes, or else cumulative and longest, for
    `packed_attention`;
    labels [tokens], weights [tokens], segments [tokens] of the next token at each position; used (tokens
    of the sequences) and squares (sum of squared lengths). The row is filled up to a multiple of
    TOKENS_MULTIPLE with tokens that count for nothing.
    """
    sequences = sorted(sequences, key=lambda s: len(s.ids))
    lengths = np.array([len(s.ids) for s in sequences], dtype=np.int64)
    used = int(lengths.sum())
    tokens = max(1, -(-used // TOKENS_MULTIPLE)) * TOKENS_MULTIPLE
    starts = np.append(0, np.cumsum(lengths))
    ids = np.full(tokens, pad, dtype=np.int64)
    labels = np.full(tokens, IGNORED, dtype=np.int64)
    segments = np.zeros(tokens, dtype=np.int64)
    positions = np.zeros(tokens, dtype=np.int64)
    if len(sequences):
        ids[:used] = np.concatenate([s.ids for s in sequences])
        codes = np.concatenate([s.segments for s in sequences])
        positions[:used] = np.arange(used) - np.repeat(starts[:-1], lengths)
        # Position i predicts token i + 1 of its own sequence; the last one of each predicts nothing.
        inner = np.ones(used, dtype=bool)
        inner[starts[1:] - 1] = False
        inside = np.flatnonzero(inner)
        labels[inside] = ids[inside + 1]
        segments[inside] = codes[inside + 1]
    weights = np.asarray(loss_weights, dtype=np.float32)[segments]
    labels[weights == 0] = IGNORED
    weights[labels == IGNORED] = 0
    layout, place, shapes = _lay_out(lengths, starts)
    return {
        "input_ids": torch.from_numpy(ids)[None],
        "position_ids": torch.from_numpy(positions)[None],
        "layout": torch.from_numpy(layout),
        "place": torch.from_numpy(place),
        "shapes": shapes,
        # For the flash kernel what fills up the row is a sequence of its own.
        "cumulative": torch.from_numpy((starts if used == tokens else np.append(starts, tokens)).astype(np.int32)),
        "longest": -(-max(int(lengths.max(initial=0)), tokens - used) // 512) * 512,
        "labels": torch.from_numpy(labels),
        "weights": torch.from_numpy(weights),
        "segments": torch.from_numpy(segments),
        "used": used,
        "squares": int(lengths @ lengths),
    }


def _lay_out(lengths: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[tuple[int, int], ...]]:
    """Buckets of sequences side by side: the token at each place, the place of each token, the buckets' shapes.

    lengths  int64 [sequences], rising; starts [sequences + 1]
    """
    if not len(lengths):
        return np.zeros(LENGTH_MULTIPLE, np.int64), np.zeros(0, np.int64), ((1, LENGTH_MULTIPLE),)
    layouts, places, shapes = [], [], []
    first = before = 0
    for last in buckets(lengths.tolist()):
        longest = _rounded(int(lengths[last - 1]))
        within = np.arange(longest)
        part = lengths[first:last]
        layouts.append((starts[first:last, None] + np.minimum(within, part[:, None] - 1)).reshape(-1))
        own = np.arange(int(part.sum())) - np.repeat(starts[first:last] - starts[first], part)
        places.append(before + np.repeat(np.arange(len(part)) * longest, part) + own)
        shapes.append((len(part), longest))
        before += len(part) * longest
        first = last
    return np.concatenate(layouts), np.concatenate(places), tuple(shapes)


def buckets(lengths: Sequence[int]) -> list[int]:
    """Where to cut sequences of rising `lengths` into buckets for the least attention work: the ends of the buckets."""
    ends = [
        i + 1 for i in range(len(lengths)) if i + 1 == len(lengths) or _rounded(lengths[i + 1]) > _rounded(lengths[i])
    ]
    best: list[tuple[int, list[int]]] = [(0, [])]  # least cost of the sequences up to each possible end
    before = [0, *ends]
    for end in ends:
        square = _rounded(lengths[end - 1]) ** 2
        options = (
            (cost + (end - start) * square + _BUCKET_COST, cuts)
            for start, (cost, cuts) in zip(before, best, strict=False)
        )
        cost, cuts = min(options, key=lambda option: option[0])
        best.append((cost, [*cuts, end]))
    return best[-1][1]


def _rounded(length: int) -> int:
    return -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def step_weight(sequences: Sequence[TrainingSequence], loss_weights: Sequence[float]) -> float:
    """Sum of the loss weights of all predicted tokens of a step: what its summed loss is divided by.

    1 where nothing weighs anything, as in a step whose few sequences are all of a task that is not predicted: its loss
    is 0 then, and not 0/0.
    """
    counts = np.zeros(len(SEGMENTS) + 1)
    for sequence in sequences:
        counts += np.bincount(sequence.segments[1:], minlength=len(counts))
    return float(counts @ np.asarray(loss_weights)) or 1.0
