"""Shapes of the schedule, each a file of its own: `staircase.py` has the class `Staircase`."""

from unitweave.config.interleave import ScheduleSettings


class Schedule:
    """The text ratio as a function of the optimizer step, counted from 0. A shape derives from this.

    Attributes:
        settings: The schedule; its positions are steps, whatever the unit in the recipe.
        total_steps: Optimizer steps of the training.
        stepwise: Whether the ratio stays the same for many steps at a time; plans round a smooth one.
    """

    stepwise = False

    def __init__(self, settings: ScheduleSettings, total_steps: int) -> None:
        self.settings, self.total_steps = settings, total_steps

    def __call__(self, step: int) -> float:
        """The text ratio at a step, 0 to 1."""
        raise NotImplementedError

    @property
    def last_change(self) -> float:
        """The step from which on the ratio no longer changes."""
        return self.settings.end
