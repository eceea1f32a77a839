"""Maps of some shells in a box that holds these, and one map from those of several boxes.

With all shells of a large box, few functions of content fit into memory.  Half of the shells need
an eighth of it.  So the low shells have maps of more functions than the high ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.content_maps.boxes import in_box
from modpose.content_maps.equations import MaskBox
from modpose.content_maps.wiener import error_spectrum

Floats = NDArray[np.float64]
Volume = NDArray[np.float32]

OUTERMOST = 2
"""Shells, the last of a band, that the next finer band draws: the last of a solution are poor."""
SOFT = 4
"""Shells over which a band gives way to the next finer one."""


@dataclass(frozen=True)
class Band:
    """Maps of the first J functions of content.

    Attributes
    ----------
    mask
        (d, d, d).
    maps
        (J, b, b, b) from all images, in the box about the mask.
    halves
        The same from each half.
    noise
        (shells,) variance of unitary coefficients of the mean without a prior.
    limit
        Highest frequency, cycles per voxel of this box.
    """

    mask: Volume
    maps: Volume
    halves: tuple[Volume, Volume]
    noise: NDArray[np.float32]
    limit: float

    @cached_property
    def box(self) -> MaskBox:
        """Where the maps are."""
        return MaskBox(torch.from_numpy(self.mask), self.limit)

    @property
    def last(self) -> int:
        """The last shell that it draws beside a finer band."""
        return self.box.last - OUTERMOST

    def mixed(self, amount: Floats) -> list[Volume]:
        """Return maps (b, b, b) of all images and of the halves, with these amounts (J',)."""
        return [_mixed(maps, amount) for maps in (self.maps, *self.halves)]

    def every(self, amount: Floats) -> Volume:
        """Return the map (b, b, b) of all images with these amounts (J',)."""
        return _mixed(self.maps, amount)

    def errors(self, focus: Volume | None) -> Tensor:
        """Return the error (J, shells) of the coefficients of each map.

        Parameters
        ----------
        focus
            (D, D, D) where all maps but the first may be; None: everywhere in the mask.
        """
        box, energy = self.box, self.box.mask.square().sum().repeat(len(self.maps))
        if focus is not None:
            region = in_box(torch.from_numpy(focus).float(), len(self.mask))
            energy[1:] = (box.cut(region) * box.mask).square().sum()
        power = box.power(torch.from_numpy(self.maps)) / energy[:, None]
        return error_spectrum(power, torch.from_numpy(self.noise).expand_as(power))


def joined(volumes: Sequence[Tensor], last: Sequence[int]) -> Tensor:
    """Draw the low shells of coarser maps into the finest.

    Parameters
    ----------
    volumes
        The map of each band, (D, D, D) and smaller boxes, the finest first.
    last
        The last shell that each draws.

    Returns
    -------
    Tensor
        (D, D, D).
    """
    finest, side = volumes[0], len(volumes[0])
    if len(volumes) == 1:
        return finest
    spectrum = torch.fft.rfftn(torch.fft.ifftshift(finest))
    shell = _shells(side)
    for volume, end in zip(volumes[1:], last[1:], strict=True):
        before, reach = len(volume), min(end, (len(volume) - 1) // 2)
        low = torch.fft.rfftn(torch.fft.ifftshift(volume)) * (side / before)
        every, half = torch.arange(-reach, reach + 1), torch.arange(reach + 1)
        there, here = (
            torch.meshgrid(every % n, every % n, half, indexing="ij") for n in (side, before)
        )
        share = _share(shell[there], end)
        spectrum[there] += share * (low[here] - spectrum[there])
    found: Tensor = torch.fft.fftshift(torch.fft.irfftn(spectrum, s=(side,) * 3))
    return found


def joined_errors(errors: Sequence[Tensor], last: Sequence[int], sides: Sequence[int]) -> Tensor:
    """Return the error (shells,) of a map of several bands, in the unit of the finest.

    Parameters
    ----------
    errors
        (shells,) of the map of each band, the finest first.
    last
        The last shell that each draws.
    sides
        D of the box of each.
    """
    found = errors[0].clone()
    for error, end, side in zip(errors[1:], last[1:], sides[1:], strict=True):
        some = slice(end + 1)  # unitary coefficients: a smaller box has fewer, larger ones
        share = _share(torch.arange(end + 1.0), end)
        found[some] += share * (error[some] * (side / sides[0]) - found[some])
    return found


def _mixed(maps: Volume, amount: Floats) -> Volume:
    """Mix maps (J, b, b, b) with the first of these amounts."""
    return np.asarray(np.tensordot(amount[: len(maps)], maps, 1), np.float32)


def _share(shell: Tensor, last: int) -> Tensor:
    """How much of a shell is drawn by the band that ends with ``last``: 1, in the end 0."""
    return ((last + 1 - shell) / SOFT).clamp(0, 1)


def _shells(side: int) -> Tensor:
    """Radius of each frequency of ``rfftn``, cycles per box."""
    axes = [torch.fft.fftfreq(side)] * 2 + [torch.fft.rfftfreq(side)]
    z, y, x = (side * axis for axis in axes)
    found: Tensor = (z[:, None, None].square() + y[:, None].square() + x.square()).sqrt()
    return found
