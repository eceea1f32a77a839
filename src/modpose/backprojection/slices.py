"""A map from images with poses, each inserted as a slice weighted by its CTF."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.devices import near
from modpose.fourier.insertion import OVERSAMPLING, Inserter, averages
from modpose.geometry.pose import Pose
from modpose.observe.ctf import ctf_2d

FLOOR = 0.02
"""Fraction of the mean weight of a shell that is added to every weight in it."""


class SliceSums:
    """Sums over slices, and the map that they make; on the device for computing.

    Parameters
    ----------
    box
        Side D of the images, pixels; even.
    """

    def __init__(self, box: int) -> None:
        self.box, self.padded = box, OVERSAMPLING * box
        self._sums = Inserter(1, box, 0.5)
        p = self.padded
        self._device = near(torch.empty(0))
        kx, ky = torch.meshgrid(torch.arange(p // 2 + 1.0), torch.fft.fftfreq(p) * p, indexing="xy")
        inside = (kx**2 + ky**2 <= (p / 2) ** 2).reshape(-1)
        kept = torch.nonzero(inside).squeeze(1)
        k = torch.stack([kx.reshape(-1), ky.reshape(-1)], 1)[kept] / p
        self.k, self.kept = k.to(self._device), kept.to(self._device)
        self.once = torch.where(self.k[:, 0] == 0, 0.5, 1.0)  # listed with their conjugates

    def add(self, images: Tensor, pose: Pose, ctf: Tensor | None = None) -> None:
        """Insert images (B, D, D) of given poses, with the CTF (B, 9) that they have."""
        p, device = self.padded, self._device
        pose = Pose(pose.rotation.to(device), pose.shift.to(device))
        low = p // 2 - self.box // 2
        high = p - self.box - low
        padded = torch.nn.functional.pad(images.to(device), (low, high, low, high))
        spectrum = torch.fft.rfft2(torch.fft.ifftshift(padded, dim=(-2, -1))).flatten(1)
        phase = 2 * math.pi * (pose.shift @ self.k.T)
        values = spectrum[:, self.kept] * torch.polar(self.once.expand_as(phase), phase)
        weight = self.once.expand(len(images), -1)
        if ctf is not None:
            transfer = ctf_2d(ctf.to(device), (p, p)).flatten(1)[:, self.kept]
            values, weight = values * transfer, weight * transfer.square()
        self._sums.add(self.k @ pose.rotation[:, :2], values, weight)

    def map(self) -> NDArray[np.float32]:
        """Return the least-squares map, (D, D, D): its sums along z are upright images."""
        box = self.box
        prior = torch.full((1, box // 2 + 1), 1 / FLOOR)
        everywhere = torch.ones(box, box, box, device=self._device)
        made = averages(self._sums.sums(), box, everywhere, prior)
        return np.asarray((made[0] / box**1.5).cpu().numpy(), np.float32)
