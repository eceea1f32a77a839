"""Volumes as coordinate networks of their Fourier transform (Zhong et al. 2021, cryoDRGN).

The transform of a real volume is Hermitian, F(-k) = conj F(k), so the network is evaluated on one
half of Fourier space only; the other half is the complex conjugate.  Phases of the encoding are
always float32: at high frequency they are large, and lower precision would lose the particle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import FourierFieldConfig
from modpose.nn.perceptron import ACTIVATIONS


class SliceField(nn.Module):
    """The transform at frequencies of the object's frame, given content.

    Parameters
    ----------
    config
        Of the network.
    z_dim
        Dimensions of content.
    box
        Side of the images, pixels, which sets the scale of the encoding.
    """

    positions: Tensor

    def __init__(self, config: FourierFieldConfig, z_dim: int, box: int) -> None:
        super().__init__()
        self.register_buffer("positions", encoding_positions(config, box))
        n_waves = 2 * self.positions.shape[1]
        self.first = nn.Linear(n_waves, config.hidden)
        self.content = nn.Linear(z_dim, config.hidden, bias=False) if z_dim else None
        modulated = config.content == "every" and z_dim > 0
        self.hidden = nn.ModuleList(
            ModulatedLayer(config.hidden, z_dim, config.rank)
            if modulated
            else FoldedLayer(config.hidden)
            for _ in range(config.depth)
        )
        self.activation = ACTIVATIONS[config.activation]()
        self.output = nn.Linear(config.hidden, 2)
        self._match_concatenated_start(n_waves + z_dim)

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
        side = half_space(u)
        h = self.first(self.encode(u * side.unsqueeze(-1)))
        if self.content is not None:
            h = h + self.content(z).unsqueeze(1)
        h = self.activation(h)
        for layer in self.hidden:
            h = self.activation(layer(h, z))
        real, imaginary = self.output(h).float().unbind(-1)
        return torch.stack([real, imaginary * side], dim=-1)

    def encode(self, u: Tensor) -> Tensor:
        """Waves (B, P, 2F), cos and sin of the phases of u (B, P, 3), always float32."""
        with torch.autocast(u.device.type, enabled=False):
            phase = u.float() @ self.positions
            return torch.cat([phase.cos(), phase.sin()], dim=-1)

    @torch.no_grad()
    def _match_concatenated_start(self, n_inputs: int) -> None:
        """Draw the split first layer as one layer of ``n_inputs`` would have been drawn."""
        bound = 1 / math.sqrt(n_inputs)
        self.first.weight.uniform_(-bound, bound)
        self.first.bias.uniform_(-bound, bound)
        if self.content is not None:
            self.content.weight.uniform_(-bound, bound)


class FoldedLayer(nn.Module):
    """x + W x + b, as one product with I + W."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """Apply to h (B, P, width)."""
        weight = self.linear.weight
        folded = weight + torch.eye(len(weight), device=weight.device)
        return functional.linear(h, folded, self.linear.bias)


class ModulatedLayer(nn.Module):
    """x + (W + U diag(a(z)) V) x + b + B z: content changes what the layer does, at low rank.

    The weights are made once an image, so a slice costs what it does without.
    """

    def __init__(self, width: int, z_dim: int, rank: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.gains = nn.Linear(z_dim, rank, bias=False)
        self.offset = nn.Linear(z_dim, width, bias=False)
        self.left = nn.Parameter(torch.randn(width, rank) / math.sqrt(rank))
        self.right = nn.Parameter(torch.randn(rank, width) / math.sqrt(width))

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """Apply to h (B, P, width) for content z (B, z_dim)."""
        weight = self.linear.weight
        folded = weight + torch.eye(len(weight), device=weight.device)
        change = (self.left * self.gains(z).unsqueeze(1)) @ self.right
        bias = (self.linear.bias + self.offset(z)).unsqueeze(1)
        return torch.baddbmm(bias, h, (folded + change).transpose(1, 2))


def half_space(u: Tensor) -> Tensor:
    """Return 1 or -1: on which side of the origin frequencies (..., 3) lie.

    By z, where that is zero by y, then by x, so that of k and -k exactly one has 1.
    """
    sign = torch.sign(u.detach())
    x, y, z = sign.unbind(-1)
    side = torch.where(z != 0, z, torch.where(y != 0, y, x))
    return torch.where(side == 0, torch.ones_like(side), side)


def encoding_positions(config: FourierFieldConfig, box: int) -> Tensor:
    """Positions r that waves exp(2 pi i k r) of the encoding belong to, (3, F).

    Scaled for frequencies in units of Nyquist's, so that u @ positions is the phase, pi u r with
    r in pixels.
    """
    count = config.features or 3 * box // 2
    if config.encoding == "gaussian":
        return config.sigma * (box / 4) * torch.randn(3, count)
    steps = max(1, count // 3)
    ladder = torch.logspace(0, math.log10(box / 2), steps) * math.pi
    return torch.kron(torch.eye(3), ladder)
