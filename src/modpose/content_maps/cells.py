"""Cells of content: images of nearly the same content are summed up as one.

The equations of J maps need sums over images of b b^T, b the J amounts that an image has.  The
images of a cell all take the cell's mean amounts, so a cell needs one sum of squared transfers,
whatever J is.  A regression on the means of groups is not biased by what differs within a group
(Berkson 1950).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EACH, MOST = 4, 200
"""Cells for each map, and at most."""
SEEN_EACH = 40
"""Points for each centre from which k-means finds them."""
TOGETHER = 30
"""Images of a group, on average, at least: a centre of fewer shows the noise of each."""
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
        every, amount = np.concatenate(places), np.concatenate(amounts)
        centres = centres_of(every, cells_for(amount.shape[1]), seed)
        label = nearest(every, centres)
        used, label = np.unique(label, return_inverse=True)
        total = np.zeros((len(used), amount.shape[1]))
        np.add.at(total, label, amount)
        values = total / np.bincount(label)[:, None]
        return cls(np.split(label, len(places)), torch.from_numpy(values).float())

    def __len__(self) -> int:
        return len(self.values)


def cells_for(maps: int) -> int:
    """Return the number of cells for so many maps: at least one for each."""
    return max(min(EACH * maps, MOST), maps)


def centres_of(points: Floats, count: int, seed: int) -> Floats:
    """Centres (K, k) of k-means of points (N, k).

    There are ``count``, or fewer where points are equal; where they nearly are, so are centres.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    some = points
    if len(points) > SEEN_EACH * count:
        chosen = np.random.default_rng(seed).choice(len(points), SEEN_EACH * count, replace=False)
        some = points[np.sort(chosen)]
    count = min(count, len(np.unique(some, axis=0)))
    means = KMeans(count, n_init=1, max_iter=STEPS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(some)
    return np.asarray(means.cluster_centers_, float)


def groups_of(mean: Floats, std: Floats, most: int, seed: int) -> tuple[Floats, Floats]:
    """Group images by the amounts of maps that they have.

    Parameters
    ----------
    mean, std
        (N, k) amounts and their errors.
    most
        Largest number of groups.
    seed
        Of k-means.

    Returns
    -------
    centres, values
        (G, k) of each group, along the principal axes of the amounts in units of their usual
        errors, the widest first; (G, 1 + k) the amounts that these are, the first of them 1.
    """
    unit = np.median(std, 0)
    axes = np.linalg.eigh(np.atleast_2d(np.cov((mean / unit).T)))[1][:, ::-1]
    centres = centres_of(mean / unit @ axes, max(min(most, len(mean) // TOGETHER), 2), seed)
    return centres, np.concatenate([np.ones((len(centres), 1)), centres @ axes.T * unit], 1)


def nearest(points: Floats, centres: Floats) -> Ints:
    """Return the nearest centre of each point, (N,)."""
    from scipy.spatial.distance import cdist

    found = [cdist(some, centres).argmin(1) for some in _in_parts(points)]
    return np.concatenate(found)


def _in_parts(values: Floats) -> Iterator[Floats]:
    return iter(np.split(values, range(ROWS_AT_ONCE, len(values), ROWS_AT_ONCE)))
