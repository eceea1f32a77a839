"""Poses of particles in tilt series: what a table gives, and writing those that were found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.tilt_series import HALF, SUBTOMOGRAM, TiltSeries
from modpose.errors import InputError
from modpose.geometry.degrees import rotation_of_relion

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FURTHEST_DEG = 150.0
"""Images of a particle that are further apart are no tilts of one specimen."""


def tilts_of_images(series: TiltSeries) -> Floats:
    """Return the rotation (M, 3, 3) of each image from the frame of its particle's pose.

    This is the tomogram's; in tables of M, which give the pose of each image only, that of the
    particle's first image.

    Raises
    ------
    InputError
        Where a table of M has no angles, or the images of a particle are no tilts of each other.
    """
    if series.tilt is not None:
        return series.tilt
    rotation, _ = poses_of_images(series)
    first = np.unique(series.particle, return_index=True)[1]
    tilt = rotation @ rotation[first][series.particle].transpose(0, 2, 1)
    angle = np.rad2deg(np.arccos(np.clip((np.trace(tilt, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    if angle.max() > FURTHEST_DEG:
        raise InputError(
            f"{series.images.particles.name}: images of one rlnGroupName are {angle.max():.0f} "
            "degrees apart, expected the tilts of one particle"
        )
    return np.asarray(tilt)


def poses_of_images(series: TiltSeries) -> tuple[Floats, Floats]:
    """Return the rotation (M, 3, 3) and shift (M, 2), pixels, of each image in a table of M."""
    source = series.images
    found = source.particles.poses(source.stack.pixel_size)
    if found is None:
        raise InputError(
            f"{source.particles.name}: it has no angles, expected those of each image, which give "
            "the tilts between the images of a particle"
        )
    return found[0], found[1][:, :2]


def with_tilt_poses(
    series: TiltSeries, rotation: Floats, shift: Floats, class_index: Ints, half: Ints
) -> Particles:
    """Write poses, classes (from 0) and halves (0 or 1) of P particles into their table.

    Parameters
    ----------
    series
        The particles.
    rotation, shift
        (P, 3, 3), and (P, 3) pixels of the images, in the frame of :func:`tilts_of_images`.
    class_index, half
        (P,).

    Returns
    -------
    Particles
        A table like that of the input: one row per particle, with poses after the angles of the
        subtomogram where it has these (RELION 5, WarpTools), or one row per image (M).
    """
    size = series.images.pixel_size
    if series.tilt is None:
        tilts, own = tilts_of_images(series), series.particle
        moved = np.einsum("nij,nj->ni", tilts, shift[own])[:, :2] + poses_of_images(series)[1]
        posed = with_pose(
            series.images.particles, rotation=tilts @ rotation[own], shift=moved, pixel_size=size
        )
        class_index, half = class_index[own], half[own]
    else:
        particles, zero = series.particles, np.zeros(series.n)
        if any(particles.has(tag) for tag in SUBTOMOGRAM):
            angles = (particles.numbers(t) if particles.has(t) else zero for t in SUBTOMOGRAM)
            back = rotation_of_relion(*angles).transpose(0, 2, 1)
            rotation, shift = back @ rotation, np.einsum("nij,nj->ni", back, shift)
        posed = with_pose(particles, rotation=rotation, shift=shift, pixel_size=size)
    columns = {"rlnClassNumber": class_index + 1, HALF: half + 1}
    return replace(posed, table=posed.table.assign(**columns))
