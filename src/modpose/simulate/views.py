"""Views of a molecule from every side: atoms as Gaussians, projected in random poses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from modpose.errors import InputError
from modpose.geometry.rotations import rotation_of_quaternion
from modpose.limits import check_data_set, check_resolution
from modpose.simulate import microscope
from modpose.simulate.coordinate_files import check_coordinate_file

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

UNKNOWN = 0.02
"""Largest fraction of atoms with an unknown element that is ignored without a warning."""
ELECTRONS = {"H": 1, "D": 1, "C": 6, "N": 7, "O": 8, "P": 15, "S": 16}
"""By the first letter of an atom's name, for files without a column of elements."""
MOST_OCCUPIED = 100.0
"""A larger occupancy of an atom is an error."""
FARTHEST = 1e6
"""An atom farther from the origin than this, in Å, is an error."""

FINE = 1.5
"""Smallest number of points of the projection lattice per standard deviation of the atoms."""
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


@dataclass(frozen=True)
class ViewSettings:
    """A data set of views."""

    n: int = 3000
    """Number of images."""
    box: int = 64
    """Side of the images, pixels."""
    pixel_size: float = 4.5
    """Å per pixel."""
    snr: float = 0.5
    """var(signal) / var(noise) inside the box; one noise variance for the set."""
    shift_std_px: float = 2.0
    """Standard deviation of the shift on each axis, pixels."""
    ctf: bool = False
    """Whether the microscope's contrast transfer function filters the images."""
    defocus_range: tuple[float, float] = (10000.0, 25000.0)
    """Smallest and largest mean defocus with ``ctf``, Å."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        low, high = self.defocus_range
        expectations = (
            ("n", self.n, self.n >= 1, "at least 1"),
            ("box", self.box, self.box >= 8, "at least 8 pixels"),
            ("pixel_size", self.pixel_size, 0 < self.pixel_size < float("inf"), "more than 0 Å"),
            ("snr", self.snr, 0 < self.snr < float("inf"), "more than 0"),
            ("shift_std_px", self.shift_std_px, 0 <= self.shift_std_px < float("inf"), "0 or more"),
            ("defocus_range", self.defocus_range, low <= high, "two numbers, the smaller first"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, good, expected in expectations:
            if not good:
                raise InputError.of("views", name, value, expected)
        check_data_set(
            "views",
            n=self.n,
            box=self.box,
            seed=self.seed,
            pixel_size=self.pixel_size,
            snr=self.snr,
            lengths=(self.shift_std_px, *self.defocus_range),
        )


# --- the molecule -----------------------------------------------------------------------------


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


def barrel() -> Atoms:
    """Build two rings of seven subunits back to back, about 140 Å across and 150 Å long.

    It has the symmetry (D7) and the proportions of GroEL, but not its structure: end views are
    rings, side views four bands.  It replaces a file of coordinates.
    """
    radius = np.array([44.0, 54.0, 50.0, 50.0, 36.0])
    angle = np.array([0.0, 9.0, -6.0, 2.0, 12.0])
    height = np.array([14.0, 22.0, 40.0, 58.0, 64.0])
    mass = np.array([1.5, 1.0, 0.5, 1.2, 0.6])
    around = np.deg2rad(angle + np.arange(7)[:, None] * 360.0 / 7)
    upper = np.stack([radius * np.cos(around), radius * np.sin(around), height + 0 * around], -1)
    lower = upper * np.array([1.0, -1.0, -1.0])  # half a turn about x: a dyad of D7
    positions = np.concatenate([upper.reshape(-1, 3), lower.reshape(-1, 3)])
    return Atoms(positions, np.tile(mass, 14), 9.0)


# --- images -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Views:
    """Images and their truth.

    Attributes
    ----------
    images
        (N, H, W) float32, signal plus noise of unit variance.
    clean
        (N, H, W) float32, the signal alone (after the CTF).
    truth
        One row per image: ``angle_deg`` (in the plane), ``tilt_deg``, ``rot_deg`` with
        R = Rz(angle) Ry(tilt) Rz(rot); ``shift_x``, ``shift_y`` (pixels).
    ctf
        (N, 9) parameters, columns as in :class:`modpose.observe.ctf.CtfColumn`, or None.
    """

    images: NDArray[np.float32]
    clean: NDArray[np.float32]
    truth: pd.DataFrame
    ctf: NDArray[np.float64] | None


def haar_rotations(n: int, rng: np.random.Generator) -> Floats:
    """Return (n, 3, 3) rotations, uniform over SO(3): quaternions uniform on the sphere."""
    quaternions = np.roll(rng.standard_normal((n, 4)), 1, axis=1)  # real part last
    return rotation_of_quaternion(torch.from_numpy(quaternions)).numpy()


def project_atoms(
    atoms: Atoms, rotations: Floats, shifts_px: Floats, box: int, pixel_size: float
) -> NDArray[np.float32]:
    """Project posed atoms along z: signal(x) = f(Rᵀ(x − t)), f integrated along the beam.

    For tens of thousands of atoms the exact :func:`modpose.simulate.molecules.project` would take
    seconds per image.  Here each atom is shared between the four nearest points of a lattice finer
    than σ; one Fourier filter then blurs all atoms and removes the effect of sharing (error below
    2 % of the brightest pixel).

    Parameters
    ----------
    atoms
        The molecule.
    rotations
        (N, 3, 3) active rotations.
    shifts_px
        (N, 2) shifts (x, y) in pixels.
    box
        Side of the images, pixels; the centre is pixel ``box // 2``.
    pixel_size
        Å per pixel.

    Returns
    -------
    array
        (N, box, box) float32, projected density per Å², rows are y.
    """
    from scipy.fft import irfft2, rfft2

    fine = int(np.ceil(FINE * pixel_size / atoms.sigma))
    margin = fine * (int(np.ceil(4 * atoms.sigma / pixel_size)) + 1)
    step, side = pixel_size / fine, fine * box + 2 * margin
    blur = _blur(side, atoms.sigma / step) / step**2
    images = np.empty((len(rotations), box, box), np.float32)
    pixels = slice(margin, margin + fine * box, fine)
    for i in tqdm(range(len(rotations)), "projecting", unit="img", delay=1.0):
        place = atoms.positions @ rotations[i, :2].T / step
        place += fine * (shifts_px[i] + box // 2) + margin
        lattice = _share(place, atoms.masses, side)
        images[i] = irfft2(rfft2(lattice) * blur, s=lattice.shape)[pixels, pixels]
    return images


def _share(place: Floats, masses: Floats, side: int) -> Floats:
    """Share each mass between the four lattice points about its position (x, y); (side, side)."""
    corner = np.floor(place).astype(np.int64)
    within = ((corner >= 0) & (corner < side - 1)).all(axis=1)
    corner, rest, masses = corner[within], (place - corner)[within], masses[within]
    first = corner[:, 1] * side + corner[:, 0]
    left, low = masses * (1 - rest[:, 0]), 1 - rest[:, 1]
    right, high = masses * rest[:, 0], rest[:, 1]
    index = np.concatenate([first, first + 1, first + side, first + side + 1])
    shares = np.concatenate([left * low, right * low, left * high, right * high])
    return np.asarray(np.bincount(index, shares, side * side), np.float64).reshape(side, side)


def _blur(side: int, sigma: float) -> Floats:
    """Return the rfft2 filter of a Gaussian, divided by the blur from sharing (a triangle)."""
    frequency = np.fft.fftfreq(side)
    along = np.exp(-2 * (np.pi * sigma * frequency) ** 2) / np.sinc(frequency) ** 2
    return np.asarray(along[:, None] * along[: side // 2 + 1])


def simulate_views(molecule: Atoms, settings: ViewSettings) -> Views:
    """Project a rigid molecule along random directions.

    signal(x) = CTF * ∫ f(Rᵀ(x − t)) along the beam, R uniform over SO(3), evaluated at the pixels
    without interpolation; then noise.

    Parameters
    ----------
    molecule
        The density.
    settings
        What to simulate.

    Raises
    ------
    InputError
        If the molecule does not fit into the box.
    """
    import pandas as pd
    from scipy.spatial.transform import Rotation

    _check_fit(molecule, settings)
    rng = np.random.default_rng(settings.seed)
    n = settings.n
    rotations = haar_rotations(n, rng)
    shift = settings.shift_std_px * rng.standard_normal((n, 2))
    clean = project_atoms(molecule, rotations, shift, settings.box, settings.pixel_size)
    ctf = None
    if settings.ctf:
        ctf = microscope.draw_ctf_parameters(n, settings.pixel_size, settings.defocus_range, rng)
        clean = microscope.filter_by_ctf(clean, ctf)
    clean = microscope.scale_to_snr(clean, settings.snr)
    angles = Rotation.from_matrix(rotations).as_euler("ZYZ", degrees=True)
    columns = dict(zip(("angle_deg", "tilt_deg", "rot_deg"), angles.T, strict=True))
    truth = pd.DataFrame(columns | {"shift_x": shift[:, 0], "shift_y": shift[:, 1]})
    return Views(microscope.add_unit_noise(clean, rng), clean, truth, ctf)


def _check_fit(molecule: Atoms, settings: ViewSettings) -> None:
    diameter = 2 * molecule.radius()
    if settings.box * settings.pixel_size < diameter:
        raise InputError.of(
            "views",
            "box times pixel_size",
            f"{settings.box * settings.pixel_size:g} Å",
            f"at least {diameter:.0f} Å, the diameter of the molecule",
        )
