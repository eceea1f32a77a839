"""Content maps as they are kept: functions of content, their maps, halves; maps drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.content_maps.bands import Band, joined, joined_errors
from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.wiener import local_wiener
from modpose.fourier.fsc import FscCurve, fsc
from modpose.geometry.rotations import rotation_of_vector

Floats = NDArray[np.float64]
Volume = NDArray[np.float32]


@dataclass(frozen=True)
class DrawnMap:
    """The map of one content.

    Attributes
    ----------
    volume
        (D, D, D) from all images, filtered by what is known of its error, voxel by voxel.
    first, second
        (D, D, D) from the two halves, not filtered.
    curve
        Their Fourier shell correlation inside the mask.
    images
        How many images the map is the mean of, in effect.
    """

    volume: Volume
    first: Volume
    second: Volume
    curve: FscCurve
    images: float


@dataclass(frozen=True)
class ContentMaps:
    """Sharp maps of every content.

    Attributes
    ----------
    basis
        J functions of content.
    bands
        Maps of these, or of the first of them.  The first band has all shells, in the box D of the
        images; each of the others has fewer shells than the one before, and more functions.
    moment
        (J, J) sums over images of products of functions.
    z, std
        (N, k) content of the images as these maps tell it, and its standard deviation.
    half
        (N,) the half, 0 or 1, of each image.
    pixel_size
        Å; None if it is not known.
    focus
        (D, D, D) from 0 to 1: where the maps depend on content; None: everywhere in the mask.
    pose
        (N, 5) corrections of the poses: turn about x, y, z in the object's frame, radians, and
        shift in x and y, pixels; None: none were made.
    """

    basis: ContentBasis
    bands: tuple[Band, ...]
    moment: Floats
    z: Floats
    std: Floats
    half: NDArray[np.int64]
    pixel_size: float | None
    focus: Volume | None = None
    pose: NDArray[np.float32] | None = None

    @property
    def mask(self) -> Volume:
        """(D, D, D) where the molecule may be."""
        return self.bands[0].mask

    def draw(self, z: Floats) -> DrawnMap:
        """Draw the map of a content (k,), with what belongs to it."""
        amount = self.basis(np.asarray(z, float)[None])[0]
        mixed = [band.mixed(amount) for band in self.bands]
        every, first, second = (self._joined(parts) for parts in zip(*mixed, strict=True))
        curve = fsc(first, second, self.mask, self.pixel_size)
        return DrawnMap(
            self._filtered(every, amount), first.numpy(), second.numpy(), curve, self.images(z)
        )

    def volume(self, z: Floats) -> Volume:
        """Draw the filtered map (D, D, D) of a content (k,) alone."""
        amount = self.basis(np.asarray(z, float)[None])[0]
        return self._filtered(self._mixed(amount), amount)

    def images(self, z: Floats) -> float:
        """Return how many images the map of a content (k,) is the mean of, in effect.

        A weighted mean of independent images has the error of so many.
        """
        amount = self.basis(np.asarray(z, float)[None])[0]
        return float(1 / (amount @ np.linalg.solve(self.moment, amount)))

    def variance(self) -> Volume:
        """Variance (D, D, D) over the images of the map at each voxel, before it is filtered."""
        mean = self.moment[0] / self.moment[0, 0]  # the first function is 1
        covariance = self.moment / self.moment[0, 0] - np.outer(mean, mean)
        power, axes = np.linalg.eigh(covariance)
        amount = np.sqrt(np.maximum(power, 0)) * axes
        found = np.zeros(self.mask.shape)
        for column in amount.T:
            found += self._mixed(column).numpy() ** 2
        return found.astype(np.float32)

    def corrected(self, rotation: Floats, shift: Floats) -> tuple[Floats, Floats]:
        """Correct poses (N, 3, 3) and (N, 2) pixels, if corrections were made."""
        if self.pose is None:
            return rotation, shift
        pose = torch.from_numpy(self.pose).double()
        turned = torch.from_numpy(np.asarray(rotation, float)) @ rotation_of_vector(pose[:, :3])
        return turned.numpy(), np.asarray(shift, float) + pose[:, 3:].numpy()

    def _mixed(self, amount: Floats) -> Tensor:
        """Return the map (D, D, D) of all images with these amounts (J,)."""
        return self._joined([band.every(amount) for band in self.bands])

    def _joined(self, parts: Sequence[Volume]) -> Tensor:
        """Join maps (b, b, b) of all bands, to (D, D, D)."""
        whole = (
            band.box.whole(torch.from_numpy(part[None]).float())[0]
            for band, part in zip(self.bands, parts, strict=True)
        )
        return joined(list(whole), [band.last for band in self.bands])

    def _filtered(self, volume: Tensor, amount: Floats) -> Volume:
        square = torch.from_numpy(amount**2).float()
        errors = [square[: len(table)] @ table for table in self._errors]
        sides = [len(band.mask) for band in self.bands]
        error = joined_errors(errors, [band.last for band in self.bands], sides)
        box = self.bands[0].box
        return np.asarray(box.whole(local_wiener(box.cut(volume), error, box)[None])[0].numpy())

    @cached_property
    def _errors(self) -> list[Tensor]:
        """Error (J, shells) of the coefficients of each map, of each band."""
        return [band.errors(self.focus) for band in self.bands]
