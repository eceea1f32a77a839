"""Molecules made of Gaussian blobs in 3-D, their hinge motion and their projections.

The projection of an isotropic Gaussian along any direction is an isotropic Gaussian of the same
width, so images are exact at the pixel centres, without interpolation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REACH = 6.0
"""Standard deviations up to which a blob is drawn: beyond, single precision holds nothing of it."""
DENSE = 4
"""Blobs are drawn in all pixels where the box is narrower than so many blobs."""
BLOBS = 2**13
"""Blobs that are drawn at once, so that memory does not grow with the molecule."""


@dataclass(frozen=True)
class Molecule:
    """A rigid body and an arm that rotates about a hinge.

    Attributes
    ----------
    centers
        (M, 3) positions of the blobs, Å, in the molecule's own frame, order (x, y, z); the beam
        runs along z.
    sigmas
        (M,) standard deviations of the blobs, Å.
    masses
        (M,) integral of each blob.
    arm
        (M,) bool, whether a blob rotates about the hinge.
    hinge
        (3,) a point on the hinge axis, Å.
    axis
        (3,) unit vector along the hinge axis.
    """

    centers: Array
    sigmas: Array
    masses: Array
    arm: NDArray[np.bool_]
    hinge: Array
    axis: Array

    def conformations(self, hinge_deg: Array) -> Array:
        """Rotate the arm by each angle (right-handed about the axis) → (N, M, 3) centres, Å."""
        turns = axis_rotations(self.axis, hinge_deg).transpose(0, 2, 1)
        turned = self.hinge + (self.centers - self.hinge) @ turns
        return np.where(self.arm[:, None], turned, self.centers)

    def radius(self, hinge_deg: Array) -> float:
        """Return the largest distance from the origin at these hinge angles, Å (2 σ)."""
        distances = np.linalg.norm(self.conformations(hinge_deg), axis=-1)
        return float((distances + 2 * self.sigmas).max())


def axis_rotations(axis: Array, angles_deg: Array) -> Array:
    """Return (N, 3, 3) active right-handed rotations by each angle about one unit axis."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    radians = np.deg2rad(angles_deg)[:, None, None]
    rotations: Array = np.eye(3) + np.sin(radians) * cross + (1 - np.cos(radians)) * (cross @ cross)
    return rotations


