"""Local optimisation of 3-D poses: Gauss-Newton on rotation and shift.

The derivatives are exact: those by rotation are interpolated like the reference itself, those by
shift are phases.  A step is accepted if it raises the score; otherwise its damping grows (Levenberg
and Marquardt).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.reference import References, sample, turned
from modpose.geometry.rotations import rotation_of_vector
from modpose.search.so3_search import pose_score

LARGEST_STEP = (math.radians(12.0), 1.0)
"""Largest step, radians and voxels."""
NUMBERS_AT_ONCE = 1 << 22
"""Largest number of values of predictions and slopes in memory."""


class PosedVolumes(NamedTuple):
    """Poses at the maximum of a mode.

    Attributes
    ----------
    rotation, shift
        (B, 3, 3) and (B, 3) voxels.
    score
        (B,) nats.
    amplitude
        (B,) best amplitude of the reference, at least 0.
    information
        (B, 6, 6) Fisher information of rotation (radians, in the object's frame) and shift
        (voxels); the amplitude is known or projected out, as in the score.
    """

    rotation: Tensor
    shift: Tensor
    score: Tensor
    amplitude: Tensor
    information: Tensor

    def rows(self, index: Tensor) -> PosedVolumes:
        """Keep some."""
        return PosedVolumes(*(part[index] for part in self))


class _Slope(NamedTuple):
    score: Tensor
    amplitude: Tensor
    gradient: Tensor
    information: Tensor


def climb(
    volumes: Coefficients,
    references: References,
    owner: Tensor,
    which: Tensor,
    rotation: Tensor,
    shift: Tensor,
    *,
    steps: int,
    normalised: bool = True,
    reach: float = math.inf,
) -> PosedVolumes:
    """Optimise poses to the maximum of their mode.

    Parameters
    ----------
    volumes
        N.
    references
        C upright objects, with slopes.
    owner, which
        (B,) int64: the volume and the reference of each pose.
    rotation, shift
        (B, 3, 3) and (B, 3) start.
    steps
        Gauss-Newton steps; 0 only scores.
    normalised
        Score with the best amplitude instead of amplitude one.
    reach
        Largest shift along an axis, voxels.
    """
    count = max(1, NUMBERS_AT_ONCE // (14 * volumes.width))
    parts = []
    for first in range(0, len(owner), count):
        part = slice(first, first + count)
        seen = volumes.rows(owner[part])
        start = (which[part], rotation[part], shift[part])
        parts.append(_climb(seen, references, *start, steps, normalised, reach))
    return PosedVolumes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _climb(
    seen: Coefficients,
    references: References,
    which: Tensor,
    rotation: Tensor,
    shift: Tensor,
    steps: int,
    normalised: bool,
    reach: float,
) -> PosedVolumes:
    rotation, shift = rotation.to(seen.frequency), shift.to(seen.frequency)
    here = _slope(seen, references, which, rotation, shift, normalised)
    damping = torch.full_like(here.score, 1e-2)
    for _ in range(steps):
        move = _step(here, damping)
        new_rotation = rotation @ rotation_of_vector(move[:, :3])
        new_shift = (shift + move[:, 3:]).clamp(-reach, reach)
        there = _slope(seen, references, which, new_rotation, new_shift, normalised)
        better = there.score > here.score
        rotation = torch.where(better[:, None, None], new_rotation, rotation)
        shift = torch.where(better[:, None], new_shift, shift)
        here = _Slope(
            *(
                torch.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(there, here, strict=True)
            )
        )
        damping = torch.where(better, damping / 3, damping * 8)
    return PosedVolumes(rotation, shift, here.score, here.amplitude, here.information)


def _step(here: _Slope, damping: Tensor) -> Tensor:
    """Solve for the damped step, limited to the largest step."""
    information = here.information
    diagonal = information.diagonal(dim1=-2, dim2=-1)
    floor = 1e-6 * diagonal.amax(1, keepdim=True) + 1e-12
    damped = information + torch.diag_embed(damping[:, None] * diagonal + floor)
    move = torch.linalg.solve(damped, here.gradient)
    sizes = torch.stack([move[:, :3].norm(dim=1), move[:, 3:].norm(dim=1)], 1)
    scale = (sizes.new_tensor(LARGEST_STEP) / sizes.clamp(min=1e-12)).clamp(max=1.0).amin(1)
    return torch.nan_to_num(move) * scale[:, None]


def _slope(
    seen: Coefficients,
    references: References,
    which: Tensor,
    rotation: Tensor,
    shift: Tensor,
    normalised: bool,
) -> _Slope:
    model, slopes = predicted(seen, references, which, rotation, shift)
    target = _real(seen.value.unsqueeze(-1)).squeeze(-1)
    inner, norm = (model * target).sum(1), model.square().sum(1)
    both = torch.stack([target, model], 1) @ slopes  # (B, 2, 6)
    along, self_along = both[:, 0], both[:, 1]
    information = slopes.transpose(1, 2) @ slopes
    amplitude = inner.clamp(min=0) / norm.clamp(min=1e-12)
    a = amplitude[:, None] if normalised else 1.0
    if normalised:
        outer = self_along[:, :, None] * self_along[:, None] / norm.clamp(min=1e-12)[:, None, None]
        information = (amplitude.square())[:, None, None] * (information - outer)
    gradient = a * (along - a * self_along)
    return _Slope(pose_score(inner, norm, normalised), amplitude, gradient, information)


def predicted(
    seen: Coefficients, references: References, which: Tensor, rotation: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Predict volumes, one per pose, as real numbers with the same inner products.

    Returns
    -------
    model, slopes
        (B, 2 K), and (B, 2 K, 6) its derivatives by rotation (radians, in the object's frame) and
        shift (voxels).
    """
    values = sample(references, which, turned(seen.frequency, rotation))  # (B, K, 4)
    passed = seen.transfer * phases(seen.frequency, shift)
    values = values * passed[..., None]
    moved = (-2j * math.pi * seen.frequency) * values[..., :1]
    model = _real(values[..., :1]).squeeze(-1)
    return model, _real(torch.cat([values[..., 1:], moved], -1))


def _real(values: Tensor) -> Tensor:
    """Turn (B, K, J) complex into (B, 2 K, J) real of the same inner products, k and -k both."""
    return math.sqrt(2) * torch.cat([values.real, values.imag], 1)
