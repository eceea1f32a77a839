"""Pictures read at rotated frequencies, and rotated images added up, by exact Fourier sums.

A picture f of pose (theta, 0) has the coefficients F(R(theta)^T k).  For a grid of angles these are
one matrix product, without interpolation, and so is the sum of images turned back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from modpose.devices import at_once, near
from modpose.geometry.rotations import rotation_2d

NUMBERS_AT_ONCE = 1 << 23


class Turning:
    """Pictures of D x D pixels at A angles of half a turn, as K coefficients each.

    Parameters
    ----------
    frequency
        (K, 2) cycles per pixel, one of each pair k and -k.
    angles
        A; they are ``number * pi / A``.
    box
        Side D of the pictures.
    """

    def __init__(self, frequency: Tensor, angles: int, box: int) -> None:
        self.angles, self.box, self._frequency = angles, box, frequency
        self._shell = (frequency.norm(dim=1) * box).round().long()

    def read(self, pictures: Tensor) -> Tensor:
        """Coefficients (C, A, K), unitary, of pictures (C, D, D) at all angles."""
        flat = pictures.flatten(1).to(near(pictures))
        parts = []
        for _, real, imag in self._waves(flat.device):
            part = torch.complex(flat @ real.T, -(flat @ imag.T))
            parts.append(part.reshape(len(flat), -1, len(self._frequency)))
        return torch.cat(parts, 1).to(pictures.device)

    def turned_back(self, sums: Tensor, weight: Tensor) -> Tensor:
        """Turn images back by their angles and add them up.

        Parameters
        ----------
        sums
            (C, A, K) sums of images of each angle.
        weight
            (C, shells) that the coefficients are divided by.

        Returns
        -------
        Tensor
            (C, D, D).
        """
        device = near(sums)
        total = weight.new_zeros(len(sums), self.box**2).to(device)
        inverse = 2 / weight[:, None, self._shell]
        for few, real, imag in self._waves(device):
            part = (sums[:, few] * inverse).flatten(1).to(device)
            total += part.real @ real - part.imag @ imag
        return total.reshape(-1, self.box, self.box).to(sums.device)

    def _waves(self, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Some angles at a time, real and imaginary part of exp(2 pi i q.x) / D, (a K, D D)."""
        few = at_once(NUMBERS_AT_ONCE, device) // (len(self._frequency) * self.box**2)
        few, frequency = max(1, few), self._frequency.to(device)
        place = torch.arange(self.box).to(frequency) - self.box // 2
        for first in range(0, self.angles, few):
            part = slice(first, min(first + few, self.angles))
            angle = torch.arange(part.start, part.stop).to(place) * (math.pi / self.angles)
            turned = torch.einsum("kj,aji->aki", frequency, rotation_2d(angle))
            phase = 2 * math.pi * turned.flatten(0, 1)[..., None] * place
            x, y = torch.polar(torch.full_like(phase, self.box**-0.5), phase).unbind(1)
            x, y = x[:, None], y[:, :, None]
            real = (x.real * y.real).addcmul_(x.imag, y.imag, value=-1)
            imag = (x.real * y.imag).addcmul_(x.imag, y.real)
            yield part, real.flatten(1), imag.flatten(1)
