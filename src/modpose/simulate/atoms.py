"""Molecules as Gaussians, one per atom, read from files of coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.limits import check_resolution
from modpose.simulate.coordinate_files import check_coordinate_file

if TYPE_CHECKING:
    pass

Floats = NDArray[np.float64]

UNKNOWN = 0.02
"""Largest fraction of atoms with an unknown element that is ignored without a warning."""
ELECTRONS = {"H": 1, "D": 1, "C": 6, "N": 7, "O": 8, "P": 15, "S": 16}
"""By the first letter of an atom's name, for files without a column of elements."""
MOST_OCCUPIED = 100.0
"""A larger occupancy of an atom is an error."""
FARTHEST = 1e6
"""An atom farther from the origin than this, in Å, is an error."""

WATER = ("HOH", "WAT", "DOD")


@dataclass(frozen=True)
class Atoms:
    """A density as a sum of Gaussians of one width.

    Attributes
    ----------
    positions
        (M, 3) positions (x, y, z), Å, about the centre of mass.
    masses
        (M,) integral of each Gaussian.
    sigma
        Their standard deviation, Å.
    """

    positions: Floats
    masses: Floats
    sigma: float

    def radius(self) -> float:
        """Return the largest distance from the centre, Å (2 σ)."""
        return float(np.linalg.norm(self.positions, axis=1).max() + 2 * self.sigma)


def read_molecule(path: str | Path, resolution: float = 15.0, assembly: bool = True) -> Atoms:
    """Read all atoms except hydrogen and water; their mass is the number of electrons.

    Parameters
    ----------
    path
        PDB or mmCIF, gzipped or not; only the first model is read.
    resolution
        Å; the standard deviation of the Gaussians is 0.225 × resolution (Chimera's molmap).
    assembly
        Build the first biological assembly if the file describes one (for GroEL, fourteen subunits
        from seven).

    Raises
    ------
    InputError
        If the file cannot be read or has no atoms.
    """
    check_resolution("views", resolution)
    table = read_atom_table(Path(path), assembly).centred()
    return Atoms(table.positions, table.masses, 0.225 * resolution)


@dataclass(frozen=True)
class AtomTable:
    """The atoms of a file.

    Attributes
    ----------
    positions
        (M, 3) positions (x, y, z), Å.
    masses
        (M,) numbers of electrons, times the occupancy.
    chain, residue
        (M,) name of the chain, number of the residue.
    """

    positions: Floats
    masses: Floats
    chain: NDArray[np.str_]
    residue: NDArray[np.int64]

    def moved(self, positions: Floats) -> AtomTable:
        """Return the same atoms at other positions."""
        return replace(self, positions=positions)

    def centred(self) -> AtomTable:
        """Move the centre of mass to the origin."""
        return self.moved(self.positions - self.masses @ self.positions / self.masses.sum())

    def same_atoms(self, other: AtomTable) -> bool:
        """Return whether two tables list the same atoms in the same order, at any positions."""
        return np.array_equal(self.masses, other.masses) and np.array_equal(
            self.residue, other.residue
        )


def read_atom_table(path: Path, assembly: bool = True) -> AtomTable:
    """Read atoms with their chains and residues; see :func:`read_molecule`."""
    import gemmi

    check_coordinate_file(path)
    try:
        structure = gemmi.read_structure(str(path))
        atoms = _listed_atoms(path, structure, assembly)
    except InputError:
        raise
    except (RuntimeError, ValueError, IndexError, OSError, OverflowError):
        raise InputError(f"{path}: not readable as coordinates, PDB or mmCIF") from None
    return _checked(path, atoms)


AtomRow = tuple[Any, int, str, int]
"""A gemmi atom, the number of its residue, the name of its chain, its electrons."""


def _listed_atoms(path: Path, structure: Any, assembly: bool) -> list[AtomRow]:
    """List all atoms but those of hydrogen and water."""
    import gemmi

    if len(structure) == 0 or not structure[0].count_atom_sites():
        raise InputError(f"{path}: the file has no atoms")
    model = structure[0]
    if assembly and len(structure.assemblies):
        naming = gemmi.HowToNameCopiedChain.Short
        try:
            model = gemmi.make_assembly(structure.assemblies[0], model, naming)
        except (RuntimeError, IndexError):
            raise InputError(f"{path}: its assembly cannot be built") from None
    atoms = [
        (atom, residue.seqid.num or 0, chain.name, _electrons(atom, residue.name))
        for chain in model
        for residue in chain
        for atom in residue
        if residue.name not in WATER
    ]
    return [row for row in atoms if row[3] != 1]


def _checked(path: Path, atoms: list[AtomRow]) -> AtomTable:
    """Make a table of the atoms; refuse impossible elements, occupancies or positions."""
    unknown = [row for row in atoms if row[3] == 0]
    if len(unknown) > UNKNOWN * len(atoms):
        atom, number, chain_name, _ = unknown[0]
        where = f"the element of atom {atom.name}, residue {number}, chain {chain_name}"
        raise InputError.of(path, where, "unknown", "one of the periodic table")
    strange = next((row[0].occ for row in atoms if not 0 <= row[0].occ <= MOST_OCCUPIED), None)
    if strange is not None:
        raise InputError.of(path, "an occupancy", f"{strange:g}", "a number from 0 to 1")
    atoms = [row for row in atoms if row[0].occ * row[3] > 0]
    if not atoms:
        raise InputError(f"{path}: the file has no atoms")
    positions = np.array([atom.pos.tolist() for atom, *_ in atoms], float)
    if not (np.abs(positions) < FARTHEST).all():
        raise InputError(f"{path}: a coordinate is not a finite number below {FARTHEST:,.0f} Å")
    masses = np.array([atom.occ * electrons for atom, *_, electrons in atoms], float)
    residue = np.array([number for _, number, *_ in atoms], np.int64)
    return AtomTable(positions, masses, np.array([name for *_, name, _ in atoms]), residue)


def _electrons(atom: Any, residue: str) -> int:
    """Number of electrons of an atom; 0 if its element is unknown.

    In standard residues the first letter of the atom's name is the element.  Otherwise, without
    a column of elements, HG would be mercury and CB unknown.
    """
    import gemmi

    if gemmi.find_tabulated_residue(residue).is_standard():
        letter = atom.name.lstrip("0123456789")[:1]
        if letter in ELECTRONS:
            return ELECTRONS[letter]
    return int(atom.element.atomic_number)
