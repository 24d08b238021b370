"""What functions of the user return, as numpy arrays."""

from typing import Any

import numpy as np


def as_array(values: Any) -> np.ndarray | None:
    """What a function of the user returned, a list, an array or a tensor on any device, as an array.

    None where it is nothing of the kind, or rows of different lengths.
    """
    if callable(getattr(values, "detach", None)):  # a tensor of torch, which need not be imported
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # numpy has no bfloat16
    try:
        return np.asarray(values)
    except (ValueError, TypeError):
        return None


def about_array(values: Any, array: np.ndarray | None) -> str:
    """Type and shape of what a function returned, of which `as_array` made `array`, for messages."""
    return type(values).__name__ if array is None or array.dtype == object else f"{array.dtype} {list(array.shape)}"
