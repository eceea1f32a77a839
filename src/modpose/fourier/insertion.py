"""Maps from posed coefficients: least squares in Fourier space.

By the projection theorem the transform of a projection is the central slice of the object's at
R^T (kx, ky, 0); a posed volume's is the object's at R^T k.  With coefficients y = h F + noise the
least-squares map is, at every point of the object's lattice,

    F = sum h y / (sum h^2 + prior)

where both sums share each coefficient between the eight nearest points (trilinear), on a lattice
twice as fine as the box asks for.  The blur of that is divided out of the map.  The weight of the
prior comes from the agreement of two halves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from modpose.devices import HOST, at_once, near
from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.fsc import fsc_of_classes, ssnr_of
from modpose.fourier.reference import blur, corners, turned

OVERSAMPLING = 2
"""Side of the lattice of sums over that of the volumes."""
POINTS_AT_ONCE = 1 << 18
"""Coefficients inserted at a time."""
HARDLY = 1e-3
"""Share of a shell's mean weight that is added to weights without a prior."""


def insert(index: Tensor, share: Tensor, values: Tensor, total: Tensor) -> None:
    """Share values between points of a lattice and add them up: the transpose of interpolation.

    Parameters
    ----------
    index, share
        (..., 8) int of F coefficients: the points about each and their shares, as
        :func:`modpose.fourier.reference.corners` gives them.
    values
        (F, q) float32.
    total
        (P, q) sums at the points of the lattice, contiguous; changed in place.
    """
    product = _in_place("csc_matvecs") if total.device == HOST else None
    if product is None:
        insert_by_torch(index, share, values, total)
        return
    places = index.flatten().numpy()
    starts = np.arange(0, len(places) + 1, 8, dtype=places.dtype)
    points, columns = total.shape
    product(
        points,
        len(values),
        columns,
        starts,
        places,
        share.flatten().numpy(),
        values.flatten().numpy(),
        total.view(-1).numpy(),
    )


def _in_place(name: str) -> Callable[..., None] | None:
    """Return a sparse product of scipy that adds to an array; None if it has no such name.

    The public products return an array as large as the lattice for every call.
    """
    try:
        from scipy.sparse import _sparsetools
    except ImportError:
        return None
    return getattr(_sparsetools, name, None)


def insert_by_torch(index: Tensor, share: Tensor, values: Tensor, total: Tensor) -> None:
    """Do the same as :func:`insert` on any device."""
    for points, shares in zip(index.unbind(-1), share.unbind(-1), strict=True):
        total.index_add_(0, points.flatten(), values * shares.reshape(-1, 1))


def lattice_side(limit: float, padded: int) -> int:
    """Points along an axis of a lattice that holds frequencies to ``limit``, cycles per voxel."""
    return 2 * (math.ceil(limit * padded) + 1) + 1


