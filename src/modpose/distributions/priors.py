"""Priors of the pose, and the KL of posteriors to them.

A prior belongs to a space: numbers on a line, angles on the circle, rotations in SO(3).  It gives
the probability of a value, the precision that it adds to a posterior, and the way in which the
numbers of an encoder are read as a posterior.  :func:`rotation_prior`, :func:`shift_prior` and
:func:`scale_prior` make priors from the configuration. Values and Gaussians are (..., k), with k
coordinates: one angle, or yaw, pitch and roll, or a shift, or the logarithm of a scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.config import RotationConfig, ScaleConfig, ShiftConfig
from modpose.distributions.normal import (
    LOG_2PI,
    DiagonalNormal,
    tabulated_wrapped_entropy,
    wrapped_entropy,
    wrapped_log_prob,
)
from modpose.distributions.so3 import SO3Normal
from modpose.geometry.rotations import wrap


class Prior:
    """Base of priors.

    Attributes
    ----------
    inferred
        Whether the variable is latent; otherwise it is zero.
    precision
        Along each coordinate; zero where no value is preferred.
    numbers
        How many numbers an encoder gives for a posterior.
    """

    inferred: bool = True

    @property
    def precision(self) -> float:
        """One over the variance."""
        return 0.0

    @property
    def numbers(self) -> int:
        """How many numbers an encoder gives for a posterior."""
        return 0

    def log_weight(self, value: Tensor) -> Tensor:
        """Log density at values (..., k) minus that at the most probable one, (...), nats."""
        return torch.zeros_like(value[..., 0])

    @property
    def log_peak(self) -> float:
        """Log density at the most probable value, nats per coordinate."""
        return 0.0

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at values (..., k), (...), nats."""
        return self.log_weight(value) + value.shape[-1] * self.log_peak

    def read(self, params: Tensor) -> DiagonalNormal | SO3Normal | None:
        """Read an encoder's numbers (..., numbers) as a posterior; None if nothing is latent."""
        return None


class Fixed(Prior):
    """The variable is zero and not inferred."""

    inferred = False
    std = 0.0

    def read(self, params: Tensor) -> None:
        """Read nothing."""
        return


@dataclass(frozen=True)
class Normal(Prior):
    """N(centre, std²) on every coordinate, on the line.

    Attributes
    ----------
    std
        Radians or pixels.
    size
        Number of coordinates, k.
    centre
        (..., k), or None for zero.
    unit
        Unit of the numbers that an encoder gives for means and s.d.
    """

    std: float
    size: int
    centre: Tensor | None = None
    unit: float = 1.0

    @property
    def precision(self) -> float:
        """One over the variance."""
        return self.std**-2

    @property
    def numbers(self) -> int:
        """A mean and a log s.d. a coordinate."""
        return 2 * self.size

    @property
    def log_peak(self) -> float:
        """Log density at the centre."""
        return -math.log(self.std) - 0.5 * LOG_2PI

    def log_weight(self, value: Tensor) -> Tensor:
        """Minus half the squared distance in s.d."""
        return -0.5 * (self._from_centre(value) / self.std).square().sum(-1)

    def read(self, params: Tensor) -> DiagonalNormal:
        """Read a mean, from the centre, and a log s.d. a coordinate."""
        mean, log_std = params.chunk(2, dim=-1)
        mean, log_std = mean * self.unit, log_std + math.log(self.unit)
        mean = mean if self.centre is None else mean + self.centre
        return DiagonalNormal(mean, log_std).clamped()

    def kl(self, posterior: DiagonalNormal) -> Tensor:
        """KL of a Gaussian to the prior, (...), nats."""
        log_ratio = posterior.log_std - math.log(self.std)
        second = (2 * log_ratio).exp() + (self._from_centre(posterior.mean) / self.std).square()
        return (0.5 * (second - 1) - log_ratio).sum(-1)

    def _from_centre(self, value: Tensor) -> Tensor:
        return value if self.centre is None else value - self.centre


class UniformCircle(Prior):
    """All angles of one circle are equally probable; posteriors are wrapped normals."""

    @property
    def numbers(self) -> int:
        """Cosine, sine, log s.d."""
        return 3

    @property
    def log_peak(self) -> float:
        """One over the circumference."""
        return -LOG_2PI

    def read(self, params: Tensor) -> DiagonalNormal:
        """Read a direction (cos, sin), of any length, and a log s.d."""
        mean = torch.atan2(params[..., 1:2], params[..., 0:1])
        return DiagonalNormal(mean, params[..., 2:]).clamped()


