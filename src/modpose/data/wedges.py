"""Missing wedges of volumes: the measured part of each Fourier transform."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.data.opened import Source
from modpose.data.opened import Wedge as Wedge
from modpose.data.optics import FLIPPED, PREMULTIPLIED, said_of_all
from modpose.data.particles import Particles
from modpose.data.stack import Stack, subset
from modpose.data.tilts import check_limits, tilt_ranges
from modpose.data.tomograms import numbers_in
from modpose.data.wedge_masks import (
    CTF_IMAGE,
    check_masks,
    ctf_images,
    open_masks,
    resampled,
    whole,
)
from modpose.errors import InputError

Floats = NDArray[np.float64]

MEASURED = 0.01
"""A weight above this fraction of the largest in its volume counts as measured."""


class Wedges:
    """Masks of the measured Fourier coefficients of each volume; made or read when needed.

    Attributes
    ----------
    n
        Number of volumes.
    shape
        (D, H, W) of the volumes of the masks.
    tilt_range
        (N, 2) degrees; None if the masks are given as volumes.
    shared
        Whether all volumes have the same mask.
    transfers
        Whether the masks are factors on the signal (the CTF, in ``rlnCtfImage``).
    premultiplied
        Whether the volumes are sums of images times their CTF, and the weights sums of CTF²
        (RELION 4 and later).
    flipped
        Whether phases of the volumes were flipped: the CTF is replaced by its absolute value.
    """

    def __init__(
        self,
        n: int,
        shape: tuple[int, ...],
        *,
        tilt_range: Floats | None = None,
        weights: Stack | None = None,
        pixel_size_factor: float = 1.0,
        transfers: bool = False,
        premultiplied: bool = False,
        flipped: bool = False,
    ) -> None:
        self.flipped = flipped
        self.transfers, self.premultiplied = transfers or premultiplied, premultiplied
        self.n, self.shape, self.tilt_range = n, shape, tilt_range
        self._weights, self._factor = weights, pixel_size_factor
        if tilt_range is not None:
            self._ranges, self._kind = np.unique(tilt_range, axis=0, return_inverse=True)
            self._kind = self._kind.reshape(-1)
            self.shared = len(self._ranges) == 1
        else:
            assert weights is not None
            self.shared = weights.n == 1 and n > 1
        self._made: dict[int, NDArray[np.float32]] = {}

    def read(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the masks of the volumes at ``index``, in that order.

        Returns
        -------
        masks
            (B, D, H, W // 2 + 1), on the lattice of ``rfftn``: 0 where nothing was measured, else
            1, or the factor on the signal (``transfers``).
        """
        index = np.asarray(index, np.int64)
        if self.tilt_range is not None:
            return np.stack([self._of_range(int(kind)) for kind in self._kind[index]])
        if self.shared:
            return np.repeat(self._of_weights(0)[None], len(index), axis=0)
        return np.stack([self._of_weights(int(row)) for row in index])

    def _of_range(self, kind: int) -> NDArray[np.float32]:
        if kind not in self._made:
            import torch

            from modpose.observe.wedge import wedge_mask

            limits = torch.from_numpy(self._ranges[kind : kind + 1]).float()
            self._made[kind] = wedge_mask(limits, self.shape)[0].numpy()
        return self._made[kind]

    def gain(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the factor on the noise of premultiplied volumes, in the stored box.

        Returns
        -------
        gain
            (B, D, H, W // 2 + 1), the root of the weights; their mean where nothing was measured.
        """
        gains = []
        for row in np.zeros(len(index), np.int64) if self.shared else index:
            weights, measured = self._weights_of(int(row))
            root = np.sqrt(np.where(measured, weights, 0.0))
            root[~measured] = root[measured].mean()
            gains.append(root[..., : root.shape[-1] // 2 + 1].astype(np.float32))
        return np.stack(gains)

    def _of_weights(self, row: int) -> NDArray[np.float32]:
        if self.shared and row in self._made:
            return self._made[row]
        weights, measured = self._weights_of(row)
        mask = measured.astype(np.float32)
        if self.transfers:
            mask *= np.sqrt(np.abs(weights)) if self.premultiplied else weights
            mask = np.abs(mask) if self.flipped else mask
        mask = resampled(mask, self.shape, self._factor)
        if self.shared:
            self._made[row] = mask
        return mask

    def _weights_of(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Weights of a volume in the order of a whole FFT, and where they are not negligible."""
        assert self._weights is not None
        stored = self._weights.read(np.array([row]))[0, 0]
        if _doubled(stored.shape):
            stored = stored[: len(stored) // 2]
        weights = whole(stored)
        largest = np.abs(weights).max()
        if not largest > 0:  # NaN too
            where = self._weights.where(row)
            raise InputError(f"{where}: this wedge mask hides everything, expected numbers above 0")
        if self.premultiplied and weights.min() < 0:
            where = self._weights.where(row)
            raise InputError.of(where, "a sum of CTF^2", f"{weights.min():.4g}", "at least 0")
        return weights, np.abs(weights) > MEASURED * largest


def _doubled(shape: tuple[int, ...]) -> bool:
    """Whether weights (D, H, W) are those of RELION 4: sums of CTF² above the multiplicity."""
    return shape[0] == 2 * shape[1] and shape[2] == shape[1] // 2 + 1


def open_wedges(
    source: Source,
    wedge: Wedge | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    pixel_size_factor: float = 1.0,
    datadir: Path | None = None,
) -> Wedges | None:
    """Find the measured part of each volume.

    Parameters
    ----------
    source
        The volumes and their table.
    wedge
        One of: ``(smallest, largest)`` tilt for all, degrees; one mask for all, (D, D, D), or one
        per volume, (N, D, D, D), as an array or a file (MRC, NPY, Zarr); a RELION list of
        tomograms (STAR), whose tilts are found by rlnTomoName, without the frames that
        rlnTomoVisibleFrames leaves out.  By default the table is used: modposeTiltMin and
        modposeTiltMax, else the files of rlnCtfImage (the CTF, or sums of CTF² for volumes that
        RELION 4 multiplied by it).  Masks are centred (the origin at D // 2) or, with width D // 2
        + 1, in FFT order; RELION uses both.
    shape
        Shape of the volumes as the model sees them; that of the source by default.
    pixel_size_factor
        Factor by which voxels have grown (Fourier crop).
    datadir
        First folder in which the files of a table are searched; that of the source by default.

    Returns
    -------
    Wedges or None
        None if nothing is known; everything then counts as measured.

    Raises
    ------
    InputError
        If the input is images, a mask does not fit, or nothing was measured.
    """
    if len(source.stack.shape) != 3:
        found = "x".join(map(str, source.stack.shape))
        raise InputError.of(source.stack.name, "the box", found, "volumes, which have wedges")
    shape = source.stack.shape if shape is None else shape
    n, particles = source.n, source.particles
    if isinstance(wedge, tuple):
        limits = np.array([wedge], np.float64)
        check_limits(limits, "wedge")
        return Wedges(n, shape, tilt_range=np.repeat(limits, n, axis=0))
    if isinstance(wedge, str | Path) and Path(wedge).suffix.lower() == ".star":
        return Wedges(n, shape, tilt_range=tilt_ranges(particles, Path(wedge)))
    if wedge is not None:
        weights = _of_selection(open_masks(wedge), source)
    elif source.tilts is not None:
        return Wedges(
            n,
            shape,
            weights=_of_selection(source.tilts.weights, source),
            pixel_size_factor=pixel_size_factor,
            premultiplied=True,
        )
    else:
        limits_of_table = particles.tilt_range()
        if limits_of_table is not None:
            return Wedges(n, shape, tilt_range=limits_of_table)
        if not particles.has(CTF_IMAGE):
            return None
        weights = ctf_images(particles, source.path, datadir or source.datadir)
        check_masks(weights, source)
        return Wedges(
            n,
            shape,
            weights=weights,
            pixel_size_factor=pixel_size_factor,
            transfers=_holds_ctf(weights),
            premultiplied=_premultiplied(weights, particles),
            flipped=said_of_all(particles, FLIPPED),
        )
    check_masks(weights, source)
    return Wedges(n, shape, weights=weights, pixel_size_factor=pixel_size_factor)


def _holds_ctf(weights: Stack) -> bool:
    """Whether weights are more than 0 and one other number, which would be a mask of a wedge."""
    first = weights.read(np.array([0]))
    return bool(((first != 0) & (first != first.max())).any())


def _premultiplied(weights: Stack, particles: Particles) -> bool:
    """Whether the volumes of a table are sums of images times their CTF.

    The weights are then sums of CTF² (RELION), and these are the variance of the noise.
    """
    said = said_of_all(particles, PREMULTIPLIED)
    if not said and _doubled(weights.shape):
        raise InputError(
            f"{particles.name}: {CTF_IMAGE} holds sums of CTF^2 (RELION 4), but {PREMULTIPLIED} "
            "is not 1, expected 1 in data_optics"
        )
    return said


def wedges_asked_for(
    source: Source, asked: str, shape: tuple[int, ...], pixel_size_factor: float
) -> Wedges:
    """Return the wedges given with the source, else those of ``model.wedge``.

    That is ``auto``, ``LOW,HIGH`` or a file; see :func:`open_wedges`.

    Raises
    ------
    InputError
        If they cannot be found, also if ``auto`` finds nothing.
    """
    wedge = read_wedge(asked if source.wedge is None else source.wedge)
    found = open_wedges(source, wedge, shape=shape, pixel_size_factor=pixel_size_factor)
    if found is None:
        raise InputError(
            f"{source.particles.name}: it gives no missing wedge (modposeTiltMin and "
            "modposeTiltMax, "
            "or rlnCtfImage), expected two tilts, such as --wedge=-60,60, or a file"
        )
    return found


def read_wedge(asked: Wedge) -> Wedge | None:
    """Read ``auto`` (None) and ``LOW,HIGH``; other text names a file."""
    if not isinstance(asked, str):
        return asked
    if asked == "auto":
        return None
    if "," not in asked or Path(asked).exists():
        return Path(asked)
    limits = numbers_in(asked, "--wedge")
    if len(limits) != 2:
        raise InputError.of("--wedge", "the value", repr(asked), "two tilts, as -60,60")
    return float(limits[0]), float(limits[1])


def wedge_option(wedge: Wedge) -> str:
    """Return a source's wedge as a value of ``model.wedge``; ``auto`` for masks in memory."""
    if isinstance(wedge, tuple):
        return f"{wedge[0]:g},{wedge[1]:g}"
    if not isinstance(wedge, str | Path):
        return "auto"
    return str(Path(wedge).absolute()) if Path(wedge).exists() else str(wedge)


def follow_order(asked: str) -> bool:
    """Whether ``model.wedge`` names masks, one per volume, in the order of the input."""
    wedge = None if asked in ("off", "auto") else read_wedge(asked)
    if not isinstance(wedge, Path) or wedge.suffix.lower() == ".star" or not wedge.exists():
        return False
    return open_masks(wedge).n > 1


def _of_selection(masks: Stack, source: Source) -> Stack:
    """Select the masks of the used volumes from those of the whole input."""
    if source.selection is None or masks.n == 1 or masks.n != source.all_particles.n:
        return masks
    return subset(masks, source.selection)
