"""Images without poses as Fourier coefficients, whitened, sorted by radius."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from modpose.data.dataset import Dataset
from modpose.devices import near
from modpose.errors import InputError
from modpose.fourier.coefficients import Coefficients
from modpose.fourier.projection import half_plane
from modpose.geometry.windows import soft_window
from modpose.observe.ctf import ctf_2d
from modpose.progress import Progress

AT_ONCE = 512
CORNER = 0.97
"""Beyond this fraction of half the box, noise is measured."""


@dataclass(frozen=True)
class SearchImages:
    """N images to be searched.

    Attributes
    ----------
    k
        (K, 2) cycles per box, one of each pair k and -k, sorted by radius.
    value
        (N, K) complex coefficients, unitary.
    transfer
        (N, K) CTF, or (1, K) ones.
    noise
        (shells,) variance of the noise of a coefficient.
    side
        Pixels of the images.
    """

    k: Tensor
    value: Tensor
    transfer: Tensor
    noise: Tensor
    side: int

    def __len__(self) -> int:
        return len(self.value)

    @property
    def radius(self) -> Tensor:
        """(K,) cycles per box, rising."""
        radius: Tensor = self.k.norm(dim=1)
        return radius

    @property
    def shell(self) -> Tensor:
        """(K,) int64."""
        return self.radius.round().long()

    def with_noise(self, noise: Tensor) -> SearchImages:
        """Return the same over noise of another variance."""
        return replace(self, noise=noise)

    def some(self, rows: Tensor) -> SearchImages:
        """Return some of the images."""
        transfer = self.transfer if len(self.transfer) == 1 else self.transfer[rows]
        return replace(self, value=self.value[rows], transfer=transfer)

    def coefficients(self, rows: Tensor | slice, radius: float, box: int) -> Coefficients:
        """Whitened coefficients of some images up to a radius, in a smaller box.

        Parameters
        ----------
        rows
            Which images.
        radius
            Cycles a box of the images.
        box
            Side that images are thought to be Fourier-cropped to; shifts are in its pixels.
        """
        count = int(torch.searchsorted(self.radius, radius + 1e-6))
        white = self.noise[self.shell[:count]].rsqrt()
        value = self.value[rows, :count] * white
        transfer = self.transfer if len(self.transfer) == 1 else self.transfer[rows]
        transfer = (transfer[:, :count] * white).expand(len(value), -1)
        frequency = torch.cat([self.k[:count], torch.zeros(count, 1)], 1) / box
        return Coefficients(frequency, value, transfer, box)


def read_images(dataset: Dataset, radius: float, quiet: bool = False) -> SearchImages:
    """Read all images of a set up to a frequency.

    Parameters
    ----------
    dataset
        Square grey images, with their CTF where there is one.
    radius
        Cycles a box.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        Where they are not square and grey, or hold no noise outside the particle.
    """
    name = dataset.source.stack.name
    if len(dataset.shape) != 2 or dataset.shape[0] != dataset.shape[1] or dataset.channels != 1:
        found = " x ".join(map(str, dataset.shape))
        raise InputError.of(name, "the box", found, "grey images with a square box")
    side = dataset.shape[0]
    plane = half_plane(side)
    length = plane.k.norm(dim=1)
    kept = ((plane.weight == 2) & (length <= radius + 1e-6) & (length > 0)).nonzero().squeeze(1)
    kept = kept[length[kept].argsort(stable=True)]
    place = plane.place[kept]
    value = torch.empty(dataset.n, len(place), dtype=torch.complex64)
    transfer = None if dataset.ctf is None else torch.empty(dataset.n, len(place))
    corners, power = _corners(side), torch.zeros(side // 2 + 1)
    with Progress("read images", dataset.n, quiet=quiet) as progress:
        for batch in dataset.batches(np.arange(dataset.n), AT_ONCE):
            images = batch.image[:, 0].float()
            value[batch.index] = _transform(images)[:, place]
            power += _corner_power(images, corners)
            if transfer is not None and batch.ctf is not None:
                transfer[batch.index] = ctf_2d(batch.ctf, (side, side)).flatten(1)[:, place]
            progress.advance(len(batch), 0.0)
    noise = power / dataset.n
    if not (noise[1:] > 0).all():
        raise InputError(
            f"{name}: the corners of the images are all of one value, expected noise around the "
            "particles (images that were not masked)"
        )
    whole = torch.ones(1, len(place)) if transfer is None else transfer
    return SearchImages(plane.k[kept], value, whole, noise, side)


def _transform(images: Tensor) -> Tensor:
    """Unitary transform (B, side * (side // 2 + 1)), the origin at the centre."""
    centred = torch.fft.ifftshift(images.to(near(images)), dim=(1, 2))
    found: Tensor = torch.fft.rfft2(centred, norm="ortho").flatten(1)
    return found.to(images.device)


def _corners(side: int) -> Tensor:
    """(side, side) window on the corners; mean square one."""
    window = 1 - torch.from_numpy(soft_window((side, side), CORNER, CORNER + 0.1))
    return window / window.square().mean().sqrt()


def _corner_power(images: Tensor, window: Tensor) -> Tensor:
    """Sum over images of the mean power by shell, (shells,), of what lies in the corners."""
    side = images.shape[-1]
    level = (images * window).sum((1, 2)) / window.sum()
    spectrum = _transform((images - level[:, None, None]) * window).abs().square()
    plane = half_plane(side)
    shell = plane.shell.clamp(max=side // 2)
    total = torch.zeros(side // 2 + 1).index_add_(0, shell, spectrum[:, plane.place].sum(0))
    number = torch.bincount(shell, minlength=side // 2 + 1).clamp(min=1)
    mean = total / number
    mean[0] = mean[1]
    return mean


def residual_noise(
    images: SearchImages, residual: Tensor, radius: Tensor, before: Tensor
) -> Tensor:
    """Variance of the noise by shell from residuals (B, K), in units of the variance before."""
    shell = radius.round().long()
    shells = len(before)
    total = torch.zeros(shells).index_add_(0, shell, residual.abs().square().mean(0))
    number = torch.bincount(shell, minlength=shells)
    ratio = total / number.clamp(min=1)
    return before * torch.where(number > 0, ratio.clamp(0.2, 5.0), torch.ones(()))


def disc(reach: float, step: float) -> Tensor:
    """Shifts (S, 2) of a square lattice within a disc about the origin."""
    count = math.ceil(reach / step)
    axis = torch.arange(-count, count + 1) * step
    grid = torch.cartesian_prod(axis, axis)
    return grid[grid.norm(dim=1) <= reach + 1e-6]
