"""Volumes as the Fourier coefficients that a search compares: whitened, with wedge and CTF.

With the transform unitary and the noise's spectrum divided out, a coefficient is

    y(k) = h(k) exp(-2 pi i k.t) F(R^T k) + noise of unit variance,

where F is the transform of the upright object and h the transfer of the instrument divided by the
noise's amplitude.  Half of all frequencies describe a real volume completely; each counts twice.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from modpose.devices import near
from modpose.errors import InputError
from modpose.geometry.grids import frequencies, lattice

CORNER_SOFTNESS = 2.0
"""Voxels over which the noise's window opens outside the sphere that the box holds."""
SPARE = 4
"""Pixels of a small box beyond twice its highest frequency."""
UNSEEN = 1e-4
"""A transfer below this fraction of the largest counts as not measured."""


@dataclass(frozen=True)
class Coefficients:
    """Fourier coefficients of N volumes or tilt series at K frequencies, sorted by radius.

    Attributes
    ----------
    frequency
        (K, 3) ordered (x, y, z), cycles per voxel, one of each pair k and -k, without the origin;
        (N, K, 3) for tilt series, each measured on planes of its own, of the same radii.
    value
        (N, K) complex, whitened: noise of unit variance.
    transfer
        (N, K), or (1, K) where all volumes share it: wedge times CTF over the noise's amplitude.
    box
        Side of the volumes, voxels.
    place
        (N,) int64, where this process holds only some of the volumes: the row of each in
        ``value`` (and ``transfer``), in the same order, or -1.  None: it holds all.
    """

    frequency: Tensor
    value: Tensor
    transfer: Tensor
    box: int
    place: Tensor | None = None

    def __len__(self) -> int:
        return len(self.value if self.place is None else self.place)

    @property
    def shared(self) -> bool:
        """Whether all volumes have one transfer."""
        return len(self.transfer) == 1

    @property
    def radius(self) -> Tensor:
        """(K,) cycles per voxel, rising."""
        first = self.frequency if self.frequency.ndim == 2 else self.frequency[0]
        radius: Tensor = first.norm(dim=1)
        return radius

    @property
    def limit(self) -> float:
        """Highest frequency, cycles per voxel."""
        return float(self.radius[-1])

    @property
    def width(self) -> int:
        """K."""
        return self.frequency.shape[-2]

    @property
    def shell(self) -> Tensor:
        """(K,) int64 number of the shell of each frequency, one a step of 1 / box."""
        return shell_of(self.frequency, self.box)

    def within(self, limit: float) -> Coefficients:
        """Keep the frequencies up to ``limit`` cycles per voxel."""
        count = int(torch.searchsorted(self.radius, limit + 1e-6))
        if count == self.width:
            return self
        return replace(
            self,
            frequency=self.frequency[..., :count, :],
            value=self.value[:, :count],
            transfer=self.transfer[:, :count],
        )

    def to(self, device: torch.device) -> Coefficients:
        """Move to a device."""
        frequency, value = self.frequency.to(device), self.value.to(device)
        return replace(self, frequency=frequency, value=value, transfer=self.transfer.to(device))

    def rows(self, index: Tensor | slice) -> Coefficients:
        """Select some volumes; of those that are elsewhere, only the place is kept."""
        place = None
        if self.place is not None:
            row = self.place[index]
            here = row >= 0
            place, index = torch.where(here, here.cumsum(0) - 1, -1), row[here]
        transfer = self.transfer if self.shared else self.transfer[index]
        frequency = self.frequency if self.frequency.ndim == 2 else self.frequency[index]
        value = self.value[index]
        return replace(self, frequency=frequency, value=value, transfer=transfer, place=place)


def shell_of(frequency: Tensor, box: int) -> Tensor:
    """Number the shells, one a step of 1 / box, of frequencies (..., 3); (...) int64."""
    shell: Tensor = (frequency.norm(dim=-1) * box).round().long()
    return shell


def smallest_box(cycles: float, box: int) -> int:
    """Side of a box, at most ``box`` pixels, that holds frequencies up to ``cycles`` a box."""
    return min(box, 2 * math.ceil(cycles) + SPARE)


