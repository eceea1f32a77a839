"""Content of single images from the maps of others, and what these maps predict of the image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def pairs(count: int) -> Tensor:
    """Return the pairs i <= j of J functions, (2, Q)."""
    return torch.triu_indices(count, count)


class Landmarks(NamedTuple):
    """Contents between which the posterior of an image is spread.

    Attributes
    ----------
    values
        (L, J) functions of content.
    products
        (L, Q) products of two of them.
    """

    values: Tensor
    products: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Landmarks:
        """Compute the products of values (L, J)."""
        i, j = pairs(values.shape[1])
        return cls(values, values[:, i] * values[:, j])


class Likelihood(NamedTuple):
    """What images tell of the amounts b of J maps: log p = 2 slope.b - b.precision b + constant.

    Attributes
    ----------
    precision, slope
        (B, J, J) and (B, J).
    """

    precision: Tensor
    slope: Tensor

    def plus(self, other: Likelihood) -> Likelihood:
        """Join what disjoint sets of coefficients of the same images tell."""
        return Likelihood(self.precision + other.precision, self.slope + other.slope)

    def of(self, landmarks: Landmarks) -> Tensor:
        """Log-likelihood (B, L) of landmarks, for the first maps if these have fewer."""
        count = landmarks.values.shape[1]
        i, j = pairs(count)
        twice = torch.where(i == j, 1.0, 2.0).to(self.precision)
        quadratic = (self.precision[:, i, j] * twice) @ landmarks.products.T
        return 2 * self.slope[:, :count] @ landmarks.values.T - quadratic


class Marginal(NamedTuple):
    """A likelihood without its last M maps: motions that are nothing but a nuisance.

    Their amounts n are expected to be N(0, 1).  For given amounts b of the other maps they are
    Gaussian, so they are integrated out exactly.

    Attributes
    ----------
    likelihood
        Of the other maps.
    slope, mixed
        n has mean ``slope - mixed b``: (B, M) and (B, M, J).
    """

    likelihood: Likelihood
    slope: Tensor
    mixed: Tensor

    @classmethod
    def of(cls, seen: Likelihood, nuisances: int) -> Marginal:
        """Integrate over the last maps."""
        count = seen.slope.shape[1] - nuisances
        rest = seen.precision[:, count:, count:] + 0.5 * torch.eye(nuisances).to(seen.precision)
        cross = seen.precision[:, count:, :count]
        inverse = torch.linalg.inv(rest)
        mixed, slope = inverse @ cross, (inverse @ seen.slope[:, count:, None]).squeeze(-1)
        across = cross.transpose(1, 2)
        precision = seen.precision[:, :count, :count] - across @ mixed
        left = seen.slope[:, :count] - (across @ slope[..., None]).squeeze(-1)
        return cls(Likelihood(precision, left), slope, mixed)

    def first(self, count: int) -> Marginal:
        """Keep the first of the other maps."""
        precision, slope = self.likelihood
        kept = Likelihood(precision[:, :count, :count], slope[:, :count])
        return Marginal(kept, self.slope, self.mixed[:, :, :count])

    def joined(self, amount: Tensor) -> Tensor:
        """Return the expected amounts of all maps, from those of maps that are no nuisance."""
        own = self.slope - (self.mixed @ amount[..., None]).squeeze(-1)
        return torch.cat([amount, own], 1)


def likelihood(models: Tensor, value: Tensor) -> Likelihood:
    """Return what coefficients tell of the amounts of maps.

    Parameters
    ----------
    models
        (B, K, 2, J) whitened: what each map gives (:meth:`HalfLattice.read`).
    value
        (B, K) complex, the coefficients of B images.
    """
    columns, target = models.flatten(1, 2), torch.view_as_real(value).flatten(1)
    turned = columns.transpose(1, 2)
    return Likelihood(turned @ columns, (turned @ target[..., None]).squeeze(-1))


def mixed(models: Tensor, amount: Tensor) -> Tensor:
    """Return what amounts (B, J) of maps give in images, (B, K) complex; models as above."""
    found = (models.flatten(1, 2) @ amount[..., None]).reshape(models.shape[:3])
    return torch.view_as_complex(found)


def posterior(seen: Likelihood, landmarks: Landmarks) -> Tensor:
    """Probability (B, L) of each landmark, all equal before."""
    return torch.softmax(seen.of(landmarks), 1)


def gaussian_amounts(seen: Likelihood) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation (B, J - 1) of the amounts of all maps but the first.

    The amount of the first is 1; the others are N(0, 1) before.
    """
    precision = seen.precision[:, 1:, 1:] + 0.5 * torch.eye(seen.slope.shape[1] - 1).to(seen.slope)
    inverse = torch.linalg.inv(precision)
    slope = seen.slope[:, 1:] - seen.precision[:, 1:, 0]
    mean = (inverse @ slope[..., None]).squeeze(-1)
    return mean, (0.5 * torch.diagonal(inverse, dim1=1, dim2=2)).sqrt()
