"""Mean, spread and range of many numbers, seen some at a time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class Statistics:
    """Number, mean, smallest and largest value, and standard deviation of all numbers so far."""

    def __init__(self, parts: Iterable[NDArray[np.float32]] = ()) -> None:
        self.n, self.min, self.max, self.mean, self._squares = 0, np.inf, -np.inf, 0.0, 0.0
        for part in parts:
            self.add(part)

    @property
    def std(self) -> float:
        """Standard deviation; 0 without numbers."""
        return float(np.sqrt(self._squares / max(self.n, 1)))

    def add(self, part: NDArray[np.float32]) -> None:
        """Add images or volumes; values that are not finite give a mean and s.d. that are not."""
        with np.errstate(invalid="ignore", over="ignore"):
            mean, n = float(part.mean(dtype=np.float64)), part.size
            around = (part - np.float32(mean)).reshape(len(part), -1)
            squares = float(np.einsum("ij,ij->i", around, around).sum(dtype=np.float64))
            apart = mean - self.mean
            self._squares += squares + apart**2 * self.n * n / (self.n + n)
            self.mean += apart * n / (self.n + n)
        self.n += n
        self.min = float(np.minimum(self.min, part.min()))
        self.max = float(np.maximum(self.max, part.max()))
