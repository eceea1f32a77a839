"""Objects made of Gaussian blobs, drawn exactly in any pose."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def chain(seed: int, d: int = 3, count: int = 8, spread: float = 3.0) -> Floats:
    """Centres (count, d) of a random object about its centre of mass, pixels."""
    places = np.random.default_rng(seed).normal(size=(count, d)) * spread
    return places - places.mean(axis=0)


def draw(
    places: Floats,
    side: int = 20,
    rotation: Floats | None = None,
    shift: Floats | None = None,
    sigma: float = 1.2,
) -> NDArray[np.float32]:
    """Draw f(R^T (x - t)) about the box centre side // 2: (side,) * d, coordinates (x, y[, z])."""
    d = places.shape[1]
    placed = places if rotation is None else places @ rotation.T
    placed = placed if shift is None else placed + shift
    axes = np.meshgrid(*[np.arange(side) - side // 2] * d, indexing="ij")
    lattice = np.stack(axes[::-1], axis=-1)[..., None, :]
    squared = ((lattice - placed) ** 2).sum(axis=-1)
    return np.exp(-squared / (2 * sigma**2)).sum(axis=-1).astype(np.float32)


def turns(count: int, seed: int, d: int = 3) -> Floats:
    """Rotations (count, d, d), uniform."""
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    if d == 3:
        return Rotation.random(count, rng=rng).as_matrix()
    angle = rng.uniform(0, 2 * np.pi, count)
    return np.stack([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(
        2, 0, 1
    )
