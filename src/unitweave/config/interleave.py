"""Settings of the method: how text is interleaved into speech, and how much of it at each optimizer step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from unitweave.config.types import NonNegativeNumber, PositiveNumber, Ratio, Settings
from unitweave.core.choices import choices
from unitweave.core.errors import InputError

SCHEDULES = "interleaving/schedules"  # each file there is a shape

Task = Literal["s2st", "s2tt", "asr", "mt", "tts", "direct"]
Texts = Literal["natural", "normalized"]
Segment = Literal["source", "transcript", "translation", "target"]
SpeechSegment = Literal["source", "target"]
if TYPE_CHECKING:
    Shape = str
else:
    Shape = Literal[(*choices(SCHEDULES, "staircase"), "none")]

TASK_SEGMENTS: dict[str, tuple[Segment, ...]] = {
    "s2st": ("source", "transcript", "translation", "target"),
    "s2tt": ("source", "transcript", "translation"),
    "asr": ("source", "transcript"),
    "mt": ("transcript", "translation"),
    "tts": ("translation", "target"),
    "direct": ("source", "target"),  # no chain of thought
}
SPEECH_TO_SPEECH: tuple[Task, ...] = ("s2st", "direct")
FROM_SPEECH: tuple[Task, ...] = (
    *SPEECH_TO_SPEECH,
    "s2tt",
    "asr",
)  # a model is used for the first that it was trained on


@dataclass
class InterleaveSettings(Settings):
    """How text is interleaved into speech. The defaults are the paper's; the other values are its ablations."""

    sides: Literal["both", "source", "target"] = "both"
    """Which speech is interleaved."""
    replace_with: Literal["text", "mask"] = "text"
    """text, or mask: a mask token for each text token."""
    boundaries: Literal["alignment", "uniform"] = "alignment"
    """alignment, or uniform: word boundaries at equal distances, which needs no alignment."""
    mean_span_length: PositiveNumber = 3.0
    """Mean of the Poisson-distributed span length, in words."""
    min_alignment_score: float = 0.3
    """Words whose alignment score (0 to 1) is lower always stay speech."""
    target_prefix_ratio: Ratio = 0.0
    """Fraction of the examples whose translation ends after a random word, with its units; for live translation."""
    source_prefix_ratio: Ratio = 0.0
    """Fraction of the examples whose source ends after a random word, with as much of transcript and translation."""

    def check(self) -> None:
        """Raise InputError where there are more prefixes than examples."""
        if self.target_prefix_ratio + self.source_prefix_ratio > 1:
            raise InputError("interleave.target_prefix_ratio: must add up to at most 1 with source_prefix_ratio")


@dataclass
class ScheduleSettings(Settings):
    """The text ratio over the course of training. The paper's schedule is the default."""

    shape: Shape = "staircase"
    """staircase, linear, cosine, constant, points, function, adaptive (falls by a decrement when the dev loss on pure
    units stops falling), or none: units only, the baseline."""
    start: Ratio = 0.9
    """Text ratio at step 0 (not for points and function)."""
    decrement: PositiveNumber = 0.1
    """staircase, adaptive: decrease of the ratio at each stair."""
    stair_steps: PositiveNumber = 300
    """staircase: length of a stair, in the unit below; adaptive: interval between evaluations of the dev loss."""
    end: PositiveNumber = 2700
    """linear, cosine: where the ratio reaches 0, in the unit below; adaptive: by when it has to."""
    min_improvement: Ratio = 0.03
    """adaptive: the ratio falls when an evaluation improves the dev loss by less than this fraction."""
    spread: Ratio = 0.0
    """Each utterance's ratio is drawn uniformly, at most this far from the schedule's; the mean stays the same."""
    points: list[tuple[NonNegativeNumber, Ratio]] = field(default_factory=list)
    """points: pairs of a position, in the unit below, and a ratio; linear in between."""
    function: str | Callable[[int, int], float] | None = None
    """function: MODULE:NAME of a Python function of (step, total_steps) that returns the ratio, 0 to 1; in Python
    also the function itself. Steps count from 0."""
    unit: Literal["steps", "fraction"] = "steps"
    """steps: the above are optimizer steps; fraction: they are fractions of the training, 0 to 1."""

    def check(self) -> None:
        """Raise InputError where the shape lacks what it needs."""
        if self.shape == "points":
            places = [place for place, _ in self.points]
            if not places or places != sorted(set(places)):
                raise InputError("schedule.points: must be pairs (position, ratio) with rising positions")
        if (self.shape == "function") != (self.function is not None):
            raise InputError("schedule.function: needs the shape 'function', and the shape needs a function")
        if isinstance(self.function, str) and not all(self.function.partition(":")):
            raise InputError(f"schedule.function: must be MODULE:NAME (got {self.function!r})")

    @property
    def function_name(self) -> str | None:
        """MODULE:NAME of the function."""
        if callable(self.function):
            return f"{self.function.__module__}:{getattr(self.function, '__qualname__', type(self.function).__name__)}"
        return self.function
