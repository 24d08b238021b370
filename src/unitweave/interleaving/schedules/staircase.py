"""The paper's schedule: down by a decrement after each stair."""

import math

from unitweave.interleaving.schedules import Schedule


class Staircase(Schedule):
    """`start`, less `decrement` after every `stair_steps`, and never below 0."""

    stepwise = True

    def __call__(self, step: int) -> float:
        # Rounded, so that 0.9 - 9 * 0.1 is 0 and not 1e-16; and a stair begins at step k * stair exactly.
        stairs = math.floor(step / self.settings.stair_steps + 1e-9)
        return max(0.0, round(self.settings.start - self.settings.decrement * stairs, 9))

    @property
    def last_change(self) -> float:
        """Where the last stair begins, at a ratio of 0."""
        return math.ceil(self.settings.start / self.settings.decrement - 1e-9) * self.settings.stair_steps