def phases(frequency: Tensor, shift: Tensor) -> Tensor:
    """Return exp(-2 pi i k.t), (B, K), of frequencies ([B,] K, 3) and shifts (B, 3) in voxels."""
    if frequency.ndim == 2:
        dot = shift @ frequency.T
    else:
        dot = torch.einsum("bkj,bj->bk", frequency, shift)
    angle = -2 * math.pi * dot
    return torch.polar(torch.ones_like(angle), angle)


def half_sphere(box: int, limit: float) -> tuple[Tensor, Tensor]:
    """Choose one of each pair k, -k within ``limit``, sorted by radius.

    Returns
    -------
    frequency, place
        (K, 3) cycles per voxel, and (K,) where they are in a flattened ``rfftn``.
    """
    k = frequencies((box,) * 3)[..., : box // 2 + 1, :].reshape(-1, 3)
    x, y, z = k.unbind(-1)
    first = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    inside = first & (k.norm(dim=-1) <= limit + 1e-6) & (k.abs() < 0.5 - 1e-6).all(-1)
    place = inside.nonzero().squeeze(1)
    place = place[k[place].norm(dim=-1).argsort(stable=True)]
    return k[place], place


def transform(volumes: Tensor, place: Tensor) -> Tensor:
    """Fourier coefficients (N, K) of volumes (N, D, D, D), unitary, the origin at the centre."""
    device = near(volumes)
    centred = torch.fft.ifftshift(volumes.to(device), dim=(1, 2, 3))
    spectrum = torch.fft.rfftn(centred, dim=(1, 2, 3), norm="ortho")
    found: Tensor = spectrum.flatten(1)[:, place.to(device)]
    return found.to(volumes.device)


def noise_window(box: int) -> Tensor:
    """(D, D, D) window over the corners of a box, which contain no molecule; mean square one."""
    radius = lattice((box,) * 3).norm(dim=-1).reshape(box, box, box)
    outside = ((radius - (box / 2 - 1)) / CORNER_SOFTNESS).clamp(0, 1)
    window = 0.5 - 0.5 * torch.cos(math.pi * outside)
    return window / window.square().mean().sqrt()


@dataclass(frozen=True)
class NoiseSpectrum:
    """Amplitude of the noise by shell.

    Attributes
    ----------
    amplitude
        (shells,) of the unitary transform, one a step of 1 / box; the first is the origin's.
    """

    amplitude: Tensor

    def of(self, frequency: Tensor, box: int) -> Tensor:
        """Read it at frequencies (K, 3); (K,)."""
        shell = shell_of(frequency, box).clamp(max=len(self.amplitude) - 1)
        return self.amplitude.to(frequency)[shell]


def map_coefficients(maps: Tensor, limit: float) -> Coefficients:
    """Take maps (C, D, D, D) for volumes measured whole, with noise of unit variance."""
    box = maps.shape[-1]
    whole = maps.new_ones(1, box, box, box // 2 + 1)
    return coefficients_of(maps, whole, white_noise(box, 1.0), limit)


def white_noise(box: int, std: float) -> NoiseSpectrum:
    """Return the spectrum of noise with this standard deviation, independent in every voxel."""
    return NoiseSpectrum(torch.full((box // 2 + 1,), std))


def measure_noise(chunks: Iterable[tuple[Tensor, Tensor]], box: int) -> NoiseSpectrum:
    """Measure the noise by shell in the corners of the boxes, outside the sphere they hold.

    Parameters
    ----------
    chunks
        Pairs of volumes (B, D, D, D) and masks (B | 1, D, D, D // 2 + 1) of what was measured.
    box
        Side D.

    Raises
    ------
    InputError
        If the corners hold one number only (a mask was applied to the volumes).
    """
    frequency, place = half_sphere(box, 0.5)
    shell, window = shell_of(frequency, box), noise_window(box)
    power, count = torch.zeros(box // 2 + 1), torch.zeros(box // 2 + 1)
    for volumes, mask in chunks:
        inside = window > 0
        mean = (volumes * inside).sum((1, 2, 3), keepdim=True) / inside.sum()
        found = transform((volumes - mean) * window, place).abs().square()
        seen = (mask.flatten(1)[:, place] != 0).float().expand(len(found), -1)
        power.index_add_(0, shell, (found * seen).sum(0))
        count.index_add_(0, shell, seen.sum(0))
    known = (count > 0) & (power > 0)
    if not known.any():
        raise InputError(
            "volumes: their corners are all of one value, expected noise outside the sphere that "
            "the box holds: volumes that were not masked"
        )
    variance = torch.where(known, power / count.clamp(min=1), power.new_zeros(()))
    variance = torch.where(known, variance, variance[known].mean())
    return NoiseSpectrum(variance.sqrt())


def coefficients_of(
    volumes: Tensor,
    mask: Tensor,
    noise: NoiseSpectrum,
    limit: float,
    ctf: Tensor | None = None,
) -> Coefficients:
    """Take the Fourier coefficients of volumes up to a frequency, whitened.

    Parameters
    ----------
    volumes
        (N, D, D, D).
    mask
        (N | 1, D, D, D // 2 + 1) 1 where measured, as :func:`modpose.observe.wedge.wedge_mask`;
        or what the signal was multiplied by, 0 where nothing was measured.
    noise
        Amplitude of the noise by shell.
    limit
        Cycles a voxel, less than half.
    ctf
        (N | 1, D, D, D // 2 + 1) contrast transfer, or None for one.
    """
    box = volumes.shape[-1]
    frequency, place = (part.to(volumes.device) for part in half_sphere(box, limit))
    seen = mask.flatten(1)[:, place]
    transfer = seen if ctf is None else seen * ctf.flatten(1)[:, place]
    transfer = transfer / noise.of(frequency, box)
    value = transform(volumes, place) * ((seen != 0) / noise.of(frequency, box))
    return Coefficients(frequency, value, transfer, box)


class Common(NamedTuple):
    """What parts of a set have in common.

    Attributes
    ----------
    largest
        (K,) largest absolute transfer at each frequency.
    transfer
        (1, K) that all have, or None.
    """

    largest: Tensor
    transfer: Tensor | None

    @classmethod
    def of(cls, parts: Iterable[Coefficients]) -> Common:
        """Look at each part once."""
        largest: Tensor | None = None
        transfer: Tensor | None = None
        for part in parts:
            highest = part.transfer.abs().amax(0)
            if largest is None:
                transfer = part.transfer if part.shared else None
            elif transfer is not None and not torch.equal(part.transfer, transfer):
                transfer = None
            largest = highest if largest is None else torch.maximum(largest, highest)
        assert largest is not None
        return cls(largest, transfer)


Make = Callable[[tuple[int, int], torch.dtype], Tensor]


def joined(parts: list[Coefficients], common: Common | None = None) -> Coefficients:
    """Join the volumes of several; frequencies that none of them measured are dropped.

    ``parts`` is emptied on the way, so that memory holds every volume once.
    """
    common, count = common or Common.of(parts), sum(map(len, parts))
    parts.reverse()
    return stored((parts.pop() for _ in range(len(parts))), count, common)


def stored(
    parts: Iterable[Coefficients], count: int, common: Common, make: Make | None = None
) -> Coefficients:
    """Join parts of ``count`` volumes, in tensors that ``make`` gives for a shape and a type."""
    make = make or _in_memory
    kept = common.largest > UNSEEN * common.largest.max()
    width, begin = int(kept.sum()), 0
    value, transfer = make((count, width), torch.complex64), common.transfer
    transfer = make((count, width), torch.float32) if transfer is None else transfer[:, kept]
    for part in parts:
        rows = slice(begin, begin + len(part))
        value[rows] = part.value[:, kept]
        if common.transfer is None:
            transfer[rows] = part.transfer[:, kept]
        begin += len(part)
        frequency, box = part.frequency[kept], part.box
    return Coefficients(frequency, value, transfer.contiguous(), box)


def _in_memory(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)


def on_disk(folder: Path | None = None) -> Make:
    """Make tensors in files of a folder that vanish with them; by default that for temporary files.

    Raises
    ------
    OSError
        Where the disk is too full.
    """

    def make(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * kind.itemsize))
            return torch.from_numpy(np.memmap(file, kind, "r+", shape=shape))

    return make
