"""Insertion of images into a Fourier volume, as slices weighted by their CTF.

By the projection theorem the transform of a projection is the central slice of the object's at
k₃ = Rᵀ(kx, ky, 0).  With images Y = CTF · slice + noise the least-squares map is

    V(k₃) = Σ CTF · Y / (Σ CTF² + floor)

where both sums share each coefficient between the eight nearest points of the lattice (trilinear),
on a lattice twice as fine as the box asks for.  The blur in Fourier space is a sinc² in real
space, which is divided out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.geometry.pose import Pose
from modpose.observe.ctf import ctf_2d

PADDING = 2
FLOOR = 0.02
"""Of the mean weight of a shell, added to every weight in it."""


class FourierVolume:
    """Sums over slices, and the map that they make.

    Parameters
    ----------
    box
        Side of the images, pixels; even.
    """

    def __init__(self, box: int) -> None:
        self.box, self.padded = box, PADDING * box
        p = self.padded
        self.side = p + 3  # a point beyond on each end, and odd, so that it has a centre
        self.sums = [torch.zeros(self.side**3) for _ in range(3)]  # real, imaginary, weight
        kx, ky = torch.meshgrid(torch.arange(p // 2 + 1.0), torch.fft.fftfreq(p) * p, indexing="xy")
        inside = (kx**2 + ky**2 <= (p / 2) ** 2).reshape(-1)
        self.kept = torch.nonzero(inside).squeeze(1)
        self.k = torch.stack([kx.reshape(-1), ky.reshape(-1)], 1)[self.kept]
        alone = self.k[:, 0] == 0  # listed with their conjugates
        self.once = torch.where(alone, 0.5, 1.0)

    def add(self, images: Tensor, pose: Pose, ctf: Tensor | None = None) -> None:
        """Insert images (B, H, W) of given poses, with the CTF (B, 9) that they have."""
        p = self.padded
        low = p // 2 - self.box // 2
        high = p - self.box - low
        padded = torch.nn.functional.pad(images, (low, high, low, high))
        spectrum = torch.fft.rfft2(torch.fft.ifftshift(padded, dim=(-2, -1))).flatten(1)
        values = spectrum[:, self.kept]
        phase = (2 * math.pi / p) * (pose.shift @ self.k.T)
        values = values * torch.polar(torch.ones_like(phase), phase)
        weight = self.once.expand(len(images), -1)
        if ctf is not None:
            transfer = ctf_2d(ctf, (p, p)).flatten(1)[:, self.kept]
            values = values * transfer
            weight = weight * transfer.square()
        values = values * self.once
        self._share(self.k @ pose.rotation[:, :2], values, weight)

    def _share(self, place: Tensor, values: Tensor, weight: Tensor) -> None:
        """Share values (B, F) between the eight lattice points about ``place`` (B, F, 3)."""
        place = place.reshape(-1, 3) + (self.padded // 2 + 1)
        corner = place.floor()
        rest = place - corner
        x, y, z = corner.long().unbind(1)
        first = (z * self.side + y) * self.side + x
        parts = (values.real.reshape(-1), values.imag.reshape(-1), weight.reshape(-1))
        along = [(1 - rest[:, i], rest[:, i]) for i in range(3)]
        for dz in (0, 1):
            for dy in (0, 1):
                plane = along[2][dz] * along[1][dy]
                for dx in (0, 1):
                    share = plane * along[0][dx]
                    index = first + ((dz * self.side + dy) * self.side + dx)
                    for total, part in zip(self.sums, parts, strict=True):
                        total.index_add_(0, index, part * share)

    def map(self) -> NDArray[np.float32]:
        """Return the least-squares map, (D, H, W)."""
        p, shape = self.padded, (self.side,) * 3
        real, imaginary, weight = (total.reshape(shape) for total in self.sums)
        real = real + real.flip((0, 1, 2))
        imaginary = imaginary - imaginary.flip((0, 1, 2))
        weight = weight + weight.flip((0, 1, 2))
        weight = weight + FLOOR * _shell_means(weight)
        volume = torch.complex(real, imaginary) / weight.clamp_min(1e-12)
        inner = volume[1 : p + 1, 1 : p + 1, 1 : p + 1]
        wide = torch.fft.ifftn(torch.fft.ifftshift(inner)).real
        low = p // 2 - self.box // 2
        cut = slice(low, low + self.box)
        made = torch.fft.fftshift(wide)[cut, cut, cut]
        along = torch.sinc((torch.arange(self.box) - self.box // 2) / p).square()
        made = made / (along[:, None, None] * along[:, None] * along)
        return np.asarray(made.numpy(), np.float32)


def _shell_means(weight: Tensor) -> Tensor:
    """Return the mean over the shell that each point (S, S, S) lies in."""
    side = weight.shape[0]
    axis = (torch.arange(side) - side // 2).float().square()
    radius = (axis[:, None, None] + axis[:, None] + axis).sqrt().round().long()
    total = torch.bincount(radius.reshape(-1), weight.reshape(-1).double())
    count = torch.bincount(radius.reshape(-1))
    return (total / count).float()[radius]
