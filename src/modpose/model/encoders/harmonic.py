"""An encoder with rotation-invariant content: power of learned radial profiles.

About the centre of the box an image is a sum of harmonics on shells, and a rotation mixes those of
one degree among themselves, in the same way on every shell.  So the encoder learns profiles over
the shells for each degree, and the power of an image in each profile is invariant to rotation
(Kazhdan, Funkhouser & Rusinkiewicz 2003 take one shell at a time).  Content is computed from these
powers alone; the pose is computed from the harmonics themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from modpose.affinity.harmonics import legendre_table
from modpose.config import HarmonicEncoderConfig
from modpose.data.batches import Batch
from modpose.geometry.grids import lattice
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.posterior import LatentLayout, Posterior
from modpose.nn.perceptron import perceptron, start_small

FLOOR = 1e-4
"""Power that makes the square root smooth at zero."""


class HarmonicEncoder(Encoder):
    """Harmonics on shells, powers of learned radial profiles, a perceptron: content.

    Parameters
    ----------
    config
        Degrees, profiles and the rest.
    channels, shape
        Of the images, (H, W) or (D, H, W).
    layout
        Which latent variables there are.
    """

    degree: Tensor

    def __init__(
        self,
        config: HarmonicEncoderConfig,
        *,
        channels: int,
        shape: Sequence[int],
        layout: LatentLayout,
    ) -> None:
        super().__init__()
        self.layout = layout
        n_content = 2 * layout.z_dim
        n_pose = layout.n_params - n_content
        self.harmonics = Harmonics(shape, config.lmax)
        shells, count = channels * self.harmonics.shells, len(self.harmonics.degree)
        self.register_buffer("degree", self.harmonics.degree, persistent=False)
        start = torch.randn(config.lmax + 1, shells, config.profiles) / math.sqrt(shells)
        self.profiles = nn.Parameter(start)
        features = config.profiles * (config.lmax + 2)
        self.norm = nn.LayerNorm(features)
        self.drop = nn.Dropout(config.dropout)
        shared = (config.hidden, config.depth, config.activation, False)
        self.content = perceptron(features, n_content, *shared)
        start_small(cast(nn.Linear, self.content[-1]))
        self.pose = None
        if n_pose:
            self.pose = perceptron(shells * count, n_pose, config.hidden, 1, *shared[2:])
            start_small(cast(nn.Linear, self.pose[-1]))

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose one cell: content from the powers, the pose from the harmonics."""
        return self.layout.one_cell(self.numbers(batch.image))

    def numbers(self, image: Tensor) -> Tensor:
        """Return the numbers of the posterior, (B, n_params)."""
        on_shells = self.harmonics(image)
        content = self.content(self.drop(self.norm(self.invariants(on_shells))))
        heads = [content] if self.pose is None else [content, self.pose(on_shells.flatten(1))]
        return torch.cat(heads, dim=-1)

    def invariants(self, on_shells: Tensor) -> Tensor:
        """Return the amplitude in each profile and degree, and the means, which have a sign.

        Parameters
        ----------
        on_shells
            (B, C R, M) harmonics of each shell.

        Returns
        -------
        Tensor
            (B, (lmax + 2) K).
        """
        profiles = self.profiles[self.degree]  # (M, C R, K)
        along = on_shells.permute(2, 0, 1) @ profiles  # (M, B, K)
        sums = along.new_zeros(len(self.profiles), *along.shape[1:])
        power = sums.index_add(0, self.degree, along.square())
        orders = torch.bincount(self.degree).to(power)
        amplitude = (power / orders[:, None, None] + FLOOR).sqrt()
        return torch.cat([along[:1], amplitude]).transpose(0, 1).flatten(1)


class Harmonics(nn.Module):
    """Real spherical (circular) harmonics of an image on shells about the centre of its box.

    A shell is a hat over the radii, one pixel to either side; every pixel of the inscribed ball
    counts. White noise of variance 1 gives each number a variance of about 1.

    Parameters
    ----------
    shape
        Of the images.
    lmax
        Highest degree.
    """

    pixel: Tensor
    table: Tensor

    def __init__(self, shape: Sequence[int], lmax: int) -> None:
        super().__init__()
        x = lattice(shape)
        radius = x.norm(dim=-1)
        self.shells = min(shape) // 2 - 1
        basis = real_harmonics(x, lmax)
        self.degree = degrees(len(shape), lmax)
        pixels, tables = [], []
        for shell in range(1, self.shells + 1):
            weight = (1 - (radius - shell).abs()).clamp(min=0)
            index = torch.nonzero(weight).squeeze(1)
            rows = weight[index, None] * basis[index]
            area = 4 * math.pi if len(shape) == 3 else 2 * math.pi
            tables.append(rows * math.sqrt(area) / weight.norm())
            pixels.append(index)
        self.sizes = [len(index) for index in pixels]
        self.register_buffer("pixel", torch.cat(pixels), persistent=False)
        self.register_buffer("table", torch.cat(tables), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *shape) to (B, C shells, harmonics)."""
        flat = image.flatten(2)[..., self.pixel].flatten(0, 1)
        parts = zip(
            torch.split(flat, self.sizes, 1), torch.split(self.table, self.sizes), strict=True
        )
        shells = torch.stack([values @ table for values, table in parts], dim=1)
        return shells.reshape(len(image), -1, self.table.shape[1])


def degrees(dim: int, lmax: int) -> Tensor:
    """Degree of each harmonic, as :func:`real_harmonics` orders them."""
    orders = [2 * degree + 1 if dim == 3 else min(2, degree + 1) for degree in range(lmax + 1)]
    return torch.arange(lmax + 1).repeat_interleave(torch.tensor(orders))


def real_harmonics(x: Tensor, lmax: int) -> Tensor:
    """Real harmonics, orthonormal on the sphere (circle), in the directions of x.

    Parameters
    ----------
    x
        (P, d) points, d = 2 or 3; at the origin the direction is that of z (x).
    lmax
        Highest degree.

    Returns
    -------
    Tensor
        (P, M) float32, degree after degree: (lmax + 1)² or 2 lmax + 1 of them.
    """
    x = x.double()
    angle = torch.atan2(x[:, 1], x[:, 0])
    waves = (
        [(m * angle).cos() for m in range(lmax + 1)],
        [(m * angle).sin() for m in range(lmax + 1)],
    )
    if x.shape[1] == 2:
        columns = [torch.full_like(angle, math.sqrt(0.5 / math.pi))]
        for m in range(1, lmax + 1):
            columns += [wave[m] / math.sqrt(math.pi) for wave in waves]
        return torch.stack(columns, dim=1).float()
    radius = x.norm(dim=1)
    height = torch.where(radius > 0, x[:, 2] / radius.clamp(min=1e-12), 1.0)
    table = torch.from_numpy(legendre_table(height.numpy(), lmax))
    columns = []
    for degree in range(lmax + 1):
        columns.append(table[:, degree, 0])
        for m in range(1, degree + 1):
            columns += [math.sqrt(2) * table[:, degree, m] * wave[m] for wave in waves]
    return torch.stack(columns, dim=1).float()
