"""The sets of volumes: the paper's simulated one, and stand-ins for its two real ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.simulate.species import Species, built_in_species, species_of_files
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms
from studies.common.samples import Sample, save_array, write_sample
from studies.common.volume_symmetry import volume_symmetry

SNRS = (0.01, 0.05, 0.1)
CENTRAL = 0.1
"""The signal-to-noise ratio of the set that Table 2 calls S."""
FIELD_OF_VIEW = 280.0
"""Å across a box; the paper's voxels are of 1 nm in a box of 28."""
RESOLUTION = 20.0
MOLECULES = {
    "S": (
        "1bxn.pdb 2atc.pdb 3gl1.pdb 4hhb.pdb 1oel.pdb 1qvr.pdb 3cf3.pdb 3h84.pdb",
        "eight molecules, four of them of the paper's set",
    ),
    "C": ("4v1w.cif.gz 1igt.pdb 1s3x.pdb adk_open.pdb", "four other molecules"),
    "R": ("3j9i.pdb.gz", "one molecule, a proteasome"),
}
INSTRUMENT: dict[str, dict[str, Any]] = {
    "S": {"tilt_range_deg": (-60.0, 60.0), "noise": "white"},
    "C": {"tilt_range_deg": (-50.0, 50.0), "noise": "coloured", "snr": 0.3},
    "R": {"tilt_range_deg": (-45.0, 45.0), "noise": "wedge", "snr": 0.05},
}
"""How the stand-ins differ from the simulated set beside their molecules."""


@dataclass(frozen=True)
class VolumeSet:
    """One set, and the clean volumes of those held out.

    Attributes
    ----------
    name
        S, C or R.
    snr
        Signal-to-noise ratio inside the box.
    sample
        Volumes to fit, and volumes held out.
    clean, upright
        Files (.npy) of the held-out volumes without noise, (N, D, H, W), and of each molecule
        upright, (K, D, H, W).
    tilt_range_deg, reach_px
        The tilts that were taken, and the largest shift along an axis, voxels.
    """

    name: str
    snr: float
    sample: Sample
    clean: Path
    upright: Path
    tilt_range_deg: tuple[float, float]
    reach_px: float


def make_set(
    folder: Path,
    name: str,
    *,
    snr: float | None,
    per_class: int,
    held_out: float,
    box: int,
    data: Path | None,
    seed: int,
) -> VolumeSet:
    """Simulate a set and keep it in a folder.

    Parameters
    ----------
    folder
        Of the experiment's data.
    name
        S, C or R.
    snr
        None for the set's own.
    per_class
        Volumes of each molecule of S; the others have as many altogether a molecule of theirs.
    held_out
        Fraction that fits never see.
    box
        Side, voxels.
    data
        Folder with ``pdb/``, or None for built-in assemblies.
    seed
        Of the poses and the noise.
    """
    species, what = _species(name, data)
    options = dict(INSTRUMENT[name])
    ratio = options.pop("snr", CENTRAL) if snr is None else snr
    settings = SubtomogramSettings(
        n=per_class * len(species),
        box=box,
        pixel_size=FIELD_OF_VIEW / box,
        snr=ratio,
        max_shift_px=box / 4,  # ±7 of 28
        ctf=True,
        defocus_range=(50_000.0, 50_000.0),
        seed=seed + 101 * list(MOLECULES).index(name),
        **options,
    )
    made = simulate_subtomograms(settings, species)
    n_test = max(2, round(held_out * settings.n))
    low, high = settings.tilt_range_deg
    description = (
        f"**{name}**, SNR {ratio:g} inside the box: {what}, {settings.n:,} volumes of {box}³ "
        f"({n_test:,} held out), voxels of {settings.pixel_size:.3g} Å, "
        f"{RESOLUTION:g} Å resolution, Haar-uniform rotations, shifts "
        f"U(±{settings.max_shift_px:g}) voxels, CTF at 5 µm, tilts "
        f"{low:g}° to {high:g}°, {settings.noise} noise."
    )
    label = f"{name}-{ratio:g}"
    sample = write_sample(folder, label, description, made.volumes(), n_test, made.truth)
    clean, upright = folder / label / "clean.npy", folder / label / "upright.npy"
    save_array(clean, made.clean(np.arange(settings.n - n_test, settings.n)))
    save_array(upright, made.templates())
    return VolumeSet(
        name, ratio, sample, clean, upright, settings.tilt_range_deg, settings.max_shift_px
    )


def _species(name: str, data: Path | None) -> tuple[list[Species], str]:
    """Return the molecules of a set, and what they are."""
    files, what = MOLECULES[name]
    names = files.split()
    paths = [] if data is None else [data / "pdb" / file for file in names]
    if paths and all(path.is_file() for path in paths):
        stems = ", ".join(file.split(".")[0] for file in names)
        return species_of_files(paths, RESOLUTION), f"{what} ({stems})"
    before = sum(len(MOLECULES[k][0].split()) for k in "SCR"[: "SCR".index(name)])
    built_in = built_in_species(before + len(names))[before:]
    plural = "assembly" if len(names) == 1 else "assemblies"
    return built_in, f"{len(names)} built-in {plural} of Gaussian blobs"


def clean_volumes(one: VolumeSet, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read held-out volumes without noise."""
    volumes: NDArray[np.float32] = np.load(one.clean, mmap_mode="r")[rows]
    return volumes


def symmetries(one: VolumeSet) -> list[Tensor]:
    """Find the rotations (G, 3, 3) that leave each molecule of a set as it is."""
    return [volume_symmetry(torch.from_numpy(volume)) for volume in np.load(one.upright)]
