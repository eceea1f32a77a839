"""A focus: content of what moves inside a region; what moves outside is a nuisance.

The run's content z holds both.  To first order the map of z changes by z_1 G_1 + ... + z_k G_k.
Inside the region, the principal axes of this change are the content to be learned; those of the
change outside are the nuisances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.errors import InputError

Floats = NDArray[np.float64]

MOST_NUISANCES = 6
"""Largest number of motions outside."""
LEAST = 0.01
"""Smallest variance of a motion, over the largest."""
LEAST_INSIDE = 0.1
"""Smallest overlap of a focus and the mask, as a share of the smaller of the two."""


@dataclass(frozen=True)
class Focus:
    """Where maps depend on content, and what else moves.

    Attributes
    ----------
    region
        (D, D, D) from 0 to 1.
    nuisance
        (N, M) amounts of motions outside it, in standard deviations.
    """

    region: Tensor
    nuisance: Floats


def check_focus(focus: Tensor, mask: Tensor, name: str) -> None:
    """Refuse a focus that lies beside the mask, or leaves nothing of it outside."""
    held = float((focus * mask).sum() / torch.minimum(focus.sum(), mask.sum()))
    if held < LEAST_INSIDE:
        expected = f"at least {LEAST_INSIDE:.0%} of it, where the molecule is"
        raise InputError.of(name, "the focus inside the mask", f"{held:.0%} of it", expected)
    if not (mask * (1 - focus) > 0.5).any():
        raise InputError(f"{name}: the focus holds the whole mask, expected a part of the molecule")


def focused(
    z: Floats, std: Floats, slopes: Tensor, focus: Tensor, mask: Tensor
) -> tuple[Floats, Floats, Focus]:
    """Split content into that of a focus and nuisances.

    Parameters
    ----------
    z, std
        (N, k) content of the images, and its standard deviation.
    slopes
        (k, D, D, D) change of the map with each dimension of content.
    focus, mask
        (D, D, D) from 0 to 1.

    Returns
    -------
    z, std, focus
        (N, l) content of the focus, in standard deviations of the error of its first axis;
        (N, l) ones; the focus.
    """
    learned = _axes(z, slopes, mask * focus)
    nuisance = _axes(z, slopes, mask * (1 - focus))[:, :MOST_NUISANCES]
    unit = np.sqrt((std**2 @ learned[:, :1] ** 2).mean())
    content = (z - z.mean(0)) @ learned / max(float(unit), 1e-12)
    other = (z - z.mean(0)) @ nuisance
    other = other / np.maximum(other.std(0), 1e-12)
    return content, np.ones_like(content), Focus(focus, other)


def _axes(z: Floats, slopes: Tensor, weight: Tensor) -> Floats:
    """Directions (k, l) that content is projected on: principal axes of the change of the map.

    A step of one along an axis changes the map, times a weight (D, D, D), by the same root mean
    square, whichever axis.
    """
    some = [(slope * weight).flatten() for slope in slopes]
    product = np.array([[float(one @ other) for other in some] for one in some])
    values, vectors = np.linalg.eigh(product)
    change = vectors * np.sqrt(np.maximum(values, 0))
    spread, turn = np.linalg.eigh(change.T @ np.cov(z.T, ddof=0).reshape(len(slopes), -1) @ change)
    kept = spread > LEAST * spread[-1]
    return np.asarray((change @ turn)[:, kept][:, ::-1])
