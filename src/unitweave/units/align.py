"""Batched CTC forced alignment: which frames of an utterance belong to which character, and so to which word.

Viterbi over the CTC lattice (Graves et al. 2006) of blank, c1, blank, c2, ..., blank; vectorised over
utterances and lattice states, with a loop over frames only. It only ever adds, compares and takes the
larger, element by element, so an utterance's path does not depend on the others in the batch.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_IMPOSSIBLE = np.float32(-1e30)  # finite, so that impossible paths stay comparable and never give NaN
_CELLS = 16_000_000  # lattice cells (4 bytes each) in memory at once


def forced_align(
    log_probs: torch.Tensor, frame_lengths: torch.Tensor, targets: Sequence[Sequence[int]], blank: int = 0
) -> tuple[list[np.ndarray], torch.Tensor]:
    """Most probable CTC path of each utterance that spells its target.

    Args:
        log_probs: float [batch, frames, characters], log-softmaxed.
        frame_lengths: [batch] valid frames of each utterance.
        targets: Character ids of each utterance, without blanks.
        blank: Id of the blank.

    Returns:
        For each utterance an int array [frames] with the position in its target that the frame emits, or -1 for
        blank; and [batch] log-probabilities of the paths. Where a target needs more frames than there are (its
        characters, and a blank between equal neighbors) the array is empty and the log-probability -inf.
    """
    probs = log_probs.float().numpy(force=True)
    return align_all([row[: int(n)] for row, n in zip(probs, frame_lengths, strict=True)], targets, blank)


def align_all(
    log_probs: Sequence[np.ndarray], targets: Sequence[Sequence[int]], blank: int = 0
) -> tuple[list[np.ndarray], torch.Tensor]:
    """As `forced_align`, from float32 [frames, characters] of each utterance without padding."""
    aligned: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    first = 0
    while first < len(log_probs):
        last = _group_end(log_probs, targets, first)
        positions, best = _align(log_probs[first:last], [np.asarray(t, np.intp) for t in targets[first:last]], blank)
        aligned += positions
        scores.append(best)
        first = last
    return aligned, torch.from_numpy(np.concatenate(scores) if scores else np.empty(0, np.float32))


def _group_end(log_probs: Sequence[np.ndarray], targets: Sequence[Sequence[int]], first: int) -> int:
    """How far a group of utterances reaches whose lattices fit into memory together."""
    frames = width = 0
    for i in range(first, len(log_probs)):
        frames, width = max(frames, len(log_probs[i])), max(width, len(targets[i]) + 1)
        if i > first and (i + 1 - first) * frames * 2 * width > _CELLS:
            return i
    return len(log_probs)


def _align(
    log_probs: Sequence[np.ndarray], targets: Sequence[np.ndarray], blank: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Paths and scores of a group.

    Scores are kept relative to the path of blanks alone, so that a blank costs nothing, and all
    utterances end on the last row: the rows before an utterance's first frame are blanks like others.
    Column k of `blanks` is the blank after k characters, column k of `labels` the k-th character.
    """
    lengths = np.array([len(row) for row in log_probs])
    counts = np.array([len(target) for target in targets])
    batch, num_rows, width = len(lengths), int(lengths.max()) + 1, int(counts.max()) + 1
    lattice = np.empty((num_rows, 2, batch, width), np.float32)
    blanks, labels = lattice[:, 0], lattice[:, 1]
    blanks[0] = labels[:] = _IMPOSSIBLE
    blanks[0, :, 0] = 0
    skip = np.full((batch, width), _IMPOSSIBLE)
    blank_path = np.zeros(batch)
    for i, (row, target) in enumerate(zip(log_probs, targets, strict=True)):
        silent = row[:, blank]
        labels[num_rows - len(row) :, i, 1 : len(target) + 1] = (row - silent[:, None]).take(target, axis=1)
        blank_path[i] = silent.sum(dtype=np.float64)
        # A path may go from one character to the next without a blank only when they differ.
        skip[i, 2 : len(target) + 1][target[1:] != target[:-1]] = 0
    _accumulate(lattice.reshape(num_rows, 2, -1), skip.reshape(-1))
    rows = np.arange(batch)
    on_blank, on_label = blanks[-1, rows, counts], labels[-1, rows, counts]
    best = np.maximum(on_blank, on_label)
    possible = best > _IMPOSSIBLE / 2
    end = rows * width + counts + np.where(on_label > on_blank, batch * width, 0)
    states = _backtrace(lattice.reshape(num_rows, -1), skip.reshape(-1), end)
    positions = np.where(states < batch * width, -1, (states - 1) % width)
    firsts = np.where(possible, num_rows - lengths, num_rows)
    return [positions[first:, i] for i, first in enumerate(firsts)], np.where(
        possible, best + blank_path, -np.inf
    ).astype(np.float32)


