"""Content of single images from the maps of others, and what these maps predict of the image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.content_maps.equations import pairs
from modpose.content_maps.lattice import HalfLattice, PlacedImages


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

    def of(self, landmarks: Landmarks) -> Tensor:
        """Log-likelihood (B, L) of landmarks, for the first maps if these have fewer."""
        count = landmarks.values.shape[1]
        i, j = pairs(count)
        twice = torch.where(i == j, 1.0, 2.0)
        quadratic = (self.precision[:, i, j] * twice) @ landmarks.products.T
        return 2 * self.slope[:, :count] @ landmarks.values.T - quadratic


def likelihood(
    lattice: HalfLattice, placed: PlacedImages, table: Tensor, of: Tensor | slice = slice(None)
) -> Likelihood:
    """Return what images, or some of their coefficients, tell of the amounts of maps.

    Parameters
    ----------
    lattice, placed
        B images on a lattice.
    table
        Of the J maps (:meth:`HalfLattice.table`).
    of
        Which coefficients.
    """
    models = torch.view_as_real(lattice.read(placed, table)[:, :, of]).flatten(2)
    target = torch.view_as_real(placed.value[:, of]).flatten(1)
    slope = (models @ target[..., None]).squeeze(-1)
    return Likelihood(models @ models.transpose(1, 2), slope)


def posterior(seen: Likelihood, landmarks: Landmarks) -> Tensor:
    """Probability (B, L) of each landmark, all equal before."""
    return torch.softmax(seen.of(landmarks), 1)


def gains(seen: Likelihood, unseen: Likelihood, values: Tensor, counts: tuple[int, ...]) -> Tensor:
    """How much better the first maps predict unseen coefficients than the mean map alone.

    Parameters
    ----------
    seen, unseen
        Of two disjoint sets of coefficients of B images: content is inferred from the first.
    values
        (L, J) functions of content at the landmarks.
    counts
        Numbers of maps to try.

    Returns
    -------
    Tensor
        (B, counts) nats.
    """
    mean = (2 * unseen.slope[:, 0] - unseen.precision[:, 0, 0])[:, None]
    found = []
    for count in counts:
        landmarks = Landmarks.of(values[:, :count])
        expected = (posterior(seen, landmarks) * unseen.of(landmarks)).sum(1, keepdim=True)
        found.append(expected - mean)
    return torch.cat(found, 1)
