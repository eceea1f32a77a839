"""Objects made of rectangular blocks, drawn without jagged edges in any pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """A union of blocks that touch and do not overlap, of density 1, about its centre of mass.

    Attributes
    ----------
    low, high
        (M, 3) opposite corners (x, y, z) of each block, Å.
    """

    low: Floats
    high: Floats

    def stretched(self, factor: float) -> Blocks:
        """Return the object, stretched along its own x by a factor."""
        scale = np.array([factor, 1.0, 1.0])
        return Blocks(self.low * scale, self.high * scale)

    def radius(self) -> float:
        """Return the largest distance of a point from the centre, Å."""
        return float(np.linalg.norm(np.maximum(np.abs(self.low), np.abs(self.high)), axis=1).max())

    def place(
        self, rotation: Floats, shift_px: Floats, box: int, pixel_size: float
    ) -> NDArray[np.float32]:
        """Evaluate signal(x) = f(Rᵀ(x − t)) at the voxels of one volume.

        Parameters and axes are those of ``AtomDensity.place``; values are from 0 to 1.  Edges fall
        off linearly over one voxel along the block's own axes.  So the value of a voxel is the
        fraction of it inside the block: exactly if the block is parallel to the lattice, else
        approximately.
        """
        reach = self.radius() / pixel_size + 1.0
        first = np.ceil(box // 2 + shift_px - reach).astype(int).clip(0, box)
        last = np.floor(box // 2 + shift_px + reach).astype(int).clip(-1, box - 1)
        near = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))[::-1]
        x, y, z = (
            np.arange(a, b + 1) - box // 2 - t
            for a, b, t in zip(first, last, shift_px, strict=True)
        )
        volume = np.zeros((box, box, box), np.float32)
        own = [  # the k-th coordinate, in the block's frame, of every voxel that is near
            x * rotation[0, k] + (y * rotation[1, k])[:, None] + (z * rotation[2, k])[:, None, None]
            for k in range(3)
        ]
        for low, high in zip(self.low / pixel_size, self.high / pixel_size, strict=True):
            inside = np.ones_like(own[0])
            for along, a, b in zip(own, low, high, strict=True):
                inside *= np.clip(np.minimum(along - a, b - along) + 0.5, 0.0, min(1.0, b - a))
            volume[near] += inside
        return np.minimum(volume, 1.0, out=volume)
