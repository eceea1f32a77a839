"""The sets of CryoBench (Jeon et al. 2024) from structures at hand, smaller, with true maps.

What differs from the published sets: 64 pixels of 6 Å instead of 128 of 3 Å, 10 Å density instead
of 3, the signal-to-noise ratio of the box given directly, other defocus values, 16 subsets of one
small subunit of a ribosome instead of assembly states of a large one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.simulate.atoms import AtomTable, read_atom_table
from modpose.simulate.conformations import Conformer, conformers_of_files
from modpose.simulate.molecules import Molecule, axis_rotations
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

Floats = NDArray[np.float64]

SIGMA = 2.25
"""Of an atom, Å: density at 10 Å."""
BEAD = 4.0
"""Of a residue, Å."""
STATES = 100
"""Conformations of the antibody, as published."""
ARM, HINGE = "A,B:1-235", "B:236"
"""Of IgG-1D: one Fab and the residue about which it turns."""
CHAIN, LIGHT, LINKER = "B", "A", (213, 244)
"""Of IgG-RL: the heavy chain, the light chain that goes with its Fab, the flexible residues."""
APART = 4.0
"""Smallest distance between C-alpha atoms of the Fab and of the rest, Å."""
FURTHEST = 185.0
"""Largest distance of an atom from the centre, Å, so that the molecule stays in the box."""
TRIES = 20_000
SUBSETS = 16
"""Of the ribosome: the RNA with 5 to 20 of its proteins."""


@dataclass(frozen=True)
class BenchSet:
    """A set: what it is made from.

    Attributes
    ----------
    structure
        File in the folder of structures.
    conformers
        Makes the states from that file.
    """

    structure: str
    conformers: Callable[[Path], list[Conformer]]


def still(name: str, centers: Floats, masses: Floats, sigma: float = SIGMA) -> Conformer:
    """Return a conformer that does not move."""
    m = len(masses)
    axis = np.array([0.0, 0.0, 1.0])
    body = Molecule(centers, np.full(m, sigma), masses, np.zeros(m, bool), np.zeros(3), axis)
    return Conformer(name, body)


def turned_arms(structure: Path) -> list[Conformer]:
    """IgG-1D: one Fab at 100 angles about its hinge."""
    (one,) = conformers_of_files([structure], SIGMA / 0.225, ARM, HINGE)
    angles = np.linspace(0.0, 360.0, STATES, endpoint=False)
    return [
        still(f"angle-{k:02d}", one.molecule.conformations(angles[[k]])[0], one.molecule.masses)
        for k in range(STATES)
    ]


def random_linkers(structure: Path) -> list[Conformer]:
    """IgG-RL: 100 random shapes of the linker of one Fab.

    Every backbone torsion of the linker is turned by a random angle; a shape is kept if the Fab
    hits nothing and stays in the box.  Clashes of the linker with itself are not looked for.
    """
    table = read_atom_table(structure, assembly=False).centred()
    heavy = table.chain == CHAIN
    fab = (table.chain == LIGHT) | (heavy & (table.residue < LINKER[0]))
    rest = ~fab & ~(heavy & (table.residue <= LINKER[1]))
    alphas = _second_atoms(table)
    far = table.positions[rest & alphas]
    rng = np.random.default_rng(0)
    found: list[Conformer] = []
    for _ in range(TRIES):
        moves = _moves(table, rng)
        turn, shift = moves[-1][1:]
        placed = table.positions[fab] @ turn.T + shift
        apart = np.linalg.norm(placed[alphas[fab]][:, None] - far, axis=-1).min()
        if apart >= APART and np.linalg.norm(placed, axis=1).max() <= FURTHEST:
            found.append(still(f"linker-{len(found):02d}", _bent(table, fab, moves), table.masses))
        if len(found) == STATES:
            return found
    raise InputError.of(structure, "shapes of the linker", len(found), f"{STATES} without clashes")


def _second_atoms(table: AtomTable) -> NDArray[np.bool_]:
    """Mark the second atom of each residue, the C-alpha of an amino acid."""
    first = (np.diff(table.residue) != 0) | (table.chain[1:] != table.chain[:-1])
    return np.concatenate([[False, True], first[:-1]])


Move = tuple[int, Floats, Floats]
"""A residue, and the rotation (3, 3) and shift (3,) of all that comes before it in its chain."""


def _moves(table: AtomTable, rng: np.random.Generator) -> list[Move]:
    """Turn about the bonds N-CA and CA-C of each residue of the linker, from the Fab's end.

    A bond further from the Fab is where it was, so the turns about it follow those before.
    """
    turn, shift = np.eye(3), np.zeros(3)
    moves = []
    for number in range(LINKER[0], LINKER[1] + 1):
        atoms = table.positions[(table.chain == CHAIN) & (table.residue == number)]
        for k in (0, 1) if len(atoms) else ():
            axis = (atoms[k + 1] - atoms[k]) / np.linalg.norm(atoms[k + 1] - atoms[k])
            one = axis_rotations(axis, rng.uniform(-180, 180, 1))[0]
            turn, shift = one @ turn, one @ (shift - atoms[k]) + atoms[k]
        moves.append((number, turn, shift))
    return moves


def _bent(table: AtomTable, fab: NDArray[np.bool_], moves: list[Move]) -> Floats:
    """Return all positions (M, 3): residue r of the linker moves by the turns beyond it."""
    places, (_, whole, shift) = table.positions.copy(), moves[-1]
    places[fab] = places[fab] @ whole.T + shift
    for number, turn, moved in moves:
        rows = (table.chain == CHAIN) & (table.residue == number)
        beyond = whole @ turn.T  # the turns that come after this residue's own
        places[rows] = (places[rows] - moved) @ beyond.T + shift
    return places


def subsets(structure: Path) -> list[Conformer]:
    """Ribosembly: the RNA of a small subunit with 5 to 20 of its proteins, largest first.

    Each residue is one Gaussian, so that 52,000 atoms are simulated in a minute.
    """
    table = _residues(read_atom_table(structure, assembly=False).centred())
    chains, sizes = np.unique(table.chain, return_counts=True)
    ordered = chains[np.argsort(-sizes, kind="stable")]
    made = []
    for k in range(SUBSETS):
        kept = np.isin(table.chain, ordered[: len(ordered) - SUBSETS + 1 + k])
        made.append(still(f"state-{k:02d}", table.positions[kept], table.masses[kept], BEAD))
    return made


def _residues(table: AtomTable) -> AtomTable:
    """Return each residue as one atom in its centre of mass."""
    first = (np.diff(table.residue) != 0) | (table.chain[1:] != table.chain[:-1])
    number = np.concatenate([[0], np.cumsum(first)])
    masses = np.asarray(np.bincount(number, table.masses), float)
    centers = [np.bincount(number, table.masses * axis) / masses for axis in table.positions.T]
    starts = np.concatenate([[0], np.flatnonzero(first) + 1])
    return AtomTable(np.stack(centers, 1), masses, table.chain[starts], table.residue[starts])


SETS = {
    "igg-1d": BenchSet("1igt.pdb", turned_arms),
    "igg-rl": BenchSet("1igt.pdb", random_linkers),
    "ribosembly": BenchSet("4v4r_30S.pdb.gz", subsets),
}


def prepare(name: str, structures: Path, folder: Path, images: int, seed: int) -> Path:
    """Simulate a set, unless the folder has it; return the table.

    Images are 64 pixels of 6 Å, with a CTF, exact poses and a signal-to-noise ratio of 0.1; the
    true map of each state is in ``maps/``.
    """
    star = folder / "particles.star"
    if star.is_file():
        return star
    chosen = SETS[name]
    path = structures / chosen.structure
    if not path.is_file():
        raise InputError(f"{path}: there is no such file, expected the structure of {name}")
    settings = ProjectionSettings(n=images, box=64, pixel_size=6.0, snr=0.1, ctf=True, seed=seed)
    made = simulate_projections(settings, chosen.conformers(path))
    return write_projections(made, folder, 1)
