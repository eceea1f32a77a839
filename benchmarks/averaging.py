"""How well and how fast subtomograms are aligned, against the truth and the Cramer-Rao bound.

    python -m benchmarks.averaging --molecules 4 --volumes 600 --snr 0.1 --seed 0
    python -m benchmarks.averaging --search

The first runs what ``modpose align`` runs on simulated volumes (28 voxels a side, tilts to 60
degrees, shifts to 2 voxels), from a random start.  The second measures the search alone, in
volumes times rotations per second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import machine
from modpose.evaluate.pose_bound import MEDIAN_OF_RMS, pose_bound
from modpose.evaluate.pose_recovery import PoseRecovery, recover_poses
from modpose.fourier.coefficients import Coefficients, coefficients_of, joined, white_noise
from modpose.fourier.reference import make_references
from modpose.geometry.groups import so3_grid
from modpose.memory import keep_freed_memory
from modpose.observe.wedge import wedge_mask
from modpose.search.alignment import AlignSettings
from modpose.search.run import align_subtomograms
from modpose.search.so3_search import search, shift_grid
from modpose.simulate.species import built_in_species, species_of_files
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import Subtomograms, simulate_subtomograms
from studies.common.volume_symmetry import volume_symmetry

BOUND_LIMIT = 0.45
"""Frequencies up to here enter the bound, cycles per voxel."""
HINGE_STOPS = 9
"""Angles of a hinge whose templates stand for all."""


def bounds_of(made: Subtomograms) -> list[float]:
    """Median error of rotation at the bound for each molecule, degrees."""
    classes = torch.tensor(made.truth["class"].to_numpy())
    found = []
    for number, template in enumerate(torch.from_numpy(made.templates())):
        bound = pose_bound(*_observed(made, classes == number, template))
        found.append(bound.angle_median_deg)
    return found


def hinge_bounds_of(made: Subtomograms, *, known: bool) -> float:
    """Median error of rotation at the bound of a hinged molecule, its hinge known or not."""
    hinge = torch.tensor(made.truth["hinge_deg"].to_numpy())
    stops = torch.linspace(float(hinge.min()), float(hinge.max()), HINGE_STOPS)
    nearest = (hinge[:, None] - stops).abs().argmin(1)
    angles = []
    for number, stop in enumerate(stops.tolist()):
        own = nearest == number
        before, here, after = (torch.from_numpy(made.templates(stop + k)[0]) for k in (-1, 0, 1))
        motions = None if known else (after - before)[None] / 2  # a degree
        angles.append(pose_bound(*_observed(made, own, here), motions).angle_rms_deg)
    return MEDIAN_OF_RMS * float(torch.cat(angles).median())


def _observed(
    made: Subtomograms, own: Tensor, template: Tensor
) -> tuple[Coefficients, Tensor, Tensor, Tensor]:
    """What a bound asks of some volumes: how they were seen, the template, their true poses."""
    box, count = made.settings.box, int(own.sum())
    mask = wedge_mask(torch.tensor([made.settings.tilt_range_deg]), (box,) * 3)
    volumes = torch.zeros(count, box, box, box)
    data = joined([coefficients_of(volumes, mask, white_noise(box, 1.0), BOUND_LIMIT)])
    entries = made.truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy()
    rotation = torch.tensor(entries, dtype=torch.float32).reshape(-1, 3, 3)
    shift = torch.tensor(made.truth[["shift_x", "shift_y", "shift_z"]].to_numpy()).float()
    return data, template, rotation[own], shift[own]


def measure(made: Subtomograms, settings: AlignSettings) -> tuple[PoseRecovery, float, float]:
    """Align; return the recovery, and seconds by the clock and of the processor."""
    source = made.source()
    with tempfile.TemporaryDirectory() as folder:
        clock, processor = time.perf_counter(), time.process_time()
        found = align_subtomograms(source, Path(folder) / "aligned", settings, quiet=True)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
    here = found.assignment
    symmetries = [volume_symmetry(torch.from_numpy(one)) for one in made.templates()]
    recovery = recover_poses(
        here.rotation, here.shift, here.class_index, made.truth, symmetries, bounds_of(made)
    )
    return recovery, clock, processor


def search_rate(box: int, limit: float, rotations: int, shifts: int) -> float:
    """Return volumes times rotations per second of the search on a grid."""
    made = simulate_subtomograms(SubtomogramSettings(n=32, box=box), built_in_species(1))
    mask = wedge_mask(torch.tensor([made.settings.tilt_range_deg]), (box,) * 3)
    volumes = torch.from_numpy(made.volumes())
    data = joined([coefficients_of(volumes, mask, white_noise(box, 1.0), limit)])
    references = make_references(torch.from_numpy(made.templates()), limit)
    grid, moves = so3_grid(rotations).float(), shift_grid(2.0, 4.0 / (shifts - 1))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        search(data, references, grid, moves)
        seconds.append(time.perf_counter() - start)
    print(
        f"{box}³, {len(data.frequency)} coefficients to {limit} cycles per voxel, "
        f"{rotations} rotations, {len(moves)} shifts: {32 * rotations / min(seconds):,.0f} "
        "volumes x rotations per second",
        flush=True,
    )
    return 32 * rotations / min(seconds)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.averaging", description=__doc__)
    parser.add_argument("--molecules", type=int, default=1)
    parser.add_argument("--pdb", type=Path, nargs="*", default=[], help="instead of assemblies")
    parser.add_argument("--resolution", type=float, default=15.0)
    parser.add_argument("--volumes", type=int, default=400)
    parser.add_argument("--box", type=int, default=28)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--max-shift", type=float, default=2.0, help="voxels along each axis")
    parser.add_argument("--abundance", type=float, nargs="*", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=AlignSettings.rounds)
    parser.add_argument("--rotations", type=int, default=AlignSettings.rotations)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--search", action="store_true", help="only the speed of the search")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print(machine.sentence(options.threads), flush=True)
    if options.search:
        for limit, shifts in ((0.10, 2), (0.15, 3), (0.25, 5)):
            search_rate(options.box, limit, options.rotations, shifts)
        return
    species = (
        species_of_files(options.pdb, options.resolution)
        if options.pdb
        else built_in_species(options.molecules)
    )
    made = simulate_subtomograms(
        SubtomogramSettings(
            n=options.volumes,
            box=options.box,
            snr=options.snr,
            max_shift_px=options.max_shift,
            seed=options.seed,
            abundances=None if options.abundance is None else tuple(options.abundance),
        ),
        species,
    )
    settings = AlignSettings(
        classes=len(species),
        seed=options.seed,
        rounds=options.rounds,
        rotations=options.rotations,
        max_shift_px=options.max_shift + 1,
    )
    recovery, clock, processor = measure(made, settings)
    many = "1 molecule" if len(species) == 1 else f"{len(species)} molecules"
    print(
        f"{many}, {made.n} volumes, SNR {options.snr:g}, seed {options.seed}: "
        f"{clock:.0f} s by the clock, {processor:.0f} s of one processor"
    )
    for line in recovery.lines():
        print(line)


if __name__ == "__main__":
    main()
