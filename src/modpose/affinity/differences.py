"""Mean difference between images, signed as published and absolute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modpose.affinity.matrix import Matrix


@dataclass(frozen=True)
class MeanDifference:
    """Mean over pixels of x_i - y_i, as in equation 5 of the affinity-VAE paper.

    It is signed, so it vanishes for any two objects of the same total mass: it compares only
    masses.  The affinity is ``1 - |difference| / largest``.

    Attributes
    ----------
    raw
        Give the differences themselves (antisymmetric) and not an affinity.
    """

    raw: bool = False

    def describe(self, images: Tensor) -> Tensor:
        """Return the mean of each image, (B, 1)."""
        return images.double().flatten(1).mean(dim=1, keepdim=True)

    def compare(self, features: Tensor) -> Matrix:
        """Subtract: (N, 1) to (N, N)."""
        difference = (features - features.T).numpy()
        if self.raw:
            return difference
        rounding = 1e-6 * features.abs().max().item()
        return affinity_of_differences(np.where(np.abs(difference) > rounding, difference, 0.0))


@dataclass(frozen=True)
class MeanAbsoluteDifference:
    """Mean over pixels of ``|x_i - y_i|``; the affinity is 1 - difference / largest.

    Attributes
    ----------
    raw
        Give the differences themselves and not an affinity.
    """

    raw: bool = False

    def describe(self, images: Tensor) -> Tensor:
        """Flatten: (B, P)."""
        return images.float().flatten(1)

    def compare(self, features: Tensor) -> Matrix:
        """Return the mean absolute differences of all pairs: (N, P) to (N, N)."""
        difference = torch.cdist(features, features, p=1).double().numpy() / features.shape[1]
        difference = (difference + difference.T) / 2
        return difference if self.raw else affinity_of_differences(difference)


def affinity_of_differences(difference: Matrix) -> Matrix:
    """From differences (N, N) to ``1 - |difference| / largest``, 1 on the diagonal."""
    size = np.abs(difference)
    largest = size.max()
    return np.asarray(1 - size / largest if largest > 0 else np.ones_like(size))
