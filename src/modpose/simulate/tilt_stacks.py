"""Tilt series of particles: molecules in tomograms, seen in many images with CTF and dose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from modpose.errors import InputError
from modpose.observe.ctf import apply_ctf, ctf_2d
from modpose.observe.ctf_columns import CtfColumn
from modpose.progress import bar
from modpose.simulate import microscope
from modpose.simulate.atoms import Atoms
from modpose.simulate.blocks import Blocks
from modpose.simulate.density import project_atoms
from modpose.simulate.molecules import project
from modpose.simulate.species import Species, built_in_species
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import draw_truth
from modpose.simulate.tilt_settings import TiltSettings

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

SEEDS = {"truth": 1, "tomograms": 2, "noise": 3, "visible": 4}
EXTENT = (4000.0, 4000.0, 1600.0)
"""Size of the region of particles in a tomogram, Å."""
WIDER = 2
"""Images are filtered by the CTF in a box that is larger by this factor."""


@dataclass(frozen=True)
class TiltGeometry:
    """How one tomogram was recorded.

    Attributes
    ----------
    angles
        (T, 3) degrees about x, y (the tilt) and z, as rlnTomoXTilt, YTilt and ZRot.
    defocus
        (T, 3) U, V (Å) and angle (degrees) at the centre.
    dose
        (T,) electrons per Å² received before each image.
    """

    angles: Floats
    defocus: Floats
    dose: Floats

    @property
    def rotation(self) -> Floats:
        """(T, 3, 3) from the tomogram to each image."""
        turns = Rotation.from_euler("xyz", self.angles, degrees=True)
        return np.asarray(turns.as_matrix())


@dataclass(frozen=True)
class SimulatedTilts:
    """Tilt series with their truth.

    Attributes
    ----------
    settings
        What was asked for.
    species
        The molecules.
    truth
        One row per particle: pose in the tomogram (``r00`` ... ``r22``, ``shift_x``, ... pixels),
        ``class``, ``template``.
    tomogram
        (n,) tomogram of each particle.
    position
        (n, 3) Å from the centre of the tomogram.
    geometry
        How each tomogram was recorded.
    visible
        (n, T) whether each image counts.
    images
        (n, T, box, box) with their noise, of unit variance before any multiplication.
    ctf
        (n, T, 12) parameters, columns as in :class:`modpose.observe.ctf_columns.CtfColumn`.
    """

    settings: TiltSettings
    species: list[Species]
    truth: pd.DataFrame
    tomogram: NDArray[np.int64]
    position: Floats
    geometry: list[TiltGeometry]
    visible: NDArray[np.bool_]
    images: Images
    ctf: Floats

    @property
    def rotation(self) -> Floats:
        """(n, 3, 3) true rotation of each particle in its tomogram."""
        names = [f"r{i}{j}" for i in range(3) for j in range(3)]
        return np.array(self.truth[names].to_numpy().reshape(-1, 3, 3))

    @property
    def shift(self) -> Floats:
        """(n, 3) true shift of each particle, pixels."""
        return self.truth[["shift_x", "shift_y", "shift_z"]].to_numpy()


def simulate_tilts(
    settings: TiltSettings, species: Sequence[Species] | None = None
) -> SimulatedTilts:
    """Simulate tilt series of one molecule or several at Haar-uniform rotations.

    Parameters
    ----------
    settings
        What to simulate.
    species
        The molecules; one built-in assembly by default.

    Raises
    ------
    InputError
        If a molecule does not fit into the box.
    """
    kinds = built_in_species(1) if species is None else list(species)
    rng = np.random.default_rng([settings.seed, SEEDS["truth"]])
    drawn = SubtomogramSettings(
        n=settings.n,
        box=settings.box,
        pixel_size=settings.pixel_size,
        max_shift_px=settings.max_shift_px,
    )
    truth = draw_truth(drawn, kinds, rng)
    tomogram = np.sort(np.arange(settings.n) % settings.tomograms)
    position = rng.uniform(-0.5, 0.5, (settings.n, 3)) * np.array(EXTENT)
    geometry = [_geometry(settings, k) for k in range(settings.tomograms)]
    ctf = _ctf(settings, geometry, tomogram, position)
    made = SimulatedTilts(
        settings,
        kinds,
        truth,
        tomogram,
        position,
        geometry,
        _visible(settings),
        np.empty((settings.n, settings.tilts, settings.box, settings.box), np.float32),
        ctf,
    )
    _draw(made)
    return made


def _geometry(settings: TiltSettings, number: int) -> TiltGeometry:
    """Draw the tilts of a tomogram: evenly spread, recorded from 0 degrees outwards."""
    rng = np.random.default_rng([settings.seed, SEEDS["tomograms"], number])
    count = settings.tilts
    tilt = np.linspace(-settings.max_tilt_deg, settings.max_tilt_deg, count)
    dose = np.empty(count)
    dose[np.argsort(np.abs(tilt), kind="stable")] = settings.dose * np.arange(count)
    if settings.order == "dose":
        order = np.argsort(dose)
        tilt, dose = tilt[order], dose[order]
    axis = rng.uniform(80.0, 90.0) * rng.choice([-1.0, 1.0])
    angles = np.stack(
        [np.full(count, rng.normal(0, 1.0)), tilt, axis + rng.normal(0, 0.2, count)], axis=1
    )
    mean = rng.uniform(*settings.defocus_range) + rng.normal(0, 300.0, count)
    half = np.abs(rng.normal(0, microscope.ASTIGMATISM, count))
    return TiltGeometry(
        angles, np.stack([mean + half, mean - half, rng.uniform(0, 180, count)], axis=1), dose
    )


def _visible(settings: TiltSettings) -> NDArray[np.bool_]:
    rng = np.random.default_rng([settings.seed, SEEDS["visible"]])
    seen = rng.random((settings.n, settings.tilts)) >= settings.hidden
    seen[:, settings.tilts // 2] = True
    return np.asarray(seen)


def _ctf(
    settings: TiltSettings,
    geometry: list[TiltGeometry],
    tomogram: NDArray[np.int64],
    position: Floats,
) -> Floats:
    """Return the CTF parameters of each image; the defocus follows the depth of the particle."""
    ctf = np.zeros((settings.n, settings.tilts, len(CtfColumn)))
    ctf[..., CtfColumn.PIXEL_SIZE] = settings.pixel_size
    ctf[..., CtfColumn.VOLTAGE] = microscope.VOLTAGE_KV
    ctf[..., CtfColumn.CS] = microscope.CS_MM
    ctf[..., CtfColumn.AMPLITUDE_CONTRAST] = microscope.AMPLITUDE_CONTRAST
    for i, k in enumerate(tomogram):
        one = geometry[k]
        depth = one.rotation[:, 2] @ position[i]
        ctf[i, :, 1:3] = one.defocus[:, :2] + settings.hand * depth[:, None]
        ctf[i, :, 3] = one.defocus[:, 2]
        ctf[i, :, CtfColumn.SCALE] = np.cos(np.deg2rad(one.angles[:, 1]))
        ctf[i, :, CtfColumn.DOSE] = one.dose
    return ctf


def _draw(made: SimulatedTilts) -> None:
    """Fill in the images: project, filter, scale, add noise, multiply where asked."""
    settings, box = made.settings, made.settings.box
    wide, cut = WIDER * box, slice(box - box // 2, 2 * box - box // 2)
    for i in bar(range(settings.n), "simulating", "particle"):
        turn = made.geometry[made.tomogram[i]].rotation
        rotations, shifts = turn @ made.rotation[i], (turn @ made.shift[i])[:, :2]
        signal = _project(made, i, rotations, shifts, wide)
        made.images[i] = _filtered(signal, made.ctf[i])[:, cut, cut]
    made.images[:] = microscope.scale_to_snr(made.images, settings.snr)
    for i in range(settings.n):
        rng = np.random.default_rng([settings.seed, SEEDS["noise"], i])
        made.images[i] = microscope.add_unit_noise(made.images[i], rng)
        if settings.premultiplied:
            made.images[i] = _multiplied(made.images[i], made.ctf[i])


def _project(made: SimulatedTilts, i: int, rotations: Floats, shifts: Floats, side: int) -> Images:
    molecule = made.species[int(made.truth["class"].iloc[i])].molecule
    size = made.settings.pixel_size
    if isinstance(molecule, Atoms):
        return project_atoms(molecule, rotations, shifts, side, size)
    if isinstance(molecule, Blocks):
        raise InputError.of("tilt series", "the molecule", "made of blocks", "blobs or atoms")
    hinge = float(made.truth["hinge_deg"].iloc[i]) if "hinge_deg" in made.truth else 0.0
    centers = molecule.conformations(np.full(len(rotations), hinge))
    return project(centers, molecule.sigmas, molecule.masses, rotations, shifts, side, size)


def _filtered(images: Images, ctf: Floats) -> Images:
    parameters = torch.from_numpy(ctf).float()
    return np.asarray(apply_ctf(torch.from_numpy(images)[:, None], parameters)[:, 0], np.float32)


def _multiplied(images: Images, ctf: Floats) -> Images:
    """Multiply the transforms of images by their CTF: data cY with noise c² times as strong."""
    shape = images.shape[-2:]
    transfer = ctf_2d(torch.from_numpy(ctf).float(), shape)
    spectrum = torch.fft.rfft2(torch.from_numpy(images)) * transfer
    return np.asarray(torch.fft.irfft2(spectrum, s=shape), np.float32)
