"""The step-exact batch stream: what an optimiser step sees is a pure function of (seed, data, step).

Workers, processes, gradient accumulation and restarts decide only who computes which part of a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from unitweave.core.errors import InputError
from unitweave.lm.packing import pack, split_step, step_weight
from unitweave.weave.sequence import TASKS, Example, Markers, WeaveSettings, Woven, weave


class StepSource(Protocol):
    """Anything that says which sequences an optimiser step trains on."""

    def sequences(self, step: int) -> list[Woven]:
        """All sequences of `step`, over all processes, in a fixed order."""
        ...


class Order:
    """An endless order of utterances: epochs, each a permutation drawn from (seed, epoch).

    With a temperature above 1 small groups (language pairs) come up more often: an epoch draws from
    each group in proportion to its size to the power 1 / temperature, going round within the group.
    """

    def __init__(self, groups: Sequence[Sequence[int]], seed: int, temperature: float = 1.0) -> None:
        if not any(groups):
            raise InputError("there is no utterance to train on")
        if temperature <= 0:
            raise InputError(f"temperature {temperature} must be above 0")
        self.groups = [np.asarray(group) for group in groups if len(group)]
        self.seed = seed
        sizes = np.array([len(group) for group in self.groups], dtype=float)
        share = sizes ** (1 / temperature)
        self.quotas = np.maximum(1, np.round(share / share.sum() * sizes.sum())).astype(int)
        self.epoch_size = int(self.quotas.sum())
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._round = lru_cache(maxsize=4 * len(self.groups))(self._make_round)

    def __getitem__(self, position: int) -> int:
        """The utterance at `position` of the endless order."""
        epoch, at = divmod(position, self.epoch_size)
        return int(self._epoch(epoch)[at])

    def _make_epoch(self, epoch: int) -> np.ndarray:
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


@dataclass
class SpeechSource:
    """Woven sequences of utterance pairs; the text ratio follows from the step itself."""

    examples: Sequence[Example]
    order: Order
    batch: int  # utterance pairs per optimiser step
    ratio: Callable[[int], float]
    weave: WeaveSettings
    markers: Markers
    tasks: dict[str, float] = field(default_factory=lambda: {"s2st": 1.0})
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.tasks) - set(TASKS)
        if unknown:
            raise InputError(f"tasks has the unknown task {min(unknown)!r}; known are {', '.join(TASKS)}")
        if not self.tasks or min(self.tasks.values()) < 0 or sum(self.tasks.values()) <= 0:
            raise InputError("tasks needs at least one task with a weight above 0")

    def sequences(self, step: int) -> list[Woven]:
        """The woven sequences of an optimiser step."""
        ratio = self.ratio(step)
        names, weights = list(self.tasks), list(self.tasks.values())
        woven = []
        for position in range(step * self.batch, (step + 1) * self.batch):
            rng = Random((self.seed << 64) + position)
            task = names[0] if len(names) == 1 else rng.choices(names, weights)[0]
            woven.append(weave(self.examples[self.order[position]], task, ratio, self.weave, self.markers, rng))
        return woven


class StepDataset(Dataset):
    """Micro-batches of one process, numbered over the whole run: `accumulation` of them make an optimiser step."""

    def __init__(
        self,
        source: StepSource,
        steps: int,
        loss_weights: Sequence[float],
        accumulation: int = 1,
        rank: int = 0,
        processes: int = 1,
        first_step: int = 0,
    ) -> None:
        self.source, self.steps, self.loss_weights = source, steps, list(loss_weights)
        self.accumulation, self.rank, self.processes, self.first_step = accumulation, rank, processes, first_step

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Packed micro-batch; `step_weight` is the loss weight of the whole step, over all processes."""
        step, turn = divmod(index, self.accumulation)
        sequences = self.source.sequences(self.first_step + step)
        parts = split_step(sequences, self.accumulation * self.processes)
        mine = parts[turn * self.processes + self.rank]
        batch = pack([sequences[i] for i in mine], self.loss_weights)
        batch["step_weight"] = torch.tensor(step_weight(sequences, self.loss_weights))
        return batch
