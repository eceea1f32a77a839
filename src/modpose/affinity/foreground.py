"""Position of the object in its box: a threshold and a centre of mass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def otsu_threshold(image: NDArray[np.floating[Any]], bins: int = 256) -> float:
    """Find the value that separates an image into two classes of least variance (Otsu 1979).

    Parameters
    ----------
    image
        Of any shape, with at least two values.
    bins
        Number of bins of the histogram from the smallest to the largest value.
    """
    counts, edges = np.histogram(image, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    between = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1 + int(np.argmax(below * above * between**2))])


def centres_of_mass(images: Tensor) -> Tensor:
    """Return the centre of mass of the values above Otsu's threshold.

    Parameters
    ----------
    images
        (B, *shape), d axes each.

    Returns
    -------
    Tensor
        (B, d) float32 array indices, in the order (x, y[, z]).
    """
    thresholds = torch.tensor([otsu_threshold(image.numpy()) for image in images])
    axes = tuple(range(1, images.ndim))
    mass = (images - thresholds.reshape(-1, *(1 for _ in axes))).clamp_min(0.0)
    total = mass.sum(dim=axes).clamp_min(1e-30)
    centres = []
    for axis in reversed(axes):
        profile = mass.sum(dim=[other for other in axes if other != axis])
        centres.append(profile @ torch.arange(images.shape[axis], dtype=torch.float32) / total)
    return torch.stack(centres, dim=1)
