"""Rotation-invariant power: spherical harmonics in 3-D, circular harmonics in 2-D.

On a sphere of radius r about the centre, f(r, .) = sum over l, m of c_lm(r) Y_lm.  A rotation
mixes the c_lm of one degree l and does not change the sum over m of |c_lm(r)|^2 (Kazhdan,
Funkhouser & Rusinkiewicz 2003, Symp. Geometry Processing, 156-164).  On a circle a rotation only
changes the phases of the Fourier coefficients along the angle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from modpose.affinity.foreground import centres_of_mass
from modpose.affinity.matrix import Matrix
from modpose.affinity.spectra import check_zeta, cosines
from modpose.errors import InputError
from modpose.limits import check_whole

Centre = Literal["box", "mass"]


@dataclass(frozen=True)
class PowerSpectrum:
    """Cosine between amplitudes by radius and harmonic degree; needs no pose.

    The mean inside the ball (disc) is subtracted first, so neither offset nor scale of an image
    matters.  Amplitudes and affinities are never negative.  Mirror images have the same power.

    Attributes
    ----------
    lmax
        Highest degree.
    centre
        Radii start at the centre of the ``box`` or, for clean objects that are not centred, at the
        centre of ``mass`` of the foreground.
    zeta
        Power of the cosine; a larger one separates objects more.
    """

    lmax: int = 10
    centre: Centre = "box"
    zeta: float = 1.0

    def __post_init__(self) -> None:
        check_whole("lmax", "the highest degree", self.lmax, 0, 256)
        if self.centre not in ("box", "mass"):
            raise InputError.of("centre", "the centre", f"'{self.centre}'", "'box' or 'mass'")
        check_zeta(self.zeta)

    def describe(self, images: Tensor) -> Tensor:
        """Return (B, R (lmax + 1)) unit vectors."""
        images = images.float()
        shape = images.shape[1:]
        if self.centre == "mass":
            centres = centres_of_mass(images)
        else:
            centres = torch.tensor([float(side // 2) for side in reversed(shape)])
            centres = centres.expand(len(images), -1)
        of_shape = spherical_power if len(shape) == 3 else circular_power
        amplitude = of_shape(images, centres, self.lmax).sqrt().flatten(1)
        return torch.nn.functional.normalize(amplitude, dim=1, eps=1e-30)

    def compare(self, features: Tensor) -> Matrix:
        """Multiply: (N, F) to (N, N)."""
        return cosines(features, self.zeta)


def spherical_power(volumes: Tensor, centres: Tensor, lmax: int) -> Tensor:
    """Power by radius and degree, r^2 sum over m of |c_lm(r)|^2, without the ball's mean.

    Parameters
    ----------
    volumes
        (B, D, H, W).
    centres
        (B, 3) array indices (x, y, z) of the centres.
    lmax
        Highest degree.

    Returns
    -------
    Tensor
        (B, R, lmax + 1), radii 1 to (n - 1) // 2 voxels; the sum over both and all degrees
        would be the ball's variance times its volume.
    """
    side = min(volumes.shape[1:])
    nodes, weights = np.polynomial.legendre.leggauss(max(side, lmax + 1))
    columns = max(2 * side, 2 * lmax + 2)
    angle = torch.arange(columns) * (2 * math.pi / columns)
    height = torch.from_numpy(nodes).float()[:, None].expand(-1, columns)
    level = (1 - height.square()).sqrt()
    directions = torch.stack([level * angle.cos(), level * angle.sin(), height], dim=-1)
    rings = torch.fft.rfft(_sampled(volumes, centres, directions), dim=-1)[..., : lmax + 1]
    rings = rings * (2 * math.pi / columns)
    table = torch.from_numpy(legendre_table(nodes, lmax) * weights[:, None, None]).float()
    coefficients = torch.einsum("brtm,tlm->brlm", rings, table.to(rings.dtype))
    radii = _radii(volumes.shape[1:])
    shares = radii.square() / radii.square().sum()
    mean = (coefficients[:, :, 0, 0].real * shares).sum(dim=1)
    coefficients[:, :, 0, 0] -= mean[:, None]
    power = torch.view_as_real(coefficients).square().sum(dim=-1)
    power[..., 1:] *= 2  # the orders -m
    return power.sum(dim=-1) * radii.square()[:, None]


def circular_power(images: Tensor, centres: Tensor, lmax: int) -> Tensor:
    """Power by radius and order, r |c_m(r)|^2 + r |c_-m(r)|^2, without the disc's mean.

    Parameters
    ----------
    images
        (B, H, W).
    centres
        (B, 2) array indices (x, y) of the centres.
    lmax
        Highest order.

    Returns
    -------
    Tensor
        (B, R, lmax + 1), radii 1 to (n - 1) // 2 pixels.
    """
    columns = max(4 * min(images.shape[1:]), 2 * lmax + 2)
    angle = torch.arange(columns) * (2 * math.pi / columns)
    directions = torch.stack([angle.cos(), angle.sin()], dim=-1)
    rings = torch.fft.rfft(_sampled(images, centres, directions), dim=-1)[..., : lmax + 1]
    rings = rings * (math.sqrt(2 * math.pi) / columns)
    radii = _radii(images.shape[1:])
    mean = (rings[:, :, 0].real * radii / radii.sum()).sum(dim=1)
    rings[:, :, 0] -= mean[:, None]
    power = torch.view_as_real(rings).square().sum(dim=-1)
    power[..., 1:] *= 2  # the orders -m
    return power * radii[:, None]


def legendre_table(height: np.ndarray[tuple[int], np.dtype[np.float64]], lmax: int) -> Matrix:
    """Associated Legendre functions, normalised as in Y_lm = table e^(i m phi).

    Parameters
    ----------
    height
        (T,) cosines of the polar angle.
    lmax
        Highest degree.

    Returns
    -------
    NDArray
        (T, lmax + 1, lmax + 1) by degree l and order m >= 0, zero where m > l.
    """
    table = np.zeros((len(height), lmax + 1, lmax + 1))
    level = np.sqrt(1 - height**2)
    diagonal = np.full_like(height, math.sqrt(1 / (4 * math.pi)))
    for m in range(lmax + 1):
        if m:
            diagonal = -math.sqrt((2 * m + 1) / (2 * m)) * level * diagonal
        table[:, m, m] = diagonal
        for degree in range(m + 1, lmax + 1):
            scale = math.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
            back = math.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1))
            before = table[:, degree - 2, m] if degree > m + 1 else 0.0
            table[:, degree, m] = scale * (height * table[:, degree - 1, m] - back * before)
    return table


def _radii(shape: Sequence[int]) -> Tensor:
    return torch.arange(1, (min(shape) - 1) // 2 + 1, dtype=torch.float32)


def _sampled(images: Tensor, centres: Tensor, directions: Tensor) -> Tensor:
    """Interpolate at all radii along directions (*Q, d) from centres (B, d): (B, R, *Q)."""
    shape = images.shape[1:]
    radii = _radii(shape)
    offsets = radii.reshape(-1, *(1 for _ in directions.shape)) * directions
    points = centres.reshape(len(images), *(1 for _ in offsets.shape[:-1]), -1) + offsets
    sides = torch.tensor([max(side - 1, 1) for side in reversed(shape)])
    flat = (-1,) if len(shape) == 2 else (-1, 1)
    grid = (2 * points / sides - 1).reshape(len(images), len(radii), *flat, len(shape))
    sampled = torch.nn.functional.grid_sample(
        images[:, None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return sampled.reshape(len(images), len(radii), *directions.shape[:-1])
