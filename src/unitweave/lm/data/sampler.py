"""The order in which utterances are trained on."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from unitweave.core.errors import InputError


class UtteranceSampler:
    """An endless order of utterances: epochs, each a permutation drawn from (seed, epoch).

    With a temperature above 1 small groups (language pairs) are sampled more often: an epoch draws from each group in
    proportion to its size to the power 1 / temperature. Within a group every utterance is drawn once before any is
    drawn again, also across epochs.
    """

    def __init__(self, groups: Sequence[Sequence[int] | np.ndarray], seed: int, temperature: float = 1.0) -> None:
        if not any(len(group) for group in groups):
            raise InputError("there are no utterances to train on")
        if temperature <= 0:
            raise InputError(f"temperature {temperature} must be above 0")
        self.groups = [np.asarray(group) for group in groups if len(group)]
        self.seed = seed
        sizes = np.array([len(group) for group in self.groups], dtype=float)
        weights = sizes ** (1 / temperature)
        # Utterances of each group in an epoch; at temperature 1 these are the groups' sizes.
        self.quotas = np.maximum(1, np.round(weights / weights.sum() * sizes.sum())).astype(int)
        self.epoch_size = int(self.quotas.sum())
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._round = lru_cache(maxsize=4 * len(self.groups))(self._make_round)

    def __getitem__(self, position: int) -> int:
        """The utterance at `position` of the endless order."""
        epoch, at = divmod(position, self.epoch_size)
        return int(self._epoch(epoch)[at])

    def _make_epoch(self, epoch: int) -> np.ndarray:
        # Each group goes through endless rounds, permutations of its own; an epoch takes the next `quota` of them.
        chosen = []
        for number, quota in enumerate(self.quotas.tolist()):
            drawn = []
            start, end = epoch * quota, (epoch + 1) * quota
            size = len(self.groups[number])
            while start < end:
                turn, at = divmod(start, size)
                part = self._round(number, turn)[at : at + end - start]
                drawn.append(part)
                start += len(part)
            chosen += drawn
        return _generator(self.seed, 1, epoch).permutation(np.concatenate(chosen))

    def _make_round(self, group: int, turn: int) -> np.ndarray:
        return _generator(self.seed, 2, group, turn).permutation(self.groups[group])


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
