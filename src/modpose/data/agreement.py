"""Check that a table belongs to its images: box and pixel size are given in both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.data.stack import Stack
from modpose.errors import InputError
from modpose.observe.ctf_columns import CtfColumn

TOLERANCE = 0.01
"""Pixel sizes that differ by a smaller fraction are the same."""
CALIBRATED = 0.1
"""Calibration changes a pixel size by a smaller fraction; binning changes it by more."""
BOXES = ("rlnImageSize", "blob/shape_0", "blob/shape_1")
BINNED = ("rlnTomoTiltSeriesPixelSize", "rlnTomoSubtomogramBinning")


def check_agreement(particles: Particles, stack: Stack) -> None:
    """Compare a table's statements about its images with the images.

    Raises
    ------
    InputError
        If the images have another box than the table says (its pixel size is then that of other
        images), or the table contradicts itself.
    """
    _check_binning(particles)
    _check_optics(particles)
    size = particles.pixel_size()
    for name in BOXES:
        if particles.has(name):
            _check_box(particles, name, stack, size)
    of_stack = stack.pixel_size
    if size is not None and of_stack is not None and abs(size - of_stack) > TOLERANCE * size:
        both = f"{size:.4g} A in the table and {of_stack:.4g} A in the headers of the images"
        vouched = of_stack == 1 or any(particles.has(name) for name in (*BOXES, *BINNED))
        if not vouched and abs(size - of_stack) > CALIBRATED * size:
            raise InputError(
                f"{particles.name}: the pixel size is {both}, expected one; correct the table, or, "
                f"if it is right, say in it which box it is of (rlnImageSize {stack.shape[-1]})"
            )
        particles.note(f"the pixel size is {both}; that of the table is used")


def check_one_voltage(ctf: NDArray[np.float32] | None, name: str) -> None:
    """Refuse CTF parameters (N, 9 or more) of several voltages: contrast depends on the voltage."""
    if ctf is None or not len(ctf):
        return
    low, high = (float(f(ctf[:, CtfColumn.VOLTAGE])) for f in (np.min, np.max))
    if high > (1 + TOLERANCE) * low:
        found = f"{low:g} kV for some images and {high:g} kV for others"
        raise InputError.of(name, "the voltage", found, "one; keep one kind with --index")


def _check_box(particles: Particles, name: str, stack: Stack, size: float | None) -> None:
    sides = particles.numbers(name)
    bad = np.flatnonzero(~np.isin(sides, stack.shape))
    if not bad.size:
        return
    side, box = float(sides[bad[0]]), stack.shape[-1]
    scaled = "" if size is None else f", the pixel size {size * side / box:.4g} A"
    raise InputError(
        f"{particles.name}: {name} in row {bad[0] + 1} is {side:g}, but the images have {box} "
        f"pixels per side; if they were scaled down, correct the table (the box {box}{scaled})"
    )


def _check_optics(particles: Particles) -> None:
    """Refuse a pixel size of the particles that their optics groups contradict."""
    name = "rlnImagePixelSize"
    if particles.optics is None or not all(
        name in one for one in (particles.table, particles.optics)
    ):
        return
    own = particles.positive(name)
    without = replace(particles, table=particles.table.drop(columns=name))
    of_group = without.positive(name)
    bad = np.flatnonzero(np.abs(own - of_group) > TOLERANCE * own)
    if bad.size:
        row = int(bad[0])
        found, expected = f"{own[row]:.4g}", f"{of_group[row]:.4g}, as in data_optics"
        raise InputError.of(particles.name, f"{name} in row {row + 1}", found, expected)


def _check_binning(particles: Particles) -> None:
    name = "rlnImagePixelSize"
    if not all(particles.has(column) for column in (name, *BINNED)):
        return
    size = particles.positive(name)
    expected = particles.positive(BINNED[0]) * particles.positive(BINNED[1])
    bad = np.flatnonzero(np.abs(size - expected) > TOLERANCE * size)
    if bad.size:
        row = int(bad[0])
        raise InputError.of(
            particles.name,
            f"{name} in row {row + 1}",
            f"{size[row]:.4g}",
            f"{expected[row]:.4g}, {' times '.join(BINNED)}",
        )
