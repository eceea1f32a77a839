"""Cells of content: images of nearly the same content are summed up as one.

The equations of J maps need sums over images of b b^T, b the J amounts that an image has.  The
images of a cell all take the cell's mean amounts, so a cell needs one sum of squared transfers,
whatever J is.  Each map is a regression on the amounts; a regression on means of cells, chosen
without regard to the noise, is unbiased (Berkson 1950).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EACH = 4
"""Cells for each map."""
SEEN_EACH = 40
"""Images for each cell from which the cells are found."""
STEPS = 20
"""Largest number of steps of k-means."""
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Cells:
    """K cells.

    Attributes
    ----------
    labels
        For each set of coefficients of an image, (N,) the cell of its content.
    values
        (K, J) mean amounts of the maps in each cell.
    """

    labels: list[Ints]
    values: Tensor

    @classmethod
    def of(cls, places: list[Floats], amounts: list[Floats], seed: int) -> Cells:
        """Group images by k-means.

        Parameters
        ----------
        places
            For each set of coefficients, (N, k) where an image lies.
        amounts
            For each, (N, J) amounts of the maps.
        seed
            Of k-means, and of the images from which the cells are found.
        """
        from sklearn.cluster import KMeans

        every, amount = np.concatenate(places), np.concatenate(amounts)
        count = min(EACH * amount.shape[1], len(np.unique(every, axis=0)))
        rng = np.random.default_rng(seed)
        some = rng.choice(len(every), min(SEEN_EACH * count, len(every)), replace=False)
        means = KMeans(count, n_init=1, max_iter=STEPS, random_state=seed).fit(every[np.sort(some)])
        label = np.concatenate(list(map(means.predict, _in_parts(every)))).astype(np.int64)
        used, label = np.unique(label, return_inverse=True)
        total = np.zeros((len(used), amount.shape[1]))
        np.add.at(total, label, amount)
        values = total / np.bincount(label)[:, None]
        return cls(np.split(label, len(places)), torch.from_numpy(values).float())

    def __len__(self) -> int:
        return len(self.values)


def _in_parts(values: Floats) -> Iterator[Floats]:
    return iter(np.split(values, range(ROWS_AT_ONCE, len(values), ROWS_AT_ONCE)))
