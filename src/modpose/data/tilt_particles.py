"""What a table of tilt series says of each particle: its stack, its tilts, its pose, its CTF."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.data.locate import find_files
from modpose.data.mrc import open_mrc
from modpose.data.particles import Particles
from modpose.data.stack import Stack
from modpose.data.tomograms import FRAMES, Tomogram, numbers_in
from modpose.errors import InputError
from modpose.geometry.degrees import rotation_of_relion
from modpose.observe.ctf_columns import CtfState

logger = logging.getLogger("modpose")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
COORDINATE = tuple(f"rlnCoordinate{axis}" for axis in "XYZ")
SUBTOMOGRAM = tuple(f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi"))
PARTICLE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")

Seen = tuple[Ints, Ints]
"""Tilts in which a particle is visible, and the position of each in its stack."""


def stacks_of(path: Path, particles: Particles, datadir: Path | None) -> list[Stack]:
    """Return the stack of tilt images of each particle; the same name gives the same stack."""
    names = [str(name) for name in particles.column("rlnImageName")]
    found, missing = find_files(names, path, datadir)
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(set(names))} stacks cannot be found (the first is "
            f"{missing[0]}); --datadir says where they are"
        )
    opened: dict[str, Stack] = {}
    for name in names:
        if name not in opened:
            opened[name] = open_mrc(found[name], "images")
    return [opened[name] for name in names]


def different(stacks: list[Stack]) -> tuple[list[Stack], Ints]:
    """Return the different stacks, and for each particle which is its own."""
    place = {id(stack): i for i, stack in enumerate(dict.fromkeys(stacks))}
    return list(dict.fromkeys(stacks)), np.array([place[id(s)] for s in stacks], np.int64)


def visible(particles: Particles, tomograms: list[Tomogram], stacks: list[Stack]) -> list[Seen]:
    """Return, for each particle, the tilts in which it is visible and where its stack has them.

    WarpTools writes all tilts, RELION only the visible ones.
    """
    lists = particles.column(FRAMES) if particles.has(FRAMES) else None
    return [
        _visible(f"{particles.name}: row {i + 1}", None if lists is None else lists[i], *of_row)
        for i, of_row in enumerate(zip(tomograms, stacks, strict=True))
    ]


def _visible(where: str, listed: object, tomogram: Tomogram, stack: Stack) -> Seen:
    seen = np.ones(tomogram.n) if listed is None else numbers_in(listed, f"{where}: {FRAMES}")
    if len(seen) != tomogram.n:
        found = f"{len(seen)} numbers"
        raise InputError.of(where, FRAMES, found, f"{tomogram.n}, the tilts of {tomogram.name}")
    frames = np.flatnonzero(seen != 0)
    if not frames.size:
        raise InputError.of(where, FRAMES, "0 throughout", "at least one visible tilt")
    if stack.n == tomogram.n:
        return frames, frames
    if stack.n == len(frames):
        return frames, np.arange(len(frames))
    both = f"{tomogram.n}, all tilts of {tomogram.name}, or {len(frames)}, the visible ones"
    raise InputError.of(where, f"the number of images in {stack.name}", stack.n, both)


def poses_of(particles: Particles) -> tuple[Floats | None, Floats]:
    """Return the pose of each particle in its tomogram; the shift in pixels of the images."""
    zero = np.zeros((particles.n, 3))
    before = _angles(particles, SUBTOMOGRAM)
    own = _angles(particles, PARTICLE)
    if own is None and before is None:
        return None, zero
    eye = np.broadcast_to(np.eye(3), (particles.n, 3, 3))
    before = eye if before is None else before
    size = particles.sizes_or(None)
    origin = np.zeros((particles.n, 3))
    for k, axis in enumerate("XYZ"):
        angst, pixels = f"rlnOrigin{axis}Angst", f"rlnOrigin{axis}"
        if particles.has(angst) and size is not None:
            origin[:, k] = particles.numbers(angst) / size
        elif particles.has(pixels):
            origin[:, k] = particles.numbers(pixels)
    shift = -np.einsum("nij,nj->ni", before, origin)
    return before @ (eye if own is None else own), shift


def _angles(particles: Particles, tags: tuple[str, ...]) -> Floats | None:
    if not any(particles.has(tag) for tag in tags):
        return None
    zero = np.zeros(particles.n)
    return rotation_of_relion(*(particles.numbers(t) if particles.has(t) else zero for t in tags))


def positions(particles: Particles, series: list[Tomogram]) -> Floats:
    """Return where each particle lies, (P, 3) Å from the centre of its tomogram.

    RELION 5 says so; WarpTools counts in pixels of its images from a corner, RELION 4 in pixels of
    the tilt series.
    """
    if all(particles.has(tag) for tag in CENTRED):
        return np.stack([particles.numbers(tag) for tag in CENTRED], axis=1)
    known = all(particles.has(tag) for tag in COORDINATE)
    if not known or any(t.size is None or t.pixel_size is None for t in series):
        particles.note("where particles lie is not known; all get the defocus of the centre")
        return np.zeros((particles.n, 3))
    pixels = np.stack([particles.numbers(tag) for tag in COORDINATE], axis=1)
    of_series = np.array([t.pixel_size for t in series])[:, None]
    extent = np.stack([t.size for t in series]) * of_series  # type: ignore[misc]
    sizes = particles.sizes_or(None)
    assert sizes is not None
    for size, words in ((sizes[:, None], "of the images"), (of_series, "of the tilt series")):
        if (pixels * size <= 1.05 * extent).all():
            logger.info("%s: coordinates are read as pixels %s", particles.name, words)
            return np.asarray(pixels * size - extent / 2)
    raise InputError.of(
        particles.name, COORDINATE[0], "outside its tomogram", "places within rlnTomoSizeX, Y, Z"
    )


def ctf_of_images(
    tomogram: Tomogram,
    frames: Ints,
    depth: Floats,
    optics: Floats,
    pixel_size: float,
    premultiplied: bool,
) -> Floats:
    """Return the CTF of the images of one particle, (T, 12); columns as in CtfColumn.

    ``depth`` is that of the particle in each image, (T,) Å, and ``optics`` its row of
    :func:`optics_of`.
    """
    assert tomogram.defocus is not None
    focus = tomogram.defocus[frames]
    state = CtfState.PREMULTIPLIED if premultiplied else CtfState.RECORDED
    columns = np.empty((len(frames), 12))
    columns[:, 0] = pixel_size
    columns[:, 1:3] = focus[:, :2] + tomogram.hand * depth[:, None]
    columns[:, 3] = focus[:, 2]
    columns[:, 4:7] = optics
    columns[:, 7:10] = tomogram.others[frames]
    columns[:, 10] = state
    columns[:, 11] = tomogram.dose[frames]
    return columns


def optics_of(particles: Particles, tomograms: list[Tomogram]) -> Floats:
    """Return voltage (kV), spherical aberration (mm) and amplitude contrast, (P, 3)."""
    if all(particles.has(name) for name in OPTICS):
        return np.stack([particles.numbers(name) for name in OPTICS], axis=1)
    known = [tomogram.optics for tomogram in tomograms if tomogram.optics is not None]
    if len(known) < len(tomograms):
        raise InputError(f"{particles.name}: {', '.join(OPTICS)} are missing, expected all three")
    return np.array(known)
