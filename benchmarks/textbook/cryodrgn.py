"""The training step of cryoDRGN as a textbook would write it, independent of modpose.

Zhong, Bepler, Berger and Davis, Nature Methods 2021.  Nothing clever: for every frequency of every
image the waves of the encoding and content are concatenated, one linear layer follows another,
float32, a squared error over the coefficients within the circle of Nyquist's frequency, Adam at
1e-4.  The encoder is a residual perceptron of 3 x 256 on the transform.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

HIDDEN, DEPTH, Z_DIM = 256, 3, 8


class Posed(NamedTuple):
    """Images (B, n, n), rotations (B, 3, 3), shifts (B, 2) and CTF on the half plane (B, n, h)."""

    images: Tensor
    rotation: Tensor
    shift: Tensor
    transfer: Tensor


class Residual(nn.Module):
    """x + layer(x), rectified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (..., width)."""
        return torch.relu(x + self.layer(x))


def network(n_in: int, n_out: int) -> nn.Sequential:
    """Return a residual perceptron."""
    hidden = [Residual(HIDDEN) for _ in range(DEPTH)]
    return nn.Sequential(nn.Linear(n_in, HIDDEN), nn.ReLU(), *hidden, nn.Linear(HIDDEN, n_out))


class CryoDrgn(nn.Module):
    """Encoder and decoder of a box of n pixels."""

    inside: Tensor
    waves: Tensor
    ky: Tensor
    kx: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        ky, kx = torch.meshgrid(torch.fft.fftfreq(n), torch.fft.rfftfreq(n), indexing="ij")
        inside = torch.hypot(ky, kx) < 0.5 - 1e-6
        inside &= ~((kx == 0) & (ky < 0))  # its conjugate already exists
        self.register_buffer("inside", inside)
        self.register_buffer("ky", ky[inside])
        self.register_buffer("kx", kx[inside])
        self.register_buffer("waves", 0.5 * torch.randn(3 * n // 2, 3) * (n / 2))
        self.n = n
        self.encoder = network(2 * len(self.kx), 2 * Z_DIM)
        self.decoder = network(2 * len(self.waves) + Z_DIM, 2)

    def transform(self, images: Tensor) -> Tensor:
        """Return coefficients (B, M)."""
        centred = torch.fft.ifftshift(images, dim=(-2, -1))
        seen: Tensor = torch.fft.rfft2(centred, norm="ortho")[:, self.inside]
        return seen

    def decode(self, rotation: Tensor, z: Tensor) -> Tensor:
        """Return slices (B, M)."""
        k = torch.stack([self.kx, self.ky, torch.zeros_like(self.kx)], dim=-1)
        k = k.expand(len(z), -1, -1) @ rotation
        flip = k[..., 2] < 0
        k = torch.where(flip[..., None], -k, k)
        phase = (k[:, :, None, :] * self.waves).sum(-1)
        content = z[:, None].expand(-1, k.shape[1], -1)
        features = torch.cat([torch.cos(phase), torch.sin(phase), content], dim=-1)
        out = self.decoder(features)
        return torch.complex(out[..., 0], torch.where(flip, -out[..., 1], out[..., 1]))

    def loss(self, batch: Posed, generator: torch.Generator) -> Tensor:
        """Return the published loss of a batch."""
        move = self.kx * batch.shift[:, :1] + self.ky * batch.shift[:, 1:]
        phase = torch.polar(torch.ones_like(move), -2 * math.pi * move)
        transfer = batch.transfer[:, self.inside]
        seen = self.transform(batch.images)
        shown = torch.view_as_real(seen * phase.conj() * torch.sign(transfer)).flatten(1)
        mean, log_var = self.encoder(shown).chunk(2, dim=-1)
        noise = torch.randn(mean.shape, generator=generator)
        z = mean + torch.exp(0.5 * log_var) * noise
        error = seen - self.decode(batch.rotation, z) * phase * transfer
        kl = 0.5 * (log_var.exp() + mean.square() - 1 - log_var).sum(-1)
        squared = 2 * error.abs().square().mean()
        total: Tensor = squared + (kl / Z_DIM / (2 * seen.shape[1])).mean()
        return total
