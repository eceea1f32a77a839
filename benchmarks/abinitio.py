"""How well and how fast maps and poses are found without poses, against truth and bound.

    python -m benchmarks.abinitio --images 5000 --snr 0.1 --seed 0
    python -m benchmarks.abinitio --states 3 --images 6000 --snr 0.1
    python -m benchmarks.abinitio 1igt.pdb 4v4r_30S.pdb.gz --images 6000
    python -m benchmarks.abinitio --images 3000 --views 0.8 30 --junk 0.1 --contrast 0.2
    python -m benchmarks.abinitio 1oel.pdb --images 3000 --symmetry D7 --pixel-size 4

Runs what ``modpose abinitio`` runs, on simulated projections (64 pixels a side, CTF, shifts of 1.75
pixels).  Errors are after one global rotation, of the hand that fits better, modulo the symmetry
that the molecule itself has; a pose more than 20 degrees off is lost.  Junk is left out of them.
The bound is that of Cramer and Rao at the true map and pose.  ``--true-map`` finds no maps: it
searches all poses with the true map and the true noise.  What that loses, the images do not tell.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import machine
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.source import open_source
from modpose.evaluate.metrics import hungarian_accuracy
from modpose.evaluate.pose_bound import MEDIAN_OF_RMS
from modpose.fourier.projection import half_plane
from modpose.fourier.reference import make_references
from modpose.geometry.groups import so3_grid, symmetry_group
from modpose.search.abinitio.axes import CLIMBED, candidates
from modpose.search.abinitio.images import SearchImages, disc, read_images
from modpose.search.abinitio.rounds import FINENESS
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.scores import best_poses
from modpose.search.abinitio.settings import AbInitioSettings, RefinePlan
from modpose.search.abinitio.symmetry import in_frame, symmetrised
from modpose.search.so3_climb import climb
from modpose.simulate.conformations import Conformer, built_in_conformers, conformers_of_files
from modpose.simulate.imperfections import noise_power
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import Projections, simulate_projections
from modpose.simulate.settings import ProjectionSettings

MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
LOST_DEG = 20.0
LIMIT = 26.0
"""Cycles a box that enter the bound."""
EASY = 10.0
"""Cycles a box within which it is said how much an image tells."""
ALIKE = 0.99
"""Mean correlation with itself, turned by a point group, of a molecule that has this symmetry."""


@dataclass(frozen=True)
class Figures:
    """What came out for one molecule."""

    name: str
    symmetry: str
    images: int
    median_deg: float
    bound_deg: float
    lost: float
    nats: float

    def line(self) -> str:
        """Say it in words."""
        return (
            f"{self.name} ({self.symmetry}): {self.images} images, "
            f"rotation {self.median_deg:.2f}° median ({self.median_deg / self.bound_deg:.2f} × the "
            f"bound), {100 * self.lost:.1f} % lost; "
            f"{self.nats:.1f} nats an image within radius {EASY:g}"
        )


def own_symmetry(volume: Tensor) -> tuple[str, Tensor]:
    """Name and rotations (G, 3, 3) of the largest point group that a molecule (D, D, D) has."""
    for one in candidates(volume, CLIMBED):
        group, frame = symmetry_group(one.name).float(), one.frame.rotation
        upright = in_frame(volume[None], one.frame)
        alike = torch.cosine_similarity(upright.flatten(), symmetrised(upright, group).flatten(), 0)
        if (len(group) * float(alike) ** 2 - 1) / (len(group) - 1) > ALIKE:
            return one.name, frame @ group @ frame.T
    return "C1", torch.eye(3)[None]


def errors_deg(found: Tensor, truth: Tensor, group: Tensor) -> Tensor:
    """Angles (N,) between poses after one global rotation, of the hand with fewer lost poses.

    Parameters
    ----------
    found, truth
        (N, 3, 3).
    group
        (G, 3, 3) symmetry of the true map.
    """
    hands = (truth, group), (MIRROR @ truth @ MIRROR, MIRROR @ group @ MIRROR)
    both = [errors_of_hand(found, *hand) for hand in hands]
    return min(both, key=lambda angle: float((angle > LOST_DEG).float().mean()))


def errors_of_hand(found: Tensor, truth: Tensor, group: Tensor) -> Tensor:
    """Angles (N,) between poses of one hand, otherwise as :func:`errors_deg`."""
    change = group @ (truth.transpose(1, 2) @ found)[:, None]  # (N, G, 3, 3), all of them alike
    trace = torch.einsum("ij,mgij->mg", common_frame(change), change).amax(1)
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


def common_frame(change: Tensor) -> Tensor:
    """Mean (3, 3) of the rotations (N, G, 3, 3) that agree, the nearest of G of each."""
    near = 1 + 2 * math.cos(math.radians(LOST_DEG))
    some = change[:300, 0]
    alike = torch.einsum("nij,mgij->nmg", some, change[:1000]).amax(2)
    mean = some[(alike > near).sum(1).argmax()]
    for _ in range(10):
        trace, which = torch.einsum("ij,mgij->mg", mean, change).max(1)
        own = change[torch.arange(len(change)), which]
        u, _, v = torch.linalg.svd(own[trace > near].mean(0))
        mean = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(u @ v))])) @ v
    return mean


def at_truth(made: Projections, number: int, folder: Path, rows: np.ndarray) -> tuple[float, float]:
    """What some images of one molecule say at the true map and pose.

    Returns
    -------
    bound, nats
        Median error of rotation at the bound, degrees; log-likelihood ratio to no object within
        :data:`EASY` cycles a box, nats per image.
    """
    images, volume = _true(made, number, folder, rows[:400])
    rotation, shift = _truth(made)
    own = torch.from_numpy(rows[:400])
    flat = torch.cat([shift[own], torch.zeros(len(own), 1)], 1)
    zero, order = torch.zeros(len(own), dtype=torch.int64), torch.arange(len(own))
    found = []
    for limit in (LIMIT, EASY):
        data = images.coefficients(slice(None), limit, images.side)
        references = make_references(volume, float(data.radius[-1]), slopes=True)
        pose = order, zero, rotation[own], flat
        found.append(climb(data, references, *pose, steps=0, normalised=False))
    covariance = torch.linalg.inv(found[0].information[:, :5, :5].double())
    variance = covariance.diagonal(dim1=1, dim2=2)[:, :3].sum(1)
    bound = float(torch.rad2deg(variance.sqrt()).median()) * MEDIAN_OF_RMS
    return bound, float(found[1].score.mean())


def with_true_map(made: Projections, number: int, folder: Path, rows: np.ndarray) -> Tensor:
    """Rotations (M, 3, 3) of images of one molecule, searched with the true map and noise."""
    images, volume = _true(made, number, folder, rows)
    side, plan, asked = images.side, RefinePlan(), AbInitioSettings()
    every = slice(None)
    data = images.coefficients(every, plan.search_radius, side)
    shifts = disc(asked.max_shift * side * 1.2, FINENESS * side / plan.search_radius)
    grid = so3_grid(plan.rotations // 2).float()
    found = best_poses(data, volume, grid, shifts, plan.hypotheses, plan.apart_deg)
    data = images.coefficients(every, LIMIT, side)
    references = make_references(volume, float(data.radius[-1]), slopes=True)
    owner = torch.arange(len(images)).repeat_interleave(plan.hypotheses)
    flat = torch.cat([found.shift.flatten(0, 1), torch.zeros(len(owner), 1)], 1)
    start = found.class_index.flatten(), found.rotation.flatten(0, 1), flat
    top = climb(data, references, owner, *start, steps=3)
    best = top.score.view(-1, plan.hypotheses).argmax(1)
    return top.rotation.view(-1, plan.hypotheses, 3, 3)[torch.arange(len(best)), best]


def right_with_true_maps(made: Projections, count: int, folder: Path) -> list[float]:
    """Shares of images that are in the right class with the true maps of all molecules.

    Returns
    -------
    list of float
        At the true pose; and at the best pose near it in each class.
    """
    every = np.arange(made.settings.n)
    images = _true(made, 0, folder, every)[0]
    maps = torch.cat([_true(made, number, folder, every[:1])[1] for number in range(count)])
    data = images.coefficients(slice(None), LIMIT, images.side)
    references = make_references(maps, float(data.radius[-1]), slopes=True)
    owner, which = every.repeat(count), np.tile(np.arange(count), len(every))
    rotation, shift = _truth(made)
    at = rotation[owner], torch.cat([shift, torch.zeros(len(shift), 1)], 1)[owner]
    own, shares = made.truth["class"].to_numpy(), []
    for steps in (0, 3):
        place = torch.from_numpy(owner), torch.from_numpy(which)
        top = climb(data, references, *place, *at, steps=steps, normalised=False)
        best = top.score.view(-1, count).argmax(1).numpy()
        shares.append(float((best == own).mean()))
    return shares


def _true(
    made: Projections, number: int, folder: Path, rows: np.ndarray
) -> tuple[SearchImages, Tensor]:
    """Some images with the true noise, and the true map (1, D, D, D) of one molecule."""
    source = open_source(folder / "particles.star").subset(rows)
    images = read_images(Dataset(source, DataConfig(val_fraction=0), seed=0, ctf=True), LIMIT, True)
    volume = torch.from_numpy(made.volume(number)).float()[None] * math.sqrt(images.side)
    return images.with_noise(_noise(made.settings, len(images.noise))), volume


def _noise(settings: ProjectionSettings, shells: int) -> Tensor:
    """Power of the simulated noise by shell."""
    power = torch.from_numpy(noise_power(settings.box, settings.noise_spectrum)).flatten().float()
    plane = half_plane(settings.box)
    shell = plane.shell.clamp(max=shells - 1)
    total = torch.zeros(shells).index_add_(0, shell, power[plane.place])
    return total / torch.bincount(shell, minlength=shells)


def _truth(made: Projections) -> tuple[Tensor, Tensor]:
    names = [f"r{i}{j}" for i in range(3) for j in range(3)]
    rotation = torch.tensor(made.truth[names].to_numpy().reshape(-1, 3, 3)).float()
    return rotation, torch.tensor(made.truth[["shift_x", "shift_y"]].to_numpy()).float()


def molecules(files: Sequence[Path], states: int) -> list[Conformer]:
    """Return rigid molecules: those of files, or built-in states."""
    made = conformers_of_files(files, 12.0) if files else built_in_conformers(states)
    return [Conformer(one.name, one.molecule, None) for one in made]


def measure(
    kinds: list[Conformer],
    settings: ProjectionSettings,
    asked: AbInitioSettings,
) -> list[str]:
    """Simulate, find, compare; return lines of text."""
    made = simulate_projections(settings, kinds)
    classes = made.truth["class"].to_numpy() if "class" in made.truth else np.zeros(settings.n, int)
    real = np.ones(settings.n, bool)
    if "junk" in made.truth:
        real = made.truth["junk"].to_numpy() == "no"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_projections(made, folder)
        begun, used = time.perf_counter(), time.process_time()
        found = find_maps(open_source(folder / "particles.star"), folder / "maps", asked)
        took, used = time.perf_counter() - begun, time.process_time() - used
        lines = [*found.lines(), f"{used:.0f} processor seconds, {took:.0f} seconds"]
        index = found.refined.class_index.numpy()
        accuracy, matched = hungarian_accuracy(classes[real], index[real])
        if len(kinds) > 1:
            lines.append(f"{100 * accuracy:.1f} % in the right class")
        rotation, _ = _truth(made)
        for cluster, true in sorted(matched.items()):
            own = np.flatnonzero((classes == true) & (index == cluster) & real)
            every = np.flatnonzero((classes == true) & real)
            name, group = own_symmetry(torch.from_numpy(made.volume(int(true))).float())
            angle = errors_deg(found.refined.rotation[own], rotation[own], group)
            bound, nats = at_truth(made, int(true), folder, every)
            figures = Figures(
                kinds[int(true)].name,
                name,
                len(own),
                float(angle.median()),
                bound,
                float((angle > LOST_DEG).float().mean()),
                nats,
            )
            lines.append(figures.line())
    return lines


def measure_true_maps(kinds: list[Conformer], settings: ProjectionSettings) -> list[str]:
    """Simulate, search poses with the true maps, compare; return lines of text."""
    made = simulate_projections(settings, kinds)
    rotation, lines = _truth(made)[0], []
    with tempfile.TemporaryDirectory() as name:
        write_projections(made, Path(name))
        for number, kind in enumerate(kinds):
            own = made.truth["class"].to_numpy() == number if len(kinds) > 1 else slice(None)
            rows = np.arange(settings.n)[own]
            group = own_symmetry(torch.from_numpy(made.volume(number)).float())[1]
            angle = errors_deg(with_true_map(made, number, Path(name), rows), rotation[rows], group)
            lost = float((angle > LOST_DEG).float().mean())
            lines.append(
                f"{kind.name} with the true map: {len(rows)} images, rotation "
                f"{float(angle.median()):.2f}° median, {100 * lost:.1f} % lost"
            )
        if len(kinds) > 1:
            first, second = right_with_true_maps(made, len(kinds), Path(name))
            lines.append(
                f"with the true maps, {100 * first:.1f} % in the right class at the true poses, "
                f"{100 * second:.1f} % at the best pose near it in each class"
            )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("molecules", nargs="*", type=Path, metavar="PDB")
    parser.add_argument("--states", type=int, default=1, help="built-in states instead of files")
    parser.add_argument("--similar", action="store_true", help="find one map of all states first")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--pixel-size", type=float, default=2.5)
    parser.add_argument("--views", type=float, nargs=2, metavar=("SHARE", "DEGREES"))
    parser.add_argument("--junk", type=float, default=0.0)
    parser.add_argument("--contrast", type=float, default=0.0)
    parser.add_argument("--noise-spectrum", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--starts", type=int, default=AbInitioSettings.starts)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--true-map", action="store_true", help="search with the true map")
    told = parser.parse_args(arguments)
    print(machine.sentence())
    kinds = molecules(told.molecules, told.states)
    settings = ProjectionSettings(
        n=told.images,
        box=64,
        pixel_size=told.pixel_size,
        snr=told.snr,
        ctf=True,
        shift_std_px=1.75,
        views=None if told.views is None else tuple(told.views),
        junk=told.junk,
        contrast=told.contrast,
        noise_spectrum=told.noise_spectrum,
        seed=told.seed,
    )
    asked = AbInitioSettings(
        classes=len(kinds),
        similar=told.similar,
        starts=told.starts,
        symmetry=told.symmetry,
        seed=told.seed,
    )
    lines = measure_true_maps(kinds, settings) if told.true_map else measure(kinds, settings, asked)
    for line in lines:
        print(line)


if __name__ == "__main__":
    main()
