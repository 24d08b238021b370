"""Down whenever the dev loss on pure units stops falling."""

import itertools

from unitweave.config.interleave import ScheduleSettings
from unitweave.interleaving.schedules import Schedule


class Adaptive(Schedule):
    """A text ratio that falls by a decrement whenever the dev loss on pure units stops falling.

    Where it no longer helps the model with units, more text is no use. The ratio is a pure function of the step and of
    the losses observed before it: a training that resumes observes the logged ones again, and goes on as it would have.
    Without any it falls along a line to 0 at `end`, above which it never is.

    Attributes:
        every: Optimizer steps between two evaluations of the dev loss.
        losses: Steps done -> the dev loss then.
    """

    def __init__(self, settings: ScheduleSettings, total_steps: int) -> None:
        super().__init__(settings, total_steps)
        self.every = max(1, round(settings.stair_steps))
        self.losses: dict[int, float] = {}

    def observe(self, steps: int, loss: float) -> None:
        """Take in the dev loss after so many steps."""
        self.losses[steps] = loss

    def __call__(self, step: int) -> float:
        """The ratio at a step. An evaluation counts from one step later on: the next batch is made before it."""
        start, decrement = self.settings.start, self.settings.decrement
        seen = [self.losses[at] for at in sorted(self.losses) if at < step]
        keeps_falling = 1 - self.settings.min_improvement
        falls = sum(after > before * keeps_falling for before, after in itertools.pairwise(seen))
        return max(0.0, round(min(start - decrement * falls, start * (1 - step / self.settings.end)), 9))
