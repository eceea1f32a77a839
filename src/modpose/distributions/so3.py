r"""Posteriors over all rotations of space: a normal in the tangent space, wrapped round SO(3).

R = centre exp(ω) with ω ~ N(0, s² I), a rotation vector.  Every (θ + 2πk) n leads to the same
rotation as θ n, so with the prior uniform over SO(3) (Haar measure, whose density in rotation
vectors is 2 (1 − cos θ) / θ² over 8π²) the density relative to the prior is a function of the angle
θ between R and the centre,

.. math:: q(θ) = \frac{8π^2}{2 (1 - \cos θ)} (2πs^2)^{-3/2}
    \sum_k (θ + 2πk)^2 \exp\!\left(-\frac{(θ + 2πk)^2}{2 s^2}\right).

The KL to the prior is the expectation of its logarithm, one number for each s, computed by
quadrature and read from a table: exact at every width.  It falls until s is about 1.5 (86
degrees), where it is 0.017 nats; wider normals favour small angles again, so s is limited to this.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from modpose.distributions.normal import LOG_2PI
from modpose.geometry.rotations import geodesic, rotation_of_columns

LOG_STD_RANGE = (-8.0, math.log(1.5))
LOG_VOLUME = math.log(8 * math.pi**2)
"""Volume of SO(3) in rotation vectors, radians³."""
WIDEST = 1.9
"""Mean variance, radians², above which two cells cannot be distinguished; found by integration."""
FLATTEST = 1e-3
"""Offset that keeps the first two columns of a rotation independent if an encoder gives zeros."""
_WRAPS = 2
_TABLE_SIZE, _NODES = 4096, 512


class SO3Normal(NamedTuple):
    """Wrapped normals on SO(3).

    Attributes
    ----------
    centre
        (..., 3, 3) rotation matrices.
    log_std
        (..., 1) log s, s in radians about every axis.
    """

    centre: Tensor
    log_std: Tensor

    @classmethod
    def read(cls, params: Tensor) -> SO3Normal:
        """Read an encoder's (..., 7): two columns of the centre, of any length; log s."""
        start = params.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        columns = params[..., :6] + FLATTEST * start
        return cls(rotation_of_columns(columns), params[..., 6:].clamp(*LOG_STD_RANGE))

    def at(self, cell: Tensor) -> SO3Normal:
        """Pick cells (B, K) of (B, C)."""
        index = cell[..., None, None].expand(*cell.shape, 3, 3)
        log_std = self.log_std.gather(1, cell.unsqueeze(-1))
        return SO3Normal(self.centre.gather(1, index), log_std)

    def kl(self) -> Tensor:
        """KL to the uniform prior, (...), nats."""
        table = _kl_table().to(self.log_std.device)
        low, high = LOG_STD_RANGE
        log_std = self.log_std.squeeze(-1)
        place = (log_std - low) * ((_TABLE_SIZE - 1) / (high - low))
        node = place.detach().floor().clamp(0, _TABLE_SIZE - 2).long()
        below, above = table[node], table[node + 1]
        return below + (place - node) * (above - below)

    def entropy(self) -> Tensor:
        """Differential entropy, (...), nats, relative to radians³ of rotation vectors."""
        return LOG_VOLUME - self.kl()

    def log_prob(self, rotation: Tensor) -> Tensor:
        """Log density of rotations (..., 3, 3), relative to the uniform prior, (...), nats."""
        return log_density(geodesic(self.centre, rotation), self.log_std.squeeze(-1))

    def bhattacharyya(self) -> Tensor:
        """Distances between cells (B, C), (B, C, C) nats, too small rather than too large.

        They are the distances of normals in flat space, with the chord instead of the angle, and
        smaller if normals are so wide that they overlap at 180 degrees.  The KL of a mixture can
        then only be too large, so the ELBO stays a bound.
        """
        products = torch.einsum("bcij,bkij->bck", self.centre, self.centre)  # 1 + 2 cos θ
        chord = (3 - products).clamp(min=0)  # (2 sin θ/2)²
        log_std = self.log_std.squeeze(-1)
        variance = (2 * log_std).exp()
        both = 0.5 * (variance.unsqueeze(2) + variance.unsqueeze(1))
        spread = log_std.unsqueeze(2) + log_std.unsqueeze(1)
        flat = chord / (8 * both) + 1.5 * (both.log() - spread)
        return flat * (1 - both / WIDEST).clamp(min=0)

    def mixed(self, weight: Tensor) -> SO3Normal:
        """Mix cells (B, C) with weights (B, 1, C): the columns of rotations are averaged."""
        columns = self.centre[..., :2].transpose(-1, -2).flatten(-2)
        centre = rotation_of_columns(weight @ columns)
        return SO3Normal(centre, (weight @ self.log_std.exp()).log())


def log_density(angle: Tensor, log_std: Tensor) -> Tensor:
    """Log q(θ), relative to the uniform prior; shapes broadcast.

    Parameters
    ----------
    angle
        Radians between the rotation and the centre, in [0, pi].
    log_std
        At most log 1.5.
    """
    angle = angle.clamp(min=1e-6)  # no 0/0
    turns = 2 * math.pi * torch.arange(-_WRAPS, _WRAPS + 1, device=angle.device)
    wrapped = angle.unsqueeze(-1) + turns
    powers = -0.5 * (wrapped / log_std.exp().unsqueeze(-1)).square() + 2 * wrapped.abs().log()
    haar = (2 * (angle / 2).sin()).square().log()
    return LOG_VOLUME - haar - 1.5 * LOG_2PI - 3 * log_std + powers.logsumexp(-1)


@cache
def _kl_table() -> Tensor:
    """KL at equal steps of log s, by Gauss-Legendre quadrature over the angle."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(_NODES))
    log_std = torch.linspace(*LOG_STD_RANGE, _TABLE_SIZE, dtype=torch.float64)
    farthest = (12 * log_std.exp()).clamp(max=math.pi)[:, None]
    angle = farthest * (nodes + 1) / 2
    log_q = log_density(angle, log_std[:, None])
    prior = 2 * (angle / 2).sin().square() / math.pi  # density of the angle under Haar measure
    return (weights * farthest / 2 * prior * log_q.exp() * log_q).sum(-1).float()
