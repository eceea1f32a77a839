"""How well and how fast particles of tilt series are found without poses, against truth and bound.

    python -m benchmarks.tilt_series --molecules 4 --particles 150
    python -m benchmarks.tilt_series --molecules 4 --particles 150 --through images volumes
    python -m benchmarks.tilt_series --real optimisation_set.star [--map map.mrc [--mirror]]
    python -m benchmarks.tilt_series --real optimisation_set.star --map map.mrc --hand 4v4r_30S.pdb

Runs what ``modpose abinitio`` runs, on simulated tilt series (32 pixels a side, 41 tilts to 60
degrees, CTF and dose for each).  ``--through`` says what is searched, in the same data and with
the same seed: the images; ``volumes``, as ``modpose fit`` makes them of tilt series, with their
weights; or ``lattice``, the images summed on a lattice with exact weights.  Errors are after one
global rotation, never after a reflection; the bound is that of Cramer and Rao at the true map and
pose.  With ``--real``, poses are compared with those of a table; the first lines say how many poses
are lost with averages of other particles, and of simulated images that tell as much.  The map
beside the forty public ribosomes is the mirror image of what their poses make, so a search that
starts from it needs ``--mirror``.  ``--hand`` searches nothing.  It compares the map that the poses
of the table make, and the one that is given, with a molecule and with its mirror image.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.abinitio import LOST_DEG
from modpose.data.mrc import open_mrc
from modpose.data.opened import source_of
from modpose.data.tilt_series import TiltSeries, open_tilt_series
from modpose.data.tilt_volumes import of_tilt_series
from modpose.data.wedges import open_wedges
from modpose.evaluate.metrics import hungarian_accuracy
from modpose.evaluate.pose_bound import pose_bound
from modpose.evaluate.pose_recovery import recover_poses
from modpose.fourier.coefficients import Coefficients, map_coefficients
from modpose.fourier.fsc import fsc_of_classes, ssnr_of
from modpose.fourier.gridded import gridded
from modpose.fourier.insertion import FourierSums, averages, insert_slices
from modpose.fourier.reference import make_references
from modpose.geometry.grids import soft_sphere
from modpose.geometry.groups import grid_spacing, so3_grid
from modpose.geometry.rotations import geodesic
from modpose.jobs.hand import flip_hand
from modpose.search.abinitio.found import FoundMaps
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.abinitio.shells import weighted_by_shell
from modpose.search.alignment import AlignSettings
from modpose.search.motion import power_of
from modpose.search.pipeline import align
from modpose.search.run import coefficients_of_source
from modpose.search.so3_climb import climb, predicted
from modpose.search.so3_search import search, shift_grid
from modpose.search.tilts.background import without_background
from modpose.search.tilts.images import read_tilts
from modpose.search.tilts.run import FROM_MAP, find_tilt_maps
from modpose.simulate.atoms import read_molecule
from modpose.simulate.density import AtomDensity
from modpose.simulate.molecules import Molecule, density
from modpose.simulate.species import built_in_species
from modpose.simulate.tilt_settings import TiltSettings
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import SimulatedTilts, simulate_tilts

BOUND_LIMIT = 0.45
"""Frequencies up to here enter the bound, cycles per pixel."""
WAYS = ("images", "volumes", "lattice")
"""What is searched."""
TRIED = 30
"""Poses of one map in another that are climbed."""
FOLDS = 8
"""Parts of real particles; each is compared with the average of the others."""
OFF_CENTRE = 5.0
"""Largest shift of a molecule that is a part of what is seen, voxels."""
COMPARED, HAND_LIMIT = 0.2, 0.35
"""Maps are compared up to here, cycles per voxel; to tell the hand of real ones, up to here."""


def template(made: SimulatedTilts, number: int) -> Tensor:
    """Return a molecule upright, (1, D, D, D), in a unit of its own."""
    molecule, box = made.species[number].molecule, made.settings.box
    assert isinstance(molecule, Molecule)
    upright = density(
        molecule.conformations(np.zeros(1)),
        molecule.sigmas,
        molecule.masses,
        np.eye(3)[None],
        np.zeros((1, 3)),
        box,
        made.settings.pixel_size,
    )
    return torch.from_numpy(np.asarray(upright, np.float32))


def bounds(made: SimulatedTilts, series: TiltSeries) -> list[float]:
    """Median error of rotation at the bound of each molecule, degrees."""
    box = made.settings.box
    every = read_tilts(series, BOUND_LIMIT * box, quiet=True).coefficients(BOUND_LIMIT * box, box)
    classes = torch.tensor(made.truth["class"].to_numpy())
    found = []
    for number in range(len(made.species)):
        own = (classes == number).nonzero().squeeze(1)
        data, volume = every.rows(own), template(made, number)
        rotation, shift = (
            torch.tensor(x).float()[own] for x in (made.rotation, np.array(made.shift))
        )
        references = make_references(volume, float(data.radius[-1]), slopes=True)
        owner, zero = torch.arange(len(own)), torch.zeros(len(own), dtype=torch.int64)
        top = climb(data, references, owner, zero, rotation, shift, steps=0)
        bound = pose_bound(data, volume[0] * top.amplitude.mean(), rotation, shift)
        found.append(bound.angle_median_deg)
    return found


def correlation(
    volume: Tensor, other: Tensor, limit: float = COMPARED, reach: float = 2.0
) -> float:
    """Best correlation of two maps (D, D, D) at any rotation and shift up to so many voxels."""
    plain = make_references(other[None], COMPARED)
    low, grid = map_coefficients(volume[None], COMPARED), so3_grid(4608).float()
    found = search(low, plain, grid, shift_grid(reach, 1.0), top=TRIED)
    seen, sloped = (
        map_coefficients(volume[None], limit),
        make_references(other[None], limit, slopes=True),
    )
    zero = torch.zeros(TRIED, dtype=torch.int64)
    top = climb(seen, sloped, zero, zero, found.rotation[0, 0], found.shift[0, 0], steps=8)
    return float((2 * top.score.max()).sqrt() / (2 * seen.value.abs().square().sum()).sqrt())


def hands(made: SimulatedTilts, maps: Tensor, class_index: Tensor) -> list[str]:
    """Compare each map with its molecule and with the mirror image of it."""
    truth = made.truth["class"].to_numpy()
    _, matched = hungarian_accuracy(truth, class_index.numpy())
    lines = []
    for cluster, true in sorted(matched.items()):
        upright = template(made, int(true))[0]
        own = correlation(maps[int(cluster)], upright)
        other = correlation(maps[int(cluster)], upright.flip(0).contiguous())
        right = "right" if own > other else "WRONG"
        lines.append(
            f"map {cluster + 1}: correlation with the true map {own:.3f}, with its mirror image "
            f"{other:.3f}: the hand is {right}"
        )
    return lines


def as_volumes(
    series: TiltSeries, settings: AbInitioSettings, box: int, lattice: bool
) -> FoundLike:
    """Search particles as back-projected volumes, or as their images summed on a lattice."""
    asked = AlignSettings(
        classes=settings.classes,
        max_shift_px=settings.max_shift * box,
        mask_diameter_px=settings.diameter * box,
        seed=settings.seed,
    )
    if lattice:
        radius = asked.schedule.refine_limit * box
        data = read_tilts(series, radius, quiet=True).coefficients(radius, box)
        data = gridded(without_background(data))
    else:
        source = source_of(of_tilt_series(series))
        data = coefficients_of_source(source, open_wedges(source, shape=(box,) * 3), asked)
    found = align(data, asked, quiet=True)
    here = found.assignment
    return here.rotation, here.shift, here.class_index, found.maps.combined


FoundLike = tuple[Tensor, Tensor, Tensor, Tensor]
"""Rotations, shifts in pixels, classes, maps."""


def _parts(found: FoundMaps) -> FoundLike:
    rotation, shift = (torch.from_numpy(part) for part in found.poses)
    return rotation, shift, found.refined.class_index, found.refined.maps


def measure(
    settings: TiltSettings, molecules: int, starts: int, through: Sequence[str]
) -> Iterator[str]:
    """Simulate, find, compare; yield lines of text."""
    made = simulate_tilts(settings, built_in_species(molecules))
    with tempfile.TemporaryDirectory() as name:
        series = open_tilt_series(write_tilts(made, Path(name) / "tilts", poses=False))
        asked = AbInitioSettings(classes=molecules, starts=starts, seed=settings.seed)
        known = bounds(made, series)
        for way in through:
            used = time.process_time()
            if way == "images":
                found = _parts(find_tilt_maps(series, None, asked))
            else:
                found = as_volumes(series, asked, settings.box, way == "lattice")
            yield f"{way}: {time.process_time() - used:.0f} processor seconds"
            rotation, shift, class_index, maps = found
            recovery = recover_poses(rotation, shift, class_index, made.truth, bounds=known)
            yield from recovery.lines()
            times = [one.times_bound for one in recovery.classes]
            yield f"mean of the medians: {np.mean(times):.2f} × the bound"
            yield from hands(made, maps, class_index)


def preferred(series: TiltSeries) -> Iterator[str]:
    """Say whether images prefer the poses of the table, or those that a search finds.

    Each particle is compared with the average of others at the poses of the table.  The same is
    said of simulated images, noise and the average of all at these poses, searched with it.
    """
    assert series.rotation is not None
    assert series.shift is not None
    box, limit = series.images.stack.shape[0], FROM_MAP.refine_limit
    data = without_background(
        read_tilts(series, limit * box, quiet=True).coefficients(limit * box, box)
    )
    rotation, shift = (torch.from_numpy(part).float() for part in (series.rotation, series.shift))
    fold = torch.arange(series.n) % FOLDS
    sums, mask = insert_slices(data, fold, FOLDS, rotation, shift), soft_sphere(box, 0.9 * box)
    first, second = (averages(_joined(sums, range(side, FOLDS, 2)), box, mask) for side in (0, 1))
    ratio = ssnr_of(fsc_of_classes(first, second), halved=True)
    whole = _joined(sums, range(FOLDS))
    others = sums._replace(value=whole.value - sums.value, weight=whole.weight - sums.weight)
    maps = averages(others, box, mask, ratio.expand(FOLDS, -1))
    yield f"with averages of others: {_far(data, maps, fold, rotation, shift)}"
    average = averages(whole, box, mask, ratio)
    model, _ = predicted(
        data, make_references(average, limit, slopes=True), 0 * fold, rotation, shift
    )
    real, imaginary = (model / 2**0.5).chunk(2, dim=1)
    value = torch.complex(real, imaginary)
    value += torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(0))
    made = replace(data, value=value)
    yield f"simulated, with the true map: {_far(made, average, 0 * fold, rotation, shift)}"


def _joined(sums: FourierSums, slots: range) -> FourierSums:
    value, weight = (part[list(slots)].sum(0, keepdim=True) for part in (sums.value, sums.weight))
    return sums._replace(value=value, weight=weight)


def _far(data: Coefficients, maps: Tensor, which: Tensor, rotation: Tensor, shift: Tensor) -> str:
    """Search N particles with one of some maps each; compare with their poses in the table."""
    tried, row = 2 * FROM_MAP.hypotheses, torch.arange(len(data))
    references = make_references(maps, data.limit, slopes=True)
    own = climb(data, references, row, which, rotation, shift, steps=5)
    coarse = gridded(data.within(FROM_MAP.grid_limit))
    grid, shifts = so3_grid(FROM_MAP.rotations).float(), shift_grid(3.0, 1.0)
    apart = 1.5 * grid_spacing(FROM_MAP.rotations)
    gain, far = torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.bool)
    for number in range(len(maps)):
        some = (which == number).nonzero().squeeze(1)
        low = make_references(maps[number : number + 1], coarse.limit)
        found = search(coarse.rows(some), low, grid, shifts, top=tried, apart=apart)
        rows = some.repeat_interleave(tried)
        starts = found.rotation.reshape(-1, 3, 3), found.shift.reshape(-1, 3)
        top = climb(data, references, rows, which[rows], *starts, steps=5)
        score, place = top.score.view(len(some), tried).max(1)
        place += tried * torch.arange(len(some))
        gain[some] = score - own.score[some]
        far[some] = geodesic(top.rotation[place], rotation[some]) > np.deg2rad(LOST_DEG)
    said = (
        f"{int(far.sum())} of {len(data)} poses found are more than {LOST_DEG:g}° from those of "
        f"the table, which explain {float(own.score.mean()):.1f} nats (mean)"
    )
    if not far.any():
        return said
    return (
        f"{said}; {int((gain[far] > 0).sum())} of these are more likely than the table's, by "
        f"{float(gain[far].median()):.1f} nats (median)"
    )


def known_hand(path: Path, start_map: Path | None, molecule: Path) -> Iterator[str]:
    """Compare the map at the poses of a table, and a given map, with a molecule and its mirror."""
    series = open_tilt_series(path)
    assert series.rotation is not None
    assert series.shift is not None
    box, size = series.images.stack.shape[0], series.images.pixel_size
    assert size is not None
    radius = HAND_LIMIT * box
    data = without_background(read_tilts(series, radius, quiet=True).coefficients(radius, box))
    poses = (torch.from_numpy(part).float() for part in (series.rotation, series.shift))
    zero = torch.zeros(series.n, dtype=torch.int64)
    average = averages(insert_slices(data, zero, 1, *poses), box, soft_sphere(box, box - 2.0))[0]
    every = {"the map at the poses of the table": average}
    if start_map is not None:
        every["the map that is given"] = _read(start_map)
    atoms = AtomDensity(read_molecule(molecule, 2 * size))
    known = torch.from_numpy(atoms.place(np.eye(3), np.zeros(3), box, size))
    mirrored = known.flip(0).roll(1, 0).contiguous()
    for name, one in every.items():
        own, other = (
            correlation(_flat(one), _flat(each), HAND_LIMIT, OFF_CENTRE)
            for each in (known, mirrored)
        )
        yield f"{name}: correlation with the molecule {own:.3f}, with its mirror image {other:.3f}"


def _read(path: Path) -> Tensor:
    return torch.from_numpy(
        np.array(open_mrc(path, "volumes").read(np.array([0]))[0, 0], np.float32)
    )


def _flat(volume: Tensor) -> Tensor:
    """Give the shells of a map (D, D, D), from the second to the limit, the same power."""
    power = power_of(volume[None])[0]
    shell = torch.arange(len(power))
    counted = (shell >= 2) & (shell <= HAND_LIMIT * volume.shape[-1])
    weight = torch.where(counted, power.clamp(min=1e-12).rsqrt(), 0.0)
    return weighted_by_shell(volume[None], weight)[0]


def measure_real(
    path: Path, start_map: Path | None, mirror: bool, starts: int, seed: int
) -> list[str]:
    """Find poses of real particles, and compare them with those of their table."""
    series = open_tilt_series(path)
    assert series.rotation is not None
    assert series.shift is not None
    asked = AbInitioSettings(starts=starts, seed=seed)
    lines = list(preferred(series))
    with tempfile.TemporaryDirectory() as name:
        if start_map is not None and mirror:
            start_map = flip_hand([start_map], Path(name))[0]
        used = time.process_time()
        found = find_tilt_maps(series, None, asked, start_map=start_map)
        used = time.process_time() - used
    entries = {f"r{i}{j}": series.rotation[:, i, j] for i in range(3) for j in range(3)}
    entries |= {f"shift_{axis}": series.shift[:, k] for k, axis in enumerate("xyz")}
    rotation, shift, class_index, _ = _parts(found)
    recovery = recover_poses(rotation, shift, class_index, pd.DataFrame(entries))
    return [*lines, *found.lines(), f"{used:.0f} processor seconds", *recovery.lines()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--molecules", type=int, default=4)
    parser.add_argument("--particles", type=int, default=150, help="of each molecule")
    parser.add_argument("--tilts", type=int, default=TiltSettings.tilts)
    parser.add_argument("--snr", type=float, default=TiltSettings.snr)
    parser.add_argument("--premultiplied", action="store_true")
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--through", nargs="+", choices=WAYS, default=WAYS[:1])
    parser.add_argument("--real", type=Path, metavar="STAR")
    parser.add_argument("--map", type=Path, metavar="MRC", help="start of --real")
    parser.add_argument("--mirror", action="store_true", help="start from its mirror image")
    parser.add_argument("--hand", type=Path, metavar="PDB", help="of a molecule in --real")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine.sentence(1), flush=True)
    if asked.real is not None and asked.hand is not None:
        lines = known_hand(asked.real, asked.map, asked.hand)
    elif asked.real is not None:
        lines = iter(measure_real(asked.real, asked.map, asked.mirror, asked.starts, asked.seed))
    else:
        settings = TiltSettings(
            n=asked.molecules * asked.particles,
            tilts=asked.tilts,
            snr=asked.snr,
            premultiplied=asked.premultiplied,
            seed=asked.seed,
        )
        lines = measure(settings, asked.molecules, asked.starts, asked.through)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
