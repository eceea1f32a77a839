"""Check with a few small back-projections that the poses belong to the images.

The given poses are compared with corrections of the usual mistakes (transposed rotations, shifts
with the other sign or of another stack, images with flipped rows) and with shuffled poses.  The
measure is the agreement of two half maps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modpose.backprojection.halves import (
    Change,
    HalfMaps,
    check_projections,
    reconstruct_halves,
)
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.devices import on_its_device
from modpose.fourier.fsc import FscCurve
from modpose.geometry.pose import Pose
from modpose.geometry.windows import soft_window

BOX = 40
"""Side to which the images are Fourier-cropped for the check."""
IMAGES = 1500
"""Largest number of images that are checked."""
MARGIN = 0.04
"""Smallest significant difference of agreements: two standard deviations by chance."""
CHANCE = 0.08
"""The best of several must exceed shuffled poses by this much."""
SKEWNESS = 0.05
"""For a smaller absolute value, the contrast is not reported."""


@dataclass(frozen=True)
class PoseCheck:
    """The result of the check.

    Attributes
    ----------
    agreement
        Agreement of two half maps (:func:`agreement`) with the given poses, with every mistake
        corrected, and with shuffled poses.
    skewness
        Skewness of the best map inside a ball; positive for bright particles.
    images
        Number of checked images.
    """

    agreement: dict[str, float]
    skewness: float
    images: int

    @property
    def problems(self) -> list[str]:
        """One sentence per problem; none if the poses and the contrast fit."""
        found = []
        given, chance = self.agreement["given"], self.agreement["shuffled"]
        best = max(MISTAKES, key=lambda name: self.agreement[name])
        if self.agreement[best] > max(given + MARGIN, chance + CHANCE):
            found.append(
                f"wrong handedness or sign: {MISTAKES[best][0]} (half maps agree to "
                f"{self.agreement[best]:.3f} instead of {given:.3f})"
            )
        elif given < chance + MARGIN:
            found.append(
                "the poses do not match the images, or these are too few: half maps agree no "
                f"better than with shuffled poses ({given:.3f} and {chance:.3f})"
            )
            return found
        if self.skewness < -SKEWNESS:
            found.append(
                "inverted contrast: the particles are dark in the map; --invert makes them bright"
            )
        return found

    def lines(self) -> list[str]:
        """Describe the result, one line per finding."""
        given, chance = self.agreement["given"], self.agreement["shuffled"]
        if self.problems:
            return [f"problem: {problem}" for problem in self.problems]
        return [
            f"poses and contrast fit the images (half maps agree to {given:.3f}, with shuffled "
            f"poses to {chance:.3f}; {self.images} images)"
        ]


def agreement(curve: FscCurve) -> float:
    """Return the mean of a half-map FSC, each shell weighted by its frequency.

    Without weights, the first shells would decide: they have few coefficients, and any two maps
    agree there.
    """
    return float(np.average(curve.correlation, weights=curve.frequency))


def transposed(images: Tensor, pose: Pose) -> tuple[Tensor, Pose]:
    """Invert the rotations."""
    return images, Pose(pose.rotation.transpose(1, 2), pose.shift)


def other_sign(images: Tensor, pose: Pose) -> tuple[Tensor, Pose]:
    """Negate the shifts."""
    return images, Pose(pose.rotation, -pose.shift)


def without_shifts(images: Tensor, pose: Pose) -> tuple[Tensor, Pose]:
    """Set the shifts to zero."""
    return images, Pose(pose.rotation, torch.zeros_like(pose.shift))


def transposed_other_sign(images: Tensor, pose: Pose) -> tuple[Tensor, Pose]:
    """Invert the rotations and negate the shifts."""
    return other_sign(*transposed(images, pose))


def mirrored(images: Tensor, pose: Pose) -> tuple[Tensor, Pose]:
    """Reverse the order of the rows, about the centre n // 2."""
    return images.flip(1).roll(1 - images.shape[1] % 2, 1), pose


MISTAKES: dict[str, tuple[str, Change]] = {
    "transposed": (
        "the rotations are transposed (inverted); expected are those from object to image",
        transposed,
    ),
    "negated shifts": (
        "the shifts have the wrong sign (or are those that centre the image)",
        other_sign,
    ),
    "no shifts": (
        "the shifts do not match the images, which fit better without them",
        without_shifts,
    ),
    "transposed, negated shifts": (
        "the rotations are transposed and the shifts have the wrong sign",
        transposed_other_sign,
    ),
    "mirrored": (
        "the rows of the images are in the opposite order to that of the poses (mirrored images)",
        mirrored,
    ),
}
"""The correction of each usual mistake, and its description."""


@on_its_device
def check_poses(
    dataset: Dataset,
    seed: int = 0,
    quiet: bool = False,
    *,
    images: int = IMAGES,
    box: int = BOX,
    device: str | None = None,
) -> PoseCheck:
    """Check the poses and the contrast of a set.

    Parameters
    ----------
    dataset
        Images with given poses (``Dataset(..., poses=True)``), and with their CTF if they have one.
    seed
        Seed of the choice of images, and of the shuffled poses.
    quiet
        No progress bars.
    images, box
        Largest number of checked images, and the side to which they are Fourier-cropped.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: the CPU.

    Raises
    ------
    InputError
        If these are not square images with 3-D poses.
    """
    small = _smaller(dataset, box)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(small.n)[:images])
    maps = {"given": reconstruct_halves(small, rows, None, quiet)}
    for name, (_, change) in MISTAKES.items():
        maps[name] = reconstruct_halves(small, rows, change, quiet)
    shuffled = _dealt_anew(small, rows, rng)
    found = {name: agreement(made.curve) for name, made in maps.items()}
    found["shuffled"] = agreement(reconstruct_halves(shuffled, rows, None, quiet).curve)
    best = max(MISTAKES, key=lambda name: found[name])
    chosen = best if found[best] > found["given"] + MARGIN else "given"
    return PoseCheck(found, _skewness(maps[chosen]), len(rows))


def _smaller(dataset: Dataset, box: int) -> Dataset:
    """Return the same images Fourier-cropped for the check."""
    check_projections(dataset)
    if dataset.shape[0] <= box:
        return dataset
    values = dataset.config.model_dump() | {"box": box}
    return Dataset(
        dataset.source,
        DataConfig.model_validate(values),
        seed=0,
        ctf=dataset.ctf is not None,
        poses=True,
        value_range=dataset.value_range,
    )


def _dealt_anew(
    dataset: Dataset, rows: np.ndarray[tuple[int], np.dtype[np.int64]], rng: np.random.Generator
) -> Dataset:
    """Return the same images, each with the pose of another image."""
    other = copy.copy(dataset)
    assert dataset.rotation is not None
    assert dataset.translation is not None
    to = rng.permutation(rows)
    other.rotation, other.translation = dataset.rotation.copy(), dataset.translation.copy()
    other.rotation[rows], other.translation[rows] = dataset.rotation[to], dataset.translation[to]
    return other


def _skewness(maps: HalfMaps) -> float:
    """Return the skewness of the combined map inside a ball."""
    volume = torch.from_numpy(maps.combined()).double()
    inside = volume[torch.from_numpy(soft_window(volume.shape, 0.8, 0.9) > 0.5)]
    centred = inside - inside.mean()
    spread = centred.square().mean().sqrt()
    return float(centred.pow(3).mean() / spread.pow(3)) if spread > 0 else 0.0
