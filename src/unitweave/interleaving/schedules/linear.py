"""Down along a line."""

from unitweave.interleaving.schedules import Schedule


class Linear(Schedule):
    """From `start` along a line to 0 at `end`."""

    def __call__(self, step: int) -> float:
        return self.settings.start * max(0.0, 1 - step / self.settings.end)