class FourierSums(NamedTuple):
    """Sums of coefficients in the upright frames of C slots, (C, m, m, m) each.

    Attributes
    ----------
    value
        Complex sums of transfer times coefficient.
    weight
        Sums of squared transfers.
    padded
        Points of the lattice in a step of one cycle per voxel.
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

    def to(self, device: torch.device) -> FourierSums:
        """Move to a device."""
        return FourierSums(self.value.to(device), self.weight.to(device), self.padded)

    def slots(self, index: Tensor) -> FourierSums:
        """Keep some slots."""
        return FourierSums(self.value[index], self.weight[index], self.padded)


class Inserter:
    """Sums in the upright frames of slots, block by block.

    Parameters
    ----------
    slots
        How many sums, C.
    box
        Side D of the maps.
    limit
        Highest frequency, cycles per voxel.
    device
        Where the sums are made; by default the device for computing (:mod:`modpose.devices`).
    """

    def __init__(
        self, slots: int, box: int, limit: float, device: torch.device | None = None
    ) -> None:
        self.padded = OVERSAMPLING * box
        self.side = min(lattice_side(limit, self.padded), self.padded + 1)
        self._slots = slots
        empty = torch.zeros(0, 3)  # real, imaginary, weight
        self._total = empty.to(device or near(empty)).new_zeros(slots * self.side**3, 3)

    def add(
        self, frequency: Tensor, value: Tensor, weight: Tensor, slot: Tensor | None = None
    ) -> None:
        """Add coefficients.

        Parameters
        ----------
        frequency
            (B, K, 3) of the upright object, cycles per voxel.
        value
            (B, K) complex: transfer times coefficient.
        weight
            (B, K) squared transfer.
        slot
            (B,) int64 which sum each belongs to; the first by default.
        """
        device, points = self._total.device, len(self._total)
        index, share = corners(frequency.to(device), self.side, self.padded)
        if slot is not None:
            index = index.to(torch.int32 if points < 1 << 31 else torch.int64)
            index = index + (slot * self.side**3).to(index)[:, None, None]
        values = torch.stack([value.real, value.imag, weight], -1).flatten(0, 1).to(device)
        insert(index, share, values, self._total)

    def sums(self) -> FourierSums:
        """Return the sums; the value at -k is the complex conjugate of that at k."""
        total = self._total.reshape(self._slots, *(self.side,) * 3, 3)
        value, weight = torch.complex(total[..., 0], total[..., 1]), total[..., 2]
        axes = (1, 2, 3)
        return FourierSums(value + value.flip(axes).conj(), weight + weight.flip(axes), self.padded)


def insert_slices(
    volumes: Coefficients,
    slot: Tensor,
    slots: int,
    rotation: Tensor,
    shift: Tensor,
    weight: Tensor | None = None,
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
        (N,) weights; all equal by default.
    """
    home, device = volumes.value.device, near(volumes.value)
    made = Inserter(slots, volumes.box, volumes.limit, device)
    step = max(1, at_once(POINTS_AT_ONCE, device) // volumes.width)
    for rows in torch.split((slot >= 0).nonzero().squeeze(1), step):
        part = volumes.rows(rows).to(device)
        back = part.value * part.transfer * phases(part.frequency, -shift[rows].to(device))
        squared = part.transfer.square().expand(len(rows), -1)
        if weight is not None:
            own = weight[rows, None].to(device)
            back, squared = back * own, squared * own
        made.add(turned(part.frequency, rotation[rows]), back, squared, slot[rows])
    return made.sums().to(home)


def averages(sums: FourierSums, box: int, mask: Tensor, ssnr: Tensor | None = None) -> Tensor:
    """Convert sums to volumes.

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
    home, device = sums.weight.device, near(sums.weight)
    sums = sums.to(device)
    radius = _radius(sums.value.shape[-1]).to(sums.weight) / sums.padded
    shell = (radius * box).round().long()
    mean = _by_shell(sums.weight, shell)
    ratio = torch.full_like(mean, 1 / HARDLY) if ssnr is None else _fit(ssnr, mean.shape[1])
    ratio = ratio.to(device)
    prior = mean / ratio.clamp(min=1e-4)
    floor = 1e-12 + 1e-9 * sums.weight.amax()
    spectrum = sums.value / (sums.weight + prior[:, shell] + floor)
    return _volumes_of(spectrum, radius, sums.padded, box).to(home) * mask


def solve_jointly(
    values: Tensor, weights: Tensor, padded: int, mask: Tensor, variance: Tensor
) -> Tensor:
    """Solve for J volumes whose mixtures were summed, at every frequency at once.

    Parameters
    ----------
    values
        (m, m, m // 2 + 1, J) sums of volumes times how much of each of the J they hold, at the
        frequencies whose x is not negative.
    weights
        (m, m, m // 2 + 1, Q) sums of squared transfers times both amounts, for each pair i <= j, by
        rows.
    padded
        Points of the lattice of sums in a step of one cycle per voxel.
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
    home, device = weights.device, near(weights)
    values, weights, variance = values.to(device), weights.to(device), variance.to(device)
    radius = _radius(side).to(weights) / padded
    shell = (radius * box).round().long().clamp(max=variance.shape[1] - 1)
    prior = 1 / (OVERSAMPLING**3 * variance.clamp(min=1e-12))  # (J, shells)
    pairs = torch.triu_indices(count, count)
    flat = [part.flatten(0, 2) for part in (shell[..., side // 2 :, None], values, weights)]
    solved = torch.empty_like(flat[1])
    blocks = zip(*(torch.split(part, POINTS_AT_ONCE) for part in (solved, *flat)), strict=True)
    for found, shells, seen, weight in blocks:
        found.copy_(_solved(prior[:, shells[:, 0]].T, seen, weight, pairs))
    spectrum = values.new_zeros(count, side, side, side)  # the other half is never read
    spectrum[..., side // 2 :] = solved.T.reshape(count, side, side, -1)
    return _volumes_of(spectrum, radius, padded, box).to(home) * mask


def _solved(prior: Tensor, values: Tensor, weights: Tensor, pairs: Tensor) -> Tensor:
    """Solve at P points: (P, J) complex of ``prior`` (P, J), ``values`` (P, J), weights (P, Q)."""
    normal = torch.diag_embed(prior)
    normal[:, pairs[0], pairs[1]] += weights
    normal[:, pairs[1], pairs[0]] = normal[:, pairs[0], pairs[1]]
    found = torch.linalg.solve(normal, torch.view_as_real(values))
    return torch.view_as_complex(found.contiguous())


def _radius(side: int) -> Tensor:
    """Distances (m, m, m) of the points of a lattice from its centre."""
    axis = (torch.arange(side) - side // 2).float().square()
    return (axis[:, None, None] + axis[:, None] + axis).sqrt()


def _volumes_of(spectrum: Tensor, radius: Tensor, padded: int, box: int) -> Tensor:
    """Transform back from the lattice of sums, its blur taken off; (C, D, D, D).

    Changes ``spectrum``.
    """
    slots, side = spectrum.shape[:2]
    spectrum.masked_fill_(radius * padded > side // 2 + 1e-3, 0)
    middle, half = side // 2, box // 2
    reach = min(middle, padded // 2)  # sums of an odd box may reach beyond
    wide = spectrum.new_zeros(slots, padded, padded, padded // 2 + 1)
    near = torch.arange(-reach, reach + 1) % padded
    inner = slice(middle - reach, middle + reach + 1)
    wide[:, near[:, None, None], near[:, None], torch.arange(reach + 1)] = spectrum[
        :, inner, inner, middle : middle + reach + 1
    ]
    volumes = torch.fft.fftshift(
        torch.fft.irfftn(wide, s=(padded,) * 3, dim=(1, 2, 3)), dim=(1, 2, 3)
    )
    cut = slice(padded // 2 - half, padded // 2 - half + box)
    found: Tensor = volumes[:, cut, cut, cut] * box**1.5 / blur(box, padded).to(volumes)
    return found


def half_averages(
    first: FourierSums, second: FourierSums, box: int, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Average two halves and both together; the prior's weight follows from their agreement.

    Returns
    -------
    volumes, fsc
        (C, D, D, D) of all; (C, shells).
    """
    halves = [averages(part, box, mask) for part in (first, second)]
    fsc = fsc_of_classes(*halves)
    fsc[:, first.highest_shell + 1 :] = 0.0
    return averages(first + second, box, mask, ssnr_of(fsc, halved=True)), fsc


def _by_shell(values: Tensor, shell: Tensor) -> Tensor:
    count = int(shell.max()) + 1
    sums = values.new_zeros(len(values), count).index_add_(1, shell.flatten(), values.flatten(1))
    return sums / torch.bincount(shell.flatten(), minlength=count).clamp(min=1)


def _fit(ssnr: Tensor, shells: int) -> Tensor:
    """Extend or cut a table by shell to a number of shells; missing shells have no signal."""
    if ssnr.shape[1] >= shells:
        return ssnr[:, :shells]
    return torch.cat([ssnr, ssnr.new_full((len(ssnr), shells - ssnr.shape[1]), 1e-3)], 1)
