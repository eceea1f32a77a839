"""How often the symmetry of a molecule is found by ``modpose abinitio --symmetry auto``.

    python -m benchmarks.symmetries
    python -m benchmarks.symmetries --only C1 O I
    python -m benchmarks.symmetries --files C1=1igt.pdb D7=1oel.pdb

Simulates projections (64 pixels a side, CTF, shifts of 1.75 pixels) of molecules of known symmetry
and finds their maps.  Without files the molecules are copies of a random chain of blobs about the
axes of a group in a random frame; two of them lack a symmetry that they nearly have.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from modpose.data.source import open_source
from modpose.geometry.groups import symmetry_group
from modpose.geometry.rotations import haar_rotations
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.settings import AUTO, AbInitioSettings
from modpose.simulate.conformations import Conformer, built_in_conformers, conformers_of_files
from modpose.simulate.molecules import Molecule
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

BLOBS = 16
"""Of a chain."""
WIDTH = 5.0
"""Standard deviation of a blob, Å."""
REACH = 75.0
"""Distance of the chains from the centre, at most, Å."""


@dataclass(frozen=True)
class Case:
    """A molecule, and the point group that it has."""

    group: str
    conformer: Conformer


def assembly(group: str, seed: int, without: int = 0) -> Molecule:
    """Put copies of a random chain of blobs about the axes of a group in a random frame.

    Parameters
    ----------
    group
        Point group.
    seed
        Of the chain and the frame.
    without
        How many of the copies are left out; the molecule is then C1.
    """
    rng = np.random.default_rng(seed)
    turns = symmetry_group(group).numpy()
    radius = min(REACH, 14.0 * len(turns) ** 0.5)
    chain = np.cumsum(rng.normal(0, 4.5, (BLOBS, 3)), axis=0)
    place = np.array([0.75, 0.35, 0.56]) * radius
    chain = chain - chain.mean(0) + place
    turn = haar_rotations(1, torch.Generator().manual_seed(seed))[0].double().numpy()
    copies = [chain @ each.T for each in turns[: len(turns) - without]]
    centers = np.concatenate(copies) @ turn.T
    centers -= centers.mean(0)
    count = len(centers)
    still, axis = np.zeros(count, bool), np.array([0.0, 0.0, 1.0])
    return Molecule(centers, np.full(count, WIDTH), np.ones(count), still, np.zeros(3), axis)


def built_in_cases(seed: int) -> list[Case]:
    """Return three molecules without symmetry and one of each of nine groups."""
    hinged = built_in_conformers(1)[0].molecule
    cases = [Case("C1", Conformer("hinged", hinged))]
    for group in ("D3", "C5"):
        name = f"{group} without one of its chains"
        cases.append(Case("C1", Conformer(name, assembly(group, seed, without=1))))
    for group in ("C2", "C3", "C4", "C7", "D2", "D7", "T", "O", "I"):
        cases.append(Case(group, Conformer(f"assembly {group}", assembly(group, seed))))
    return cases


def cases_of_files(named: Sequence[str]) -> list[Case]:
    """Return molecules of files, each given as GROUP=FILE."""
    cases = []
    for one in named:
        group, _, path = one.partition("=")
        conformer = conformers_of_files([Path(path)], 12.0)[0]
        cases.append(Case(group.upper(), Conformer(conformer.name, conformer.molecule, None)))
    return cases


def settings_of(images: int, snr: float, pixel_size: float, seed: int) -> ProjectionSettings:
    """Return what all sets are simulated with."""
    return ProjectionSettings(
        n=images, box=64, pixel_size=pixel_size, snr=snr, ctf=True, shift_std_px=1.75, seed=seed
    )


def found_symmetry(case: Case, settings: ProjectionSettings, starts: int) -> tuple[str, list[str]]:
    """Simulate and search; return the group that was found, and what held-out images said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_projections(simulate_projections(settings, [case.conformer]), folder)
        asked = AbInitioSettings(starts=starts, symmetry=AUTO, seed=settings.seed)
        found = find_maps(open_source(folder / "particles.star"), None, asked, quiet=True)
    return found.symmetry, [one.sentence() for one in found.verdicts]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", nargs="+", metavar="GROUP=PDB")
    parser.add_argument("--only", nargs="+", metavar="GROUP")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--pixel-size", type=float, default=4.0)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    print(machine.sentence())
    settings = settings_of(told.images, told.snr, told.pixel_size, told.seed)
    cases = cases_of_files(told.files) if told.files else built_in_cases(told.seed)
    right, free, wrong = 0, 0, 0
    cases = [case for case in cases if told.only is None or case.group in told.only]
    for case in cases:
        used = time.process_time()
        name, said = found_symmetry(case, settings, told.starts)
        used = time.process_time() - used
        right += name == case.group
        free += case.group == "C1"
        wrong += case.group == "C1" and name != "C1"
        print(
            f"{case.group} ({case.conformer.name}): found {name}; {used:.0f} processor seconds",
            flush=True,
        )
        for sentence in said:
            print(f"    {sentence}")
    print(f"right {right} of {len(cases)}; C1 called symmetric {wrong} of {free}")


if __name__ == "__main__":
    main()
