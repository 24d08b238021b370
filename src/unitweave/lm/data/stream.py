"""The step-exact batch stream: what an optimizer step sees is a pure function of (seed, data, step).

Workers, processes, gradient accumulation and restarts decide only who computes which part of a step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from torch.utils.data import Dataset

from unitweave.config.interleave import InterleaveSettings, SpeechSegment, Task
from unitweave.interleaving.noise import add_unit_noise
from unitweave.interleaving.prefixes import draw_prefix
from unitweave.interleaving.schedule import utterance_ratio
from unitweave.interleaving.sequence import (
    Example,
    Markers,
    TrainingSequence,
    draw_sequence,
    has_segments,
    join_pieces,
)
from unitweave.lm.data.packing import pack, split_to_budget, step_weight
from unitweave.lm.data.sampler import UtteranceSampler


class SequenceDataset(Protocol):
    """Anything that says which sequences an optimizer step trains on."""

    def sequences(self, step: int) -> list[TrainingSequence]:
        """All sequences of `step`, over all processes, in a fixed order."""
        ...


@dataclass
class FixedSequences:
    """The same sequences at every step."""

    chosen: Sequence[TrainingSequence]

    def sequences(self, step: int) -> list[TrainingSequence]:
        """All of them."""
        return list(self.chosen)


@dataclass
class InterleavedDataset:
    """Interleaved sequences of utterance pairs; the text ratio follows from the step itself."""

    examples: Sequence[Example]
    sampler: UtteranceSampler
    batch_size: int  # utterance pairs per optimizer step
    ratio: Callable[[int], float]
    interleave: InterleaveSettings
    markers: Markers
    tasks: dict[Task, float] = field(default_factory=lambda: {"s2st": 1.0})
    seed: int = 0
    extra: Sequence[Example] = ()  # sentence pairs without speech, for the task mt
    extra_sampler: UtteranceSampler | None = None
    extra_ratio: float = 0.0  # fraction of the drawn examples that come from `extra`
    max_tokens: int | None = None  # longer sequences are cut
    spread: float = 0.0  # of the utterances' ratios around the step's
    unit_noise: Mapping[SpeechSegment, float] = field(default_factory=dict)  # fraction of the units read as others
    units: range = range(0)  # token ids of the units

    def sequences(self, step: int) -> list[TrainingSequence]:
        """The interleaved sequences of an optimizer step."""
        ratio = self.ratio(step)
        tasks = [name for name, weight in self.tasks.items() if weight > 0]
        drawn = []
        rng = Random(0)
        seed = super(Random, rng).seed  # that of integers, without a look at what it is given
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            # Seeded for each position: what it draws depends on no other utterance, process or worker.
            seed((self.seed << 64) + position)
            example, task = self._draw(position, tasks, rng)
            example = draw_prefix(example, self.interleave, rng)
            drawn_ratio = utterance_ratio(ratio, self.spread, rng)
            drawn.append(draw_sequence(example, task, drawn_ratio, self.interleave, self.markers, rng))
        limit = self.max_tokens
        made = [
            sequence
            if limit is None or len(sequence.ids) <= limit
            else sequence._replace(ids=sequence.ids[:limit], segments=sequence.segments[:limit])
            for sequence in join_pieces(drawn)
        ]
        return add_unit_noise(made, self.unit_noise, self.units, (self.seed, step))

    def _draw(self, position: int, tasks: Sequence[Task], rng: Random) -> tuple[Example, str]:
        """The example at a position of the endless stream, and which of the tasks to train on it."""
        if self.extra_sampler is not None:
            # Evenly mixed in: after n examples, n * extra_ratio of them (rounded down) were extra text.
            before = int(position * self.extra_ratio)
            if int((position + 1) * self.extra_ratio) > before:
                return self.extra[self.extra_sampler[before]], "mt"
            position -= before
        example = self.examples[self.sampler[position]]
        names = [name for name in tasks if has_segments(example, name)] if len(tasks) > 1 else tasks
        if len(names) == 1:
            return example, names[0]
        return example, rng.choices(names, [self.tasks[name] for name in names])[0]


class PackedDataset(Dataset):
    """Micro-batches of one process, numbered over the whole run: `accumulation` of them make an optimizer step."""

    def __init__(
        self,
        dataset: SequenceDataset,
        steps: int,
        loss_weights: Sequence[float],
        accumulation: int = 1,
        rank: int = 0,
        processes: int = 1,
        first_step: int = 0,
        max_tokens_per_forward: int | None = None,
    ) -> None:
        self.dataset, self.steps, self.loss_weights = dataset, steps, list(loss_weights)
        self.accumulation, self.rank, self.processes, self.first_step = accumulation, rank, processes, first_step
        self.max_tokens_per_forward = max_tokens_per_forward

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def __getitem__(self, index: int) -> dict[str, list[dict[str, Any]]]:
        """The packed forward passes of a micro-batch.

        Each process makes the whole step's sequences and packs its own part: which part a sequence falls into depends
        on all of them. `step_weight` is the loss weight of the whole step, `realized_ratio` the fraction of its words
        that stand as text.
        """
        step, micro_batch = divmod(index, self.accumulation)
        sequences = self.dataset.sequences(self.first_step + step)
        parts = split_to_budget(sequences, self.accumulation * self.processes, self.max_tokens_per_forward)
        words = sum(sequence.words for sequence in sequences)
        of_step = {
            "step_weight": step_weight(sequences, self.loss_weights),
            "realized_ratio": sum(sequence.replaced for sequence in sequences) / max(1, words),
        }
        mine = parts[micro_batch * self.processes + self.rank]
        packed = [pack([sequences[i] for i in piece], self.loss_weights) for piece in mine]
        return {"passes": [batch | of_step for batch in packed]}
