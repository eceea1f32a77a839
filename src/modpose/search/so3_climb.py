"""Local optimisation of 3-D poses: Gauss-Newton on rotation and shift.

The derivatives are exact: those by rotation are interpolated like the reference itself, those by
shift are phases.  A step is accepted if it raises the score; otherwise its damping grows (Levenberg
and Marquardt).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.devices import HOST, at_once, near
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
        (B,) best amplitude of the reference, at least 0; or (B, J + 1) of each of several maps.
    information
        (B, 6, 6) Fisher information of rotation (radians, in the object's frame) and shift
        (voxels); the amplitude is known or projected out, as in the score.
    """

    rotation: Tensor
    shift: Tensor
    score: Tensor
    amplitude: Tensor
    information: Tensor

    def to(self, device: torch.device) -> PosedVolumes:
        """Move to a device."""
        return PosedVolumes(*(part.to(device) for part in self))

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
    device = near(volumes.value)
    count = max(1, at_once(NUMBERS_AT_ONCE, device) // (14 * volumes.width))
    parts = []
    for first in range(0, len(owner), count):
        part = slice(first, first + count)
        seen, own = _seen(volumes, owner[part], device), which[part].to(device)
        look = partial(_slope, seen, references, own, normalised=normalised)
        start = (rotation[part].to(seen.frequency), shift[part].to(seen.frequency))
        parts.append(_climb(look, *start, steps, reach).to(volumes.value.device))
    return PosedVolumes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def climb_with_motions(
    volumes: Coefficients,
    references: References,
    owner: Tensor,
    rotation: Tensor,
    shift: Tensor,
    *,
    contrast: float,
    steps: int,
) -> PosedVolumes:
    """Optimise poses where each object is a mean and some amount of each of J motions.

    The amounts are N(0, I), that of the mean N(1, contrast^2); they are integrated out exactly at
    every pose.

    Parameters
    ----------
    volumes, owner, rotation, shift, steps
        As of :func:`climb`.
    references
        The mean and J directions, with slopes.
    contrast
        Prior standard deviation of how much of the mean a volume holds.

    Returns
    -------
    PosedVolumes
        With the log-likelihood as the score, and as amplitudes (B, J + 1) the expected amounts.
    """
    maps, device = len(references), near(volumes.value)
    precision = torch.ones(maps, device=device)
    precision[0] = contrast**-2
    count = max(1, at_once(NUMBERS_AT_ONCE, device) // (14 * maps * volumes.width))
    parts = []
    for first in range(0, len(owner), count):
        part = slice(first, first + count)
        seen = _seen(volumes, owner[part], device)
        look = partial(_slope_of_mixture, seen, references, precision)
        start = (rotation[part].to(precision), shift[part].to(precision))
        parts.append(_climb(look, *start, steps, math.inf).to(volumes.value.device))
    return PosedVolumes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _seen(volumes: Coefficients, owner: Tensor, device: torch.device) -> Coefficients:
    """Select volumes on a device; one that is selected several times is moved once."""
    if volumes.value.device == device:
        return volumes.rows(owner)
    rows, again = torch.unique(owner.to(HOST), return_inverse=True)
    return volumes.rows(rows).to(device).rows(again.to(device))


def _climb(
    look: Callable[[Tensor, Tensor], _Slope],
    rotation: Tensor,
    shift: Tensor,
    steps: int,
    reach: float,
) -> PosedVolumes:
    here = look(rotation, shift)
    damping = torch.full_like(here.score, 1e-2)
    for _ in range(steps):
        move = _step(here, damping)
        new_rotation = rotation @ rotation_of_vector(move[:, :3])
        new_shift = (shift + move[:, 3:]).clamp(-reach, reach)
        there = look(new_rotation, new_shift)
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
    *,
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


def _slope_of_mixture(
    seen: Coefficients, references: References, precision: Tensor, rotation: Tensor, shift: Tensor
) -> _Slope:
    rows = len(rotation)
    every = [
        predicted(
            seen, references, torch.full((rows,), number, device=rotation.device), rotation, shift
        )
        for number in range(len(references))
    ]
    models = torch.stack([model for model, _ in every], 1)  # (B, J + 1, 2 K)
    target = _real(seen.value.unsqueeze(-1)).squeeze(-1)
    expected = target.new_zeros(rows, len(precision))
    expected[:, 0] = precision[0]
    right = (models @ target[..., None]).squeeze(-1) + expected
    inverse = torch.linalg.inv(models @ models.transpose(1, 2) + precision.diag())
    amount = (inverse @ right[..., None]).squeeze(-1)
    constant = precision.log().sum() - precision[0]
    score = 0.5 * ((right * amount).sum(1) + torch.logdet(inverse) + constant)
    slopes = sum(amount[:, j, None, None] * every[j][1] for j in range(len(every)))
    assert isinstance(slopes, Tensor)
    rest = target - (amount[:, None] @ models).squeeze(1)
    along = models @ slopes  # (B, J + 1, 6)
    information = slopes.transpose(1, 2) @ slopes - along.transpose(1, 2) @ inverse @ along
    return _Slope(score, amount, (rest[:, None] @ slopes).squeeze(1), information)


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
