"""Poses and CTF parameters from separate files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.joining import join_rows, matched, say_order
from modpose.data.optics import aberrations
from modpose.data.particles import Particles
from modpose.data.plain_pickle import read_plain_pickle
from modpose.data.ranges import BOX, TRANSLATION, check_ctf, check_range
from modpose.data.tables import TABLES, read_particles
from modpose.errors import InputError

logger = logging.getLogger("modpose")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NOT_A_ROTATION = 1e-3
"""Largest departure of R Rᵀ from the identity."""
SAME_SIZE = 0.01
"""Pixel sizes with a smaller relative difference are equal."""
EXPECTED = "a .star, a .cs, or a .pkl as cryoDRGN has"


def read_poses(
    path: str | Path, *, n: int, box: int, pixel_size: float | None = None
) -> tuple[Floats, Floats]:
    """Read the pose of each image from a table, or from cryoDRGN's pickle.

    The pickle has rotations (N, 3, 3) in the convention of modpose, or a tuple of these and of
    translations (N, 2): fractions of the box by which an image is moved to centre its particle.
    The shift is -box times the translation.

    Parameters
    ----------
    path
        ``.star``, ``.cs`` or ``.pkl``.
    n
        Number of images.
    box
        Side of the images as stored, pixels.
    pixel_size
        Å of the images; shifts of a table with another pixel size are converted.

    Returns
    -------
    rotation, shift
        (N, 3, 3), and (N, 2) pixels of the images as stored (see :class:`Pose`).

    Raises
    ------
    InputError
        If the file cannot be read, has no poses, or has those of another number of images.
    """
    path = _existing(path)
    if path.suffix.lower() != ".pkl":
        return poses_of(_table(path, n), pixel_size)
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


def poses_of(table: Particles, pixel_size: float | None) -> tuple[Floats, Floats]:
    """Read poses from a table, with shifts in pixels of the images.

    Shifts in Å need no assumption.  Shifts in pixels are in pixels of the file that holds them
    (``alignments3D/psize_A``, rlnImagePixelSize); without such a pixel size, they are assumed to be
    in pixels of the images, with a message.

    Parameters
    ----------
    table
        N poses, possibly of another table than that of the images.
    pixel_size
        Å of the images; if unknown, that of the table is used, with a message.

    Returns
    -------
    rotation, shift
        (N, 3, 3), and (N, 2) pixels of the images as stored.

    Raises
    ------
    InputError
        If the table has no poses, or the pixel size for a shift in Å is unknown.
    """
    found = table.poses(pixel_size)
    if found is None:
        raise InputError(
            f"{table.name}: the table has no poses (rlnAngleRot, rlnAngleTilt, ... or "
            "alignments3D/pose)"
        )
    rotation, shift = found
    own = table.pixel_sizes()
    if shift.any():
        _say_units(table, own, pixel_size)
    if own is None or pixel_size is None:
        return rotation, shift
    return rotation, shift * (own / pixel_size)[:, None]


def _say_units(table: Particles, own: Floats | None, pixel_size: float | None) -> None:
    """Log the assumption about the unit of shifts."""
    of_file = own
    in_pixels = table.has("alignments3D/shift_0")
    if in_pixels and table.has("alignments3D/psize_A"):
        of_file = np.asarray(table.column("alignments3D/psize_A"), np.float64)
    in_pixels = in_pixels or (table.has("rlnOriginX") and not table.has("rlnOriginXAngst"))
    if of_file is None:
        if in_pixels:
            size = "" if pixel_size is None else f", {pixel_size:g} Å each"
            logger.warning(
                "%s: no pixel size says what its shifts are in; they are taken to be in pixels of "
                "the images%s",
                table.name,
                size,
            )
        return
    typical = float(np.median(of_file))
    if pixel_size is None:
        logger.warning(
            "%s: the pixel size of the images is not known; it is taken to be that of this file, "
            "%g Å",
            table.name,
            typical,
        )
    elif differs(typical, pixel_size):
        logger.info(
            "%s: its pixels have %g Å and those of the images %g Å; the shifts are converted",
            table.name,
            typical,
            pixel_size,
        )


def differs(one: float, other: float) -> bool:
    """Return whether two pixel sizes differ (by more than 1 %)."""
    return abs(one - other) > SAME_SIZE * max(one, other)


def check_rotations(rotation: Floats, where: str) -> None:
    """Raise InputError if a matrix of (N, 3, 3) is not a rotation."""
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0)
    mirrored = np.linalg.det(np.nan_to_num(rotation)) < 0
    bad = np.flatnonzero(~(off < NOT_A_ROTATION) | mirrored)
    if bad.size:
        expected = "a rotation matrix (orthogonal, determinant 1)"
        raise InputError.of(where, f"the matrix of image {bad[0] + 1}", "none", expected)


def read_ctf(path: str | Path, *, n: int, box: int, pixel_size: float | None = None) -> Floats:
    """Read the CTF parameters of each image from a table, or from cryoDRGN's pickle.

    The pickle has one (N, 9) array: box (pixels), pixel size (Å), defocus U and V (Å), defocus
    angle (degrees), voltage (kV), spherical aberration (mm), amplitude contrast, phase shift
    (degrees).

    Parameters
    ----------
    path
        ``.star``, ``.cs`` or ``.pkl``.
    n
        Number of images.
    box
        Side of the images as stored, pixels; if the pickle has another box, the pixel size is
        converted so that the side in Å is the same.
    pixel_size
        Å of the images, for a table without pixel size.

    Returns
    -------
    parameters
        (N, 9), columns as in :class:`modpose.observe.ctf.CtfColumn`.
    """
    path = _existing(path)
    if path.suffix.lower() != ".pkl":
        return ctf_of(_table(path, n), pixel_size)
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


def ctf_of(table: Particles, pixel_size: float | None) -> Floats:
    """Read CTF parameters from a table, (N, 9), for images of this pixel size.

    Raises
    ------
    InputError
        If the table has no CTF, or an incomplete one.
    """
    found = table.ctf(pixel_size)
    if found is None:
        raise InputError(f"{table.name}: the table has no CTF (rlnDefocusU, ... or ctf/df1_A)")
    parameters = found.astype(np.float64)
    if pixel_size is not None:
        own = float(np.median(parameters[:, 0]))
        if differs(own, pixel_size):
            logger.info(
                "%s: its pixels have %g Å and those of the images %g Å; the CTF is computed for "
                "the latter",
                table.name,
                own,
                pixel_size,
            )
        parameters[:, 0] = pixel_size
    return parameters


def with_given(
    particles: Particles,
    *,
    shape: tuple[int, ...],
    pixel_size: float | None,
    poses: str | Path | None,
    ctf: str | Path | None,
    selected: Ints,
    partial: bool = False,
) -> tuple[Particles, Ints]:
    """Replace a table's poses and CTF parameters by those of separate files.

    Rows are joined by identity (:mod:`modpose.data.joining`); the rows of a pickle, which names no
    images, are used in order.

    Parameters
    ----------
    particles
        The N images, all of the input.
    shape
        Shape of the images, pixels.
    pixel_size
        Å of the images, or None.
    poses, ctf
        Files, or None.
    selected
        (M,) requested rows of the input.
    partial
        Leave out images without a row in a file.

    Returns
    -------
    particles, selected
        The N images with their poses and CTF, and the rows that have them.
    """
    about: dict[str, Any] = {"n": particles.n, "box": shape[-1]}
    of_header = pixel_size if particles.pixel_size() is None else None
    known: tuple[Particles, Ints] | None = None
    if ctf is not None:
        path = _existing(ctf)
        if path.suffix.lower() == ".pkl":
            given = read_ctf(path, **about)
            say_order(path, particles)
            _settle_size(given, particles.pixel_size(), of_header, path)
        else:
            known, selected = _joined(
                particles, path, selected, partial, of_header, per_image=poses != ctf
            )
            given = ctf_of(known[0], pixel_size)[known[1]]
            others = aberrations(known[0]).at(known[1])
            particles = replace(particles, given_aberrations=others)
        particles = replace(particles, given_ctf=given)
        of_table = particles.pixel_size()
        pixel_size = pixel_size if of_table is None else of_table
    if poses is not None:
        path = _existing(poses)
        if path.suffix.lower() == ".pkl":
            found = read_poses(path, **about)
            say_order(path, particles)
            return replace(particles, given_poses=found), selected
        if known is None or poses != ctf:
            known, selected = _joined(particles, path, selected, partial, of_header)
        table, rows = known
        rotation, shift = poses_of(table, pixel_size)
        halves = table.half_sets()
        particles = replace(
            particles,
            given_poses=(rotation[rows], shift[rows]),
            given_halves=None if halves is None else halves[rows],
        )
    return particles, selected


def _joined(
    particles: Particles,
    path: Path,
    selected: Ints,
    partial: bool,
    of_header: float | None,
    per_image: bool = False,
) -> tuple[tuple[Particles, Ints], Ints]:
    """Read a table and find its row for each image; and the selected images that have one."""
    table = read_particles(path, tilts=False)
    joined = join_rows(particles, table, per_image=per_image)
    selected = matched(joined, selected, (particles.name, table.name), partial)
    _check_header(of_header, particles.name, table)
    return (table, joined.rows), selected


def _settle_size(
    given: Floats, of_table: float | None, of_header: float | None, path: Path
) -> None:
    """Choose the pixel size: that of the images' table, else of the pickle; log a conflict."""
    of_pickle = float(given[0, 0])
    of_images = of_table or of_header
    if of_images is None or not differs(of_images, of_pickle):
        return
    used = of_pickle if of_table is None else of_table
    if of_table is not None:
        given[:, 0] = of_table
    logger.warning(
        "%s: its pixel size is %g Å at the box of the images, which say %g Å; %g Å is used",
        path,
        of_pickle,
        of_images,
        used,
    )


def _check_header(of_header: float | None, stack: str, table: Particles) -> None:
    """Refuse 1 Å in a stack's header, often only a default, if a table says otherwise."""
    own = table.pixel_size()
    if of_header == 1.0 and own is not None and differs(own, of_header):
        raise InputError(
            f"{stack}: its header says 1 Å per pixel (often written if unknown), but "
            f"{table.name} says {own:g} Å, expected the same; give a table of the images as INPUT"
        )


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() not in (*TABLES, ".pkl"):
        raise InputError.of(path, "the extension", f"'{path.suffix}'", EXPECTED)
    return path


def _table(path: Path, n: int) -> Particles:
    table = read_particles(path, tilts=False)
    if table.n != n:
        raise InputError.of(path, "the number of rows", table.n, f"{n}, one per image")
    return table
