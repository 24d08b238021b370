"""How much of the speech is text at each optimizer step."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from unitweave.core.errors import InputError

SHAPES = ("staircase", "linear", "cosine", "constant", "points", "none")


@dataclass
class ScheduleSettings:
    """The text ratio over the course of training.

    The paper's schedule is the default: 0.9 at step 0, less 0.1 every 300 optimizer steps, to 0.
    """

    shape: str = (
        "staircase"  # "staircase", "linear", "cosine", "constant", "points" or "none" (units only, the baseline)
    )
    start: float = 0.9  # text ratio at step 0
    decrement: float = 0.1  # staircase: how much less at each stair
    stair_steps: float = 300  # staircase: optimizer steps of one stair
    end: float = 2700  # linear, cosine: the step at which the ratio reaches 0
    points: list[tuple[float, float]] = field(default_factory=list)  # points: (step, ratio), linear in between
    unit: str = "step"  # "step": the above are optimizer steps; "share": they are shares of the run, 0 to 1


def text_ratio(settings: ScheduleSettings, total_steps: int) -> Callable[[int], float]:
    """The text ratio as a function of the optimizer step, counted from 0.

    Raises InputError for a schedule that cannot be.
    """
    check_schedule(settings)
    scale = total_steps if settings.unit == "share" else 1.0
    start = settings.start
    if settings.shape == "none":
        return lambda step: 0.0
    if settings.shape == "constant":
        return lambda step: start
    if settings.shape == "staircase":
        stair = settings.stair_steps * scale
        # Rounded, so that 0.9 - 9 * 0.1 is 0 and not 1e-16; and a stair begins at step k * stair exactly.
        return lambda step: max(0.0, round(start - settings.decrement * math.floor(step / stair + 1e-9), 9))
    if settings.shape == "points":
        points = [(at * scale, ratio) for at, ratio in settings.points]
        return lambda step: _interpolate(points, step)
    end = settings.end * scale
    if settings.shape == "linear":
        return lambda step: start * max(0.0, 1 - step / end)
    return lambda step: start * (1 + math.cos(math.pi * min(1.0, step / end))) / 2 if step < end else 0.0


def last_change(settings: ScheduleSettings, total_steps: int) -> float:
    """The step from which on the ratio no longer changes."""
    scale = total_steps if settings.unit == "share" else 1.0
    if settings.shape in ("none", "constant"):
        return 0.0
    if settings.shape == "staircase":
        return math.ceil(settings.start / settings.decrement - 1e-9) * settings.stair_steps * scale
    return (settings.points[-1][0] if settings.shape == "points" else settings.end) * scale


def check_schedule(settings: ScheduleSettings) -> None:
    """Raise InputError when the settings describe no schedule."""
    if settings.shape not in SHAPES:
        raise InputError(f"schedule.shape {settings.shape!r} is none of {', '.join(SHAPES)}")
    if settings.unit not in ("step", "share"):
        raise InputError(f"schedule.unit {settings.unit!r} is neither 'step' nor 'share'")
    if not 0 <= settings.start <= 1:
        raise InputError(f"schedule.start {settings.start} is not between 0 and 1")
    if settings.shape == "staircase" and (settings.decrement <= 0 or settings.stair_steps <= 0):
        raise InputError("schedule.decrement and schedule.stair_steps must be above 0 for a staircase")
    if settings.shape in ("linear", "cosine") and settings.end <= 0:
        raise InputError(f"schedule.end {settings.end} must be above 0")
    if settings.shape == "points":
        steps = [at for at, _ in settings.points]
        if not steps or steps != sorted(set(steps)):
            raise InputError("schedule.points must be pairs (step, ratio) with rising steps")
        if any(not 0 <= ratio <= 1 for _, ratio in settings.points):
            raise InputError("schedule.points has a ratio that is not between 0 and 1")


def _interpolate(points: list[tuple[float, float]], step: float) -> float:
    if step <= points[0][0]:
        return points[0][1]
    for (a, low), (b, high) in itertools.pairwise(points):
        if step < b:
            return low + (high - low) * (step - a) / (b - a)
    return points[-1][1]
