"""From the interleaved sequences of a step to packed micro-batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unitweave.interleaving.sequence import SEGMENTS, TrainingSequence

TOKENS_MULTIPLE = 256  # packed rows come in few lengths, so that oneDNN does not compile a kernel for each
LENGTH_MULTIPLE = 32
IGNORED = -100
_BUCKET_COST = 20_000  # overhead of one more bucket, in squared tokens of attention


class BucketShapes:
    """The shapes of a packed row's buckets, (sequences, length) each.

    Not a plain tuple: torch.compile would compile the layers anew for every number of buckets.
    """

    def __init__(self, *shapes: tuple[int, int]) -> None:
        self.shapes = shapes


def split_step(sequences: Sequence[TrainingSequence], parts: int) -> list[list[int]]:
    """Split a step's sequences into micro-batches of about equal token counts and similar lengths.

    Args:
        sequences: The sequences of one optimizer step.
        parts: Number of micro-batches.

    Returns:
        Indices into `sequences` for each part, each index exactly once. They depend on nothing but the lengths.
    """
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i].ids), i))
    total = sum(len(s.ids) for s in sequences)
    result: list[list[int]] = [[] for _ in range(parts)]
    before = 0
    for i in order:
        length = len(sequences[i].ids)
        # The part in whose share of all tokens the middle of this sequence falls.
        result[min(parts - 1, int((before + length / 2) * parts / max(total, 1)))].append(i)
        before += length
    return result


def split_to_budget(sequences: Sequence[TrainingSequence], parts: int, budget: int | None) -> list[list[list[int]]]:
    """Like `split_step`, each part split into equally many forward passes of at most `budget` tokens.

    All parts have the same number of passes, since the processes synchronize in each of them. A single sequence
    longer than the budget becomes a pass of its own; the others are not split further because of it.
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

    The row is filled up to a multiple of TOKENS_MULTIPLE with tokens that count for nothing.

    Args:
        sequences: The sequences of one forward pass.
        loss_weights: Weight of each segment code (0: none, then source, transcript, translation, target).
        pad: Token id that fills up the row.

    Returns:
        input_ids and position_ids, [1, tokens]; gather_index, scatter_index and bucket_shapes, or else cu_seqlens and
        max_seqlen, for `packed_attention`; labels, weights and segments, [tokens], of the token that each position
        predicts; num_tokens, without what fills up the row; and sum_squared_lengths of the sequences.
    """
    # Rising lengths: neighbors in the row make up the buckets.
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
        ids[:used] = np.concatenate([s.ids if s.inputs is None else s.inputs for s in sequences])
        predicted = np.concatenate([s.ids for s in sequences])
        codes = np.concatenate([s.segments for s in sequences])
        positions[:used] = np.arange(used) - np.repeat(starts[:-1], lengths)
        # Position i predicts token i + 1 of its own sequence; the last one of each predicts nothing. Labels are
        # shifted here and not in the model, which does not know where sequences end.
        inner = np.ones(used, dtype=bool)
        inner[starts[1:] - 1] = False
        inside = np.flatnonzero(inner)
        labels[inside] = predicted[inside + 1]
        segments[inside] = codes[inside + 1]
    weights = np.asarray(loss_weights, dtype=np.float32)[segments]
    labels[weights == 0] = IGNORED
    weights[labels == IGNORED] = 0
    gather_index, scatter_index, bucket_shapes = _bucket_index(lengths, starts)
    # For the flash kernel the filling is a sequence of its own, so that no real token attends to it.
    cu_seqlens = starts if used == tokens else np.append(starts, tokens)
    max_seqlen = max(int(lengths.max(initial=0)), tokens - used)
    return {
        "input_ids": torch.from_numpy(ids)[None],
        "position_ids": torch.from_numpy(positions)[None],
        "gather_index": torch.from_numpy(gather_index),
        "scatter_index": torch.from_numpy(scatter_index),
        "bucket_shapes": BucketShapes(*bucket_shapes),
        "cu_seqlens": torch.from_numpy(cu_seqlens.astype(np.int32)),
        "max_seqlen": -(-max_seqlen // 512) * 512,  # rounded, so that the kernel sees few different ones
        "labels": torch.from_numpy(labels),
        "weights": torch.from_numpy(weights),
        "segments": torch.from_numpy(segments),
        "num_tokens": used,
        "sum_squared_lengths": int(lengths @ lengths),
    }


def _bucket_index(
    lengths: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[int, int], ...]]:
    """Index arrays between the packed row and its buckets, which lie one after the other, [sequences, length] each.

    Args:
        lengths: int64 [sequences], rising.
        starts: int64 [sequences + 1], where each sequence begins in the row.

    Returns:
        The token in each slot (gather index), the slot of each token (scatter index), and the buckets' shapes.
    """
    if not len(lengths):
        return np.zeros(LENGTH_MULTIPLE, np.int64), np.zeros(0, np.int64), ((1, LENGTH_MULTIPLE),)
    gather, scatter, shapes = [], [], []
    first = slots = 0
    for last in buckets(lengths.tolist()):
        length = _rounded(int(lengths[last - 1]))
        part = lengths[first:last]
        # Slots behind a sequence repeat its last token: some token must stand there, and causal attention hides it.
        within = np.minimum(np.arange(length), part[:, None] - 1)
        gather.append((starts[first:last, None] + within).reshape(-1))
        # Sequence n of the bucket begins at slot n * length; its tokens follow each other.
        offset = np.arange(int(part.sum())) - np.repeat(starts[first:last] - starts[first], part)
        scatter.append(slots + np.repeat(np.arange(len(part)) * length, part) + offset)
        shapes.append((len(part), length))
        slots += len(part) * length
        first = last
    return np.concatenate(gather), np.concatenate(scatter), tuple(shapes)


def buckets(lengths: Sequence[int]) -> list[int]:
    """Split sequences of rising lengths into the buckets that take the least attention work.

    Returns:
        The end of each bucket, an index into `lengths`.
    """
    # Only between two different rounded lengths can a cut save anything.
    ends = [
        i + 1 for i in range(len(lengths)) if i + 1 == len(lengths) or _rounded(lengths[i + 1]) > _rounded(lengths[i])
    ]
    # Dynamic programming over the possible ends: the least cost of all sequences before each, and its cuts.
    best: list[tuple[int, list[int]]] = [(0, [])]
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

    It is 1 where no token has a weight, as in a step whose few sequences all belong to a task that is not predicted:
    the loss is 0 then, and not 0/0.
    """
    segments = np.concatenate([np.zeros(0, np.uint8), *(sequence.segments[1:] for sequence in sequences)])
    counts = np.bincount(segments, minlength=len(SEGMENTS) + 1)
    return float(counts @ np.asarray(loss_weights)) or 1.0
