"""The same ratio throughout."""

from unitweave.interleaving.schedules import Schedule


class Constant(Schedule):
    """`start` at every step."""

    stepwise = True
    last_change = 0.0

    def __call__(self, step: int) -> float:
        return self.settings.start
