"""Batched CTC forced alignment: which frames of an utterance belong to which character, and so to which word.

Viterbi over the CTC lattice (Graves et al. 2006) of blank, c1, blank, c2, ..., blank; vectorised over
utterances and lattice states, with a loop over frames only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_IMPOSSIBLE = -1e30  # finite, so that impossible paths stay comparable and never give NaN


def forced_align(
    log_probs: torch.Tensor, frame_lengths: torch.Tensor, targets: Sequence[Sequence[int]], blank: int = 0
) -> tuple[list[np.ndarray], torch.Tensor]:
    """Most probable CTC path of each utterance that spells its target.

    log_probs      [batch, frames, characters], log-softmaxed
    frame_lengths  [batch] valid frames of each utterance
    targets        character ids of each utterance, without blanks
    Returns for each utterance an int array [frames] that holds the position in its target which the
    frame emits, or -1 for blank; and [batch] log-probabilities of the paths. Where a target needs more
    frames than there are (its characters, and a blank between equal neighbours) the array is empty and
    the log-probability -inf.
    """
    batch, num_frames, _ = log_probs.shape
    lengths = torch.tensor([len(t) for t in targets])
    states = 2 * int(lengths.max() if batch else 0) + 1
    labels = torch.full((batch, states), blank)
    for i, target in enumerate(targets):
        labels[i, 1 : 2 * len(target) : 2] = torch.as_tensor(target, dtype=torch.long)
    # A path may jump over the blank between two characters only when they differ.
    skip = torch.zeros(batch, states, dtype=torch.bool)
    skip[:, 3::2] = labels[:, 3::2] != labels[:, 1:-2:2]
    emissions = log_probs.float().gather(2, labels[:, None, :].expand(-1, num_frames, -1))  # [batch, frames, states]
    score, back = _viterbi(emissions, frame_lengths, skip)
    last = 2 * lengths  # the final blank; a path may also end one state earlier, on the last character
    rows = torch.arange(batch)
    before = (last - 1).clamp_min(0)
    state = torch.where((score[rows, before] > score[rows, last]) & (lengths > 0), before, last)
    best = score[rows, state]
    possible = best > _IMPOSSIBLE / 2
    path = _backtrace(back, frame_lengths, state)  # [batch, frames]
    positions = torch.where(path % 2 == 1, path // 2, -1).numpy()
    aligned = [positions[i, : int(n)] if possible[i] else positions[i, :0] for i, n in enumerate(frame_lengths)]
    return aligned, torch.where(possible, best, -torch.inf)


def _viterbi(emissions: torch.Tensor, lengths: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Best score per state at each utterance's last frame, and the step (0, 1 or 2 states) that led to each state."""
    batch, num_frames, states = emissions.shape
    back = torch.zeros(num_frames, batch, states, dtype=torch.uint8)
    padded = emissions.new_full((batch, states + 2), _IMPOSSIBLE)  # two impossible states to the left
    score = padded[:, 2:]
    score[:, : min(2, states)] = emissions[:, 0, :2]
    final = score.clone()
    no_skip = ~skip
    for t in range(1, num_frames):
        stay, step = padded[:, 2:], padded[:, 1:-1]
        jump = padded[:, :-2].masked_fill(no_skip, _IMPOSSIBLE)
        best, choice = torch.stack((stay, step, jump)).max(dim=0)
        back[t] = choice.to(torch.uint8)
        padded[:, 2:] = (best + emissions[:, t]).clamp_min(_IMPOSSIBLE)
        final = torch.where((lengths == t + 1)[:, None], padded[:, 2:], final)
    return final, back


def _backtrace(back: torch.Tensor, lengths: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    num_frames, batch, _ = back.shape
    path = torch.zeros(batch, num_frames, dtype=torch.long)
    rows = torch.arange(batch)
    for t in range(num_frames - 1, -1, -1):
        path[:, t] = state
        state = torch.where(t < lengths, state - back[t, rows, state].long(), state)
    return path


@dataclass(frozen=True)
class WordFrames:
    """Frames of each word of one utterance: [start, end), and how sure the alignment is (0 to 1)."""

    starts: np.ndarray  # int32 [words]
    ends: np.ndarray  # int32 [words]
    scores: np.ndarray  # float32 [words]


def word_frames(positions: np.ndarray, target: Sequence[int], log_probs: np.ndarray, delimiter: int) -> WordFrames:
    """Turn the character alignment of one utterance into word frames.

    positions  from `forced_align`; empty when there was no path
    target     character ids with `delimiter` between words
    log_probs  [frames, characters] of this utterance
    A word lasts from the first to the last frame that emits one of its characters. Its score is the
    geometric mean of the probabilities of its characters, each at its most probable frame. Where
    there was no path every word gets no frames and score 0.
    """
    characters = np.asarray(target)
    word_of = np.cumsum(characters == delimiter)
    words = int(word_of[-1]) + 1 if len(characters) else 0
    if len(positions) == 0:
        return WordFrames(np.zeros(words, np.int32), np.zeros(words, np.int32), np.zeros(words, np.float32))
    frames = np.flatnonzero(positions >= 0)
    at = positions[frames]
    best = np.full(len(characters), -np.inf)
    np.maximum.at(best, at, log_probs[frames, characters[at]])
    first = np.full(len(characters), len(positions))
    last = np.zeros(len(characters), dtype=np.int64)
    np.minimum.at(first, at, frames)
    np.maximum.at(last, at, frames)
    spoken = characters != delimiter
    begin = np.searchsorted(word_of[spoken], np.arange(words))
    count = np.maximum(np.diff(np.append(begin, spoken.sum())), 1)
    return WordFrames(
        np.minimum.reduceat(first[spoken], begin).astype(np.int32),
        (np.maximum.reduceat(last[spoken], begin) + 1).astype(np.int32),
        np.exp(np.add.reduceat(best[spoken], begin) / count).astype(np.float32),
    )
