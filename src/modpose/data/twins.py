"""Evil twins: the encoder's input in place of each image (``data.twin``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Twins:
    """The encoder's input in place of each of ``n`` images (``data.twin``).

    Attributes
    ----------
    partner
        (N,) the twin of each image, with ``permutation``: the next image in one random cycle
        through all of them, so that no image is its own twin.
    """

    def __init__(self, kind: str, n: int, seed: int) -> None:
        self.kind, self.seed = kind, seed
        order = np.random.default_rng([seed, n]).permutation(n)
        self.partner = np.empty(n, dtype=np.int64)
        self.partner[order] = np.roll(order, 1)

    def noise(
        self, index: NDArray[np.int64], shape: tuple[int, ...], mean: float, std: float
    ) -> NDArray[np.float32]:
        """White noise (B, *shape), always the same for the same image."""
        rows = [np.random.default_rng([self.seed, 1 + int(i)]) for i in index]
        drawn = [row.standard_normal(shape, dtype=np.float32) for row in rows]
        return np.stack(drawn) * np.float32(std) + np.float32(mean)
