"""Averages of posed volumes in Fourier space, wedges compensated; how far halves agree.

Each coefficient is put back where it came from, R^T k of the upright object, with the weight that
its transfer gives it.  The average is the sum of what was measured over the sum of weights, less
where little was measured: the weight of the prior comes from the agreement of two halves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients, phases, shell_of
from modpose.fourier.fsc import shell_correlation
from modpose.fourier.reference import blur, corners, turned
from modpose.geometry.grids import lattice

OVERSAMPLING = 2
"""Side of the lattice of sums over that of the volumes."""
POINTS_AT_ONCE = 1 << 18
"""Coefficients put back at a time."""
EDGE = 3.0
"""Voxels over which a spherical mask falls."""
HARDLY = 1e-3
"""Share of a shell's mean weight that is added to weights without a prior."""


class FourierSums(NamedTuple):
    """What has been put back into the upright frames of C slots, (C, m, m, m) each.

    Attributes
    ----------
    value
        Complex sums of transfer times coefficient.
    weight
        Sums of squared transfers.
    padded
        Points of the lattice in a step of one cycle a voxel.
    """

    value: Tensor
    weight: Tensor
    padded: int

    def __add__(self, other: object) -> FourierSums:
        """Add up, slot by slot."""
        if not isinstance(other, FourierSums):
            return NotImplemented
        return FourierSums(self.value + other.value, self.weight + other.weight, self.padded)

    @property
    def highest_shell(self) -> int:
        """Last shell, of 1 / box, with coefficients."""
        return (self.value.shape[-1] // 2 - 1) // OVERSAMPLING

    def slots(self, index: Tensor) -> FourierSums:
        """Keep some slots."""
        return FourierSums(self.value[index], self.weight[index], self.padded)


def insert_slices(
    volumes: Coefficients,
    slot: Tensor,
    slots: int,
    rotation: Tensor,
    shift: Tensor,
    weight: Tensor | None = None,
    amplitude: Tensor | None = None,
) -> FourierSums:
    """Sum the coefficients of posed volumes in upright frames.

    Parameters
    ----------
    volumes
        N, whitened.
    slot
        (N,) int64, which sum each belongs to; a negative one leaves it out.
    slots
        How many sums, C.
    rotation, shift
        (N, 3, 3) and (N, 3) voxels.
    weight
        (N,) how much each counts; all alike by default.
    amplitude
        (N,) strength of the object in each; one by default.
    """
    padded = OVERSAMPLING * volumes.box
    limit = float(volumes.radius[-1])
    side = 2 * (math.ceil(limit * padded) + 1) + 1
    total = slots * side**3
    real, imag, density = (torch.zeros(total) for _ in range(3))
    owners = (slot >= 0).nonzero().squeeze(1)
    step = max(1, POINTS_AT_ONCE // len(volumes.frequency))
    for rows in torch.split(owners, step):
        part = volumes.rows(rows)
        scale = torch.ones(len(rows)) if amplitude is None else amplitude[rows]
        counted = scale if weight is None else scale * weight[rows]
        back = part.value * part.transfer * phases(part.frequency, -shift[rows])
        back = back * counted[:, None]
        squared = part.transfer.square() * (counted * scale)[:, None]
        index, share = corners(turned(part.frequency, rotation[rows]), side, padded)
        flat = (index.long() + (slot[rows] * side**3)[:, None, None]).flatten()
        for sums, values in ((real, back.real), (imag, back.imag), (density, squared)):
            sums += torch.bincount(flat, (share * values[..., None]).flatten(), total)
    shape = (slots, side, side, side)
    value, density = torch.complex(real, imag).reshape(shape), density.reshape(shape)
    axes = (1, 2, 3)  # what is at k is, conjugate, at -k too
    return FourierSums(value + value.flip(axes).conj(), density + density.flip(axes), padded)


def averages(sums: FourierSums, box: int, mask: Tensor, ssnr: Tensor | None = None) -> Tensor:
    """Turn sums into volumes.

    Parameters
    ----------
    sums
        Of C slots.
    box
        Side D of the volumes.
    mask
        (D, D, D) that the volumes are multiplied by.
    ssnr
        (C, shells) spectral signal-to-noise ratio of each sum; None for no prior.

    Returns
    -------
    Tensor
        (C, D, D, D), in the unit of the volumes that were summed.
    """
    side = sums.value.shape[-1]
    frequency = lattice((side,) * 3) / sums.padded
    shell = shell_of(frequency, box).reshape(side, side, side)
    mean = _by_shell(sums.weight, shell)
    ratio = torch.full_like(mean, 1 / HARDLY) if ssnr is None else _fit(ssnr, mean.shape[1])
    prior = mean / ratio.clamp(min=1e-4)
    floor = 1e-12 + 1e-9 * sums.weight.amax()
    spectrum = sums.value / (sums.weight + prior[:, shell] + floor)
    return _volumes_of(spectrum, frequency, sums.padded, box) * mask


def solve_jointly(
    values: Tensor, weights: Tensor, padded: int, mask: Tensor, variance: Tensor
) -> Tensor:
    """Solve for J volumes whose mixtures were summed, at every frequency at once.

    Parameters
    ----------
    values
        (m, m, m, J) sums of volumes times how much of each of the J they hold.
    weights
        (m, m, m, Q) sums of squared transfers times both amounts, for each pair i <= j, by rows.
    padded
        Points of the lattice of sums in a step of one cycle a voxel.
    mask
        (D, D, D) that the volumes are multiplied by.
    variance
        (J, shells) expected of each volume's coefficients.

    Returns
    -------
    Tensor
        (J, D, D, D).
    """
    side, count, box = values.shape[0], values.shape[-1], mask.shape[-1]
    frequency = lattice((side,) * 3) / padded
    shell = shell_of(frequency, box).clamp(max=variance.shape[1] - 1)
    prior = 1 / (OVERSAMPLING**3 * variance.clamp(min=1e-12))  # (J, shells)
    pairs = torch.triu_indices(count, count)
    spectrum = torch.zeros(side**3, count, dtype=values.dtype)
    flat = values.flatten(0, 2), weights.flatten(0, 2)
    half = (frequency[:, 0] >= 0).nonzero().squeeze(1)  # the other half is never read
    for rows in torch.split(half, POINTS_AT_ONCE):
        normal = torch.diag_embed(prior[:, shell[rows]].T)
        normal[:, pairs[0], pairs[1]] += flat[1][rows]
        normal[:, pairs[1], pairs[0]] = normal[:, pairs[0], pairs[1]]
        solved = torch.linalg.solve(normal, torch.view_as_real(flat[0][rows]))
        spectrum[rows] = torch.view_as_complex(solved.contiguous())
    spectrum = spectrum.T.reshape(count, side, side, side)
    return _volumes_of(spectrum, frequency, padded, box) * mask


def _volumes_of(spectrum: Tensor, frequency: Tensor, padded: int, box: int) -> Tensor:
    """Transform back from the lattice of sums, its blur taken off; (C, D, D, D)."""
    slots, side = spectrum.shape[:2]
    beyond = frequency.norm(dim=1).reshape(spectrum.shape[1:]) * padded > side // 2
    spectrum = spectrum.masked_fill(beyond, 0)
    reach, half = side // 2, box // 2
    wide = torch.zeros(slots, padded, padded, padded // 2 + 1, dtype=spectrum.dtype)
    near = torch.arange(-reach, reach + 1) % padded
    wide[:, near[:, None, None], near[:, None], torch.arange(reach + 1)] = spectrum[..., reach:]
    volumes = torch.fft.fftshift(
        torch.fft.irfftn(wide, s=(padded,) * 3, dim=(1, 2, 3)), dim=(1, 2, 3)
    )
    cut = slice(padded // 2 - half, padded // 2 - half + box)
    found: Tensor = volumes[:, cut, cut, cut] * box**1.5 / blur(box, padded)
    return found


def half_averages(
    first: FourierSums, second: FourierSums, box: int, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Average two halves and both together, the prior's weight from how far the halves agree.

    Returns
    -------
    volumes, fsc
        (C, D, D, D) of all; (C, shells).
    """
    halves = [averages(part, box, mask) for part in (first, second)]
    fsc = fsc_of_classes(*halves)
    fsc[:, first.highest_shell + 1 :] = 0.0
    return averages(first + second, box, mask, ssnr_of(fsc, halved=True)), fsc


def ssnr_of(fsc: Tensor, *, halved: bool) -> Tensor:
    """Spectral signal-to-noise ratio from the correlation of two halves; of their sum: halved."""
    bounded = fsc.clamp(1e-3, 0.9999)
    ratio = bounded / (1 - bounded)
    return 2 * ratio if halved else ratio


def fsc_of_classes(a: Tensor, b: Tensor) -> Tensor:
    """Fourier shell correlation (C, shells) of volumes (C, D, D, D); the mean's, shell 0, is 1."""
    found = shell_correlation(a, b)
    return torch.cat([torch.ones_like(found[:, :1]), found], 1)


def resolution_shell(fsc: Tensor, threshold: float = 0.143) -> Tensor:
    """Return the last shell (C,) before the correlation first falls below the threshold."""
    below = fsc[:, 1:] < threshold
    return torch.where(below.any(1), below.float().argmax(1), below.shape[1])


def soft_sphere(box: int, diameter: float) -> Tensor:
    """(D, D, D) mask: one inside the diameter (voxels), falling to zero over ``EDGE`` voxels."""
    radius = lattice((box,) * 3).norm(dim=-1).reshape(box, box, box)
    outside = ((radius - diameter / 2) / EDGE).clamp(0, 1)
    return 0.5 + 0.5 * torch.cos(math.pi * outside)


def _by_shell(values: Tensor, shell: Tensor) -> Tensor:
    count = int(shell.max()) + 1
    sums = torch.zeros(len(values), count).index_add_(1, shell.flatten(), values.flatten(1))
    return sums / torch.bincount(shell.flatten(), minlength=count).clamp(min=1)


def _fit(ssnr: Tensor, shells: int) -> Tensor:
    """Bring a table by shell to a number of shells; beyond it there is no signal."""
    if ssnr.shape[1] >= shells:
        return ssnr[:, :shells]
    return torch.cat([ssnr, ssnr.new_full((len(ssnr), shells - ssnr.shape[1]), 1e-3)], 1)
