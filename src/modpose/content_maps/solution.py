"""Content maps as they are kept: functions of content, their maps, halves; maps drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.equations import MaskBox
from modpose.content_maps.wiener import error_spectrum, local_wiener
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
    mask
        (D, D, D).
    maps
        (J, b, b, b) their maps from all images, in the box about the mask.
    halves
        The same from each half.
    noise
        (shells,) variance of unitary coefficients of the mean without a prior.
    moment
        (J, J) sums over images of products of functions.
    limit
        Highest frequency, cycles per voxel.
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
    mask: Volume
    maps: Volume
    halves: tuple[Volume, Volume]
    noise: NDArray[np.float32]
    moment: Floats
    limit: float
    z: Floats
    std: Floats
    half: NDArray[np.int64]
    pixel_size: float | None
    focus: Volume | None = None
    pose: NDArray[np.float32] | None = None

    def draw(self, z: Floats) -> DrawnMap:
        """Draw the map of a content (k,), with what belongs to it."""
        amount = self.basis(np.asarray(z, float)[None])[0]
        mixed = [np.tensordot(amount, maps, 1) for maps in (self.maps, *self.halves)]
        _, first, second = self._box.whole(torch.from_numpy(np.stack(mixed)).float())
        curve = fsc(first, second, self.mask, self.pixel_size)
        return DrawnMap(
            self._filtered(mixed[0], amount), first.numpy(), second.numpy(), curve, self.images(z)
        )

    def volume(self, z: Floats) -> Volume:
        """Draw the filtered map (D, D, D) of a content (k,) alone."""
        amount = self.basis(np.asarray(z, float)[None])[0]
        return self._filtered(np.tensordot(amount, self.maps, 1), amount)

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
        found = np.zeros(self.maps.shape[1:])
        for column in amount.T:
            found += np.tensordot(column, self.maps, 1) ** 2
        whole = self._box.whole(torch.from_numpy(found[None]).float())[0]
        return np.asarray(whole.numpy(), np.float32)

    def corrected(self, rotation: Floats, shift: Floats) -> tuple[Floats, Floats]:
        """Correct poses (N, 3, 3) and (N, 2) pixels, if corrections were made."""
        if self.pose is None:
            return rotation, shift
        pose = torch.from_numpy(self.pose).double()
        turned = torch.from_numpy(np.asarray(rotation, float)) @ rotation_of_vector(pose[:, :3])
        return turned.numpy(), np.asarray(shift, float) + pose[:, 3:].numpy()

    def _filtered(self, volume: Volume, amount: Floats) -> Volume:
        error = torch.from_numpy(amount**2).float() @ self._errors
        made = local_wiener(torch.from_numpy(np.asarray(volume, np.float32)), error, self._box)
        return np.asarray(self._box.whole(made[None])[0].numpy(), np.float32)

    @cached_property
    def _box(self) -> MaskBox:
        return MaskBox(torch.from_numpy(self.mask), self.limit)

    @cached_property
    def _errors(self) -> Tensor:
        """Error (J, shells) of each map's coefficients."""
        energy = self._box.mask.square().sum().repeat(len(self.maps))
        if self.focus is not None:
            inside = self._box.cut(torch.from_numpy(self.focus)) * self._box.mask
            energy[1:] = inside.square().sum()
        power = self._box.power(torch.from_numpy(self.maps)) / energy[:, None]
        return error_spectrum(power, torch.from_numpy(self.noise).expand_as(power))
