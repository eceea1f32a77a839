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
    """What an encoder may ask of the model: pictures of content, and not the whole model."""

    @property
    def field(self) -> nn.Module:
        """What the object is, as a function of place and content."""

    def upright_natural(self, u: Tensor, z: Tensor) -> Tensor:
        """Natural parameter (B, P, C) of the likelihood at pixels u (P, 2) of the upright frame."""

    def show(self, batch: Batch, sees: str) -> Tensor:
        """Prepare images of given pose for an encoder, (B, numbers)."""

    def amplitude_likelihood(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Precision (B, J, J) and linear term (B, J) of the log-likelihood of J amplitudes."""


@dataclass(frozen=True)
class Context:
    """What an encoder is told beside the pixels of a batch.

    Attributes
    ----------
    render
        What it may ask of the model.
    turn
        (B,) radians, by how much the images were turned, and so the mean of a prior by which some
        angles are more probable than others; None: not at all.
    angle_prior
        How many times such a prior counts.
    known
        Poses that a search found for these images before training; None: unknown.  In training an
        encoder takes these and learns to propose them; otherwise it considers them.
    search
        Search all poses in place of the few that the encoder proposes.
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
    """Base of encoders.  A subclass gives :meth:`forward`, and changes what else differs.

    Attributes
    ----------
    sees_pixels
        Whether it can say anything of an image that it was not fitted to.
    poses_in_space
        Whether it finds poses of volumes by comparing them with the model's own.
    first_pass_weight
        Weight of the bound that a first pass gives (``Posterior.first``) in its training.
    least_batch
        Images that are encoded at once without loss of speed.
    """

    sees_pixels: bool = True
    poses_in_space: bool = False
    first_pass_weight: float = 0.0
    least_batch: int = 1

    @abstractmethod
    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose q(content, pose | image) for B images."""
