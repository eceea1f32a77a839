"""Images of a rigid molecule from every side, in random poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from modpose.errors import InputError
from modpose.limits import check_data_set
from modpose.simulate import microscope
from modpose.simulate.atoms import Atoms
from modpose.simulate.density import project_atoms


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
    _check_fit(molecule, settings)
    rng = np.random.default_rng(settings.seed)
    n = settings.n
    rotations = Rotation.random(n, rng).as_matrix()
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