@dataclass(frozen=True)
class WideCircle(UniformCircle):
    """The uniform prior, in training replaced by N(mean, std²), about the posterior's own mean.

    Equation 3 of Bepler et al. 2019, which does not penalise the mean.  It bounds the exact KL
    only where ``std`` is wide.
    """

    std: float

    @property
    def numbers(self) -> int:
        """A mean and a log s.d."""
        return 2

    def read(self, params: Tensor) -> DiagonalNormal:
        """Read a mean, radians, and a log s.d."""
        return Normal(self.std, 1).read(params)


class UniformSO3(Prior):
    """All rotations in 3-D are equally probable (densities are relative to Haar measure)."""

    @property
    def numbers(self) -> int:
        """Two columns of a rotation and a log s.d."""
        return 7

    def log_weight(self, value: Tensor) -> Tensor:
        """Return zero for rotation matrices (..., 3, 3)."""
        return torch.zeros_like(value[..., 0, 0])

    def read(self, params: Tensor) -> SO3Normal:
        """Read two columns of a rotation, of any length, and a log s.d."""
        return SO3Normal.read(params)


def rotation_prior(config: RotationConfig, dim: int) -> Prior:
    """Return the configured prior of rotations in ``dim`` dimensions."""
    std = math.radians(config.std_deg)
    if config.prior == "none":
        return Fixed()
    if config.prior == "gaussian":
        return Normal(std, 1 if dim == 2 else 3)
    if config.prior == "wide":
        return WideCircle(std)
    return UniformCircle() if dim == 2 else UniformSO3()


def shift_prior(config: ShiftConfig, dim: int, side: int) -> Normal | Fixed:
    """Return the configured prior of shifts, in pixels of a box whose longest side is ``side``."""
    if config.prior == "none":
        return Fixed()
    std = config.std(side)
    return Normal(std, dim, unit=std)


def scale_prior(config: ScaleConfig) -> Normal | Fixed:
    """Return the configured prior of the logarithm of the scale."""
    return Normal(config.std, 1, unit=config.std) if config.inferred else Fixed()


def kl(posterior: DiagonalNormal | SO3Normal, prior: Prior, *, exact: bool = True) -> Tensor:
    """KL of a posterior to a prior, (...), nats.

    Parameters
    ----------
    posterior
        A posterior of the type that ``prior`` reads.
    prior
        The prior.
    exact
        Return the KL that makes the ELBO a bound; otherwise its replacement in training.
    """
    match posterior, prior:
        case SO3Normal(), UniformSO3():
            return posterior.kl()
        case DiagonalNormal(), Normal():
            return prior.kl(posterior)
        case DiagonalNormal(), WideCircle() if not exact:
            return Normal(prior.std, 1, centre=posterior.mean).kl(posterior)
        case DiagonalNormal(), UniformCircle():
            return LOG_2PI - circle_entropy(posterior)
    raise TypeError(f"no KL of {type(posterior).__name__} to {type(prior).__name__}")


def log_ratio(prior: Prior, posterior: DiagonalNormal | SO3Normal, value: Tensor) -> Tensor:
    """Log density of a prior over that of a posterior at values, (...), nats."""
    return prior.log_prob(value) - log_density(posterior, value, prior)


def log_density(posterior: DiagonalNormal | SO3Normal, value: Tensor, prior: Prior) -> Tensor:
    """Log density of a posterior at values, on the space of ``prior``: line, circle or SO(3)."""
    if isinstance(prior, UniformCircle) and isinstance(posterior, DiagonalNormal):
        return wrapped_log_prob(value, posterior.mean, posterior.log_std).sum(-1)
    return posterior.log_prob(value)


def circle_entropy(angle: DiagonalNormal) -> Tensor:
    """Entropy of angles (B, C, k) on the circle, (B, C) nats; for many cells, from a table."""
    many = angle.log_std.dim() == 3 and angle.log_std.shape[1] > 1
    entropy = tabulated_wrapped_entropy if many else wrapped_entropy
    return entropy(angle.log_std).sum(-1)


def bhattacharyya(gaussian: DiagonalNormal, *, on_circle: bool) -> Tensor:
    """Distances between the cells of a (B, C, k) Gaussian, (B, C, C) nats."""
    apart = gaussian.mean.unsqueeze(2) - gaussian.mean.unsqueeze(1)
    if on_circle:
        apart = wrap(apart)
    variance = (2 * gaussian.log_std).exp()
    both = 0.5 * (variance.unsqueeze(2) + variance.unsqueeze(1))
    spread = gaussian.log_std.unsqueeze(2) + gaussian.log_std.unsqueeze(1)
    return (apart.square() / (8 * both) + 0.5 * (both.log() - spread)).sum(-1)
