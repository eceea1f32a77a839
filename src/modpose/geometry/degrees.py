"""Angles in degrees, as users see them; arrays of NumPy, no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wrap_deg(angles: ArrayLike) -> NDArray[np.float64]:
    """Wrap angles (...), degrees, into (−180, 180]."""
    wrapped = 180.0 - (180.0 - np.asarray(angles, float)) % 360.0
    return np.where(wrapped <= -180.0, 180.0, wrapped)  # the remainder can round up to 360
