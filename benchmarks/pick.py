"""Objects found in large images: how many of them, how many right, and how fast.

    python -m benchmarks.pick
    python -m benchmarks.pick --stem graphene_4nm_Si_2nm.npz

Molecules are planted at SNR 0.1 and found by their radius, and by a model that is trained for
``--minutes`` on 1,500 other images at SNR 0.5; atoms of simulated lattices are found by half the
distance of neighbours.  With ``--stem`` the micrographs of graphene are searched, where coordinates
that a network found are the reference.  An object counts as found within half a radius.  The
settings of the search were chosen on simulated lattices and on fields of other seeds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from benchmarks import machine
from modpose import PoseModel
from modpose.pick.find import Picks, find_objects
from modpose.pick.templates import Templates, templates_of_run
from modpose.simulate.field import simulate_field
from modpose.simulate.particles import simulate_particles
from modpose.simulate.settings import HingeSettings

Floats = NDArray[np.float64]

RADIUS, SNR, SEEDS = 14.0, 0.1, (101, 102, 103)
GRAPHENE_NM, PIXEL_NM = 0.142, 0.00781
"""Distance of neighbours in graphene, and the size of a pixel of the micrographs."""


def precision_and_recall(picks: Picks, truth: Floats, within: float) -> tuple[float, float]:
    """Compare picks with places (N, 2), column and row, one to one."""
    distance = cdist(np.stack([picks.x, picks.y], axis=1), truth)
    cost = np.minimum(distance, 2 * within)
    pairs = linear_sum_assignment(cost) if len(picks) else (np.arange(0), np.arange(0))
    right = int((distance[pairs] <= within).sum())
    return right / max(1, len(picks)), right / len(truth)


def lattice(side: int, apart: float, snr: float, seed: int) -> tuple[NDArray[np.float32], Floats]:
    """Simulate a randomly rotated honeycomb of blurred atoms in white noise; image and places."""
    rng = np.random.default_rng(seed)
    count = int(2 * side / apart)
    steps = np.arange(-count, count + 1) * apart * np.sqrt(3)
    i, j = (grid.ravel() for grid in np.meshgrid(steps, steps))
    cells = np.stack([i + j / 2, j * np.sqrt(3) / 2], axis=1)
    atoms = np.concatenate([cells, cells + np.array([0, apart])])
    turn = rng.uniform(0, np.pi / 3)
    atoms = atoms @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    atoms += side / 2 + rng.normal(0, 0.03 * apart, atoms.shape)
    atoms = atoms[((atoms >= 0) & (atoms <= side - 1)).all(1)]
    image = np.zeros((side, side))
    np.add.at(image, tuple(np.rint(atoms).astype(int).T[::-1]), 1.0)
    image = ndimage.gaussian_filter(image, 0.28 * apart, mode="constant")
    image *= np.sqrt(snr) / image.std()
    return (image + rng.standard_normal(image.shape)).astype(np.float32), atoms


def _row(name: str, picks: Picks, truth: Floats, within: float, started: float) -> None:
    seconds = time.process_time() - started
    precision, recall = precision_and_recall(picks, truth, within)
    print(f"{name:44} {len(truth):6} {precision:9.3f} {recall:7.3f} {seconds:10.1f}")


def _head(title: str) -> None:
    print(f"\n{title:44} {'objects':>6} {'precision':>9} {'recall':>7} {'CPU s':>10}")


def _trained(minutes: float) -> Templates:
    """Train a model on single images and take its pictures."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        singles = simulate_particles(HingeSettings(n=1500, snr=0.5, seed=7))
        model = PoseModel(z_dim=1, max_minutes=minutes, quiet=True)
        model.fit(singles.images).save(run)
        return templates_of_run(run)


def _planted(templates: Templates) -> None:
    _head(f"molecules in 1024 x 1024, SNR {SNR:g}")
    for seed in SEEDS:
        field = simulate_field(HingeSettings(n=200, snr=SNR, seed=seed), 1024)
        truth = field.truth[["x", "y"]].to_numpy(np.float64)
        for name, options in (
            ("radius 14", {"radius": RADIUS}),
            ("model", {"templates": templates}),
        ):
            started = time.process_time()
            picks = find_objects(field.image, **options)
            _row(f"{name}, seed {seed}", picks, truth, RADIUS / 2, started)


def _lattices() -> None:
    _head("atoms of a lattice in 512 x 512, packed")
    for apart in (12.0, 17.0, 24.0):
        image, truth = lattice(512, apart, SNR, seed=101)
        started = time.process_time()
        picks = find_objects(image, radius=apart / 2, packed=True)
        _row(f"distance {apart:g} px, SNR {SNR:g}", picks, truth, apart / 4, started)


def _graphene(path: Path) -> None:
    _head("graphene (a network's coordinates), packed")
    radius = GRAPHENE_NM / PIXEL_NM / 2
    with np.load(path, allow_pickle=False) as arrays:
        for name in ("gb4", "si2"):
            started = time.process_time()
            picks = find_objects(arrays[name], radius=radius, packed=True)
            truth = arrays[f"{name}_coord"][:, 1::-1]
            _row(f"{name}, radius {radius:.1f} px", picks, truth, radius / 2, started)


def _large(templates: Templates) -> None:
    _head("4096 x 4096")
    for radius in (8.0, RADIUS):
        settings = HingeSettings(n=1000, snr=SNR, seed=1, pixel_size=4.0 * RADIUS / radius)
        field = simulate_field(settings, 4096)
        truth = field.truth[["x", "y"]].to_numpy(np.float64)
        started, clock = time.process_time(), time.perf_counter()
        picks = find_objects(field.image, radius=radius)
        seconds = time.perf_counter() - clock
        _row(f"radius {radius:g}, {seconds:.1f} s", picks, truth, radius / 2, started)
    started, clock = time.process_time(), time.perf_counter()
    picks = find_objects(field.image, templates=templates)
    seconds = time.perf_counter() - clock
    _row(f"model, {templates.count} templates, {seconds:.1f} s", picks, truth, RADIUS / 2, started)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training of the model")
    parser.add_argument("--stem", type=Path, help="the micrographs of graphene")
    given = parser.parse_args(arguments)
    print(machine.sentence())
    templates = _trained(given.minutes)
    _planted(templates)
    _lattices()
    if given.stem is not None:
        _graphene(given.stem)
    _large(templates)


if __name__ == "__main__":
    main()
