"""The poses of particles according to their table, in the convention of modpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.data.ranges import MANY, Range, check_range
from modpose.errors import InputError
from modpose.geometry.degrees import rotation_of_relion

if TYPE_CHECKING:
    from modpose.data.opened import Source
    from modpose.data.particles import Particles

Floats = NDArray[np.float64]


def poses_of_table(particles: Particles, pixel_size: float | None) -> tuple[Floats, Floats] | None:
    """Return what :meth:`Particles.poses` does, of a table without separate poses."""
    if particles.has("rlnIsFlip") and particles.numbers("rlnIsFlip").any():
        row = int(np.flatnonzero(particles.numbers("rlnIsFlip"))[0])
        expected = "0: the poses of mirrored images are not read"
        raise InputError.of(particles.name, f"rlnIsFlip in row {row + 1}", "1", expected)
    if particles.has("alignments3D/pose_0"):
        return _of_cryosparc(particles, pixel_size)
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    if not any(particles.has(name) for name in names):
        return None
    _note_missing(particles)
    zero = np.zeros(particles.n)
    angles = [particles.numbers(name) if particles.has(name) else zero for name in names]
    if particles.n >= MANY and 0.5 < np.abs(angles).max() <= 2 * np.pi:
        particles.note(
            "the angles look like radians, because none is larger than 6.3, but they are read as "
            "degrees"
        )
    axes = "XYZ" if _is_3d(particles) else "XY"
    shift = np.stack([-_origin_px(particles, axis, pixel_size) for axis in axes], axis=1)
    return rotation_of_relion(*angles), shift


def _of_cryosparc(particles: Particles, pixel_size: float | None) -> tuple[Floats, Floats]:
    """Read alignments3D; shifts are in pixels of its own pixel size, if given."""
    vector = np.stack([particles.numbers(f"alignments3D/pose_{i}") for i in range(3)], axis=1)
    shift = np.zeros((particles.n, 2))
    if particles.has("alignments3D/shift_0"):
        shift = np.stack([particles.numbers(f"alignments3D/shift_{i}") for i in (0, 1)], axis=1)
    sizes = particles.sizes_or(pixel_size)
    if particles.has("alignments3D/psize_A") and sizes is not None:
        shift *= (particles.positive("alignments3D/psize_A") / sizes)[:, None]
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).inv().as_matrix(), -shift


def _note_missing(particles: Particles) -> None:
    """Note a column without which a pose is incomplete; in-plane poses have only rlnAnglePsi."""
    if not particles.has("rlnAnglePsi"):
        particles.note("there is no rlnAnglePsi, which is taken as 0")
    there = [axis for axis in "XY" if _has_origin(particles, axis)]
    if len(there) == 1:
        other = "Y" if there == ["X"] else "X"
        particles.note(f"there is no rlnOrigin{other}Angst, which is taken as 0")


def _is_3d(particles: Particles) -> bool:
    if particles.has("rlnImageDimensionality"):
        return bool((particles.numbers("rlnImageDimensionality") == 3).any())
    return _has_origin(particles, "Z")


def _has_origin(particles: Particles, axis: str) -> bool:
    return particles.has(f"rlnOrigin{axis}Angst") or particles.has(f"rlnOrigin{axis}")


def _origin_px(particles: Particles, axis: str, pixel_size: float | None) -> Floats:
    """Read rlnOrigin<axis>Angst, else rlnOrigin<axis>, else 0, as pixels."""
    name = f"rlnOrigin{axis}Angst"
    if particles.has(name):
        origin = particles.numbers(name)
        sizes = particles.sizes_or(pixel_size)
        if sizes is None and origin.any():
            raise InputError(
                f"{particles.name}: {name} needs a pixel size (rlnImagePixelSize), "
                "which the table lacks"
            )
        return origin if sizes is None else origin / sizes
    name = f"rlnOrigin{axis}"
    return particles.numbers(name) if particles.has(name) else np.zeros(particles.n)


def given_poses(source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the given poses of the images, in pixels as stored; refuse if some are missing."""
    found = source.particles.poses(source.stack.pixel_size)
    if found is None:
        raise InputError(
            f"{source.particles.name}: there are no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi "
            "of RELION or alignments3D/pose of cryoSPARC), expected those of a consensus "
            "refinement, in the table or in a separate file (--poses)"
        )
    rotation, shift = found
    dims = len(source.stack.shape)
    if dims == 3 and not _has_origin(source.particles, "Z") and shift.any():
        source.particles.note("it gives no shift along z (rlnOriginZAngst), which is taken as 0")
    if shift.shape[1] < dims:
        shift = np.pad(shift, ((0, 0), (0, dims - shift.shape[1])))
    shift = shift[:, :dims]
    check_shifts(shift, max(source.stack.shape), source.particles.name)
    return rotation, shift


def check_shifts(shift: Floats, side: int, name: str) -> None:
    """Refuse shifts (N, 2) or (N, 3), pixels, that are longer than the side of the box."""
    possible = Range(0, side, f"at most {side}, the side of the box")
    check_range(np.abs(shift).max(axis=1, initial=0.0), possible, "the shift in pixels", name)
