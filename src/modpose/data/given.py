"""Poses and CTF parameters that come in a file of their own, beside the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.data.plain_pickle import read_plain_pickle
from modpose.data.ranges import BOX, TRANSLATION, check_ctf, check_range
from modpose.data.tables import TABLES, read_particles
from modpose.errors import InputError

Floats = NDArray[np.float64]

NOT_A_ROTATION = 1e-3
"""Largest departure of R Rᵀ from the identity."""
EXPECTED = "a .star, a .cs, or a .pkl as cryoDRGN has"


def read_poses(
    path: str | Path, *, n: int, box: int, pixel_size: float | None = None
) -> tuple[Floats, Floats]:
    """Read the pose of each image from a table, or from the pickle that cryoDRGN users have.

    Such a pickle holds rotations (N, 3, 3), which are ours, or a tuple of these and of translations
    (N, 2), fractions of the box by which an image is moved to centre its particle: our shift is
    -box times the translation.

    Parameters
    ----------
    path
        ``.star``, ``.cs`` or ``.pkl``.
    n
        Number of images.
    box
        Side of the images as stored, pixels.
    pixel_size
        Å of the images; a table whose own pixel size is another one is scaled to it.

    Returns
    -------
    rotation, shift
        (N, 3, 3), and (N, 2) pixels of the images as stored (see :class:`Pose`).

    Raises
    ------
    InputError
        Where the file cannot be read, holds no poses, or those of another number of images.
    """
    path = _existing(path)
    if path.suffix.lower() != ".pkl":
        table = _table(path, n)
        found = table.poses(pixel_size)
        if found is None:
            raise InputError(f"{path}: the table has no poses (rlnAngleRot, rlnAngleTilt, ...)")
        own = table.pixel_size()
        scale = 1.0 if own is None or pixel_size is None else own / pixel_size
        return found[0], found[1] * scale
    arrays = read_plain_pickle(path)
    rotation = arrays[0].astype(np.float64)
    shift = -box * arrays[1].astype(np.float64) if len(arrays) > 1 else np.zeros((n, 2))
    if len(arrays) > 2 or rotation.shape != (n, 3, 3) or shift.shape != (n, 2):
        shapes = " and ".join(str(array.shape) for array in arrays)
        raise InputError.of(
            path, "the arrays", f"of shape {shapes}", f"({n}, 3, 3) and, of shifts, ({n}, 2)"
        )
    check_rotations(rotation, str(path))
    if not np.isfinite(shift).all():
        raise InputError(f"{path}: a translation is not a finite number")
    check_range(np.abs(shift).max(axis=1) / box, TRANSLATION, "the translation", str(path))
    return rotation, shift


def check_rotations(rotation: Floats, where: str) -> None:
    """Raise InputError unless every matrix (N, 3, 3) is a rotation."""
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0)
    mirrored = np.linalg.det(np.nan_to_num(rotation)) < 0
    bad = np.flatnonzero(~(off < NOT_A_ROTATION) | mirrored)
    if bad.size:
        expected = "a rotation matrix (orthogonal, determinant 1)"
        raise InputError.of(where, f"the matrix of image {bad[0] + 1}", "none", expected)


def read_ctf(path: str | Path, *, n: int, box: int, pixel_size: float | None = None) -> Floats:
    """Read the CTF parameters of each image from a table, or from cryoDRGN's pickle.

    Such a pickle holds one (N, 9) array: box (pixels), pixel size (Å), defocus U and V (Å),
    defocus angle (degrees), voltage (kV), spherical aberration (mm), amplitude contrast, phase
    shift (degrees).

    Parameters
    ----------
    path
        ``.star``, ``.cs`` or ``.pkl``.
    n
        Number of images.
    box
        Side of the images as stored, pixels; where the pickle speaks of another box, the pixel
        size is that which gives the same side in Å.
    pixel_size
        Å of the images, for a table that has none.

    Returns
    -------
    parameters
        (N, 9), columns as in :class:`modpose.observe.ctf.CtfColumn`.
    """
    path = _existing(path)
    if path.suffix.lower() != ".pkl":
        table = _table(path, n)
        found = table.ctf(pixel_size)
        if found is None:
            raise InputError(f"{path}: the table has no CTF (rlnDefocusU, ...)")
        parameters = found.astype(np.float64)
        if pixel_size is not None:
            parameters[:, 0] = pixel_size
        return parameters
    arrays = read_plain_pickle(path)
    if len(arrays) != 1 or arrays[0].shape != (n, 9):
        shapes = " and ".join(str(array.shape) for array in arrays)
        raise InputError.of(path, "the array", f"of shape {shapes}", f"({n}, 9)")
    columns = arrays[0].astype(np.float64)
    if not np.isfinite(columns).all() or (columns[:, [0, 1, 5]] <= 0).any():
        expected = "finite numbers, positive ones for box, pixel size and voltage"
        raise InputError.of(path, "a parameter", "not possible", expected)
    check_range(columns[:, 0], BOX, "the box", str(path))
    size = columns[:, 1] * columns[:, 0] / box
    parameters = np.concatenate([size[:, None], columns[:, 2:], np.zeros((n, 1))], axis=1)
    check_ctf(parameters, str(path))
    return parameters


def with_given(
    particles: Particles,
    *,
    shape: tuple[int, ...],
    pixel_size: float | None,
    poses: Path | None,
    ctf: Path | None,
) -> Particles:
    """Put poses and CTF parameters from files of their own in place of a table's."""
    from dataclasses import replace

    about: dict[str, Any] = {"n": particles.n, "box": shape[-1], "pixel_size": pixel_size}
    given_ctf = particles.given_ctf if ctf is None else read_ctf(ctf, **about)
    if given_ctf is not None and pixel_size is None:
        about["pixel_size"] = float(given_ctf[0, 0])
    given_poses = particles.given_poses if poses is None else read_poses(poses, **about)
    return replace(particles, given_poses=given_poses, given_ctf=given_ctf)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() not in (*TABLES, ".pkl"):
        raise InputError.of(path, "the extension", f"'{path.suffix}'", EXPECTED)
    return path


def _table(path: Path, n: int) -> Particles:
    table = read_particles(path)
    if table.n != n:
        raise InputError.of(path, "the number of rows", table.n, f"{n}, one an image")
    return table
