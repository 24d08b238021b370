"""Down along half a cosine wave."""

import math

from unitweave.interleaving.schedules import Schedule


class Cosine(Schedule):
    """From `start` along half a cosine wave to 0 at `end`."""

    def __call__(self, step: int) -> float:
        start, end = self.settings.start, self.settings.end
        return start * (1 + math.cos(math.pi * min(1.0, step / end))) / 2 if step < end else 0.0
