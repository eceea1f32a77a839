"""Time and memory of sharp maps over the number of images, and a straight line through them.

    python -m benchmarks.large_maps 1igt.pdb --arm A,B:1-235 --hinge-at B:236
    python -m benchmarks.large_maps --images 1000 2000 4000 --box 32 --functions 5

Simulates projections in shards (128 pixels of 3 angstrom, SNR 0.1, CTF, exact poses; the arm turns
full circle).  Eight neighbouring atoms are one Gaussian, so that 100,000 images take minutes.  One
table names the images of all shards; a smaller set is its first rows.  For each number of images,
``modpose fit`` (recipe modpose-posed) and ``modpose volumes`` run in processes of their own, and
their seconds and peak resident memory are printed.  Then follows the straight line of least squares
through the seconds, how far each size is from it, and where it leads for a million images.

The default number of functions is 17 for every size.  The number of rounds is chosen by the maps,
so sizes may differ in work.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.size import Cost, run
from modpose.errors import InputError
from modpose.files.writing import check_space
from modpose.simulate.conformations import Conformer, built_in_conformers, conformers_of_files
from modpose.simulate.molecules import Molecule
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

Floats = NDArray[np.float64]

SHARD, WIDTH = 5000, 384.0
"""Images that are simulated at once, and the side of the box, Å."""
TOGETHER = 8
"""Neighbouring atoms that are one Gaussian."""


def coarse(molecule: Molecule, together: int = TOGETHER) -> Molecule:
    """Join neighbouring atoms to Gaussians of the same mass and centre, and of the usual width."""
    edge = np.flatnonzero(np.diff(molecule.arm)) + 1
    parts = np.split(np.arange(len(molecule.masses)), edge)
    runs = [run for part in parts for run in np.split(part, range(together, len(part), together))]
    number = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    mass = np.bincount(number, molecule.masses).astype(float)

    def mean(values: Floats) -> Floats:
        return np.asarray(np.bincount(number, molecule.masses * values) / mass)

    center = np.stack([mean(axis) for axis in molecule.centers.T], 1)
    away = ((molecule.centers - center[number]) ** 2).sum(1) / 3
    width = float(np.median(np.sqrt(mean(molecule.sigmas**2 + away))))
    sigma = np.full(len(mass), width)
    arm = molecule.arm[[run[0] for run in runs]]
    return replace(molecule, centers=center, sigmas=sigma, masses=mass, arm=arm)


def conformer(options: argparse.Namespace) -> Conformer:
    """Return the molecule that is simulated."""
    if options.molecule is None:
        return Conformer("hinged", built_in_conformers(1)[0].molecule)
    files = [options.molecule], 10.0, options.arm, options.hinge_at
    (one,) = conformers_of_files(*files)
    assert isinstance(one.molecule, Molecule)
    return Conformer(one.name, coarse(one.molecule))


def simulated(options: argparse.Namespace, folder: Path) -> list[Path]:
    """Simulate the shards that the folder lacks; return their tables."""
    kinds, most = [conformer(options)], max(options.images)
    stars = [folder / f"shard-{k:03d}" / "particles.star" for k in range(-(-most // SHARD))]
    for number, star in enumerate(stars):
        if star.is_file():
            continue
        settings = ProjectionSettings(
            n=min(SHARD, most - number * SHARD),
            box=options.box,
            pixel_size=WIDTH / options.box,
            snr=options.snr,
            ctf=True,
            hinge_range_deg=(-180.0, 180.0),
            seed=options.seed + number,
        )
        check_space(star.parent, 4.0 * settings.n * settings.box**2)
        write_projections(simulate_projections(settings, kinds), star.parent)
    return stars


def joined(stars: Sequence[Path], count: int, path: Path) -> Path:
    """Write a table of the first ``count`` images of all shards.

    Raises
    ------
    InputError
        If the shards hold fewer, because they were simulated for fewer.
    """
    head, rows = "", []
    for star in stars:
        lines = star.read_text(encoding="utf-8").splitlines(keepends=True)
        begin = max(i for i, line in enumerate(lines) if line.startswith("_")) + 1
        head = head or "".join(lines[:begin])
        own = [line for line in lines[begin:] if line.strip()]
        rows += [line.replace("@", f"@{star.parent.name}/", 1) for line in own]
    if len(rows) < count:
        name = str(stars[0].parents[1])
        raise InputError.of(name, "the number of images", len(rows), f"{count}; or an empty folder")
    path.write_text(head + "".join(rows[:count]), encoding="utf-8")
    return path


def straight(counts: Sequence[int], seconds: Sequence[float]) -> tuple[float, float, Floats]:
    """Return the line of least squares: s per image, s at no image, (sizes,) fraction off it.

    The errors are relative, so that small sizes count as much as large ones.
    """
    n, y = np.asarray(counts, float), np.asarray(seconds, float)
    slope, start = (float(value) for value in np.polyfit(n, y, 1, w=1 / y))
    return slope, start, y / (start + slope * n) - 1


def line(name: str, counts: Sequence[int], seconds: Sequence[float]) -> str:
    """Describe the straight line through the seconds of each size."""
    slope, start, off = straight(counts, seconds)
    away = ", ".join(f"{100 * one:+.0f} %" for one in off)
    million = (start + 1e6 * slope) / 3600
    return (
        f"{name}: {start:.0f} s and {1000 * slope:.2f} ms per image, {million:.1f} h for a million "
        f"(off the line by {away})"
    )


def measured(table: Path, out: Path, options: argparse.Namespace) -> tuple[Cost, Cost]:
    """Fit, then compute sharp maps; each in a process of its own."""
    words = ["--recipe", "modpose-posed", "--seed", str(options.seed)]
    if options.epochs is not None:
        words += ["--epochs", str(options.epochs)]
    fit = run("fit", str(table), "-o", str(out), *words)
    maps = ["-o", str(out / "maps"), "--along", "1", "--functions", str(options.functions)]
    return fit, run("volumes", str(out), *maps)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_maps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("molecule", type=Path, nargs="?", help="PDB or mmCIF; else built in")
    parser.add_argument("--arm")
    parser.add_argument("--hinge-at")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, help="of the fit; default: the recipe's")
    parser.add_argument("--functions", type=int, default=17, help="of content")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep images here, and use them again")
    options = parser.parse_args(arguments)
    print(machine.sentence(options.threads), flush=True)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print("images | step | CPU s | clock s | memory, GB", flush=True)
    costs = []
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        stars = simulated(options, options.folder or Path(scratch))
        for n in options.images:
            table = joined(stars, n, stars[0].parents[1] / f"first_{n}.star")
            costs.append(measured(table, Path(scratch) / f"run_{n}", options))
            for step, cost in zip(("fit", "maps"), costs[-1], strict=True):
                spent = f"{cost.processor:.0f} | {cost.clock:.0f}"
                print(f"{n:,} | {step} | {spent} | {cost.memory / 1e9:.2f}", flush=True)
    if len(costs) > 1:
        for number, step in enumerate(("fit", "maps")):
            seconds = [cost[number].processor for cost in costs]
            print(line(f"{step}, CPU s", options.images, seconds))


if __name__ == "__main__":
    main()
