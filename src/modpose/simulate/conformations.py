"""Molecules that move: an arm about a hinge, or from one structure to another.

Anything with ``sigmas``, ``masses``, ``conformations(hinge_deg)`` and ``radius(hinge_deg)`` can be
simulated: the blobs (or atoms) of :mod:`modpose.simulate.molecules`, and :class:`Morph`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.limits import check_resolution
from modpose.simulate.atoms import AtomTable, read_atom_table
from modpose.simulate.molecules import Molecule, axis_rotations, hinged_molecule

Floats = NDArray[np.float64]

MOVED = 3.0
"""A residue counts as moved if it moves by more than this, Å."""
RUN = 8
"""Smallest number of consecutive residues that move as one body."""
WIDTH = 0.225
"""Standard deviation of an atom, as a fraction of the resolution (Chimera's molmap)."""


class Moving(Protocol):
    """A molecule of Gaussians whose positions depend on one angle."""

    @property
    def sigmas(self) -> Floats:
        """(M,) standard deviations, Å."""

    @property
    def masses(self) -> Floats:
        """(M,) integrals."""

    def conformations(self, hinge_deg: Floats) -> Floats:
        """(N, M, 3) positions, Å, at (N,) angles."""

    def radius(self, hinge_deg: Floats) -> float:
        """Largest distance from the origin, Å."""


@dataclass(frozen=True)
class Conformer:
    """A molecule with a name: one class of a mixture.

    Attributes
    ----------
    name
        Its name in the truth.
    molecule
        Its density at every hinge angle.
    hinge_range_deg
        Default range of the angle; None if nothing moves.
    """

    name: str
    molecule: Moving
    hinge_range_deg: tuple[float, float] | None = None


# --- built in ---------------------------------------------------------------------------------


def built_in_conformers(states: int) -> list[Conformer]:
    """Return states of the built-in hinged molecule, in one frame.

    The states are: whole; without the toe; with one more lobe at its head; without knob and toe.

    Parameters
    ----------
    states
        1 to 4.
    """
    whole = hinged_molecule()
    if not 1 <= states <= 4:
        raise InputError.of("projections", "the number of built-in states", states, "1 to 4")
    x, y, _ = whole.centers.T
    toe, knob = ~whole.arm & (y < -36.0), ~whole.arm & (x < -26.0) & (y > 4.0)
    lobe = np.array([4.0, 30.0, 24.0]) + (whole.centers[knob] - whole.centers[knob].mean(0)) * 1.2
    more = Molecule(
        centers=np.concatenate([whole.centers, lobe]),
        sigmas=np.concatenate([whole.sigmas, whole.sigmas[knob]]),
        masses=np.concatenate([whole.masses, 1.5 * whole.masses[knob]]),
        arm=np.concatenate([whole.arm, np.zeros(len(lobe), bool)]),
        hinge=whole.hinge,
        axis=whole.axis,
    )
    all_states = [
        Conformer("whole", whole),
        Conformer("without-toe", _part(whole, ~toe)),
        Conformer("one-more-lobe", more),
        Conformer("without-knob-and-toe", _part(whole, ~(toe | knob))),
    ]
    return all_states[:states]


def _part(molecule: Molecule, kept: NDArray[np.bool_]) -> Molecule:
    return Molecule(
        molecule.centers[kept],
        molecule.sigmas[kept],
        molecule.masses[kept],
        molecule.arm[kept],
        molecule.hinge,
        molecule.axis,
    )


# --- from coordinates -------------------------------------------------------------------------


def conformers_of_files(
    files: Sequence[str | Path],
    resolution: float = 10.0,
    arm: str | None = None,
    hinge_at: str | None = None,
    morph: bool = False,
) -> list[Conformer]:
    """Read molecules from PDB or mmCIF files.

    Several files are the classes of a mixture.  Files with the same atoms as the first are
    superposed on it; every other one is centred on its own mass.

    Parameters
    ----------
    files
        One or more.
    resolution
        Å; the width of every atom is 0.225 of it.
    arm
        The part that rotates about a hinge: chains, with or without residues, such as
        ``A,B:1-235``.
    hinge_at
        The residue about whose centre the arm rotates, such as ``B:236``.  The axis is
        perpendicular to the lines from there to the centres of the arm and of the rest, so the
        molecule opens and closes.
    morph
        Whether two files are the ends of one motion, and not classes.
    """
    check_resolution("projections", resolution)
    if morph and len(files) != 2:
        raise InputError.of("--morph", "the number of files", len(files), "2, the ends of a motion")
    if (arm is None) != (hinge_at is None) or (morph and arm is not None):
        raise InputError(
            "projections: --arm and --hinge-at go together, and not with --morph, expected both or "
            "neither"
        )
    tables = [_laid_out(path, files[0]) for path in files]
    sigma = WIDTH * resolution
    names = [Path(file).name.split(".")[0] for file in files]
    if morph:
        motion = Morph.between(tables[0], tables[1], sigma)
        name = f"{names[0]}-{names[1]}"
        return [Conformer(name, motion, (0.0, motion.angle_deg))]
    if arm is None:
        return [Conformer(name, _rigid(t, sigma)) for name, t in zip(names, tables, strict=True)]
    return [
        Conformer(name, _hinged(t, sigma, arm, str(hinge_at)), (-20.0, 20.0))
        for name, t in zip(names, tables, strict=True)
    ]


def _laid_out(path: str | Path, first: str | Path) -> AtomTable:
    """Read atoms, centred on their mass, or superposed on ``first`` if it has the same atoms."""
    table = read_atom_table(Path(path))
    reference = read_atom_table(Path(first)).centred()
    if path == first or not table.same_atoms(reference):
        return table.centred()
    rotation, move = superpose(table.positions, reference.positions)
    return table.moved(table.positions @ rotation.T + move)


def _rigid(table: AtomTable, sigma: float) -> Molecule:
    m = len(table.masses)
    still, axis = np.zeros(m, bool), np.array([0.0, 0.0, 1.0])
    return Molecule(table.positions, np.full(m, sigma), table.masses, still, np.zeros(3), axis)


def _hinged(table: AtomTable, sigma: float, arm: str, hinge_at: str) -> Molecule:
    turns = selected(table, arm, "--arm")
    if turns.all():
        raise InputError.of("--arm", "the part", f"the whole molecule ({arm})", "a part of it")
    hinge = table.positions[selected(table, hinge_at, "--hinge-at")].mean(0)
    lever, rest = (table.positions[part].mean(0) - hinge for part in (turns, ~turns))
    axis = np.cross(lever, rest)
    length = float(np.linalg.norm(axis))
    if length < 1e-3 * np.linalg.norm(lever) * np.linalg.norm(rest):
        axis = np.cross(lever, np.eye(3)[np.abs(lever).argmin()])
        length = float(np.linalg.norm(axis))
    sigmas = np.full(len(turns), sigma)
    return Molecule(table.positions, sigmas, table.masses, turns, hinge, axis / length)


def selected(table: AtomTable, text: str, option: str) -> NDArray[np.bool_]:
    """Mark the atoms of chains and residues written as ``A,B:1-235,C:7``."""
    kept = np.zeros(len(table.masses), bool)
    for word in text.split(","):
        match = re.fullmatch(r"\s*([^:\s]*)(?::(-?\d+)(?:-(-?\d+))?)?\s*", word)
        if match is None:
            raise InputError.of(option, "the selection", f"'{word}'", "as A, B:1-235 or B:236")
        chain, first, last = match.groups()
        part = table.chain == chain
        if first is not None:
            part &= (table.residue >= int(first)) & (table.residue <= int(last or first))
        if not part.any():
            chains = ", ".join(sorted(set(table.chain.tolist())))
            expected = f"atoms of the molecule, whose chains are {chains}"
            raise InputError.of(option, "the selection", f"'{word}', which is empty", expected)
        kept |= part
    return kept


def superpose(
    moving: Floats, fixed: Floats, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return the rotation (3, 3) and translation (3,) that superpose points (M, 3) (Kabsch)."""
    w = np.ones(len(moving)) if weights is None else weights
    a, b = w @ moving / w.sum(), w @ fixed / w.sum()
    u, _, vt = np.linalg.svd((moving - a).T @ ((fixed - b) * w[:, None]))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = vt.T @ flip @ u.T
    return rotation, b - rotation @ a


@dataclass(frozen=True)
class Morph:
    """The motion from one structure to another with the same atoms.

    Each run of residues that moves is a rigid body: it rotates by a fraction of its angle while
    its centre moves on a straight line.  The remaining difference is added in proportion.  So both
    ends are exact, and domains keep their shape in between.

    Attributes
    ----------
    start, end
        (M, 3) positions, Å, superposed on the part that moves least.
    sigmas, masses
        (M,).
    body
        (M,) body of each atom.
    vectors
        (bodies, 3) rotation vectors from start to end, radians.
    angle_deg
        Rotation angle of the largest moving body: the hinge angle at the end; 0 is the start.
    """

    start: Floats
    end: Floats
    sigmas: Floats
    masses: Floats
    body: NDArray[np.int64]
    vectors: Floats
    angle_deg: float

    @classmethod
    def between(cls, start: AtomTable, end: AtomTable, sigma: float) -> Morph:
        """Find the bodies that move between two structures."""
        if not start.same_atoms(end):
            raise InputError(
                "--morph: the two files hold different atoms, expected the same atoms in one order"
            )
        x0, x1 = start.positions, end.positions
        for _ in range(10):  # superpose the parts that move least
            distance = np.linalg.norm(x1 - x0, axis=1)
            rotation, move = superpose(x1, x0, (distance <= np.median(distance)).astype(float))
            x1 = x1 @ rotation.T + move
        body = _bodies(start, np.linalg.norm(x1 - x0, axis=1))
        vectors = np.stack(
            [_turn(x0[body == k], x1[body == k]) for k in range(int(body.max()) + 1)]
        )
        vectors[0] = 0.0
        if len(vectors) == 1:
            raise InputError(
                f"--morph: nothing moves by more than {MOVED:g} Å between the files, expected two "
                "conformations"
            )
        largest = 1 + int(np.bincount(body)[1:].argmax())
        angle = float(np.rad2deg(np.linalg.norm(vectors[largest])))
        if angle < 1.0:
            raise InputError("--morph: the moving part does not rotate, expected a hinge motion")
        sigmas = np.full(len(body), sigma)
        return cls(x0, x1, sigmas, start.masses, body, vectors, angle)

    def conformations(self, hinge_deg: Floats) -> Floats:
        """Return (N, M, 3) positions, Å, at (N,) hinge angles."""
        share = np.asarray(hinge_deg, float) / self.angle_deg
        places = np.empty((len(share), len(self.body), 3))
        for k, vector in enumerate(self.vectors):
            mine = self.body == k
            angle = float(np.linalg.norm(vector))
            axis = vector / angle if angle > 0 else np.array([0.0, 0.0, 1.0])
            x0, x1 = self.start[mine], self.end[mine]
            c0, c1 = x0.mean(0), x1.mean(0)
            whole = axis_rotations(axis, np.array([np.rad2deg(angle)]))[0]
            left = (x1 - c1) @ whole - (x0 - c0)
            turned = axis_rotations(axis, np.rad2deg(angle) * share).transpose(0, 2, 1)
            middle = c0 + share[:, None, None] * (c1 - c0)
            places[:, mine] = middle + (x0 - c0 + share[:, None, None] * left) @ turned
        return places

    def radius(self, hinge_deg: Floats) -> float:
        """Return the largest distance from the origin at these hinge angles, Å (2 σ)."""
        distances = np.linalg.norm(self.conformations(hinge_deg), axis=-1)
        return float((distances + 2 * self.sigmas).max())


def _bodies(table: AtomTable, distance: Floats) -> NDArray[np.int64]:
    """Number the moving runs of residues from 1; the rest is 0."""
    change = (np.diff(table.residue) != 0) | (table.chain[1:] != table.chain[:-1])
    residue = np.concatenate([[0], np.cumsum(change)])
    moved = np.bincount(residue, distance) / np.bincount(residue) > MOVED
    number = np.zeros(len(moved), np.int64)
    found = 0
    for run in np.split(np.arange(len(moved)), np.flatnonzero(np.diff(moved)) + 1):
        if moved[run[0]] and len(run) >= RUN:
            found += 1
            number[run] = found
    return np.asarray(number[residue], np.int64)


def _turn(x0: Floats, x1: Floats) -> Floats:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(superpose(x0, x1)[0]).as_rotvec())
