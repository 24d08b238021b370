"""How much of the speech is text at each optimizer step."""

from dataclasses import replace
from random import Random

from unitweave.config.interleave import SCHEDULES, ScheduleSettings
from unitweave.core.choices import chosen
from unitweave.interleaving.schedules import Schedule


def text_ratio(settings: ScheduleSettings, total_steps: int) -> Schedule:
    """The text ratio as a function of the optimizer step, counted from 0.

    Args:
        settings: The schedule.
        total_steps: Optimizer steps of the training.

    Raises:
        InputError: The schedule's function could not be imported, or returns something else than a ratio.
    """
    if settings.shape == "none":
        settings = replace(settings, shape="constant", start=0.0)
    if settings.unit == "fraction":
        settings = replace(
            settings,
            unit="steps",
            stair_steps=settings.stair_steps * total_steps,
            end=settings.end * total_steps,
            points=[(at * total_steps, ratio) for at, ratio in settings.points],
        )
    shape: type[Schedule] = chosen(SCHEDULES, settings.shape)
    return shape(settings, total_steps)


def utterance_ratio(ratio: float, spread: float, rng: Random) -> float:
    """The text ratio of one utterance: evenly drawn around `ratio`, up to `spread` away and between 0 and 1.

    So the mean over utterances is `ratio`, and 0 stays 0: the end of the training sees units only.
    """
    width = min(spread, ratio, 1 - ratio) if spread > 0 else 0.0
    return ratio + rng.uniform(-width, width) if width > 0 else ratio
