"""The training step of spatial-VAE as a textbook would write it, independent of modpose.

Bepler, Zhong, Kelley, Brignole and Berger, NeurIPS 2019.  Nothing clever: coordinates and content
are concatenated for every pixel of every image, two hidden layers of 500 tanh units, float32,
Bernoulli pixels, equation 3 for the angle's KL, one sample, Adam at 1e-4, minibatches of 100.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.textbook import Textbook

BATCH_SIZE = 100
HIDDEN = 500
LEARNING_RATE = 1e-4


class Terms(NamedTuple):
    """What the bound is made of, nats per image: (B,) each."""

    recon: Tensor
    kl_content: Tensor
    kl_angle: Tensor
    kl_shift: Tensor

    def elbo(self) -> Tensor:
        """Return equation 4, with equation 3 for the angle."""
        return self.recon - self.kl_content - self.kl_angle - self.kl_shift


class SpatialVae(Textbook):
    """Encoder and coordinate decoder.

    Parameters
    ----------
    coordinates
        (P, 2) of every pixel, about [-1, 1].
    z_dim
        Dimensions of content.
    hidden
        Units a layer.
    angle_std
        s of equation 3, radians.
    shift_std
        Standard deviation of the prior of the shift, in the unit of the coordinates.
    """

    coordinates: Tensor

    def __init__(
        self,
        coordinates: Tensor,
        z_dim: int = 2,
        hidden: int = HIDDEN,
        angle_std: float = math.pi,
        shift_std: float = 0.1,
    ) -> None:
        super().__init__()
        self.register_buffer("coordinates", coordinates)
        self.z_dim = z_dim
        self.angle_std = angle_std
        self.shift_std = shift_std
        n_latents = z_dim + 1 + 2
        self.encoder = nn.Sequential(
            nn.Linear(len(coordinates), hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, 2 * n_latents),
        )
        self.decoder = nn.Sequential(
            nn.Linear(2 + z_dim, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, 1),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log s.d. of (z, angle, shift / shift_std), (B, z_dim + 3) each."""
        mean, log_std = self.encoder(images.flatten(1)).chunk(2, dim=1)
        return mean, log_std

    def decode(self, z: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
        """Logit of every pixel, (B, P), for z (B, z_dim), angle (B,) and shift (B, 2)."""
        cos, sin = torch.cos(angle), torch.sin(angle)
        rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        x = (self.coordinates - shift.unsqueeze(1)) @ rotation
        z = z.unsqueeze(1).expand(-1, len(self.coordinates), -1)
        logits: Tensor = self.decoder(torch.cat([x, z], dim=2)).squeeze(2)
        return logits

    def terms(self, images: Tensor, noise: Tensor) -> Terms:
        """Estimate the bound with one sample; ``noise`` is standard normal, (B, z_dim + 3)."""
        mean, log_std = self.encode(images)
        std = log_std.exp()
        sample = mean + std * noise
        z, angle, shift = torch.split(sample, [self.z_dim, 1, 2], dim=1)
        logits = self.decode(z, angle.squeeze(1), shift * self.shift_std)
        recon = -functional.binary_cross_entropy_with_logits(
            logits, images.flatten(1), reduction="none"
        ).sum(1)
        normal = 0.5 * (std**2 + mean**2 - 1) - log_std
        kl_content, _, kl_shift = torch.split(normal, [self.z_dim, 1, 2], dim=1)
        angle_std, angle_log_std = std[:, self.z_dim], log_std[:, self.z_dim]
        kl_angle = (
            math.log(self.angle_std) - angle_log_std + angle_std**2 / (2 * self.angle_std**2) - 0.5
        )
        return Terms(recon, kl_content.sum(1), kl_angle, kl_shift.sum(1))

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw what :meth:`terms` needs for ``count`` images."""
        return torch.randn(count, self.z_dim + 3, generator=generator)

    def objective(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the bound with equation 3 for the angle, (B,) nats."""
        return self.terms(images, self.noise(len(images), generator)).elbo()
