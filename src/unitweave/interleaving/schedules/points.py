"""Along lines between points."""

import itertools

from unitweave.interleaving.schedules import Schedule


class Points(Schedule):
    """Linear between the given pairs of a position and a ratio, and constant before the first and after the last."""

    def __call__(self, step: int) -> float:
        points = self.settings.points
        if step <= points[0][0]:
            return points[0][1]
        for (a, low), (b, high) in itertools.pairwise(points):
            if step < b:
                return low + (high - low) * (step - a) / (b - a)
        return points[-1][1]

    @property
    def last_change(self) -> float:
        """The last point."""
        return self.settings.points[-1][0]