def _accumulate(lattice: np.ndarray, skip: np.ndarray) -> None:
    """Turn emissions [frames, 2, batch * width] into scores of the best paths that end in each state, in place.

    All utterances' states lie in one row. What reaches over from the utterance before lands on column 0
    of `labels`, where the emission is impossible.
    """
    best, jump = np.empty(lattice.shape[2] - 1, np.float32), np.empty(lattice.shape[2] - 1, np.float32)
    barrier = skip[1:]
    for (blanks, labels), (new_blanks, new_labels) in itertools.pairwise(lattice):
        np.maximum(blanks, labels, out=new_blanks)
        np.maximum(labels[1:], blanks[:-1], out=best)
        np.add(labels[:-1], barrier, out=jump)
        np.maximum(best, jump, out=best)
        new_labels[1:] += best


def _backtrace(lattice: np.ndarray, skip: np.ndarray, state: np.ndarray) -> np.ndarray:
    """States of the best paths [frames, batch], as columns of `lattice`, from the states that they end in."""
    half = len(skip)
    columns = np.arange(half)
    # Where a state can be reached from beside itself: a blank from its character, a character from the
    # blank before it or, if that is allowed, from the character before it.
    step_from = np.concatenate([columns + half, columns - 1])
    jump_from = np.concatenate([columns, columns + half - 1])
    barrier = np.concatenate([np.full_like(skip, _IMPOSSIBLE), skip])
    path = np.empty((len(lattice), len(state)), np.intp)
    path[-1] = state
    for t in range(len(lattice) - 1, 0, -1):
        before = lattice[t - 1]
        one, two = step_from.take(state), jump_from.take(state)
        stay, step = before.take(state), before.take(one)
        jump = before.take(two)
        jump += barrier.take(state)
        # Of equal paths the one that stays longest.
        state = np.where(jump > np.maximum(stay, step), two, np.where(step > stay, one, state))
        path[t - 1] = state
    return path


@dataclass(frozen=True)
class WordFrames:
    """Frames of each word of one utterance: [start, end), and how sure the alignment is (0 to 1)."""

    starts: np.ndarray  # int32 [words]
    ends: np.ndarray  # int32 [words]
    scores: np.ndarray  # float32 [words]

    def squeezed(self, squeeze: int, frames: int) -> "WordFrames":
        """The same words in `frames` frames that are `squeeze` times as long, of which an odd last one is dropped.

        Words stay apart: at least one frame, the delimiter's, lies between two of them. A word of which nothing is
        left gets the score 0.
        """
        if squeeze == 1:
            return self
        ends = np.minimum(-(-self.ends // squeeze), frames)
        starts = np.minimum(self.starts // squeeze, ends)
        return WordFrames(starts, ends, np.where(ends > starts, self.scores, np.float32(0)))


def utterance_score(words: Sequence[str], scores: np.ndarray) -> float:
    """How well a text fits a recording: the geometric mean of its characters' probabilities, from its words' scores."""
    lengths = np.array([len(word) for word in words], dtype=float)
    if not lengths.sum():
        return 0.0
    return float(np.exp((lengths * np.log(np.maximum(scores, 1e-6))).sum() / lengths.sum()))


def word_frames(positions: np.ndarray, target: Sequence[int], log_probs: np.ndarray, delimiter: int) -> WordFrames:
    """Turn the character alignment of one utterance into word frames.

    A word lasts from the first to the last frame that emits one of its characters. Its score is the geometric mean of
    the probabilities of its characters, each at its most probable frame. Where there was no path every word gets no
    frames and score 0.

    Args:
        positions: int [frames] from `forced_align`; empty when there was no path.
        target: Character ids with `delimiter` between words.
        log_probs: float32 [frames, characters] of this utterance.
        delimiter: Character id between words.
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
