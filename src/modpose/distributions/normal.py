"""Diagonal Gaussians, and the wrapped Gaussian on the circle."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
LOG_STD_RANGE = (-8.0, 4.0)
"""Limits of the log s.d. of every posterior on a line or a circle."""


class DiagonalNormal(NamedTuple):
    """Independent normals, ``mean`` and ``log_std`` of one shape (..., k)."""

    mean: Tensor
    log_std: Tensor

    def clamped(self) -> DiagonalNormal:
        """Keep log s.d. within ``LOG_STD_RANGE``."""
        return DiagonalNormal(self.mean, self.log_std.clamp(*LOG_STD_RANGE))

    def rsample(self, generator: torch.Generator | None) -> Tensor:
        """Draw one reparametrised sample, (..., k)."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, summed over the last dimension, nats; (...)."""
        error = (value - self.mean) / self.log_std.exp()
        return (-0.5 * error.square() - self.log_std - 0.5 * LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy, summed over the last dimension; (...), nats."""
        return (self.log_std + 0.5 * (LOG_2PI + 1)).sum(-1)


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(48)
_WRAPS = 4


def wrapped_log_prob(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of the wrapped normal on the circle, nats; shapes broadcast.

    The infinite sum over turns is cut where further terms are below float32 precision.  For a
    standard deviation over two turns the density is uniform to 1e-30.
    """
    std = log_std.exp().clamp(max=4 * math.pi)
    turns = 2 * math.pi * torch.arange(-_WRAPS, _WRAPS + 1, device=value.device)
    error = torch.remainder(value - mean + math.pi, 2 * math.pi) - math.pi
    # A wide normal needs more turns than a narrow one: the theta function's other series takes
    # over where it converges faster.
    narrow = torch.logsumexp(
        -0.5 * ((error.unsqueeze(-1) + turns) / std.unsqueeze(-1)).square(), dim=-1
    ) - (std.log() + 0.5 * LOG_2PI)
    waves = torch.arange(1, 5, device=value.device, dtype=value.dtype)
    damped = (-0.5 * (waves * std.unsqueeze(-1)).square()).exp()
    series = 1 + 2 * (damped * (waves * error.unsqueeze(-1)).cos()).sum(-1)
    wide = series.clamp(min=1e-12).log() - LOG_2PI
    return torch.where(std < math.pi, narrow, wide)


def wrapped_entropy(log_std: Tensor) -> Tensor:
    """Entropy of the wrapped normal on the circle, nats, by Gauss-Hermite quadrature.

    Parameters
    ----------
    log_std
        (...) logarithm of the standard deviation before wrapping, radians.

    Returns
    -------
    Tensor
        (...) at most log 2 pi, which the uniform distribution reaches.
    """
    nodes = torch.as_tensor(_NODES, dtype=log_std.dtype, device=log_std.device)
    weights = torch.as_tensor(_WEIGHTS, dtype=log_std.dtype, device=log_std.device)
    std = log_std.exp().unsqueeze(-1)
    log_density = wrapped_log_prob(std * nodes, torch.zeros_like(std), log_std.unsqueeze(-1))
    entropy = -(weights / weights.sum() * log_density).sum(-1)
    return torch.where(log_std > math.log(math.pi), LOG_2PI - _wide_deficit(log_std), entropy)


def _wide_deficit(log_std: Tensor) -> Tensor:
    """Leading term of log 2 pi - entropy for a wide wrapped normal: rho², rho = exp(-std²/2)."""
    return (-(2 * log_std.clamp(max=5)).exp()).exp()


_TABLE_RANGE, _TABLE_SIZE = (-8.0, 4.0), 4096


@cache
def _entropy_table() -> Tensor:
    return wrapped_entropy(torch.linspace(*_TABLE_RANGE, _TABLE_SIZE, dtype=torch.float64)).float()


def tabulated_wrapped_entropy(log_std: Tensor) -> Tensor:
    """Read :func:`wrapped_entropy` from a table, to 1e-5 nats; for thousands of cells per image.

    Parameters
    ----------
    log_std
        (...) between -8 and 4.
    """
    table = _entropy_table().to(log_std.device)
    low, high = _TABLE_RANGE
    place = (log_std - low) * ((_TABLE_SIZE - 1) / (high - low))
    node = place.detach().floor().clamp(0, _TABLE_SIZE - 2).long()
    below, above = table[node], table[node + 1]
    return below + (place - node) * (above - below)
