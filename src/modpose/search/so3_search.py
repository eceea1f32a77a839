"""Poses of volumes by search: every rotation of every reference, every shift, one matrix product.

The inner product of a volume with a posed reference, over truncated Fourier coefficients, is

    Re sum over k of conj(F(R^T k)) h(k) y(k) exp(2 pi i k.t),

a product of one matrix of rotated references and one of shifted volumes.  Together with the energy
of the rotated reference after this volume's transfer, it gives the log-likelihood, or that of the
best amplitude A >= 0, which measures the fit of a reference of any strength.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.devices import at_once, near
from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.reference import References, sample, turned

SCORES_AT_ONCE = 1 << 22
"""Largest number of scores in memory."""


class PoseHypotheses(NamedTuple):
    """The best poses of N volumes with each of C references, best first.

    Attributes
    ----------
    rotation
        (N, C, T, 3, 3) active rotations.
    shift
        (N, C, T, 3) voxels, (x, y, z).
    score
        (N, C, T) nats.
    """

    rotation: Tensor
    shift: Tensor
    score: Tensor


def shift_grid(reach: float, step: float) -> Tensor:
    """Lay shifts (S, 3) evenly over the cube from -reach to reach, at most ``step`` apart."""
    count = max(1, math.ceil(2 * reach / step - 1e-6) + 1) if reach > 0 else 1
    axis = torch.linspace(-reach, reach, count) if count > 1 else torch.zeros(1)
    return torch.cartesian_prod(axis, axis, axis)


def search(
    volumes: Coefficients,
    references: References,
    rotations: Tensor,
    shifts: Tensor,
    *,
    top: int = 1,
    normalised: bool = True,
    apart: float = 0.0,
) -> PoseHypotheses:
    """Score volumes against every rotation of every reference at every shift.

    Parameters
    ----------
    volumes
        N, with the frequencies to compare.
    references
        C upright objects.
    rotations
        (R, 3, 3).
    shifts
        (S, 3) voxels.
    top
        Poses to keep for each volume and reference.
    normalised
        Score with the best amplitude, ``A^2 |F|^2 / 2`` with A >= 0, instead of amplitude one.
    apart
        Smallest angle between kept poses, radians.

    Returns
    -------
    PoseHypotheses
        The best poses.  The plain score is ``log p(y | pose)`` minus that of no object at all.
    """
    home, device = volumes.value.device, near(volumes.value)
    waves = volumes.frequency.to(device)
    count, grid = len(references), rotations.to(waves)
    number = torch.arange(count, device=grid.device)
    which, shifts = number.repeat_interleave(len(grid)), shifts.to(grid)
    frequency = turned(waves, grid).repeat(count, 1, 1)
    values = sample(references, which, frequency)
    energy = 2 * (values.real.square() + values.imag.square())
    features = 2 * torch.cat([values.real, values.imag], 1)
    beside = None if apart <= 0 or top == 1 else _nearer(grid, apart)
    shifting = phases(waves, -shifts)
    few = max(1, at_once(SCORES_AT_ONCE, device) // (len(features) * len(shifts)))
    parts = []
    for first in range(0, len(volumes), few):
        part = volumes.rows(slice(first, first + few)).to(device)
        moved = (part.value * part.transfer)[:, None] * shifting
        data = torch.cat([moved.real, moved.imag], -1)  # (B, S, 2 K)
        inner = (features @ data.flatten(0, 1).T).reshape(len(features), -1, len(shifts)).amax(-1)
        norm = energy @ part.transfer.square().T  # (C R, B | 1)
        score = pose_score(inner, norm, normalised).T.reshape(len(part), count, len(grid))
        best, place = _best(score, top, beside)
        row = (number[:, None] * len(grid) + place).flatten(1)
        at = torch.einsum("btk,bsk->bts", features[row], data).argmax(-1)
        shift = shifts[at].reshape(*place.shape, 3)
        parts.append([each.to(home) for each in (grid[place], shift, best)])
    return PoseHypotheses(*(torch.cat(part) for part in zip(*parts, strict=True)))


def pose_score(inner: Tensor, norm: Tensor, normalised: bool) -> Tensor:
    """Score of a pose from <y, m> and |m|^2: with the best amplitude, or with amplitude one."""
    if normalised:
        return inner.clamp(min=0).square() / (2 * norm).clamp(min=1e-12)
    return inner - norm / 2


def _nearer(grid: Tensor, angle: float) -> Tensor:
    """Return which rotations of a grid are closer than an angle (radians), (R, R)."""
    trace = grid.flatten(1) @ grid.flatten(1).T
    return trace > 1 + 2 * math.cos(min(angle, math.pi))


def _best(score: Tensor, top: int, near: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pick the best rotations (B, C, T) of (B, C, R), none near a better one."""
    if near is None:
        best = score.topk(min(top, score.shape[-1]), dim=-1)
        return best.values, best.indices
    score, values, places = score.clone(), [], []
    for _ in range(top):
        value, place = score.max(-1)
        values.append(value)
        places.append(place)
        score.masked_fill_(near[place], -math.inf)
    return torch.stack(values, -1), torch.stack(places, -1)
