"""Volumes and projections of tens of thousands of atoms, placed many times."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from modpose.progress import bar
from modpose.simulate.atoms import Atoms

Floats = NDArray[np.float64]

FINE, FINE_IMAGE = 2.0, 1.5
"""Points of the raster, and of the projection lattice, per standard deviation of the atoms."""
TAIL = 4.5
"""Standard deviations beyond which an atom is zero."""


class AtomDensity:
    """The density of atoms on a raster, which cubic splines read at posed coordinates.

    The exact :func:`modpose.simulate.molecules.density` would take seconds per volume.  The
    raster has two points per standard deviation; for thousands of atoms the error is below 1 % of
    the largest value.

    Parameters
    ----------
    atoms
        The molecule.
    """

    def __init__(self, atoms: Atoms) -> None:
        from scipy.fft import irfftn, next_fast_len, rfftn
        from scipy.ndimage import spline_filter

        self.reach = float(np.linalg.norm(atoms.positions, axis=1).max() + TAIL * atoms.sigma)
        self._step = atoms.sigma / FINE
        side = int(next_fast_len(2 * int(np.ceil(self.reach / self._step)) + 4, real=True))
        self._middle = side // 2
        lattice = _share(atoms.positions / self._step + self._middle, atoms.masses, side)
        along = _blur(side, FINE)
        spectrum = rfftn(lattice)
        spectrum *= along[:, None, None] * along[:, None] * along[: side // 2 + 1]
        raster = irfftn(spectrum, s=lattice.shape) / self._step**3
        self._spline = spline_filter(raster, order=3, output=np.float32, mode="grid-wrap")

    def place(
        self, rotation: Floats, shift_px: Floats, box: int, pixel_size: float
    ) -> NDArray[np.float32]:
        """Evaluate signal(x) = f(Rᵀ(x − t)) at the voxels of one volume.

        Parameters
        ----------
        rotation
            (3, 3) active rotation.
        shift_px
            (3,) shift (x, y, z), voxels.
        box
            Side in voxels; the centre is voxel ``box // 2``.
        pixel_size
            Å per voxel.

        Returns
        -------
        array
            (box, box, box) float32, density per Å³, axes (z, y, x).
        """
        from scipy.ndimage import map_coordinates

        axis = np.arange(box) - box // 2
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        offsets = pixel_size * (np.stack([x, y, z], -1).reshape(-1, 3) - shift_px)
        near = np.flatnonzero((offsets**2).sum(1) < self.reach**2)
        own = offsets[near] @ rotation / self._step + self._middle
        volume = np.zeros(box**3, np.float32)
        volume[near] = map_coordinates(
            self._spline, own[:, ::-1].T, order=3, prefilter=False, mode="grid-wrap"
        )
        return volume.reshape(box, box, box)


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

    fine = int(np.ceil(FINE_IMAGE * pixel_size / atoms.sigma))
    margin = fine * (int(np.ceil(4 * atoms.sigma / pixel_size)) + 1)
    step, side = pixel_size / fine, fine * box + 2 * margin
    along = _blur(side, atoms.sigma / step) / step
    blur = along[:, None] * along[: side // 2 + 1]
    images = np.empty((len(rotations), box, box), np.float32)
    pixels = slice(margin, margin + fine * box, fine)
    for i in bar(range(len(rotations)), "projecting"):
        place = atoms.positions @ rotations[i, :2].T / step
        place += fine * (shifts_px[i] + box // 2) + margin
        lattice = _share(place, atoms.masses, side)
        images[i] = irfft2(rfft2(lattice) * blur, s=lattice.shape)[pixels, pixels]
    return images


def _share(place: Floats, masses: Floats, side: int) -> Floats:
    """Share each mass between the lattice points about its position (x, y[, z])."""
    dims = place.shape[1]
    corner = np.floor(place).astype(np.int64)
    inside = ((corner >= 0) & (corner < side - 1)).all(1)
    corner, rest, masses = corner[inside], (place - corner)[inside], masses[inside]
    first, lattice = corner @ side ** np.arange(dims), np.zeros(side**dims)
    for steps in product((0, 1), repeat=dims):
        share = np.where(np.array(steps, bool), rest, 1 - rest).prod(1)
        index = first + np.array(steps) @ side ** np.arange(dims)
        lattice += np.bincount(index, masses * share, side**dims)
    return lattice.reshape((side,) * dims)


def _blur(side: int, sigma: float) -> Floats:
    """Return a Gaussian filter along one axis, divided by the blur from sharing (a triangle)."""
    frequency = np.fft.fftfreq(side)
    return np.asarray(np.exp(-2 * (np.pi * sigma * frequency) ** 2) / np.sinc(frequency) ** 2)
