"""The contract of encoders: a batch goes in, the posterior of content and pose comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from modpose.data.batches import Batch
from modpose.model.image_rows import KnownPoses
from modpose.model.posterior import Posterior
from modpose.model.settings import SpaceSearch


class Render(Protocol):
    """The part of the model that an encoder may use: the pictures of content."""

    @property
    def field(self) -> nn.Module:
        """The object, as a function of position and content."""

    def upright_natural(self, u: Tensor, z: Tensor) -> Tensor:
        """Natural parameter (B, P, C) of the likelihood at pixels u (P, 2) of the upright frame."""

    def show(self, batch: Batch, sees: str) -> Tensor:
        """Prepare images with given poses for an encoder, (B, numbers)."""

    def amplitude_likelihood(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Precision (B, J, J) and linear term (B, J) of the log-likelihood of J amplitudes."""


@dataclass(frozen=True)
class Context:
    """What an encoder receives besides the pixels of a batch.

    Attributes
    ----------
    render
        The part of the model that it may use.
    turn
        (B,) radians, by which the images were rotated.  This is the mean of the angle's prior, if
        that is not uniform.  None: not rotated.
    angle_prior
        Weight of such a prior.
    known
        Poses that a search found for these images before training; None: unknown.  In training an
        encoder uses them and learns to propose them; otherwise they are among its candidates.
    search
        Search all poses instead of the few that the encoder proposes.
    generator
        Source of all randomness.
    """

    render: Render
    turn: Tensor | None = None
    angle_prior: float = 1.0
    known: KnownPoses | None = None
    search: SpaceSearch | None = None
    generator: torch.Generator | None = None


class Encoder(nn.Module, ABC):
    """Base of encoders.  A subclass defines :meth:`forward` and overrides some attributes.

    Attributes
    ----------
    sees_pixels
        Whether it can encode an image that it was not fitted to.
    poses_in_space
        Whether it finds poses of volumes by comparing them with the model's own.
    first_pass_weight
        Weight of the first pass's bound (``Posterior.first``) in its training.
    least_batch
        Smallest number of images per batch that is encoded at full speed.
    """

    sees_pixels: bool = True
    poses_in_space: bool = False
    first_pass_weight: float = 0.0
    least_batch: int = 1

    @abstractmethod
    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose q(content, pose | image) for B images."""
