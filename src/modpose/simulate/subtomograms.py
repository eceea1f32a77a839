"""Simulated subtomograms: several molecules in random poses, with a missing wedge.

    volume = crop[ wedge × CTF × f(Rᵀ(x − t)) ] + noise

The signal is evaluated at the voxels of a box of twice the side, without interpolation of a
volume. It is filtered there and then cropped, as a subtomogram is cropped from its tomogram.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.data.source import Source
from modpose.data.stack import Stack
from modpose.errors import InputError
from modpose.geometry.grids import frequencies
from modpose.observe.ctf import ctf_3d
from modpose.observe.wedge import filter_volumes, wedge_mask, whole_mask
from modpose.progress import bar
from modpose.simulate import microscope
from modpose.simulate.atoms import Atoms
from modpose.simulate.blocks import Blocks
from modpose.simulate.density import AtomDensity
from modpose.simulate.molecules import Molecule, density
from modpose.simulate.species import Species, built_in_species
from modpose.simulate.subtomogram_files import star_tables
from modpose.simulate.subtomogram_settings import SubtomogramSettings

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.source import Source

Floats = NDArray[np.float64]
Volumes = NDArray[np.float32]

CHUNK = 16
"""Volumes simulated per batch."""
CACHE_BYTES = 2**30
"""Noise-free volumes below this size are kept in memory."""
TOMOGRAM = 300
"""Side in voxels of the volume for the other definition of the signal-to-noise ratio."""
SEEDS = {"truth": 0, "noise": 1}


# --- volumes ----------------------------------------------------------------------------------


class Subtomograms(Stack):
    """Simulated volumes, made when they are read; the same rows always have the same values.

    Use it like any stack (``model.fit(simulated.source())``).  For a small set,
    ``simulated.volumes()`` returns all volumes.

    Attributes
    ----------
    settings
        The settings.
    species
        The molecules.
    truth
        One row per volume: ``r00`` ... ``r22`` (signal(x) = f(Rᵀ(x − t))), ``shift_x``,
        ``shift_y``, ``shift_z`` (voxels), ``class`` (from 0), ``template`` (the molecule's name);
        ``hinge_deg`` if a molecule has a hinge, ``elongation`` if one is made of blocks.
    ctf
        (N, 9) parameters, columns as in :class:`modpose.observe.ctf.CtfColumn`, or None.
    scale
        Factor on densities per Å³ that gives the requested signal-to-noise ratio with noise of
        unit variance; without noise, the factor that makes the largest voxel 1.
    signal_variance
        var(signal) inside the boxes, over the whole set, after scaling.
    """

    def __init__(
        self,
        settings: SubtomogramSettings,
        species: Sequence[Species],
        truth: pd.DataFrame,
        ctf: NDArray[np.float64] | None,
    ) -> None:
        self.settings, self.species, self.truth, self.ctf = settings, list(species), truth, ctf
        self.n, self.shape, self.channels = settings.n, (settings.box,) * 3, 1
        self.pixel_size, self.name = settings.pixel_size, "simulated subtomograms"
        self.dtype = np.dtype(np.float32)
        entries = truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy()
        self._rotations = entries.reshape(-1, 3, 3)
        self._shifts = truth[["shift_x", "shift_y", "shift_z"]].to_numpy()
        self._class = truth["class"].to_numpy()
        self._hinge = truth["hinge_deg"].to_numpy() if "hinge_deg" in truth else np.zeros(self.n)
        self._elongation = (
            truth["elongation"].to_numpy() if "elongation" in truth else np.ones(self.n)
        )
        self._atoms = {
            k: AtomDensity(one.molecule)
            for k, one in enumerate(species)
            if isinstance(one.molecule, Atoms) and (self._class == k).any()
        }
        self._wedge = self._transfer_of_wedge()
        self.scale = 1.0
        self._cache: Volumes | None = None
        self.signal_variance = self._find_scale()

    @property
    def tilt_range(self) -> Floats:
        """Smallest and largest tilt of each volume's tomogram, (N, 2) degrees."""
        return np.tile(np.array(self.settings.tilt_range_deg, np.float64), (self.n, 1))

    def volumes(self, rows: NDArray[np.int64] | None = None) -> Volumes:
        """Return volumes with their noise, (B, D, H, W); all of them by default."""
        return self.read(np.arange(self.n) if rows is None else rows)[:, 0]

    def clean(self, rows: NDArray[np.int64] | None = None) -> Volumes:
        """Return the signal alone, after the observation, (B, D, H, W); all by default."""
        rows = np.arange(self.n) if rows is None else np.asarray(rows)
        if self._cache is not None:
            return self._cache[rows] * np.float32(self.scale)
        parts = [self._crop(self._observed(part)) for part in _chunks(rows)]
        return np.concatenate(parts) * np.float32(self.scale)

    def templates(self, hinge_deg: float = 0.0) -> Volumes:
        """Return each molecule upright, before the observation, (K, D, H, W), in one scale."""
        box, hinge = self.settings.box, np.array([hinge_deg])
        upright = [
            self._place(k, np.eye(3)[None], np.zeros((1, 3)), hinge, np.ones(1), box)
            for k in range(len(self.species))
        ]
        return np.concatenate(upright) * np.float32(self.scale)

    def source(self) -> Source:
        """Return the volumes with their table, as :func:`write_subtomograms` would write it."""
        particles, optics = star_tables(self, [f"{i + 1:06d}.mrc" for i in range(self.n)])
        particles = particles.drop(columns=["rlnImageName", "rlnCtfImage"], errors="ignore")
        return Source(self, Particles(particles, optics, "star", self.name))

    def _read_into(self, rows: NDArray[np.int64], out: Volumes) -> None:
        done = 0
        for part in _chunks(rows):
            block = self.clean(part)
            if self.settings.noise != "none":
                for row, volume in zip(part, block, strict=True):
                    volume += self.noise(int(row))
            out[done : done + len(part), 0] = block
            done += len(part)

    def noise(self, row: int) -> Volumes:
        """Return the noise of one volume, (D, H, W), of unit variance, or none."""
        rng = np.random.default_rng([self.settings.seed, SEEDS["noise"], row])
        box = self.settings.box
        if self.settings.noise == "none":
            return np.zeros((box,) * 3, np.float32)
        if self.settings.noise == "white":
            return rng.standard_normal((box,) * 3, dtype=np.float32)
        amplitude = self._noise_amplitude
        wide = rng.standard_normal((2 * box,) * 3, dtype=np.float32)
        cropped: Volumes = self._crop(_filtered(wide[None], amplitude[None]))[0]
        return cropped

    @cached_property
    def _noise_amplitude(self) -> Volumes:
        """Return the filter that gives white noise the requested spectrum, with unit variance."""
        side = 2 * self.settings.box
        amplitude = self._wedge[0].copy()
        if self.settings.noise == "coloured":
            k = frequencies((side,) * 3)[..., : side // 2 + 1, :].numpy()
            amplitude *= np.sqrt(np.hypot(k[..., 0], k[..., 2]))
        power = whole_mask(torch.from_numpy(amplitude)[None], side).square().mean().item()
        return np.asarray(amplitude / np.float32(math.sqrt(power)), np.float32)

    # --- the signal ---------------------------------------------------------------------------

    def _transfer_of_wedge(self) -> Volumes:
        limits = torch.tensor([self.settings.tilt_range_deg])
        return np.asarray(wedge_mask(limits, (2 * self.settings.box,) * 3), np.float32)

    def _place(
        self,
        k: int,
        rotations: Floats,
        shifts: Floats,
        hinge: Floats,
        elongation: Floats,
        box: int,
    ) -> Volumes:
        """Evaluate the density of species k in (B, box, box, box)."""
        molecule, size = self.species[k].molecule, self.settings.pixel_size
        if isinstance(molecule, Molecule):
            centers = molecule.conformations(hinge)
            return density(centers, molecule.sigmas, molecule.masses, rotations, shifts, box, size)
        if isinstance(molecule, Blocks):
            stretched = map(molecule.stretched, elongation)
            posed = zip(stretched, rotations, shifts, strict=True)
            return np.stack([blocks.place(r, t, box, size) for blocks, r, t in posed])
        atoms = self._atoms.get(k) or AtomDensity(molecule)
        return np.stack(
            [atoms.place(r, t, box, size) for r, t in zip(rotations, shifts, strict=True)]
        )

    def _observed(self, rows: NDArray[np.int64]) -> Volumes:
        """Place, filter; (B, 2 box, 2 box, 2 box), not scaled."""
        side = 2 * self.settings.box
        wide = np.empty((len(rows), side, side, side), np.float32)
        for k in np.unique(self._class[rows]):
            mine = np.flatnonzero(self._class[rows] == k)
            r = rows[mine]
            poses = self._rotations[r], self._shifts[r]
            wide[mine] = self._place(int(k), *poses, self._hinge[r], self._elongation[r], side)
        if self.ctf is None and self._wedge.all():  # nothing to filter
            return np.maximum(wide, 0.0, out=wide)  # splines undershoot by rounding
        return _filtered(wide, self._transfer(rows, side))

    def _transfer(self, rows: NDArray[np.int64], side: int) -> Volumes:
        if self.ctf is None:
            return self._wedge

        ctf = ctf_3d(torch.from_numpy(self.ctf[rows]).float(), (side,) * 3)
        return np.asarray(self._wedge * ctf.numpy(), np.float32)

    def _crop(self, wide: Volumes) -> Volumes:
        box = self.settings.box
        cut = slice(box - box // 2, 2 * box - box // 2)  # the centre box becomes box // 2
        return wide[:, cut, cut, cut]

    def _find_scale(self) -> float:
        """Go through all volumes once; set the scale and return var(signal) after scaling."""
        box = self.settings.box
        total, squares, wide_total, wide_squares, largest = 0.0, 0.0, 0.0, 0.0, 0.0
        if self.n * 4 * box**3 <= CACHE_BYTES:
            self._cache = np.empty((self.n, box, box, box), np.float32)
        with bar(label="simulating", unit="vol", total=self.n) as progress:
            for rows in _chunks(np.arange(self.n)):
                wide = self._observed(rows)
                volumes = self._crop(wide)
                total += float(volumes.sum(dtype=np.float64))
                squares += float(np.square(volumes, dtype=np.float64).sum())
                largest = max(largest, float(volumes.max()))
                wide_total += float(wide.sum(dtype=np.float64))
                wide_squares += float(np.square(wide, dtype=np.float64).sum())
                if self._cache is not None:
                    self._cache[rows] = volumes
                progress.update(len(rows))
        variance = _variance(total, squares, self.n * box**3)
        counted = variance
        if self.settings.snr_over == "tomogram":
            counted = _variance(wide_total, wide_squares, self.n * max(TOMOGRAM, 2 * box) ** 3)
        none = self.settings.noise == "none"
        snr = 1.0 if none else self.settings.snr
        self.scale = 1 / largest if none and largest > 0 else microscope.scale_for_snr(counted, snr)
        return variance * self.scale**2


def _variance(total: float, squares: float, count: int) -> float:
    return squares / count - (total / count) ** 2


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK))


def _filtered(volumes: Volumes, transfer: Volumes) -> Volumes:
    filtered = filter_volumes(torch.from_numpy(volumes), torch.from_numpy(transfer))
    return np.asarray(filtered, np.float32)


def simulate_subtomograms(
    settings: SubtomogramSettings, species: Sequence[Species] | None = None
) -> Subtomograms:
    """Simulate subtomograms of one molecule or several.

    Rotations are uniform over SO(3) (Haar measure) unless a grid is requested; shifts are uniform
    in a cube.

    Parameters
    ----------
    settings
        What to simulate.
    species
        The molecules; one built-in assembly by default.

    Returns
    -------
    Subtomograms
        The same settings give the same volumes, bit for bit on one machine.

    Raises
    ------
    InputError
        If a molecule does not fit into the box, or the abundances do not fit the molecules.
    """
    species = built_in_species(1) if species is None else list(species)
    rng = np.random.default_rng([settings.seed, SEEDS["truth"]])
    truth = draw_truth(settings, species, rng)
    ctf = None
    if settings.ctf:
        n = settings.n
        ctf = microscope.draw_ctf_parameters(n, settings.pixel_size, settings.defocus_range, rng)
        ctf[:, 1:3] = ctf[:, 1:3].mean(1, keepdims=True)  # one defocus in every direction
        ctf[:, 3] = 0.0
    return Subtomograms(settings, species, truth, ctf)


def draw_truth(
    settings: SubtomogramSettings, species: Sequence[Species], rng: np.random.Generator
) -> pd.DataFrame:
    """Draw the class, pose and conformation of each particle.

    Raises
    ------
    InputError
        If a molecule does not fit into the box, or the abundances do not fit the molecules.
    """
    import pandas as pd
    from scipy.spatial.transform import Rotation

    species = list(species)
    _check(settings, species)
    n = settings.n
    classes = rng.permutation(np.repeat(np.arange(len(species)), _counts(settings, len(species))))
    grid = settings.orientations == "grid"
    rotations = grid_turns(n, rng) if grid else Rotation.random(n, rng).as_matrix()
    shifts = rng.uniform(-1.0, 1.0, (n, 3)) * settings.max_shift_px
    columns = {f"r{i}{j}": rotations[:, i, j] for i in range(3) for j in range(3)}
    columns |= {f"shift_{axis}": shifts[:, i] for i, axis in enumerate("xyz")}
    columns |= {"class": classes, "template": np.array([s.name for s in species])[classes]}
    if any(one.hinged for one in species):
        columns["hinge_deg"] = rng.uniform(*(settings.hinge_range_deg or (0.0, 0.0)), size=n)
    if any(one.elongates for one in species):
        columns["elongation"] = rng.uniform(*(settings.elongation_range or (1.0, 1.0)), size=n)
    return pd.DataFrame(columns)


def grid_turns(n: int, rng: np.random.Generator) -> Floats:
    """Return (n, 3, 3) rotations by multiples of ten degrees about x, then y, then z."""
    from scipy.spatial.transform import Rotation

    angles = 10.0 * rng.integers(1, 37, size=(n, 3))
    return np.asarray(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())


def _counts(settings: SubtomogramSettings, kinds: int) -> NDArray[np.int64]:
    """Divide the volumes among the molecules (largest remainders)."""
    shares = np.array(settings.abundances or (1.0,) * kinds)
    exact = settings.n * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: settings.n - int(counts.sum())]] += 1
    return np.asarray(counts, np.int64)


