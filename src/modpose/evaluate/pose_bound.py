"""The Cramer-Rao bound of a pose: the best possible accuracy of rotation and shift.

With the template known, the noise white and of known variance, the error of any unbiased estimate
of the six numbers has at least the inverse of their Fisher information as covariance.  Further
unknowns, such as the angle of a hinge, can only increase it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients
from modpose.fourier.reference import make_references
from modpose.search.so3_climb import NUMBERS_AT_ONCE, predicted

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
        """Median rotation error if every pose reached its bound, degrees."""
        return MEDIAN_OF_RMS * float(self.angle_rms_deg.median())

    @property
    def shift_median_px(self) -> float:
        """Median shift error if every pose reached its bound, voxels."""
        return MEDIAN_OF_RMS * float(self.shift_rms_px.median())


def pose_bound(
    volumes: Coefficients,
    template: Tensor,
    rotation: Tensor,
    shift: Tensor,
    motions: Tensor | None = None,
) -> PoseBound:
    """Bound the errors of poses of a known template.

    Parameters
    ----------
    volumes
        B, whitened, whose transfers say what was measured and how noisy it was; with all the
        frequencies that hold signal.  Their values are not used.
    template
        (D, D, D) the upright object, before the observation, in the unit of the volumes.
    rotation, shift
        (B, 3, 3) and (B, 3) voxels, the true poses.
    motions
        (J, D, D, D) derivatives of the template by what is not known of it; None: it is known.
    """
    known = template[None] if motions is None else torch.cat([template[None], motions])
    references = make_references(known, float(volumes.radius[-1]), slopes=True)
    count = max(1, NUMBERS_AT_ONCE // (14 * len(known) * volumes.width))
    information = []
    for first in range(0, len(rotation), count):
        part = slice(first, first + count)
        seen, pose = volumes.rows(part), (rotation[part], shift[part])
        which = torch.zeros(len(pose[0]), dtype=torch.int64)
        slopes = [predicted(seen, references, which, *pose)[1]]
        for j in range(1, len(known)):
            slopes.append(predicted(seen, references, which + j, *pose)[0][..., None])
        every = torch.cat(slopes, -1).double()
        information.append(every.transpose(1, 2) @ every)
    covariance = torch.linalg.inv(torch.cat(information))[:, :6, :6]
    variances = covariance.diagonal(dim1=1, dim2=2)
    return PoseBound(
        covariance,
        torch.rad2deg(variances[:, :3].sum(1).sqrt()),
        variances[:, 3:].sum(1).sqrt(),
    )
