"""The Cramer-Rao bound of a pose: how well rotation and shift can be known at all.

With the template known, the noise white and of known variance, the error of any unbiased estimate
of the six numbers has at least the inverse of their Fisher information as covariance.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.averaging.coefficients import Coefficients
from modpose.averaging.reference import make_references
from modpose.posterior.so3_climb import climb

MEDIAN_OF_RMS = 0.888
"""Median length of three independent Gaussian numbers over their root mean square."""


class PoseBound(NamedTuple):
    """Bounds of B poses.

    Attributes
    ----------
    covariance
        (B, 6, 6) of rotation (radians, in the object's frame) and shift (voxels) jointly.
    angle_rms_deg, shift_rms_px
        (B,) root mean square of the geodesic angle and of the length of the shift error.
    """

    covariance: Tensor
    angle_rms_deg: Tensor
    shift_rms_px: Tensor

    @property
    def angle_median_deg(self) -> float:
        """Median error of rotation over the poses, were each at its bound, degrees."""
        return MEDIAN_OF_RMS * float(self.angle_rms_deg.median())

    @property
    def shift_median_px(self) -> float:
        """Median error of shift over the poses, were each at its bound, voxels."""
        return MEDIAN_OF_RMS * float(self.shift_rms_px.median())


def pose_bound(
    volumes: Coefficients, template: Tensor, rotation: Tensor, shift: Tensor
) -> PoseBound:
    """Bound the errors of poses of a known template.

    Parameters
    ----------
    volumes
        B, whitened, whose transfers say what was measured and how noisy it was; with all the
        frequencies that hold signal.  Their values do not matter.
    template
        (D, D, D) the upright object, before the observation, in the unit of the volumes.
    rotation, shift
        (B, 3, 3) and (B, 3) voxels, the true poses.
    """
    references = make_references(template[None], float(volumes.radius[-1]), slopes=True)
    owner = torch.arange(len(rotation))
    which = torch.zeros_like(owner)
    seen = climb(volumes, references, owner, which, rotation, shift, steps=0, normalised=False)
    covariance = torch.linalg.inv(seen.information.double())
    variances = covariance.diagonal(dim1=1, dim2=2)
    return PoseBound(
        covariance,
        torch.rad2deg(variances[:, :3].sum(1).sqrt()),
        variances[:, 3:].sum(1).sqrt(),
    )
