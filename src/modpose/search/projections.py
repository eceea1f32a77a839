"""Projections of known pose as coefficients of a volume's transform, on the plane z = 0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.data.batches import Batch
from modpose.data.dataset import Dataset
from modpose.fourier.coefficients import Coefficients, smallest_box
from modpose.fourier.projection import Projection
from modpose.progress import Progress

IMAGES_AT_ONCE = 512


@dataclass(frozen=True)
class PosedImages:
    """Projections of known pose as coefficients, with their poses.

    Attributes
    ----------
    data
        N images, frequencies in the plane z = 0.
    rotation, shift
        (N, 3, 3), and (N, 3) pixels, the last of them zero.
    """

    data: Coefficients
    rotation: Tensor
    shift: Tensor

    def over(self, variance: Tensor) -> PosedImages:
        """Whiten again, for noise of this variance (K,) in place of one."""
        white = variance.rsqrt()
        value, transfer = self.data.value * white, self.data.transfer * white
        return replace(self, data=replace(self.data, value=value, transfer=transfer))

    def repeated(self, group: Tensor) -> PosedImages:
        """Repeat each image at the poses that a symmetry (G, 3, 3) makes equal, all in a row."""
        count, data = len(group), self.data
        value, transfer = (x.repeat_interleave(count, 0) for x in (data.value, data.transfer))
        rotation = (self.rotation[:, None] @ group.to(self.rotation)).flatten(0, 1)
        shift = self.shift.repeat_interleave(count, 0)
        return PosedImages(replace(data, value=value, transfer=transfer), rotation, shift)

    def to(self, device: torch.device) -> PosedImages:
        """Move to a device."""
        rotation, shift = self.rotation.to(device), self.shift.to(device)
        return PosedImages(self.data.to(device), rotation, shift)

    def within(self, limit: float) -> PosedImages:
        """Keep the frequencies up to ``limit`` cycles per pixel."""
        return replace(self, data=self.data.within(limit))


class ImageReader:
    """Makes whitened coefficients of a batch of images, in a smaller box.

    Parameters
    ----------
    projection
        The projection of a volume into images.
    cycles
        Highest frequency, cycles per box.
    """

    def __init__(self, projection: Projection, cycles: float) -> None:
        self.projection = projection
        self.box = smallest_box(cycles, projection.box)
        k = projection.k.cpu()
        radius = k.norm(dim=1)
        inside = (projection.weight.cpu() == 2) & (radius <= min(cycles, self.box / 2 - 0.5))
        chosen = inside.nonzero().squeeze(1)
        self.chosen = chosen[radius[chosen].argsort(stable=True)]
        self.shell = projection.shell.cpu()[self.chosen]
        flat = torch.cat([k, torch.zeros(len(k), 1)], 1) / self.box
        self.frequency = flat[self.chosen]

    @property
    def limit(self) -> float:
        """Highest frequency, cycles per pixel of the box."""
        return float(self.frequency[-1].norm())

    def within(self, shell: int) -> ImageReader:
        """Read only the coefficients of the first shells, to this one."""
        found, kept = copy(self), self.shell <= shell
        found.chosen, found.shell = self.chosen[kept], self.shell[kept]
        found.frequency = self.frequency[kept]
        return found

    def images(self, batch: Batch, variance: Tensor) -> PosedImages:
        """Read a batch, whitened with this variance ([B,] shells) of the noise."""
        assert batch.pose is not None
        white = variance.rsqrt()[..., self.shell]
        value = self.projection.transform(batch.image)[:, self.chosen] * white
        transfer = math.sqrt(self.box) * white.expand(len(value), -1)
        if batch.ctf is not None:
            transfer = transfer * self.projection.transfer(batch.ctf)[:, self.chosen]
        shift = batch.pose.shift * (self.box / self.projection.box)
        shift = torch.cat([shift, torch.zeros(len(value), 1)], 1)
        data = Coefficients(self.frequency, value, transfer.contiguous(), self.box)
        return PosedImages(data, batch.pose.rotation, shift)


def power_spectrum(
    dataset: Dataset, rows: NDArray[np.int64], reader: ImageReader, progress: Progress
) -> Tensor:
    """Mean power (shells,) of the images at ``rows``: nearly all of it is noise."""
    shells = int(reader.projection.shell.max()) + 1
    total, white = torch.zeros(shells), torch.ones(shells)
    for batch in dataset.batches(rows, IMAGES_AT_ONCE):
        value = reader.images(batch, white).data.value
        total.index_add_(0, reader.shell, value.abs().square().sum(0))
        progress.advance(len(batch), 0.0)
    number = torch.bincount(reader.shell, minlength=shells)
    power = total / (len(rows) * number.clamp(min=1))
    last = int(number.nonzero().max())
    power[0], power[last + 1 :] = power[1], power[last]
    return power.clamp(min=1e-8)


def joined_images(parts: Iterable[PosedImages]) -> PosedImages:
    """Join the images of several."""
    every = list(parts)
    data = replace(
        every[0].data,
        value=torch.cat([part.data.value for part in every]),
        transfer=torch.cat([part.data.transfer for part in every]),
    )
    rotation = torch.cat([part.rotation for part in every])
    return PosedImages(data, rotation, torch.cat([part.shift for part in every]))
