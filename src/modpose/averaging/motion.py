"""How posed volumes of one class differ: principal motions, wedges and noise accounted for.

A volume shows the object mean + z_1 W_1 + ... + z_J W_J at its pose, z ~ N(0, I): probabilistic
principal components (Tipping & Bishop 1999) with the poses, wedges and transfer of every volume in
between.  Expectation and maximisation alternate, at every frequency at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.averaging.average import put_back, solve_jointly
from modpose.averaging.coefficients import (
    Coefficients,
    half_sphere,
    phases,
    shell_of,
    transform,
)
from modpose.averaging.reference import make_references, sample, turned

SHARE = 0.1
"""Power of a motion over that of the mean, as the prior has it."""
LOOSE = 100.0
"""Power of the mean over its own estimate, as the prior has it: hardly any prior."""
ITERATIONS = 25
STILL = 0.01
"""Root mean square change of z at which the iterations end."""
ROWS_AT_ONCE = 256


class Motions(NamedTuple):
    """How the volumes of one class differ, the strongest motion first.

    Attributes
    ----------
    mean
        (D, D, D).
    directions
        (J, D, D, D): what one standard deviation of each motion adds.
    z, z_std
        (N, J) where each volume is along them, and how well that is known.
    """

    mean: Tensor
    directions: Tensor
    z: Tensor
    z_std: Tensor

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
) -> Motions:
    """Find the principal motions of posed volumes.

    Parameters
    ----------
    data
        N volumes of one class, with the frequencies that are resolved.
    rotation, shift
        (N, 3, 3) and (N, 3) voxels.
    mean
        (D, D, D) their average.
    mask
        (D, D, D) that motions are confined to.
    count
        How many motions, J, fewer than volumes.
    generator
        Draws the start.
    """
    prior = _power(mean, data.box)
    z = torch.randn(len(data), count, generator=generator)
    spread = torch.zeros(len(data), count, count)
    for _ in range(ITERATIONS):
        mean, directions = _maximised(data, rotation, shift, z, spread, mask, prior)
        last = z
        z, spread = _expected(data, rotation, shift, mean, directions)
        scale = (z.square() + spread.diagonal(dim1=1, dim2=2)).mean(0).sqrt()
        z, spread = z / scale, spread / (scale[:, None] * scale)
        directions = directions * scale[:, None, None, None]
        if (z - last).square().mean().sqrt() < STILL:
            break
    return _ordered(mean, directions, z, spread)


def _power(mean: Tensor, box: int) -> Tensor:
    """Mean square (shells,) of an object's coefficients."""
    frequency, place = half_sphere(box, 0.5)
    shell, shells = shell_of(frequency, box), box // 2 + 1
    power = transform(mean[None], place)[0].abs().square()
    total = torch.zeros(shells).index_add_(0, shell, power)
    return total / torch.bincount(shell, minlength=shells).clamp(min=1)


def _expected(
    data: Coefficients, rotation: Tensor, shift: Tensor, mean: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Posterior mean (N, J) and covariance (N, J, J) of z."""
    maps = torch.cat([mean[None], directions])
    references = make_references(maps, float(data.radius[-1]))
    means, spreads = [], []
    for rows in torch.split(torch.arange(len(data)), ROWS_AT_ONCE):
        part = data.rows(rows)
        frequency = turned(part.frequency, rotation[rows])
        passed = part.transfer * phases(part.frequency, shift[rows])
        models = [
            sample(references, torch.full((len(rows),), j), frequency) * passed
            for j in range(len(maps))
        ]
        parts = torch.view_as_real(torch.stack(models[1:], 1)).flatten(2)  # (B, J, 2 K)
        target = torch.view_as_real(part.value - models[0]).flatten(1)
        precision = 2 * parts @ parts.transpose(1, 2) + torch.eye(len(directions))
        covariance = torch.linalg.inv(precision)
        means.append((covariance @ (2 * parts @ target[..., None])).squeeze(-1))
        spreads.append(covariance)
    return torch.cat(means), torch.cat(spreads)


def _maximised(
    data: Coefficients,
    rotation: Tensor,
    shift: Tensor,
    z: Tensor,
    spread: Tensor,
    mask: Tensor,
    power: Tensor,
) -> tuple[Tensor, Tensor]:
    """Best mean and directions given z: least squares at every frequency."""
    n, count = z.shape
    slot = torch.zeros(n, dtype=torch.int64)
    basis = torch.cat([torch.ones(n, 1), z], 1)
    second = basis[:, :, None] * basis[:, None]
    second[:, 1:, 1:] += spread
    sums = [put_back(data, slot, 1, rotation, shift, basis[:, j]) for j in range(count + 1)]
    weights = {
        (i, j): put_back(data, slot, 1, rotation, shift, second[:, i, j]).weight[0]
        for i in range(count + 1)
        for j in range(i, count + 1)
    }
    variance = torch.stack([LOOSE * power] + count * [SHARE * power])
    values = [one.value[0] for one in sums]
    maps = solve_jointly(values, weights, sums[0].padded, mask, variance)
    return maps[0], maps[1:]


def _ordered(mean: Tensor, directions: Tensor, z: Tensor, spread: Tensor) -> Motions:
    """Turn the basis so that motions are independent volumes, the strongest first."""
    flat = directions.flatten(1)
    turn = torch.linalg.eigh(flat @ flat.T).eigenvectors.flip(1)  # (J, J), columns
    variance = torch.einsum("ij,nik,kj->nj", turn, spread, turn)
    volumes = torch.einsum("ij,izyx->jzyx", turn, directions)
    return Motions(mean, volumes, z @ turn, variance.clamp(min=0).sqrt())
