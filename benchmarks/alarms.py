"""Alarms: planted faults that are found, and clean sets that raise none.

Every set is simulated, small, and made again from a seed.  The thresholds were chosen on seeds up
to 300; this benchmark uses 1000 to 1019.

    python -m benchmarks.alarms
    python -m benchmarks.alarms --fits
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks import machine
from modpose import PoseModel
from modpose.alarms import data_alarms
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.source import Source, open_source
from modpose.data.stack import ArrayStack
from modpose.simulate.characters import CharacterSettings, simulate_alphanumeric
from modpose.simulate.particles import HingeSettings, Simulated, simulate_particles, write_particles
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import ProjectionSettings, simulate_projections
from modpose.simulate.species import built_in_species
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms
from modpose.simulate.tetrominoes import tetromino_species

Images = NDArray[np.float32]
Edit = Callable[[pd.DataFrame], None]
Maker = Callable[[int], Dataset]

PARTICLES = (
    {"n": 200, "box": 40, "pixel_size": 4.0, "snr": 0.5},
    {"n": 300, "box": 32, "pixel_size": 5.0, "snr": 0.1},
    {"n": 200, "box": 48, "pixel_size": 3.7, "snr": 0.2, "shift_std_px": 2.0},
    {"n": 300, "box": 40, "pixel_size": 4.5, "snr": 1.0, "hinge_range_deg": (-60.0, 60.0)},
)
PROJECTIONS: tuple[dict[str, Any], ...] = (
    {"n": 300, "box": 32, "pixel_size": 5.0, "snr": 0.2},
    {"n": 500, "box": 48, "pixel_size": 3.3, "snr": 0.1},
)
VOLUMES: tuple[dict[str, Any], ...] = (
    {"n": 40, "box": 24, "pixel_size": 8.0, "snr": 0.1},
    {"n": 40, "box": 20, "pixel_size": 10.0, "snr": 0.05, "noise": "coloured"},
    {"n": 30, "box": 28, "pixel_size": 7.0, "snr": 0.2, "tilt_range_deg": (-50.0, 60.0)},
    {"n": 30, "box": 24, "pixel_size": 8.0, "snr": 0.1, "noise": "wedge"},
)


# --- sets -------------------------------------------------------------------------------------


def particles(seed: int, ctf: bool) -> Simulated:
    """Simulate views of a hinged molecule; size and noise go with the seed."""
    return simulate_particles(HingeSettings(**PARTICLES[seed % 4], ctf=ctf, seed=seed))


def opened(simulated: Simulated, images: Images | None = None, edit: Edit | None = None) -> Dataset:
    """Write particles as a user brings them, and open them, with other images or another table."""
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(write_particles(simulated, Path(folder)))
        kept = simulated.images if images is None else images
        return dataset_of(source, kept, edit, ctf=simulated.ctf is not None)


def projections(
    seed: int,
    edit: Edit | None = None,
    flip: bool = False,
    views: tuple[float, float] | None = None,
) -> Dataset:
    """Simulate projections with given poses."""
    shape = PROJECTIONS[seed % 2]
    settings = ProjectionSettings(**shape, ctf=seed % 3 > 0, seed=seed, views=views)
    made = simulate_projections(settings)
    with tempfile.TemporaryDirectory() as folder:
        write_projections(made, Path(folder))
        source = open_source(Path(folder) / "particles.star")
        images = made.images[:, ::-1] if flip else made.images
        return dataset_of(source, images, edit, ctf=settings.ctf, poses=True)


def dataset_of(
    source: Source, images: Images, edit: Edit | None, *, ctf: bool, poses: bool = False
) -> Dataset:
    """Put other images and an edited table in the place of those of a source."""
    stack = ArrayStack(np.ascontiguousarray(images), pixel_size=source.stack.pixel_size)
    table = source.particles.table.copy()
    if edit is not None:
        edit(table)
    source = Source(stack, replace(source.particles, table=table))
    return Dataset(source, DataConfig(val_fraction=0.1), seed=0, ctf=ctf, poses=poses)


def volumes(seed: int, wedge: str, sign: int = 1) -> Dataset:
    """Simulate subtomograms; the wedge is told or not."""
    settings = SubtomogramSettings(**VOLUMES[seed % 4], seed=seed)
    made = simulate_subtomograms(settings, built_in_species(1 + seed % 3))
    source = made.source()
    if sign < 0:
        source = Source(
            ArrayStack(-made.volumes(), "volumes", pixel_size=made.pixel_size), source.particles
        )
    return Dataset(source, DataConfig(val_fraction=0.1), seed=0, wedge=wedge)


def tetrominoes(seed: int) -> Dataset:
    """Simulate tetrominoes without a wedge."""
    noise: Literal["white", "none"] = "white" if seed % 2 else "none"
    settings = SubtomogramSettings(
        n=40, box=24, pixel_size=1.0, snr=0.2, noise=noise, tilt_range_deg=(-90, 90), seed=seed
    )
    made = simulate_subtomograms(settings, tetromino_species("IOSTLE", 4.0))
    return Dataset(made.source(), DataConfig(val_fraction=0.1), seed=0)


def characters(seed: int) -> Dataset:
    """Simulate letters and digits."""
    settings = CharacterSettings(n=300, box=32, binary=seed % 2 == 0, seed=seed)
    return opened(simulate_alphanumeric(settings))


# --- faults -----------------------------------------------------------------------------------


def inverted(seed: int) -> Dataset:
    """Dark particles."""
    if seed % 3 == 2:
        return volumes(seed, "auto", sign=-1)
    made = particles(seed, ctf=seed % 2 == 0)
    return opened(made, -made.images)


def wrong_ctf(seed: int) -> Dataset:
    """Defocus of another image, or 1.5, 0.7 or 1.3 times too large."""

    def edit(table: pd.DataFrame) -> None:
        columns = ["rlnDefocusU", "rlnDefocusV"]
        if seed % 4 == 0:
            table[columns] = table[columns].to_numpy()[::-1]
        else:
            table[columns] *= (1.5, 0.7, 1.3)[seed % 4 - 1]

    return opened(particles(seed, ctf=True), edit=edit)


def untold_wedge(seed: int) -> Dataset:
    """A missing wedge, and a fit that was not told."""
    return volumes(seed, "off")


def neighbours(seed: int) -> Dataset:
    """A second particle at the rim, in 30 to 100 % of the boxes."""
    made = particles(seed, ctf=seed % 2 == 0)
    rng = np.random.default_rng(seed)
    images, (n, box, _) = made.images.copy(), made.images.shape
    for i in np.flatnonzero(rng.random(n) < (0.3, 0.6, 1.0)[seed % 3]):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.2) * box / 2
        dy, dx = round(distance * np.sin(angle)), round(distance * np.cos(angle))
        wide = np.zeros((3 * box, 3 * box), np.float32)
        wide[box + dy : 2 * box + dy, box + dx : 2 * box + dx] = made.clean[rng.integers(n)]
        images[i] += wide[box : 2 * box, box : 2 * box]
    return opened(made, images)


def constant(seed: int) -> Dataset:
    """Some images that hold next to nothing, or are filled up with one value."""
    made = particles(seed, ctf=False)
    images = made.images.copy()
    few = np.random.default_rng(seed).permutation(len(images))[: len(images) // 10]
    if seed % 2:
        images[few] *= np.float32(1e-5)
    else:
        images[few, : images.shape[1] // 2] = 0.0
    return opened(made, images)


def repeated(seed: int) -> Dataset:
    """One image in twenty is a copy of another."""
    made = particles(seed, ctf=False)
    images = made.images.copy()
    order = np.random.default_rng(seed).permutation(len(images))
    count = len(images) // 20
    images[order[:count]] = images[order[count : 2 * count]]
    return opened(made, images)


def wrong_poses(seed: int) -> Dataset:
    """Poses of other images, transposed, shifts negated, or images upside down."""
    angles = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    shifts = ["rlnOriginXAngst", "rlnOriginYAngst"]

    def edit(table: pd.DataFrame) -> None:
        if seed % 4 == 0:
            table[angles + shifts] = table[angles + shifts].to_numpy()[::-1]
        elif seed % 4 == 1:
            table[angles] = -table[angles[::-1]].to_numpy()
        elif seed % 4 == 2:
            table[shifts] *= -1

    return projections(seed, edit, flip=seed % 4 == 3)


def few_views(seed: int) -> Dataset:
    """All views within 45 degrees of one axis, or four in five within 20 degrees."""
    return projections(seed, views=(1.0, 45.0) if seed % 2 else (0.8, 20.0))


PLANTED: dict[str, Maker] = {
    "contrast": inverted,
    "ctf": wrong_ctf,
    "wedge": untold_wedge,
    "neighbours": neighbours,
    "constant": constant,
    "repeated": repeated,
    "poses": wrong_poses,
    "views": few_views,
}
CLEAN: dict[str, Maker] = {
    "particles": lambda seed: opened(particles(seed, ctf=False)),
    "particles with a CTF": lambda seed: opened(particles(seed, ctf=True)),
    "projections": projections,
    "subtomograms": lambda seed: volumes(seed, "auto"),
    "tetrominoes": tetrominoes,
    "characters": characters,
}


# --- fits -------------------------------------------------------------------------------------


def only_strength(seed: int) -> list[str]:
    """Content of one object, which is stronger in some images than in others."""
    settings = HingeSettings(
        n=300, box=24, pixel_size=7.2, snr=0.5, hinge_range_deg=(0.0, 0.0), seed=seed
    )
    made = simulate_particles(settings)
    strength = np.random.default_rng(seed).uniform(0.4, 1.8, (settings.n, 1, 1))
    images = made.images + made.clean * (strength - 1).astype(np.float32)
    return fitted(opened(made, images), "modpose", 30)


def only_defocus(seed: int) -> list[str]:
    """Content of one object, in images whose CTF is not used."""
    settings = ProjectionSettings(
        n=400, box=32, pixel_size=5.0, snr=0.2, ctf=True, hinge_range_deg=(0.0, 0.0), seed=seed
    )
    return fitted(posed(settings), "modpose-posed", 6, ctf="off")


def stopped_early(seed: int) -> list[str]:
    """A fit of six epochs."""
    return fitted(opened(particles(seed, ctf=False)), "modpose", 6)


def moving(seed: int) -> list[str]:
    """A fit of a molecule that moves."""
    settings = ProjectionSettings(n=400, box=32, pixel_size=5.0, snr=0.2, ctf=True, seed=seed)
    return fitted(posed(settings), "modpose-posed", 12)


def posed(settings: ProjectionSettings) -> Dataset:
    """Simulate projections as a user brings them."""
    made = simulate_projections(settings)
    with tempfile.TemporaryDirectory() as folder:
        write_projections(made, Path(folder))
        source = open_source(Path(folder) / "particles.star")
        return dataset_of(source, made.images, None, ctf=True, poses=True)


def fitted(dataset: Dataset, recipe: str, epochs: int, **model: Any) -> list[str]:
    """Fit a model with content of two dimensions; the names of its alarms."""
    options = {"train": {"epochs": epochs}, "model": model}
    fit = PoseModel(recipe, z_dim=2, options=options, seed=0, quiet=True).fit(dataset.source)
    return [alarm.name for alarm in fit.alarms]


FITS: dict[str, tuple[str, Callable[[int], list[str]]]] = {
    "strength": ("content", only_strength),
    "defocus": ("content", only_defocus),
    "stopped": ("convergence", stopped_early),
}


# --- the table --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alarms", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="sets of each planted fault")
    parser.add_argument("--clean", type=int, default=20, help="clean sets of each kind")
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--only", help="one fault, or one kind of clean set")
    parser.add_argument("--fits", action="store_true", help="the alarms of results instead")
    options = parser.parse_args(arguments)
    print(machine.sentence(1), flush=True)
    if options.fits:
        _fits(options)
        return
    for name, make in PLANTED.items():
        if options.only not in (None, name):
            continue
        found = [_names(make(options.first + k)) for k in range(options.seeds)]
        others = sorted({other for names in found for other in names} - {name})
        count = sum(name in names for names in found)
        also = f"; also {', '.join(others)}" if others else ""
        print(f"planted {name:22} found {count} of {len(found)}{also}", flush=True)
    for name, make in CLEAN.items():
        if options.only not in (None, name):
            continue
        found = [_names(make(options.first + k)) for k in range(options.clean)]
        which = ", ".join(sorted({one for names in found for one in names}))
        count = sum(bool(names) for names in found)
        print(f"clean {name:24} alarms {count} of {len(found)} {which}".rstrip(), flush=True)


def _fits(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    for name, (alarm, fit) in FITS.items():
        found = [fit(options.first + k) for k in range(options.seeds)]
        count = sum(alarm in names for names in found)
        print(f"planted {alarm} ({name}): found {count} of {len(found)}", flush=True)
    found = [moving(options.first + k) for k in range(options.clean)]
    which = ", ".join(sorted({one for names in found for one in names}))
    count = sum(bool(names) for names in found)
    print(f"clean fits: alarms {count} of {len(found)} {which}".rstrip(), flush=True)


def _names(dataset: Dataset) -> list[str]:
    return [alarm.name for alarm in data_alarms(dataset)]


if __name__ == "__main__":
    main()
