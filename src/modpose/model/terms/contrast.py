"""The contrastive term: small deformations do not change content, so content separates classes.

The content of an image is compared with those of deformed copies of all images of the batch.  Its
own copy must be recognised among the others by the similarity of contents (InfoNCE: van den Oord
et al. 2018; between two views of each image, Chen et al. 2020; by distances in a plane, Böhm et
al. 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from modpose.config import CauchyConfig, ContrastConfig, SimilarityConfig
from modpose.data.batches import Batch
from modpose.model.posterior import Posterior
from modpose.model.terms import Read, Term

KNOTS = 7
"""Displacements along each side of the box that a bend is interpolated from."""


class ContrastTerm(Term):
    """Loss that is small if contents recognise the deformed copies of their images.

    Parameters
    ----------
    config
        Its weight, and how copies are deformed and contents compared.
    """

    name = "contrast"

    def __init__(self, config: ContrastConfig) -> None:
        super().__init__()
        self.config = config

    def weight(self, step: int) -> float:
        """Return the same weight at every step."""
        return self.config.weight

    def loss(
        self, batch: Batch, posterior: Posterior, read: Read, generator: torch.Generator | None
    ) -> Tensor:
        """Compare contents with those of deformed copies, (B,) nats."""
        copies = batch.with_image(deformed(batch.image, self.config, generator))
        other = read(copies).content_mean()
        return contrastive_loss(posterior.content_mean(), other, self.config.similarity)


def contrastive_loss(content: Tensor, deformed: Tensor, similarity: SimilarityConfig) -> Tensor:
    """Return the loss of recognising each content's own deformed copy among all, in nats.

    With s_ij the log similarity of content i and that of the deformed image j, the mean of
    ``-log softmax_j(s_ij)`` and ``-log softmax_j(s_ji)`` at j = i.

    Parameters
    ----------
    content, deformed
        (B, z_dim), of images and of their deformed copies.
    similarity
        The cosine over its temperature, or -log(1 + (distance / width)²).

    Returns
    -------
    Tensor
        (B,); log B if all contents are equal.
    """
    # not as products of matrices, which mixed precision would round
    if isinstance(similarity, CauchyConfig):
        far = (content.unsqueeze(1) - deformed).square().sum(-1)
        score = -torch.log1p(far / similarity.width**2)
    else:
        unit, other = (functional.normalize(part, dim=-1) for part in (content, deformed))
        score = (unit.unsqueeze(1) * other).sum(-1) / similarity.temperature
    own = torch.arange(len(score), device=score.device)
    there = functional.cross_entropy(score, own, reduction="none")
    return 0.5 * (there + functional.cross_entropy(score.T, own, reduction="none"))


def deformed(images: Tensor, config: ContrastConfig, generator: torch.Generator | None) -> Tensor:
    """Stretch, shear and bend each picture, by linear interpolation, and change its grey values.

    Parameters
    ----------
    images
        (B, C, H, W).
    config
        How much.
    generator
        Source of the deformations, on the device of the images.

    Returns
    -------
    Tensor
        (B, C, H, W); zero where the pixel comes from outside the box.
    """
    count, device = len(images), images.device
    entries = torch.rand(count, 2, 2, generator=generator, device=device)
    linear = torch.eye(2, device=device) + config.stretch * (2 * entries - 1)
    linear = torch.cat([linear, linear.new_zeros(count, 2, 1)], dim=-1)
    grid = functional.affine_grid(linear, list(images.shape), align_corners=False)
    knots = torch.randn(count, 2, KNOTS, KNOTS, generator=generator, device=device)
    bend = functional.interpolate(knots, images.shape[2:], mode="bicubic", align_corners=True)
    grid = grid + 2 * config.bend * bend.permute(0, 2, 3, 1)
    moved = functional.grid_sample(images, grid.to(images.dtype), align_corners=False)
    power = (config.grey * torch.randn(count, generator=generator, device=device)).exp()
    return raised(moved, power)


def raised(images: Tensor, power: Tensor) -> Tensor:
    """Raise grey values, from 0 at each picture's darkest to 1 at its brightest, to a power (B,).

    Grey pixels at the edge of a stroke become dark or bright: strokes become thinner or thicker.
    """
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp(min=1e-6)
    return low + span * ((images - low) / span) ** power.view(-1, 1, 1, 1)
