"""Poses of particles in tilt series: what a table gives, and writing those that were found."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.tilt_particles import SUBTOMOGRAM
from modpose.data.tilt_series import HALF, TiltSeries
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
        If a table of M has no angles, or the images of a particle are no tilts of each other.
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


class WrittenRows(NamedTuple):
    """The rows that a table of tilt series has, and the frame of their poses.

    Attributes
    ----------
    particles
        N rows: one per particle, or one per image (M).
    row
        (N,) which of the chosen particles each row shows.
    turn, offset
        (N, 3, 3), and (N, 3) pixels, or (N, 2) for images: a particle's pose (R, t), in the frame
        of :func:`tilts_of_images`, is written as (turn R, turn t + offset).
    """

    particles: Particles
    row: Ints
    turn: Floats
    offset: Floats

    def posed(
        self, rotation: Floats | None, shift: Floats | None, pixel_size: float | None
    ) -> Particles:
        """Write the poses (P, 3, 3) and (P, 3) of the chosen particles into the table."""
        turned = None if rotation is None else self.turn @ rotation[self.row]
        moved = None
        if shift is not None:
            moved = np.einsum("nij,nj->ni", self.turn, shift[self.row])
            moved = moved[:, : self.offset.shape[1]] + self.offset
        return with_pose(self.particles, rotation=turned, shift=moved, pixel_size=pixel_size)


def written_rows(series: TiltSeries, chosen: Ints | None = None) -> WrittenRows:
    """Return the rows of a table like that of the input, for the chosen particles (default: all).

    With stacks of tilts (RELION 5, WarpTools) it has one row per particle, with poses after the
    angles of the subtomogram where there are these; a table of M has one row per image.
    """
    chosen = np.arange(series.n) if chosen is None else chosen
    if series.tilt is None:
        place = [np.flatnonzero(series.particle == one) for one in chosen]
        image = np.concatenate(place)
        row = np.repeat(np.arange(len(chosen)), [len(one) for one in place])
        offset = poses_of_images(series)[1][image]
        turn = tilts_of_images(series)[image]
        return WrittenRows(series.images.particles.subset(image), row, turn, offset)
    particles, zero = series.particles.subset(chosen), np.zeros(len(chosen))
    turn = np.broadcast_to(np.eye(3), (len(chosen), 3, 3))
    if any(particles.has(tag) for tag in SUBTOMOGRAM):
        angles = (particles.numbers(t) if particles.has(t) else zero for t in SUBTOMOGRAM)
        turn = rotation_of_relion(*angles).transpose(0, 2, 1)
    return WrittenRows(particles, np.arange(len(chosen)), turn, np.zeros((len(chosen), 3)))


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
        A table like that of the input; see :func:`written_rows`.
    """
    rows = written_rows(series)
    posed = rows.posed(rotation, shift, series.images.pixel_size)
    columns = {"rlnClassNumber": class_index[rows.row] + 1, HALF: half[rows.row] + 1}
    return replace(posed, table=posed.table.assign(**columns))
