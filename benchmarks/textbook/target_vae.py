"""The training step of TARGET-VAE as a textbook would write it, independent of modpose.

Nasiri and Bepler, NeurIPS 2022, section 3.3.  Nothing clever: every kernel is turned to n angles
by bilinear interpolation and convolved with the padded image, three 1x1 layers give the
parameters of q in every cell, a Gumbel-softmax sample mixes them, and the decoder is evaluated at
every pixel of every image, in float32; Adam at 2e-4, minibatches of 100.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.textbook import Textbook

BATCH_SIZE = 100
LEARNING_RATE = 2e-4
TEMPERATURE = 1.0


class Sizes(NamedTuple):
    """Of the networks; the defaults are the published P8 on 50x50 pixels."""

    rotations: int = 8
    kernel: int = 28
    padding: int = 8
    channels: int = 128
    features: int = 1024
    hidden: int = 512


PUBLISHED = Sizes()


class Cells(NamedTuple):
    """q(t, r | y), and the Gaussians of each cell: (B, C), (B, C, ...)."""

    log_q: Tensor
    z_mean: Tensor
    z_std: Tensor
    angle_mean: Tensor
    angle_std: Tensor


class Terms(NamedTuple):
    """What the bound is made of, nats per image: (B,) each."""

    recon: Tensor
    kl_cell: Tensor
    kl_angle: Tensor
    kl_content: Tensor

    def elbo(self) -> Tensor:
        """Return equation 6."""
        return self.recon - self.kl_cell - self.kl_angle - self.kl_content


class TargetVae(Textbook):
    """Group-convolutional encoder and coordinate decoder.

    Cells are ordered rotation by rotation, then row by row.

    Parameters
    ----------
    box
        Side of the images, pixels; coordinates are about [-1, 1], zero at pixel ``box // 2``.
    shift_std
        Standard deviation of the prior of the shift, in the unit of the coordinates.
    z_dim
        Dimensions of content.
    sizes
        Of the networks.
    sigma
        Standard deviation of the frequencies of the Fourier features, cycles per unit.
    """

    coordinates: Tensor
    frequencies: Tensor
    places: Tensor
    offsets: Tensor
    log_prior: Tensor

    def __init__(
        self,
        box: int,
        shift_std: float,
        z_dim: int = 2,
        sizes: Sizes = PUBLISHED,
        sigma: float = 0.7,
    ) -> None:
        super().__init__()
        self.box, self.z_dim, self.sizes = box, z_dim, sizes
        axis = (torch.arange(box) - box // 2) / (box / 2)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("coordinates", torch.stack([x.flatten(), y.flatten()], dim=1))

        # the middle of the kernel at every place where it is laid
        count = box + 2 * sizes.padding - sizes.kernel + 1
        middle = torch.arange(count) - sizes.padding + (sizes.kernel - 1) / 2
        axis = (middle - box // 2) / (box / 2)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        places = torch.stack([x.flatten(), y.flatten()], dim=1)
        offsets = torch.arange(sizes.rotations) * (2 * math.pi / sizes.rotations)
        log_p_place = torch.log_softmax(-0.5 * (places / shift_std).square().sum(1), dim=0)
        self.register_buffer("places", places.repeat(sizes.rotations, 1))
        self.register_buffer("offsets", offsets.repeat_interleave(len(places)))
        self.register_buffer(
            "log_prior", log_p_place.repeat(sizes.rotations) - math.log(sizes.rotations)
        )

        width = sizes.channels
        bound = 1 / sizes.kernel
        self.weight = nn.Parameter(torch.empty(width, sizes.kernel, sizes.kernel))
        self.bias = nn.Parameter(torch.empty(width))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        self.pointwise = nn.Sequential(
            nn.LeakyReLU(),
            nn.Conv3d(width, width, 1),
            nn.LeakyReLU(),
            nn.Conv3d(width, width, 1),
            nn.LeakyReLU(),
            nn.Conv3d(width, 1 + 2 + 2 * z_dim, 1),
        )

        self.register_buffer("frequencies", sigma * torch.randn(2, sizes.features // 2))
        self.from_coordinates = nn.Linear(sizes.features, sizes.hidden)
        self.from_content = nn.Linear(z_dim, sizes.hidden)
        self.decoder = nn.Sequential(
            nn.LeakyReLU(),
            nn.Linear(sizes.hidden, sizes.hidden),
            nn.LeakyReLU(),
            nn.Linear(sizes.hidden, 1),
        )

    def kernels(self) -> Tensor:
        """Every kernel at every angle, read by bilinear interpolation, (channels, n, k, k)."""
        turned = []
        for r in range(self.sizes.rotations):
            angle = 2 * math.pi * r / self.sizes.rotations
            cos, sin = math.cos(angle), math.sin(angle)
            back = torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0]])
            size = [1, len(self.weight), self.sizes.kernel, self.sizes.kernel]
            grid = functional.affine_grid(back.unsqueeze(0), size, align_corners=False)
            turned.append(functional.grid_sample(self.weight[None], grid, align_corners=False)[0])
        return torch.stack(turned, dim=1)

    def encode(self, images: Tensor) -> Cells:
        """Parameters of q in every cell for images (B, box, box)."""
        sizes = self.sizes
        maps = functional.conv2d(
            images.unsqueeze(1),
            self.kernels().flatten(0, 1).unsqueeze(1),
            self.bias.repeat_interleave(sizes.rotations),
            padding=sizes.padding,
        )
        volume = maps.view(len(maps), sizes.channels, sizes.rotations, *maps.shape[2:])
        numbers = self.pointwise(volume).flatten(2).transpose(1, 2)
        logit, angle_mean, angle_log_std, z_mean, z_log_std = torch.split(
            numbers, [1, 1, 1, self.z_dim, self.z_dim], dim=2
        )
        return Cells(
            log_q=torch.log_softmax(logit.squeeze(2), dim=1),
            z_mean=z_mean,
            z_std=z_log_std.exp(),
            angle_mean=angle_mean.squeeze(2) + self.offsets,
            angle_std=angle_log_std.squeeze(2).exp(),
        )

    def decode(self, z: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
        """Logit of every pixel, (B, P), for z (B, z_dim), angle (B,) and shift (B, 2)."""
        cos, sin = torch.cos(angle), torch.sin(angle)
        rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        x = (self.coordinates - shift.unsqueeze(1)) @ rotation
        phase = 2 * math.pi * (x @ self.frequencies)
        features = torch.cat([torch.cos(phase), torch.sin(phase)], dim=2)
        hidden = self.from_coordinates(features) + self.from_content(z).unsqueeze(1)
        logits: Tensor = self.decoder(hidden).squeeze(2)
        return logits

    def soft_terms(self, images: Tensor, gumbel: Tensor, normal: Tensor) -> Terms:
        """Estimate that training climbs: a Gumbel-softmax sample mixes the cells' parameters.

        ``gumbel`` (B, C) and ``normal`` (B, z_dim + 1) are standard noise.  It is no bound.
        """
        cells = self.encode(images)
        weight = torch.softmax((cells.log_q + gumbel) / TEMPERATURE, dim=1).unsqueeze(2)
        mixed = Cells(
            log_q=cells.log_q,
            z_mean=(weight * cells.z_mean).sum(1),
            z_std=(weight * cells.z_std).sum(1),
            angle_mean=(weight[..., 0] * cells.angle_mean).sum(1),
            angle_std=(weight[..., 0] * cells.angle_std).sum(1),
        )
        shift = (weight * self.places).sum(1)
        return self._terms(images, cells, mixed, shift, normal)

    def hard_terms(self, images: Tensor, cell: Tensor, normal: Tensor) -> Terms:
        """Estimate the bound with one sample of each image, drawn in one cell, ``cell`` (B,)."""
        return self._hard_terms(images, self.encode(images), cell, normal)

    def _hard_terms(self, images: Tensor, cells: Cells, cell: Tensor, normal: Tensor) -> Terms:
        row = torch.arange(len(images))
        drawn = Cells(*(part[row, cell] for part in cells))
        return self._terms(images, cells, drawn, self.places[cell], normal)

    def _terms(
        self, images: Tensor, cells: Cells, drawn: Cells, shift: Tensor, normal: Tensor
    ) -> Terms:
        z = drawn.z_mean + drawn.z_std * normal[:, :-1]
        angle = drawn.angle_mean + drawn.angle_std * normal[:, -1]
        logits = self.decode(z, angle, shift)
        recon = -functional.binary_cross_entropy_with_logits(
            logits, images.flatten(1), reduction="none"
        ).sum(1)
        q = cells.log_q.exp()
        prior_std = math.pi / self.sizes.rotations
        residual, std = cells.angle_mean - self.offsets, cells.angle_std
        kl_angle = (std**2 + residual**2) / (2 * prior_std**2) - 0.5 - (std / prior_std).log()
        kl_z = 0.5 * (cells.z_std**2 + cells.z_mean**2 - 1) - cells.z_std.log()
        return Terms(
            recon,
            kl_cell=(q * (cells.log_q - self.log_prior)).sum(1),
            kl_angle=(q * kl_angle).sum(1),
            kl_content=(q * kl_z.sum(2)).sum(1),
        )

    def objective(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the estimate with a soft sample, as published, (B,) nats."""
        waiting = torch.empty(len(images), len(self.offsets)).exponential_(generator=generator)
        gumbel = -waiting.clamp(min=1e-30).log()
        return self.soft_terms(images, gumbel, self._normal(len(images), generator)).elbo()

    def bound(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Estimate the bound with one sample from q, (B,) nats."""
        cells = self.encode(images)
        cell = torch.multinomial(cells.log_q.exp(), 1, generator=generator).squeeze(1)
        normal = self._normal(len(images), generator)
        return self._hard_terms(images, cells, cell, normal).elbo()

    def _normal(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.z_dim + 1, generator=generator)
