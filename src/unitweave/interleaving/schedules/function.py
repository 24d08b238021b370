"""A Python function of the user's."""

from numbers import Real

from unitweave.config.interleave import ScheduleSettings
from unitweave.core.errors import InputError
from unitweave.core.functions import function_errors, imported
from unitweave.interleaving.schedules import Schedule


class Function(Schedule):
    """What a function of (step, total_steps) returns, called once for each step.

    Attributes:
        ratios: The ratio at each step.

    Raises:
        InputError: The function could not be imported, raises something, or returns something else than a ratio.
    """

    def __init__(self, settings: ScheduleSettings, total_steps: int) -> None:
        super().__init__(settings, total_steps)
        function, name = settings.function, str(settings.function_name)
        if isinstance(function, str):
            function = imported(function, "schedule.function")
        assert function is not None
        self.ratios = []
        for step in range(total_steps):
            with function_errors(name, f"schedule.function {name}, called with ({step}, {total_steps})"):
                ratio = function(step, total_steps)
            if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 <= float(ratio) <= 1:
                raise InputError(
                    f"schedule.function {name}: must return a number from 0 to 1 (got {ratio!r} at step {step})"
                )
            self.ratios.append(float(ratio))

    def __call__(self, step: int) -> float:
        return self.ratios[min(step, self.total_steps - 1)]

    @property
    def last_change(self) -> float:
        """The last step with another ratio than the one before."""
        steps = range(1, self.total_steps)
        return max((step for step in steps if self.ratios[step] != self.ratios[step - 1]), default=0)
