"""Discs, balls and soft windows about the centre n // 2, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def squared_radius(shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the squared distance (px²) of each pixel from the centre n // 2."""
    axes = np.ix_(*((np.arange(n, dtype=np.float64) - n // 2) ** 2 for n in shape))
    return np.asarray(sum(axes), np.float64)


def disc(shape: Sequence[int], fraction: float) -> NDArray[np.bool_]:
    """Mark the pixels within ``fraction`` of half the shortest side from the centre."""
    return squared_radius(shape) <= (fraction * min(shape) / 2) ** 2


def soft_window(shape: Sequence[int], inner: float, outer: float) -> NDArray[np.float32]:
    """Round window: 1 up to ``inner``, falling to 0 at ``outer`` as a cosine.

    Parameters
    ----------
    shape
        (H, W) or (D, H, W).
    inner, outer
        Radii, fractions of half the shortest side; the first no larger than the second.
    """
    radius = np.sqrt(squared_radius(shape)) / (min(shape) / 2)
    fall = np.clip((radius - inner) / max(outer - inner, 1e-9), 0.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * fall), np.float32)
