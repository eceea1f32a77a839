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
    z: Floats, std: Floats, maps: Tensor, at: Floats, focus: Tensor, mask: Tensor
) -> tuple[Floats, Floats, Focus]:
    """Split content into that of a focus and nuisances.

    Parameters
    ----------
    z, std
        (N, k) content of the images, and its standard deviation.
    maps, at
        (M, D, D, D) maps of contents (M, k), more than k of them.
    focus, mask
        (D, D, D) from 0 to 1.

    Returns
    -------
    z, std, focus
        (N, l) content of the focus, in standard deviations of the error of its first axis;
        (N, l) ones; the focus.
    """
    centred = np.concatenate([np.ones((len(at), 1)), at - z.mean(0)], 1)
    flat = maps.flatten(1).double().numpy()
    slopes = np.linalg.lstsq(centred, flat, rcond=None)[0][1:]
    weight, inside = mask.flatten().double().numpy(), focus.flatten().double().numpy()
    learned = _axes(z, slopes * (weight * inside))
    nuisance = _axes(z, slopes * (weight * (1 - inside)))[:, :MOST_NUISANCES]
    unit = np.sqrt((std**2 @ learned[:, :1] ** 2).mean())
    content = (z - z.mean(0)) @ learned / max(float(unit), 1e-12)
    other = (z - z.mean(0)) @ nuisance
    other = other / np.maximum(other.std(0), 1e-12)
    return content, np.ones_like(content), Focus(focus, other)


def _axes(z: Floats, slopes: Floats) -> Floats:
    """Directions (k, l) that content is projected on: principal axes of the change of the map.

    A step of one along an axis changes the map by the same root mean square, whichever axis.
    """
    values, vectors = np.linalg.eigh(slopes @ slopes.T)
    change = vectors * np.sqrt(np.maximum(values, 0))
    spread, turn = np.linalg.eigh(change.T @ np.cov(z.T, ddof=0).reshape(len(slopes), -1) @ change)
    kept = spread > LEAST * spread[-1]
    return np.asarray((change @ turn)[:, kept][:, ::-1])
