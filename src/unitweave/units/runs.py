"""Units without repetitions."""

import numpy as np


def deduplicate(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Units at 50 Hz [frames] -> (units without repetitions [runs], frames of each [runs])."""
    if len(units) == 0:
        return units, np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]]))
    return units[starts], np.diff(np.append(starts, len(units)))
