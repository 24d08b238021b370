"""From the woven sequences of a step to packed micro-batches."""

from collections.abc import Sequence

import numpy as np
import torch

from unitweave.weave.sequence import SEGMENTS, Woven

TOKENS_MULTIPLE = 256  # packed rows come in few lengths, so that oneDNN does not compile a kernel for each
LENGTH_MULTIPLE = 32
IGNORED = -100


def split_step(sequences: Sequence[Woven], parts: int) -> list[list[int]]:
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


def pack(sequences: Sequence[Woven], loss_weights: Sequence[float], pad: int = 0) -> dict[str, torch.Tensor]:
    """Pack sequences into one row.

    loss_weights  weight of each segment code (0: none, then source, transcript, translation, target)
    Returns input_ids, position_ids [1, tokens], layout [sequences, longest] and place [tokens] for
    `packed_attention`, and labels [tokens], weights [tokens], segments [tokens] of the next token at
    each position. The row is filled up to a multiple of TOKENS_MULTIPLE with tokens that count for nothing.
    """
    lengths = np.array([len(s.ids) for s in sequences], dtype=np.int64)
    used = int(lengths.sum())
    tokens = max(1, -(-used // TOKENS_MULTIPLE)) * TOKENS_MULTIPLE
    longest = max(1, -(-int(lengths.max(initial=1)) // LENGTH_MULTIPLE)) * LENGTH_MULTIPLE
    starts = np.append(0, np.cumsum(lengths))[:-1]
    ids = np.full(tokens, pad, dtype=np.int64)
    labels = np.full(tokens, IGNORED, dtype=np.int64)
    segments = np.zeros(tokens, dtype=np.int64)
    positions = np.zeros(tokens, dtype=np.int64)
    if len(sequences):
        ids[:used] = np.concatenate([s.ids for s in sequences])
        codes = np.concatenate([s.segments for s in sequences])
        positions[:used] = np.arange(used) - np.repeat(starts, lengths)
        # Position i predicts token i + 1 of its own sequence; the last one of each predicts nothing.
        inner = np.ones(used, dtype=bool)
        inner[starts + lengths - 1] = False
        inside = np.flatnonzero(inner)
        labels[inside] = ids[inside + 1]
        segments[inside] = codes[inside + 1]
    weights = np.asarray(loss_weights, dtype=np.float32)[segments]
    labels[weights == 0] = IGNORED
    at = np.arange(longest)
    layout = np.minimum(starts[:, None] + at, max(used - 1, 0)) if len(sequences) else np.zeros((1, longest), np.int64)
    place = np.zeros(tokens, dtype=np.int64)
    place[:used] = positions[:used] + np.repeat(np.arange(len(sequences)) * longest, lengths)
    return {
        "input_ids": torch.from_numpy(ids)[None],
        "position_ids": torch.from_numpy(positions)[None],
        "layout": torch.from_numpy(layout),
        "place": torch.from_numpy(place),
        "labels": torch.from_numpy(labels),
        "weights": torch.from_numpy(weights),
        "segments": torch.from_numpy(segments),
        "used": torch.tensor(used),
    }


def step_weight(sequences: Sequence[Woven], loss_weights: Sequence[float]) -> float:
    """Sum of the loss weights of all predicted tokens of a step: what its summed loss is divided by."""
    counts = np.zeros(len(SEGMENTS) + 1)
    for sequence in sequences:
        counts += np.bincount(sequence.segments[1:], minlength=len(counts))
    return float(counts @ np.asarray(loss_weights))
