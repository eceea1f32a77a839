"""Volumes as a mean and its principal motions, mixed by a perceptron of content.

    F(k; z) = F_0(k) + a_1(z) F_1(k) + ... + a_J(z) F_J(k)

The maps come from probabilistic principal components of the images
(:mod:`modpose.train.starts.principal`) and do not change; only a(z) is trained, which bends the
linear space.  A hinge motion needs several linear directions, but one number gives its position.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import PrincipalFieldConfig
from modpose.fourier.coefficients import smallest_box
from modpose.fourier.reference import corners, make_references
from modpose.nn.kept import Kept
from modpose.nn.perceptron import perceptron

OVERSAMPLING = 2
"""Side of the lattice of coefficients relative to the box."""


class PrincipalField(nn.Module):
    """The transform at frequencies of the object's frame, given content.

    Parameters
    ----------
    config
        How many motions, and of the perceptron.
    z_dim
        Dimensions of content.
    box
        Side of the images, n pixels.
    """

    volumes: Tensor

    def __init__(self, config: PrincipalFieldConfig, z_dim: int, box: int) -> None:
        super().__init__()
        self.box = smallest_box(config.drawn, box)
        self.scale = box / self.box  # frequencies a pixel of the small box for those of images
        motions = config.count(z_dim)
        self.register_buffer("volumes", torch.zeros(motions + 1, *(self.box,) * 3))
        self.linear = nn.Linear(z_dim, motions, bias=False)
        self.bend = perceptron(
            z_dim, motions, config.hidden, config.depth, config.activation, residual=False
        )
        last = cast(nn.Linear, self.bend[-1])
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(motions, z_dim))
            last.weight.zero_()
            last.bias.zero_()
        self._table: Tensor | None = None
        self._kept = Kept()
        self._made_of = (0, 0)

    @torch.no_grad()
    def set_volumes(self, volumes: Tensor) -> None:
        """Take the mean and the motions, of one s.d. each, (J + 1, b, b, b) in the field's box."""
        self.volumes.copy_(volumes)

    def amplitudes(self, z: Tensor) -> Tensor:
        """Return the amplitude of every motion (B, J) for content z (B, z_dim)."""
        return cast(Tensor, self.linear(z) + self.bend(z))

    def amounts(self, z: Tensor) -> Tensor:
        """Return the amount of every map (B, J + 1), 1 of the mean."""
        amount = self.amplitudes(z).float()
        return torch.cat([torch.ones_like(amount[:, :1]), amount], 1)

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """Evaluate the transform.

        Parameters
        ----------
        u
            (B, P, 3) frequencies (x, y, z) as fractions of Nyquist's.
        z
            (B, z_dim) content.

        Returns
        -------
        Tensor
            (B, P, 2) real and imaginary part.
        """
        amount = self.amounts(z).unsqueeze(-1)
        return (self.components(u).flatten(1, 2) @ amount).reshape(*u.shape[:2], 2)

    def components(self, u: Tensor) -> Tensor:
        """Transform of the mean and of every motion at u (B, P, 3); (B, P, 2, J + 1)."""
        table = self._lattice()
        return self._kept("components", (u, table), lambda: self._read(u, table))

    def _read(self, u: Tensor, table: Tensor) -> Tensor:
        with torch.autocast(u.device.type, enabled=False):
            padded = OVERSAMPLING * self.box
            frequency = u.float() * (self.scale / 2)
            index, share = corners(frequency, padded + 1, padded)
            share = share * (frequency.norm(dim=-1, keepdim=True) <= 0.5)
            read = functional.embedding_bag(
                index.flatten(0, 1),
                table,
                per_sample_weights=share.flatten(0, 1),
                mode="sum",
            )
        return read.reshape(*u.shape[:2], 2, -1)

    @torch.no_grad()
    def _lattice(self) -> Tensor:
        """Coefficients ((2 b + 1)^3, 2 (J + 1)) of the maps, as slices of images have them.

        Real parts of all maps come first.
        """
        now = (self.volumes.data_ptr(), self.volumes._version)
        if self._table is None or now != self._made_of:
            limit = 0.5 - 0.5 / self.box
            references = make_references(self.volumes, limit, oversampling=OVERSAMPLING)
            table = references.table.reshape(len(self.volumes), -1, 2).permute(1, 2, 0).flatten(1)
            self._table = math.sqrt(self.box) * table
            self._made_of = now
        return self._table
