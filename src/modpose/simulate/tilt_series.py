"""The second simulator: a tilt series, noise in every tilt, weighted back-projection.

It shares only the molecule and its poses with :mod:`modpose.simulate.subtomograms`.  It projects
the molecule at every tilt, ramp-filters each image along x, and back-projects it (Radermacher
1992).  The missing wedge and the strengths of signal and noise then follow from the geometry; they
must agree with those of the first simulator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.observe.wedge import wedge_mask, whole_mask
from modpose.simulate.atoms import Atoms
from modpose.simulate.blocks import Blocks
from modpose.simulate.density import project_atoms
from modpose.simulate.microscope import filter_by_ctf
from modpose.simulate.molecules import Molecule, axis_rotations, project
from modpose.simulate.subtomograms import Subtomograms

Floats = NDArray[np.float64]
Volumes = NDArray[np.float32]

TILT_AXIS = np.array([0.0, 1.0, 0.0])
UPSAMPLING = 8
"""Points per pixel of the filtered images, for linear interpolation."""


def tilt_angles(tilt_range_deg: tuple[float, float], step_deg: float) -> Floats:
    """Spread tilts over a range: the middles of equal steps of about ``step_deg`` degrees."""
    low, high = tilt_range_deg
    if not 0 < step_deg <= high - low:
        raise InputError.of(
            "tilt series", "the step", step_deg, f"more than 0, at most {high - low}"
        )
    count = round((high - low) / step_deg)
    return low + (np.arange(count) + 0.5) * (high - low) / count


def project_tilts(
    molecule: Molecule | Atoms,
    rotation: Floats,
    shift_px: Floats,
    hinge_deg: float,
    tilts_deg: Floats,
    side: int,
    pixel_size: float,
) -> Volumes:
    """Project a posed molecule at every tilt (right-handed about +y), (T, side, side) per Å²."""
    turns = axis_rotations(TILT_AXIS, tilts_deg)
    rotations, shifts = turns @ rotation, (turns @ shift_px)[:, :2]
    if isinstance(molecule, Atoms):
        return project_atoms(molecule, rotations, shifts, side, pixel_size)
    centers = molecule.conformations(np.full(len(tilts_deg), hinge_deg))
    return project(centers, molecule.sigmas, molecule.masses, rotations, shifts, side, pixel_size)


def ramp(side: int, pixel_size: float) -> Floats:
    """Return the ramp filter on ``rfftfreq(side)``, 1/Å, of Ramachandran and Lakshminarayanan.

    It is the transform of the samples of the band-limited ramp.  So the mean, which |k| would
    remove, is right for an object smaller than the image.
    """
    x = np.fft.fftfreq(side, 1 / side)
    odd = x % 2 == 1
    kernel = np.zeros(side)
    kernel[0] = 0.25
    kernel[odd] = -1 / (np.pi * x[odd]) ** 2
    return np.asarray(np.fft.rfft(kernel).real / pixel_size)


def back_project(images: Volumes, tilts_deg: Floats, box: int, pixel_size: float) -> Volumes:
    """Reconstruct the central box of a tomogram by weighted back-projection.

    Parameters
    ----------
    images
        (T, side, side), rows are y; wider images reduce the wrap-around of the ramp filter.
    tilts_deg
        (T,) evenly spaced.
    box
        Side of the volume, voxels.
    pixel_size
        Å per pixel and voxel.

    Returns
    -------
    array
        (box, box, box) float32, density per Å³ from projections per Å².
    """
    side = images.shape[-1]
    step = math.radians(tilts_deg[1] - tilts_deg[0]) if len(tilts_deg) > 1 else math.pi
    spectrum = np.fft.rfft(images, axis=-1) * ramp(side, pixel_size)
    fine = np.fft.irfft(spectrum, n=UPSAMPLING * side, axis=-1) * UPSAMPLING
    axis = np.arange(box) - box // 2
    rows = axis + side // 2
    volume = np.zeros((box, box, box))
    for image, tilt in zip(fine, np.deg2rad(tilts_deg), strict=True):
        place = math.cos(tilt) * axis + math.sin(tilt) * axis[:, None]  # (z, x): place in image
        place = UPSAMPLING * (place + side // 2)
        left = np.floor(place).astype(np.int64)
        rest = place - left
        left %= UPSAMPLING * side
        right = (left + 1) % (UPSAMPLING * side)
        lines = image[rows]
        volume += ((1 - rest) * lines[:, left] + rest * lines[:, right]).transpose(1, 0, 2)
    return (volume * step).astype(np.float32)


def noise_gain(tilts_deg: Floats, side: int, pixel_size: float) -> float:
    """Return the theoretical s.d. of a reconstruction from white noise of unit variance.

    A voxel is a sum over tilts of filtered noise: gain² = T (step)² mean |ramp|².
    """
    step = math.radians(tilts_deg[1] - tilts_deg[0]) if len(tilts_deg) > 1 else math.pi
    half = ramp(side, pixel_size) ** 2
    whole = half.sum() + half[1 : (side + 1) // 2].sum()
    return step * math.sqrt(len(tilts_deg) * whole / side)


@dataclass(frozen=True)
class Agreement:
    """How well two simulators agree on the same molecules in the same poses.

    Attributes
    ----------
    correlation
        Correlation of their noise-free volumes.
    strength
        Standard deviation of the second's signal over that of the first.
    missing
        Fraction of the second's signal power at frequencies that are missing in the first, in the
        wide box before cropping.
    snr
        var(signal) / var(noise) of the second, if every tilt gets the noise that in theory gives
        the noise of the first.
    wanted
        The same ratio of the first.
    """

    correlation: float
    strength: float
    missing: float
    snr: float
    wanted: float

    def __str__(self) -> str:
        """Return a sentence."""
        return (
            f"a tilt series, back-projected, gives the same volumes (correlation "
            f"{self.correlation:.4f}, strength {self.strength:.3f}, {self.missing:.2%} of the "
            f"power inside the wedge) at SNR {self.snr:.4g} for {self.wanted:.4g}"
        )


def compare(
    simulated: Subtomograms, rows: Sequence[int] | NDArray[np.int64], step_deg: float = 1.5
) -> Agreement:
    """Simulate volumes again from a tilt series, and compare.

    Parameters
    ----------
    simulated
        The set; if it has a CTF, every tilt gets it.
    rows
        Which volumes.
    step_deg
        Between tilts, degrees; fine enough for the box (Crowther: 1 / (box k) radians).
    """
    settings, rows = simulated.settings, np.asarray(rows, np.int64)
    box, size, side = settings.box, settings.pixel_size, 4 * settings.box
    tilts = tilt_angles(settings.tilt_range_deg, step_deg)
    rng = np.random.default_rng(settings.seed)
    tilt_noise = 1 / noise_gain(tilts, side, size)
    mask = wedge_mask(torch.tensor([settings.tilt_range_deg]), (2 * box,) * 3)
    missing = 1 - whole_mask(mask, 2 * box)[0].numpy()
    first = simulated.clean(rows)
    second, noise, lost, power = np.empty_like(first), np.empty_like(first), 0.0, 0.0
    for i, row in enumerate(rows):
        truth = simulated.truth.iloc[int(row)]
        rotation = truth[[f"r{a}{b}" for a in range(3) for b in range(3)]].to_numpy(np.float64)
        molecule = simulated.species[int(truth["class"])].molecule
        if isinstance(molecule, Blocks):
            raise InputError("tilt series: blocks are not projected, expected atoms or blobs")
        images = project_tilts(
            molecule,
            rotation.reshape(3, 3),
            truth[["shift_x", "shift_y", "shift_z"]].to_numpy(np.float64),
            float(truth.get("hinge_deg", 0.0)),
            tilts,
            side,
            size,
        )
        if simulated.ctf is not None:
            images = filter_by_ctf(images, np.repeat(simulated.ctf[row][None], len(tilts), axis=0))
        wide = back_project(images, tilts, 2 * box, size)
        spectrum = np.abs(np.fft.fftn(wide)) ** 2
        lost, power = lost + float((spectrum * missing).sum()), power + float(spectrum.sum())
        cut = slice(box - box // 2, 2 * box - box // 2)
        second[i] = wide[cut, cut, cut] * simulated.scale
        shots = tilt_noise * rng.standard_normal(images.shape, dtype=np.float32)
        noise[i] = back_project(shots, tilts, box, size)
    return Agreement(
        correlation=float(np.corrcoef(first.ravel(), second.ravel())[0, 1]),
        strength=float(second.std() / first.std()),
        missing=lost / power,
        snr=float(second.var() / noise.var()),
        wanted=float(first.var()),
    )
