"""Quality of units: how well they predict the characters of the CTC alignment in their frames.

Purity and normalized mutual information are those of HuBERT (Hsu et al. 2021, section IV-F), with
characters from our own CTC alignment in the place of phones from a GMM-HMM.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unitweave.units.align import align_all
from unitweave.units.encoder import CharacterVocabulary

NO_CHARACTER = -1  # a frame that belongs to no character: before, after and between words, or without a transcript


@dataclass(frozen=True)
class Agreement:
    """Agreement of units with characters, over the frames that have a character.

    Attributes:
        purity: Fraction of frames whose character is the most frequent one of their unit; grows with the number of
            units.
        normalized_mutual_information: Mutual information of units and characters as a fraction of the characters'
            entropy, 0 to 1.
    """

    purity: float
    normalized_mutual_information: float

    @classmethod
    def of(cls, units: torch.Tensor, characters: torch.Tensor) -> "Agreement":
        """From int64 [frames] of units and of characters (which may be longer; the first frames count)."""
        characters = characters[: len(units)]
        labeled = characters != NO_CHARACTER
        if not labeled.any():
            return cls(0.0, 0.0)
        units, characters = units[labeled], characters[labeled]
        classes = int(characters.max()) + 1
        joint = torch.bincount(units * classes + characters, minlength=(int(units.max()) + 1) * classes)
        joint = joint.view(-1, classes).double() / len(units)  # [units, characters]
        by_unit, by_character = joint.sum(1, keepdim=True), joint.sum(0)
        ratio = joint / (by_unit * by_character)
        shared = torch.where(joint > 0, joint * ratio.log(), 0.0).sum()
        present = by_character[by_character > 0]
        entropy = -(present * present.log()).sum()
        return cls(float(joint.max(1).values.sum()), float(shared / entropy) if entropy > 0 else 0.0)


def frame_characters(
    log_probs: Sequence[np.ndarray], texts: Sequence[str | None], vocabulary: CharacterVocabulary, squeeze: int = 1
) -> np.ndarray:
    """Character of each frame of several recordings, one after the other: int64 [frames], or NO_CHARACTER.

    CTC emits a character in one or two frames and blanks around them. Within a word a blank frame counts
    for the nearest character. Of `squeeze` CTC frames per frame of the hidden states the first one counts.
    """
    targets = [vocabulary.encode(text) if text else [] for text in texts]
    aligned, _ = align_all(log_probs, targets, vocabulary.blank)
    rows = [np.full(len(frames), NO_CHARACTER) for frames in log_probs]
    for row, positions, target in zip(rows, aligned, targets, strict=True):
        emitting = np.flatnonzero(positions >= 0)
        if len(emitting) == 0:
            continue
        characters = np.asarray(target)[positions[emitting]]
        inside = np.arange(emitting[0], emitting[-1] + 1)
        after = np.searchsorted(emitting, inside)  # the emission at or after each frame
        before = np.maximum(after - (emitting[after] != inside), 0)
        nearest = np.where(inside - emitting[before] <= emitting[after] - inside, before, after)
        edge = (characters[before] == vocabulary.delimiter) | (characters[after] == vocabulary.delimiter)
        row[inside] = np.where(edge, NO_CHARACTER, characters[nearest])
    rows = [row[: len(row) // squeeze * squeeze : squeeze] for row in rows]
    return np.concatenate(rows) if rows else np.empty(0, np.int64)
