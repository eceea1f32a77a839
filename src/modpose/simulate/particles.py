"""Simulated particle images of a hinged macromolecule, with their truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.data.mrc import write_mrcs
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.progress import bar
from modpose.simulate import microscope
from modpose.simulate.molecules import Molecule, axis_rotations, hinged_molecule, project
from modpose.simulate.settings import HingeSettings as HingeSettings
from modpose.simulate.star_tables import tables

if TYPE_CHECKING:
    import pandas as pd

BEAM = np.array([0.0, 0.0, 1.0])
CHUNK = 256
"""Images simulated per batch."""


@dataclass(frozen=True)
class Simulated:
    """Images and their truth.

    Attributes
    ----------
    images
        (N, H, W) float32, signal plus noise; the noise has unit variance.
    clean
        (N, H, W) float32, the signal alone (after the CTF).
    truth
        One row per image: ``angle_deg`` in (−180, 180], ``shift_x`` and ``shift_y`` (pixels),
        ``hinge_deg``; ``mirrored`` (0 or 1) and ``scale``, where these differ.
    ctf
        (N, 9) parameters, columns as in :class:`modpose.observe.ctf.CtfColumn`, or None.
    pixel_size
        Å per pixel.
    """

    images: NDArray[np.float32]
    clean: NDArray[np.float32]
    truth: pd.DataFrame
    ctf: NDArray[np.float64] | None
    pixel_size: float


def simulate_particles(settings: HingeSettings, molecule: Molecule | None = None) -> Simulated:
    """Simulate a fixed view of a hinged molecule, rotated and shifted in the plane.

    signal(x) = CTF * f(Mᵐ Rᵀ(x − t) / s; hinge), evaluated at the pixels without interpolation; M
    is diag(1, −1).

    Parameters
    ----------
    settings
        What to simulate.
    molecule
        The molecule; the built-in one by default.

    Returns
    -------
    Simulated
        The same settings give the same images, bit for bit on one machine.

    Raises
    ------
    InputError
        If the molecule does not fit into the box.
    """
    import pandas as pd

    molecule = hinged_molecule() if molecule is None else molecule
    _check_fit(settings, molecule)
    rng = np.random.default_rng(settings.seed)
    n = settings.n
    hinge = rng.uniform(*settings.hinge_range_deg, size=n)
    angle = 180.0 - rng.uniform(0.0, 360.0, size=n)
    shift = settings.shift_std_px * rng.standard_normal((n, 2))
    mirrored = rng.random(n) < settings.mirrored if settings.mirrored else np.zeros(n, bool)
    scale = np.exp(settings.scale_std * rng.standard_normal(n)) if settings.scale_std else 1.0
    pixel_size = np.broadcast_to(settings.pixel_size / scale, n)
    turns = axis_rotations(BEAM, angle)
    turns[mirrored] = turns[mirrored] @ np.diag([1.0, -1.0, 1.0])
    ctf = None
    if settings.ctf:
        ctf = microscope.draw_ctf_parameters(n, settings.pixel_size, settings.defocus_range, rng)
    clean = np.empty((n, settings.box, settings.box), np.float32)
    with bar(label="simulating", total=n) as progress:
        for start in range(0, n, CHUNK):
            part = slice(start, start + CHUNK)
            clean[part] = project(
                molecule.conformations(hinge[part]),
                molecule.sigmas,
                molecule.masses,
                turns[part],
                shift[part],
                settings.box,
                pixel_size[part],
            )
            if ctf is not None:
                clean[part] = microscope.filter_by_ctf(clean[part], ctf[part])
            progress.update(len(clean[part]))
    clean = microscope.scale_to_snr(clean, settings.snr)
    truth = pd.DataFrame(
        {"angle_deg": angle, "shift_x": shift[:, 0], "shift_y": shift[:, 1], "hinge_deg": hinge}
    )
    if settings.mirrored:
        truth["mirrored"] = mirrored.astype(np.int64)
    if settings.scale_std:
        truth["scale"] = scale
    images = microscope.add_unit_noise(clean, rng)
    return Simulated(images, clean, truth, ctf, settings.pixel_size)


def _check_fit(settings: HingeSettings, molecule: Molecule) -> None:
    low, high = settings.hinge_range_deg
    diameter = 2 * molecule.radius(np.linspace(low, high, 21))
    if settings.box * settings.pixel_size < diameter:
        raise InputError.of(
            "simulate",
            "box times pixel_size",
            f"{settings.box * settings.pixel_size:g} Å",
            f"at least {diameter:.0f} Å, the diameter of the molecule"
            f" (a pixel size of {math.ceil(10 * diameter / settings.box) / 10} Å would do)",
        )


# --- writing what a user would bring ----------------------------------------------------------


def write_particles(simulated: Simulated, folder: Path, overwrite: bool = False) -> Path:
    """Write ``particles.mrcs`` and ``particles.star`` (RELION 3.1).

    The truth goes into separate columns (``_modposeTruth…``), never into the pose columns.

    Parameters
    ----------
    simulated
        The data set.
    folder
        Created if missing.
    overwrite
        Replace files of these names.

    Returns
    -------
    Path
        The STAR file.

    Raises
    ------
    InputError
        If a file exists and ``overwrite`` is false, or the folder cannot be written.
    """
    stack, star = folder / "particles.mrcs", folder / "particles.star"
    check_outputs([stack, star], overwrite)
    names = [f"{number:06d}@{stack.name}" for number in range(1, len(simulated.images) + 1)]
    particles, optics = tables(
        {"rlnImageName": names},
        simulated.truth,
        simulated.ctf,
        pixel_size=simulated.pixel_size,
        box=simulated.images.shape[1],
        dimensions=2,
    )
    with all_or_nothing() as place:
        write_mrcs(place(stack), simulated.images, simulated.pixel_size)
        write_star(place(star), particles, optics)
    return star
