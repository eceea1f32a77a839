"""Molecules with names, for sets of subtomograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.limits import check_whole
from modpose.simulate.atoms import Atoms, read_molecule
from modpose.simulate.blocks import Blocks
from modpose.simulate.molecules import Molecule, blob_assembly, hinged_molecule

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Species:
    """A molecule with a name.

    Attributes
    ----------
    name
        Its name in the truth.
    molecule
        Its density: blobs (with a hinge or without), atoms, or blocks.
    """

    name: str
    molecule: Molecule | Atoms | Blocks

    @property
    def hinged(self) -> bool:
        """Whether a part of it rotates."""
        return isinstance(self.molecule, Molecule) and bool(self.molecule.arm.any())

    @property
    def elongates(self) -> bool:
        """Whether it can be elongated."""
        return isinstance(self.molecule, Blocks)

    def radius(self, hinge_deg: Floats, elongation: float = 1.0) -> float:
        """Return the largest distance from the centre at these hinge angles, Å (2 σ).

        Parameters
        ----------
        hinge_deg
            Hinge angles, degrees.
        elongation
            Largest elongation of blocks.
        """
        if isinstance(self.molecule, Blocks):
            return self.molecule.stretched(elongation).radius()
        if isinstance(self.molecule, Atoms):
            return self.molecule.radius()
        return self.molecule.radius(hinge_deg)


def species_of_files(files: Sequence[str | Path], resolution: float) -> list[Species]:
    """Read molecules from PDB or mmCIF files at a resolution in Å, named after the files."""
    found = [Species(_stem(file), read_molecule(file, resolution)) for file in files]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError.of("subtomograms", "a molecule given twice", twice, "names that differ")
    return found


def built_in_species(count: int) -> list[Species]:
    """Return the first of the built-in assemblies of Gaussian blobs."""
    check_whole("subtomograms", "the number of molecules", count, 1, 1000)
    return [Species(f"assembly{i}", blob_assembly(i)) for i in range(count)]


def hinged_species() -> list[Species]:
    """Return the built-in molecule whose arm rotates about a hinge."""
    return [Species("hinged", hinged_molecule())]


def _stem(file: str | Path) -> str:
    name = Path(file).name
    for suffix in (".gz", ".pdb", ".cif", ".ent", ".mmcif"):
        name = name.removesuffix(suffix)
    return name
