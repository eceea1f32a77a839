"""3D-SpVAE as one would write it after reading the paper once (Yi et al. 2021, Table 3).

Float32, one sample a volume, every voxel: coordinates and content each go through a linear layer
for every voxel, the sum through tanh and 1250 units; Gaussian voxels of unit variance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks.textbook import Textbook

ANGLE_STD = math.pi / 2
SHIFT_STD = 0.14
"""Of the box's side."""


class SpVae3d(Textbook):
    """Encoder and coordinate decoder.

    Parameters
    ----------
    coordinates
        (P, 3) of every voxel, in halves of the box, about [-1, 1].
    z_dim, encoder_units, units
        Dimensions of content, and widths.
    """

    coordinates: Tensor

    def __init__(
        self, coordinates: Tensor, z_dim: int = 50, encoder_units: int = 1000, units: int = 1250
    ) -> None:
        super().__init__()
        self.register_buffer("coordinates", coordinates)
        self.z_dim = z_dim
        self.encoder = nn.Sequential(
            nn.Linear(len(coordinates), encoder_units),
            nn.Tanh(),
            nn.Linear(encoder_units, encoder_units),
            nn.Tanh(),
            nn.Linear(encoder_units, 2 * (z_dim + 6)),
        )
        self.coord_linear = nn.Linear(3, units)
        self.latent_linear = nn.Linear(z_dim, units)
        self.decoder = nn.Sequential(
            nn.Tanh(), nn.Linear(units, units), nn.Tanh(), nn.Linear(units, 1)
        )

    def decode(self, z: Tensor, angles: Tensor, shift: Tensor) -> Tensor:
        """Mean of every voxel (B, P) for content, yaw, pitch and roll, and shift (B, 3)."""
        x = (self.coordinates - shift.unsqueeze(1)) @ rotation(angles)
        every = z.unsqueeze(1).expand(-1, len(self.coordinates), -1)
        mean: Tensor = self.decoder(self.coord_linear(x) + self.latent_linear(every))
        return mean.squeeze(2)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw what :meth:`terms` needs for ``count`` volumes."""
        return torch.randn(count, self.z_dim + 6, generator=generator)

    def terms(self, volumes: Tensor, noise: Tensor) -> Tensor:
        """Estimate the bound with one sample, (B,) nats."""
        mean, log_std = self.encoder(volumes.flatten(1)).chunk(2, dim=1)
        z, angles, shift = torch.split(mean + log_std.exp() * noise, [self.z_dim, 3, 3], dim=1)
        half = 2 * SHIFT_STD  # the side of the box is 2 in these coordinates
        decoded = self.decode(z, angles * ANGLE_STD, shift * half)
        error = volumes.flatten(1) - decoded
        recon = (-0.5 * error**2 - 0.5 * math.log(2 * math.pi)).sum(1)
        kl = (0.5 * ((2 * log_std).exp() + mean**2 - 1) - log_std).sum(1)
        bound: Tensor = recon - kl
        return bound

    def objective(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the bound, (B,) nats."""
        return self.terms(images, self.noise(len(images), generator))


def rotation(angles: Tensor) -> Tensor:
    """Equation 8: matrices (B, 3, 3) of yaw, pitch and roll (B, 3)."""
    (cy, cp, cr), (sy, sp, sr) = angles.cos().unbind(1), angles.sin().unbind(1)
    one, zero = torch.ones_like(cy), torch.zeros_like(cy)

    def matrix(rows: list[list[Tensor]]) -> Tensor:
        return torch.stack([torch.stack(row, 1) for row in rows], 1)

    yaw = matrix([[cy, -sy, zero], [sy, cy, zero], [zero, zero, one]])
    pitch = matrix([[cp, zero, sp], [zero, one, zero], [-sp, zero, cp]])
    roll = matrix([[one, zero, zero], [zero, cr, -sr], [zero, sr, cr]])
    return yaw @ pitch @ roll