def project(
    centers: Array,
    sigmas: Array,
    masses: Array,
    rotations: Array,
    shifts_px: Array,
    box: int,
    pixel_size: float | Array,
) -> NDArray[np.float32]:
    """Project posed blobs along z: signal(x) = f(Rᵀ(x − t)), f integrated along the beam.

    Parameters
    ----------
    centers
        (N, M, 3) positions of the blobs in each image's upright frame, Å.
    sigmas, masses
        (M,) widths in Å, and integrals.
    rotations
        (N, 3, 3) active rotations.
    shifts_px
        (N, 2) shifts (x, y) in pixels, x along columns.
    box
        Side of the images in pixels; the centre is pixel ``box // 2``.
    pixel_size
        Å per pixel, one for all images or (N,): an object drawn with pixels s times smaller looks s
        times larger.

    Returns
    -------
    array
        (N, box, box) float32, projected density per Å², rows are y.
    """
    size = np.broadcast_to(np.asarray(pixel_size, float), len(centers))[:, None, None]
    posed = np.einsum("nij,nmj->nmi", rotations[:, :2], centers) + size * shifts_px[:, None]
    heights = masses / (2 * np.pi * sigmas**2)
    half = math.ceil(REACH * sigmas.max() / size.min() + 0.5)
    if DENSE * (2 * half + 1) > box:
        return _project_whole(posed, sigmas, heights, box, size)
    images = np.empty((len(posed), box, box), np.float32)
    for image, pixels, pixel in zip(images, posed / size + box // 2, size[:, 0, 0], strict=True):
        image[:] = _project_near(pixels, sigmas / pixel, heights, box, half)
    return images


def _project_whole(
    posed: Array, sigmas: Array, heights: Array, box: int, size: Array
) -> NDArray[np.float32]:
    """Draw each blob, (N, M, 2) Å, in every pixel: (N, box, box)."""
    grid = size[..., None] * (np.arange(box) - box // 2)
    offsets = grid - posed[..., None]
    profiles = np.exp(-0.5 * (offsets / sigmas[:, None, None]) ** 2)  # a blob is separable
    rows = profiles[:, :, 1] * heights[:, None]
    return np.asarray(rows.transpose(0, 2, 1) @ profiles[:, :, 0], np.float32)


def _project_near(places: Array, sigmas: Array, heights: Array, box: int, half: int) -> Array:
    """Draw each blob, (M, 2) pixels, in the pixels up to ``half`` from it: (box, box)."""
    side = box + 2  # a rim of one pixel collects what lies outside
    sums = np.zeros(side**2)
    for first in range(0, len(places), BLOBS):
        part = slice(first, first + BLOBS)
        cells = np.rint(places[part]).astype(np.int64)[..., None] + np.arange(-half, half + 1)
        offsets = (cells - places[part, :, None]) / sigmas[part, None, None]
        profiles = np.exp(-0.5 * offsets**2)
        cells = np.clip(cells + 1, 0, side - 1)
        flat = cells[:, 1, :, None] * side + cells[:, 0, None]
        values = (heights[part, None] * profiles[:, 1])[..., None] * profiles[:, 0, None]
        sums += np.bincount(flat.ravel(), values.ravel(), side**2)
    return sums.reshape(side, side)[1:-1, 1:-1]


def density(
    centers: Array,
    sigmas: Array,
    masses: Array,
    rotations: Array,
    shifts_px: Array,
    box: int,
    pixel_size: float,
) -> NDArray[np.float32]:
    """Evaluate posed blobs in a volume: signal(x) = f(Rᵀ(x − t)), exact at the voxel centres.

    Parameters are those of :func:`project`, but shifts (N, 3), voxels; returns
    (N, box, box, box) float32, density per Å³, axes (z, y, x).
    """
    posed = np.einsum("nij,nmj->nmi", rotations, centers) + pixel_size * shifts_px[:, None]
    grid = pixel_size * (np.arange(box) - box // 2)
    offsets = grid - posed[..., None]
    profiles = np.exp(-0.5 * (offsets / sigmas[:, None, None]) ** 2).astype(np.float32)
    heights = (masses / (2 * np.pi * sigmas**2) ** 1.5).astype(np.float32)
    volumes = np.empty((len(posed), box, box, box), np.float32)
    for volume, (x, y, z) in zip(volumes, profiles.transpose(0, 2, 1, 3), strict=True):
        planes = (heights[:, None] * z)[:, :, None] * y[:, None]
        volume[:] = (planes.reshape(len(x), -1).T @ x).reshape(box, box, box)
    return volumes


# Lobes of the built-in molecule: centre (Å), semi-axes (Å), blobs, whether part of the arm. Fixed:
# a broad head with a knob, a thick stem and a toe.  Moving: an arm with a knee and a heavy end.
_LOBES: tuple[tuple[tuple[float, ...], tuple[float, ...], int, bool], ...] = (
    ((-5.0, 24.0, 2.0), (22.0, 16.0, 18.0), 46, False),
    ((-29.0, 26.0, -6.0), (9.0, 8.0, 10.0), 10, False),
    ((-15.0, 4.0, -4.0), (15.0, 12.0, 12.0), 24, False),
    ((-12.0, -19.0, 3.0), (12.0, 15.0, 11.0), 24, False),
    ((-23.0, -36.0, 5.0), (17.0, 10.0, 11.0), 22, False),
    ((18.0, 13.0, 5.0), (11.0, 10.0, 10.0), 13, True),
    ((31.0, 2.0, 2.0), (8.0, 11.0, 8.0), 10, True),
    ((38.0, -16.0, -4.0), (12.0, 13.0, 11.0), 18, True),
)
_HINGE = (7.0, 19.0, 0.0)
_HINGE_AXIS = (0.25, -0.15, 1.0)


def hinged_molecule() -> Molecule:
    """Build the two-domain molecule used in demonstrations, about 120 Å across.

    It is not a known protein.  Each lobe is an ellipsoid filled quasi-randomly with blobs of
    different width and mass, which gives an irregular density like that of proteins.  The hinge
    axis is almost parallel to the beam, so the arm moves in the plane of the image and is slightly
    foreshortened.  The molecule is not even approximately symmetric.  The origin is its centre of
    mass at hinge angle zero.
    """
    centers, sigmas, masses, arm = [], [], [], []
    for number, (center, semi_axes, count, in_arm) in enumerate(_LOBES):
        texture = _kronecker(count, offset=number)
        depth = np.cbrt(texture[:, 0])[:, None]
        centers.append(np.array(center) + np.array(semi_axes) * depth * _spiral(count))
        sigmas.append(3.5 + 3.0 * texture[:, 1])
        masses.append(0.4 + 1.6 * texture[:, 2])
        arm.append(np.full(count, in_arm))
    positions, mass = np.concatenate(centers), np.concatenate(masses)
    origin = mass @ positions / mass.sum()
    axis = np.array(_HINGE_AXIS)
    return Molecule(
        centers=positions - origin,
        sigmas=np.concatenate(sigmas),
        masses=mass,
        arm=np.concatenate(arm),
        hinge=np.array(_HINGE) - origin,
        axis=axis / np.linalg.norm(axis),
    )


def blob_assembly(number: int, blobs: int = 14) -> Molecule:
    """Build one of an unlimited series of rigid molecules: an irregular chain of Gaussian blobs.

    They are 120 to 160 Å across.  The blobs have a full width at half maximum of 19 to 25 Å and
    different masses, so no molecule is symmetric and no two are alike.

    Parameters
    ----------
    number
        Number of the molecule, from 0; the same number always gives the same molecule.
    blobs
        Number of blobs.
    """
    rng = np.random.default_rng([number, blobs])
    places = [np.zeros(3)]
    reach = 60.0
    while len(places) < blobs:
        direction = rng.standard_normal(3)
        place = places[-1] + 21.0 * direction / np.linalg.norm(direction)
        free = min(np.linalg.norm(place - other) for other in places) > 17.0
        if free and np.linalg.norm(place) < reach:
            places.append(place)
        reach += 0.05  # a chain that is trapped finds its way out
    masses = rng.uniform(0.5, 2.0, blobs)
    centers = np.array(places)
    return Molecule(
        centers=centers - masses @ centers / masses.sum(),
        sigmas=rng.uniform(8.0, 10.5, blobs),
        masses=masses,
        arm=np.zeros(blobs, bool),
        hinge=np.zeros(3),
        axis=np.array([0.0, 0.0, 1.0]),
    )


def _kronecker(count: int, offset: int) -> Array:
    """Return (count, 3) quasi-random numbers in [0, 1): multiples of roots of x⁴ = x + 1."""
    steps = 1.2207440846057596 ** -np.arange(1.0, 4.0)
    return (0.5 + 0.137 * offset + np.arange(1, count + 1)[:, None] * steps) % 1.0


def _spiral(count: int) -> Array:
    """Return (count, 3) unit vectors spread evenly: the golden spiral on the sphere."""
    height = 1 - (2 * np.arange(count) + 1) / count
    longitude = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(longitude), ring * np.sin(longitude), height], axis=1)
