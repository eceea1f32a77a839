"""Maps that a model draws at some contents: what they share, and how they change with content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ModelMaps:
    """Summary of maps at some contents.

    Attributes
    ----------
    mean, spread
        (D, D, D), the spread is the standard deviation.
    slopes
        (k, D, D, D) change of the map with each dimension of content, by least squares.
    """

    mean: Tensor
    spread: Tensor
    slopes: Tensor

    @classmethod
    def of(cls, maps: Iterable[Tensor], at: Floats) -> ModelMaps:
        """Summarise maps (D, D, D) at contents (M, k), in their order; one is in memory at a time.

        Raises
        ------
        ValueError
            If there are more or fewer maps than contents.
        """
        share = np.linalg.pinv(np.concatenate([np.ones((len(at), 1)), at - at.mean(0)], 1))[1:]
        for number, (one, amounts) in enumerate(zip(maps, share.T, strict=True)):
            if not number:
                mean, square = torch.zeros_like(one), torch.zeros_like(one)
                slopes = one.new_zeros(len(share), *one.shape)
            away = one - mean
            mean += away / (number + 1)
            square += away * (one - mean)
            for slope, amount in zip(slopes, amounts, strict=True):
                slope.add_(one, alpha=float(amount))
        return cls(mean, (square / len(at)).sqrt(), slopes)
