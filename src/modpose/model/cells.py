"""Cells: the discrete hypotheses of the pose that an encoder proposes, and their prior.

TARGET-VAE (Nasiri & Bepler 2022) infers q(t, r | image) over every translation cell t and discrete
rotation r; each cell gives a position and a rotation of the object, up to small residuals.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.geometry.pose import mirror
from modpose.geometry.rotations import rotation_2d


class Cells(NamedTuple):
    """The poses of C hypotheses: the same for the whole batch, or different for each image.

    Attributes
    ----------
    angle
        (C,) or (B, C) radians, or None if cells do not include it.
    shift
        (C, d) or (B, C, d) pixels, or None if cells do not include it.
    log_prior
        (C,) or (B, C) log prior probability of each cell.
    angle_std
        S.d. of the angle's residual under the prior, radians: the angle is
        N(cell's angle, angle_std²).
    shift_std
        S.d. of the shift's residual under the prior, pixels; None: the shift is the cell's.
    mirrored
        (C,) bool, whether the object is mirrored in a cell, or None if cells do not include it.
    """

    angle: Tensor | None
    shift: Tensor | None
    log_prior: Tensor
    angle_std: float = math.pi
    shift_std: float | None = None
    mirrored: Tensor | None = None

    @property
    def tell_place(self) -> bool:
        """Whether cells give an angle or a shift; otherwise they are components of a mixture."""
        return self.angle is not None or self.shift is not None

    def mirrored_at(self, cell: Tensor) -> Tensor | None:
        """Whether cells (B, K) are mirrored, (B, K), or None if cells do not include it."""
        return None if self.mirrored is None else self.mirrored[cell]

    def at(self, cell: Tensor) -> Cells:
        """Take cells (B, K): each image then has its own K cells."""
        return self._replace(
            angle=None if self.angle is None else _pick(self.angle, cell, 0),
            shift=None if self.shift is None else _pick(self.shift, cell, 1),
            log_prior=_pick(self.log_prior, cell, 0),
            mirrored=self.mirrored_at(cell),
        )

    def turned_back(self, angle: Tensor) -> Cells:
        """Return the cells of images from those of their copies, rotated by ``angle`` (B,).

        Each image then has its own cells.  Their prior is kept, which is correct for a uniform
        prior of the angle and an isotropic one of the shift.
        """
        turned, shift = self.angle, self.shift
        if turned is not None:
            turned = turned - angle[:, None]
        if shift is not None:
            shift = shift @ rotation_2d(angle)  # rows times R are R^T = R(-angle) on columns
        return self._replace(angle=turned, shift=shift)

    def mirrored_back(self) -> Cells:
        """Return the cells of images from those of their mirror images (without reflection).

        Their prior is kept, which is correct for priors that are symmetric about zero.
        """
        angle = None if self.angle is None else -self.angle
        shift = None if self.shift is None else mirror(self.shift)
        return self._replace(angle=angle, shift=shift)

    def or_mirrored(self, others: Cells) -> Cells:
        """Join these cells (not mirrored) and ``others`` (mirrored); both are equally probable."""

        def both(one: Tensor | None, other: Tensor | None, axis: int) -> Tensor | None:
            return None if one is None or other is None else torch.cat([one, other], axis)

        log_prior = torch.cat([self.log_prior, others.log_prior], -1) - math.log(2)
        of_each = torch.zeros_like(log_prior, dtype=torch.bool).reshape(-1, log_prior.shape[-1])[0]
        of_each[self.log_prior.shape[-1] :] = True
        return self._replace(
            angle=both(self.angle, others.angle, -1),
            shift=both(self.shift, others.shift, -2),
            log_prior=log_prior,
            mirrored=of_each,
        )


def _pick(values: Tensor, cell: Tensor, trailing: int) -> Tensor:
    """Read (C, ...) or (B, C, ...), with ``trailing`` more dimensions, at cells (B, K)."""
    if values.dim() == 1 + trailing:
        return values[cell]
    index = cell.reshape(*cell.shape, *([1] * trailing))
    return values.gather(1, index.expand(*cell.shape, *values.shape[2:]))
