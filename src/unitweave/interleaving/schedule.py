"""How much of the speech is text at each optimizer step."""

import itertools
import math
from collections.abc import Callable
from random import Random

from unitweave.config.interleave import ScheduleSettings
from unitweave.core.errors import InputError
from unitweave.core.functions import imported


def text_ratio(settings: ScheduleSettings, total_steps: int) -> Callable[[int], float]:
    """The text ratio as a function of the optimizer step, counted from 0.

    Args:
        settings: The schedule.
        total_steps: Optimizer steps of the training.

    Raises:
        InputError: The schedule's function could not be imported, or returns something else than a ratio.
    """
    scale = total_steps if settings.unit == "fraction" else 1.0
    start = settings.start
    if settings.shape == "none":
        return lambda step: 0.0
    if settings.shape == "constant":
        return lambda step: start
    if settings.shape == "staircase":
        stair = settings.stair_steps * scale
        # Rounded, so that 0.9 - 9 * 0.1 is 0 and not 1e-16; and a stair begins at step k * stair exactly.
        return lambda step: max(0.0, round(start - settings.decrement * math.floor(step / stair + 1e-9), 9))
    if settings.shape == "adaptive":
        return AdaptiveRatio(settings, total_steps)
    if settings.shape == "points":
        points = [(at * scale, ratio) for at, ratio in settings.points]
        return lambda step: _interpolate(points, step)
    if settings.shape == "function":
        ratios = ratios_of_function(settings, total_steps)
        return lambda step: ratios[min(step, total_steps - 1)]
    end = settings.end * scale
    if settings.shape == "linear":
        return lambda step: start * max(0.0, 1 - step / end)
    return lambda step: start * (1 + math.cos(math.pi * min(1.0, step / end))) / 2 if step < end else 0.0


class AdaptiveRatio:
    """A text ratio that falls by a decrement whenever the dev loss on pure units stops falling.

    Where it no longer helps the model with units, more text is no use. The ratio is a pure function of the step and of
    the losses observed before it: a training that resumes observes the logged ones again, and goes on as it would have.
    Without any it falls along a line to 0 at `end`, above which it never is.

    Attributes:
        every: Optimizer steps between two looks at the dev loss.
        losses: Steps done -> the dev loss then.
    """

    def __init__(self, settings: ScheduleSettings, total_steps: int) -> None:
        scale = total_steps if settings.unit == "fraction" else 1.0
        self.settings, self.every = settings, max(1, round(settings.stair_steps * scale))
        self.end = settings.end * scale
        self.losses: dict[int, float] = {}

    def observe(self, steps: int, loss: float) -> None:
        """Take in the dev loss after so many steps."""
        self.losses[steps] = loss

    def __call__(self, step: int) -> float:
        """The ratio at a step. A look counts from one step later on: the next batch is made before it."""
        start, decrement = self.settings.start, self.settings.decrement
        seen = [self.losses[at] for at in sorted(self.losses) if at < step]
        keeps_falling = 1 - self.settings.min_improvement
        falls = sum(after > before * keeps_falling for before, after in itertools.pairwise(seen))
        return max(0.0, round(min(start - decrement * falls, start * (1 - step / self.end)), 9))


def utterance_ratio(ratio: float, spread: float, rng: Random) -> float:
    """The text ratio of one utterance: evenly drawn around `ratio`, up to `spread` away and between 0 and 1.

    So the mean over utterances is `ratio`, and 0 stays 0: the end of the training sees units only.
    """
    width = min(spread, ratio, 1 - ratio) if spread > 0 else 0.0
    return ratio + rng.uniform(-width, width) if width > 0 else ratio


def last_change(settings: ScheduleSettings, total_steps: int) -> float:
    """The step from which on the ratio no longer changes."""
    scale = total_steps if settings.unit == "fraction" else 1.0
    if settings.shape in ("none", "constant"):
        return 0.0
    if settings.shape == "staircase":
        return math.ceil(settings.start / settings.decrement - 1e-9) * settings.stair_steps * scale
    if settings.shape == "function":
        ratios = ratios_of_function(settings, total_steps)
        return max((step for step in range(1, total_steps) if ratios[step] != ratios[step - 1]), default=0)
    return (settings.points[-1][0] if settings.shape == "points" else settings.end) * scale


def ratios_of_function(settings: ScheduleSettings, total_steps: int) -> list[float]:
    """The ratio at each step, from a call of the schedule's function for each. Raises InputError."""
    function, name = settings.function, settings.function_name
    if isinstance(function, str):
        function = imported(function, "schedule.function")
    assert function is not None
    ratios = []
    for step in range(total_steps):
        try:
            ratio = function(step, total_steps)
        except TypeError as problem:
            raise InputError(f"schedule.function {name}: cannot be called with (step, steps): {problem}") from problem
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
            raise InputError(
                f"schedule.function {name}: must return a number from 0 to 1 (got {ratio!r} at step {step})"
            )
        ratios.append(float(ratio))
    return ratios


def _interpolate(points: list[tuple[float, float]], step: float) -> float:
    if step <= points[0][0]:
        return points[0][1]
    for (a, low), (b, high) in itertools.pairwise(points):
        if step < b:
            return low + (high - low) * (step - a) / (b - a)
    return points[-1][1]