def _check(settings: SubtomogramSettings, species: list[Species]) -> None:
    if settings.abundances is not None and len(settings.abundances) != len(species):
        found = f"{len(settings.abundances)} numbers"
        raise InputError.of(
            "subtomograms", "abundances", found, f"{len(species)}, one for each molecule"
        )
    if settings.n < len(species):
        raise InputError.of(
            "subtomograms", "n", settings.n, f"at least {len(species)}, one of each molecule"
        )
    if settings.hinge_range_deg is not None and not any(one.hinged for one in species):
        raise InputError.of(
            "subtomograms", "hinge_range_deg", settings.hinge_range_deg, "a molecule with a hinge"
        )
    if settings.elongation_range is not None and not any(one.elongates for one in species):
        raise InputError.of(
            "subtomograms", "elongation_range", settings.elongation_range, "a molecule of blocks"
        )
    hinge = np.linspace(*(settings.hinge_range_deg or (0.0, 0.0)), 21)
    longest = max(settings.elongation_range or (1.0,))
    side = settings.box * settings.pixel_size
    for one in species:
        diameter = 2 * one.radius(hinge, longest)
        if diameter > side:
            raise InputError(
                f"subtomograms: {one.name} is {diameter:.0f} Å across and does not fit into a box "
                f"of {settings.box} voxels of {settings.pixel_size:g} Å, expected a box of at "
                f"least {math.ceil(diameter / settings.pixel_size)}"
            )
