"""Principal motions of posed volumes of one class, with their wedges and noise.

A volume shows the object mean + z_1 W_1 + ... + z_J W_J at its pose, z ~ N(0, I): probabilistic
principal components (Tipping & Bishop 1999) with the pose, wedge and transfer of every volume.
Expectation and maximisation alternate, at all frequencies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from modpose import ranks
from modpose.fourier.coefficients import Coefficients, half_sphere, shell_of, transform
from modpose.search.placed import NormalEquations, PlacedBlocks, SliceOperator, halved, table_of

SHARE = 0.1
"""Power of a motion relative to that of the mean, in the prior."""
LOOSE = 100.0
"""Power of the mean relative to its own estimate, in the prior (a weak prior)."""
LEAST = 1e-4
"""Smallest variance of a direction, relative to the weak prior."""
SETTLING, RENEWED = 6, 3
"""Iterations before variances are estimated from the data, and between such estimates."""
ITERATIONS = 25
STILL = 0.01
"""Root mean square change of z at which iterations end early."""


class Motions(NamedTuple):
    """Motions of the volumes of one class, the strongest first.

    Attributes
    ----------
    mean
        (D, D, D).
    directions
        (J, D, D, D): the change for one standard deviation of each motion.
    z, z_std
        (N, J) position of each volume along them, and its standard deviation; where contrasts are
        estimated, position times contrast.
    contrast
        (N,) how much of the mean each volume holds.
    """

    mean: Tensor
    directions: Tensor
    z: Tensor
    z_std: Tensor
    contrast: Tensor

    def volumes(self, z: Tensor) -> Tensor:
        """Draw the object at contents (B, J); (B, D, D, D)."""
        return self.mean + torch.einsum("bj,jzyx->bzyx", z, self.directions)


def principal_motions(
    data: Coefficients,
    rotation: Tensor,
    shift: Tensor,
    mean: Tensor,
    mask: Tensor,
    *,
    count: int,
    generator: torch.Generator,
    start: Tensor | None = None,
    iterations: int = ITERATIONS,
    contrast: float = 0.0,
) -> Motions:
    """Find the principal motions of posed volumes.

    Parameters
    ----------
    data
        N volumes of one class, with the resolved frequencies.
    rotation, shift
        (N, 3, 3) and (N, 3) voxels.
    mean
        (D, D, D) their average.
    mask
        (D, D, D) mask of the motions.
    count
        Number of motions, J, fewer than volumes.
    generator
        Random numbers of the start.
    start
        (N, J) content to start from, in place of noise.
    iterations
        Largest number of iterations.
    contrast
        Prior standard deviation of the contrast of each volume, 1 on average; motions are then
        orthogonal to the mean.  0: it is 1.
    """
    loose = prior_variance(power_of(mean[None])[0], count)
    blocks = PlacedBlocks(data, rotation, shift)
    z = torch.randn(len(data), count, generator=generator) if start is None else start
    z = z.to(mean)
    amount = torch.cat([z.new_ones(len(z), 1), z], 1)
    spread = z.new_zeros(len(data), count + 1, count + 1)
    variance = loose
    for step in range(iterations):
        halves = halved(blocks, *moments(amount, spread))
        if step >= SETTLING and step % RENEWED == 0:
            variance = agreed_variance(halves, mask, loose)
        halves[0].join(halves[1])
        maps = halves[0].solve(mask, variance)
        mean, directions, last = maps[0], maps[1:], amount[:, 1:]
        if contrast:
            directions = _across(directions, mean)
        amount, spread = _expected(blocks, mean, directions, contrast)
        scale = (amount.square() + spread.diagonal(dim1=1, dim2=2)).mean(0).sqrt()
        scale[0] = 1.0
        amount, spread = amount / scale, spread / (scale[:, None] * scale)
        directions = directions * scale[1:, None, None, None]
        if (amount[:, 1:] - last).square().mean().sqrt() < STILL:
            break
    return _ordered(mean, directions, amount, spread)


def _across(directions: Tensor, mean: Tensor) -> Tensor:
    """Take the part of directions (J, D, D, D) that is orthogonal to the mean."""
    along = (directions * mean).sum((1, 2, 3)) / mean.square().sum()
    return directions - along[:, None, None, None] * mean


def power_of(volumes: Tensor, others: Tensor | None = None) -> Tensor:
    """Mean square (C, shells) of unitary coefficients of objects (C, D, D, D), shell by shell.

    With ``others`` of the same shape, the mean product: only their common part counts.
    """
    box = volumes.shape[-1]
    frequency, place = (part.to(volumes.device) for part in half_sphere(box, 0.5))
    shell, shells = shell_of(frequency, box), box // 2 + 1
    first = transform(volumes, place)
    second = first if others is None else transform(others, place)
    power = (first * second.conj()).real
    total = power.new_zeros(len(volumes), shells).index_add_(1, shell, power)
    return total / torch.bincount(shell, minlength=shells).clamp(min=1)


def agreed_variance(
    halves: tuple[NormalEquations, NormalEquations], mask: Tensor, loose: Tensor
) -> Tensor:
    """Variance (J + 1, shells) of directions, from the agreement of two halves of the set.

    A direction of noise differs between the halves; its variance falls to zero, and the direction
    disappears.  The variance of the mean does not change.
    """
    first, second = (half.solve(mask, loose)[1:] for half in halves)
    shared = torch.maximum(power_of(first, second), LEAST * loose[1:])
    return torch.cat([loose[:1], shared])


def expected(placed: SliceOperator, table: Tensor, contrast: float = 0.0) -> tuple[Tensor, Tensor]:
    """Posterior mean (N, J + 1) and covariance (N, J + 1, J + 1) of the amount of each map.

    ``table`` is :func:`table_of` the mean and the J directions.  Amounts of directions are N(0, I)
    before, that of the mean is 1, or normal about 1 with this standard deviation.
    """
    models = placed.predictions(table)
    parts = torch.view_as_real(models[:, 1:] if not contrast else models).flatten(2)  # (N, J, 2 K)
    target = torch.view_as_real(placed.value - models[:, 0]).flatten(1)
    prior = parts.new_ones(parts.shape[1])
    if contrast:
        prior[0] = contrast**-2
    precision = 2 * parts @ parts.transpose(1, 2) + prior.diag()
    covariance = torch.linalg.inv(precision)
    found = (covariance @ (2 * parts @ target[..., None])).squeeze(-1)
    if contrast:
        found[:, 0] += 1
        return found.to(placed.home), covariance.to(placed.home)
    certain = torch.cat([found.new_ones(len(found), 1), found], 1)
    covariance = functional.pad(covariance, (1, 0, 1, 0))
    return certain.to(placed.home), covariance.to(placed.home)


def _expected(
    blocks: PlacedBlocks, mean: Tensor, directions: Tensor, contrast: float
) -> tuple[Tensor, Tensor]:
    table = table_of(torch.cat([mean[None], directions]), blocks.limit)
    maps = len(directions) + 1

    def own() -> tuple[Tensor, Tensor]:
        amount = mean.new_zeros(blocks.count, maps)
        spread = mean.new_zeros(blocks.count, maps, maps)
        for _, rows, placed in blocks:
            amount[rows], spread[rows] = expected(placed, table, contrast)
        return amount, spread

    amount, spread = ranks.total(own)
    return amount, spread


def moments(amount: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Amounts (N, J + 1) of every map, and their expected products, given their covariance."""
    return amount, amount[:, :, None] * amount[:, None] + spread


def prior_variance(power: Tensor, directions: int) -> Tensor:
    """Variance (J + 1, shells) of the coefficients of the mean and of each direction."""
    return torch.stack([LOOSE * power] + directions * [SHARE * power])


def _ordered(mean: Tensor, directions: Tensor, amount: Tensor, spread: Tensor) -> Motions:
    """Rotate the basis so that motions are independent volumes, the strongest first."""
    flat = directions.flatten(1)
    turn = torch.linalg.eigh(flat @ flat.T).eigenvectors.flip(1)  # (J, J), columns
    variance = torch.einsum("ij,nik,kj->nj", turn, spread[:, 1:, 1:], turn)
    volumes = torch.einsum("ij,izyx->jzyx", turn, directions)
    z_std = variance.clamp(min=0).sqrt()
    return Motions(mean, volumes, amount[:, 1:] @ turn, z_std, amount[:, 0])
