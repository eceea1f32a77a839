"""Angles as latent variables: KL to their priors, entropy on the circle, overlap of cells.

Gaussians here are (..., k): one in-plane angle, or yaw, pitch and roll.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modpose.config import RotationConfig
from modpose.distributions.normal import (
    LOG_2PI,
    DiagonalNormal,
    tabulated_wrapped_entropy,
    wrapped_entropy,
    wrapped_log_prob,
)
from modpose.geometry.rotations import wrap


def angle_kl(angle: DiagonalNormal, prior: RotationConfig, *, exact: bool) -> Tensor:
    """KL of the angles' posterior to their prior, nats; ``angle`` is (..., k), the result (...)."""
    std = math.radians(prior.std_deg)
    if prior.prior == "gaussian":
        return angle.kl_to_prior(std)
    if prior.prior == "wide" and not exact:
        return DiagonalNormal(torch.zeros_like(angle.mean), angle.log_std).kl_to_prior(std)
    return LOG_2PI - circle_entropy(angle)


def circle_entropy(angle: DiagonalNormal) -> Tensor:
    """Entropy of angles (B, C, k) on the circle, (B, C) nats; from a table where cells are many."""
    many = angle.log_std.dim() == 3 and angle.log_std.shape[1] > 1
    entropy = tabulated_wrapped_entropy if many else wrapped_entropy
    return entropy(angle.log_std).sum(-1)


def angle_log_ratio(angle: DiagonalNormal, value: Tensor, prior: RotationConfig) -> Tensor:
    """Log density of the prior over that of the posterior at angles (..., k), (...)."""
    if prior.prior == "gaussian":
        return line_log_ratio(angle, value, torch.zeros_like(value), math.radians(prior.std_deg))
    return (-LOG_2PI - wrapped_log_prob(value, angle.mean, angle.log_std)).sum(-1)


def line_log_ratio(posterior: DiagonalNormal, value: Tensor, centre: Tensor, std: float) -> Tensor:
    """Log density of N(centre, std²) over that of ``posterior``, summed over the last dimension."""
    prior = DiagonalNormal(centre, torch.full_like(value, math.log(std)))
    return prior.log_prob(value) - posterior.log_prob(value)


def bhattacharyya(gaussian: DiagonalNormal, *, on_circle: bool) -> Tensor:
    """Distances between the cells of a (B, C, k) Gaussian, (B, C, C) nats."""
    apart = gaussian.mean.unsqueeze(2) - gaussian.mean.unsqueeze(1)
    if on_circle:
        apart = wrap(apart)
    variance = (2 * gaussian.log_std).exp()
    both = 0.5 * (variance.unsqueeze(2) + variance.unsqueeze(1))
    spread = gaussian.log_std.unsqueeze(2) + gaussian.log_std.unsqueeze(1)
    return (apart.square() / (8 * both) + 0.5 * (both.log() - spread)).sum(-1)
