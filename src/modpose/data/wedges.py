"""Missing wedges of a user's volumes: what was measured of each one's Fourier transform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.locate import find_files
from modpose.data.mrc import is_mrc, open_mrc
from modpose.data.particles import Particles
from modpose.data.source import Source, open_stack
from modpose.data.stack import RowsStack, Stack
from modpose.data.star import columns_of, read_star
from modpose.errors import InputError

Floats = NDArray[np.float64]
Wedge = str | Path | tuple[float, float] | NDArray[Any]

MEASURED = 0.01
"""A weight above this fraction of the largest in its volume counts as measured."""
CTF_IMAGE, FRAMES, TOMOGRAM = "rlnCtfImage", "rlnTomoVisibleFrames", "rlnTomoName"
OFF_AXIS = 0.3
"""Largest y component of the beam's direction for which the tilt axis is about y."""


class Wedges:
    """Which Fourier coefficients of each volume were measured; made or read when asked for.

    Attributes
    ----------
    n
        How many volumes.
    shape
        (D, H, W) of the volumes that the masks are for.
    tilt_range
        (N, 2) degrees; None where the masks come as volumes.
    shared
        Whether all volumes have the same mask.
    """

    def __init__(
        self,
        n: int,
        shape: tuple[int, ...],
        *,
        tilt_range: Floats | None = None,
        weights: Stack | None = None,
        pixel_size_factor: float = 1.0,
    ) -> None:
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
            (B, D, H, W // 2 + 1), on the lattice of ``rfftn``: 1 where measured, 0 where not.
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

    def _of_weights(self, row: int) -> NDArray[np.float32]:
        if self.shared and row in self._made:
            return self._made[row]
        assert self._weights is not None
        weights = np.abs(_whole(self._weights.read(np.array([row]))[0, 0]))
        largest = weights.max()
        if not largest > 0:  # NaN too
            where = self._weights.where(row)
            raise InputError(f"{where}: this wedge mask hides everything, expected numbers not 0")
        mask = (weights > MEASURED * largest).astype(np.float32)
        mask = _resampled(mask, self.shape, self._factor)
        if self.shared:
            self._made[row] = mask
        return mask


def open_wedges(
    source: Source,
    wedge: Wedge | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    pixel_size_factor: float = 1.0,
    datadir: Path | None = None,
) -> Wedges | None:
    """Find out what was measured of each volume.

    Parameters
    ----------
    source
        The volumes and their table.
    wedge
        ``(smallest, largest)`` tilt for all, degrees; a mask for all, (D, D, D), or one a volume,
        (N, D, D, D), as an array or a file (MRC, NPY, Zarr); a RELION list of tomograms (STAR),
        whose tilts, less the frames that rlnTomoVisibleFrames leaves out, are looked up by
        rlnTomoName.  Without it the table is asked: modposeTiltMin and modposeTiltMax, else the
        files of rlnCtfImage.  Masks are centred (the origin at D // 2) or, of width D // 2 + 1,
        in the order of an FFT; both are RELION's.
    shape
        Of the volumes as the model sees them; those of the source by default.
    pixel_size_factor
        By how much voxels have grown on the way there (Fourier crop).
    datadir
        Where the files that a table names are looked for first.

    Returns
    -------
    Wedges or None
        None where nothing is known, which means that everything was measured.

    Raises
    ------
    InputError
        Where the volumes are images, a mask does not fit them, or nothing was measured.
    """
    if len(source.stack.shape) != 3:
        found = "x".join(map(str, source.stack.shape))
        raise InputError.of(source.stack.name, "the box", found, "volumes, which have wedges")
    shape = source.stack.shape if shape is None else shape
    n, particles = source.n, source.particles
    if isinstance(wedge, tuple):
        limits = np.array([wedge], np.float64)
        _check_range(limits, "wedge")
        return Wedges(n, shape, tilt_range=np.repeat(limits, n, axis=0))
    if isinstance(wedge, str | Path) and Path(wedge).suffix.lower() == ".star":
        return Wedges(n, shape, tilt_range=tilt_ranges(particles, Path(wedge)))
    if wedge is not None:
        weights = _open_masks(wedge)
    else:
        limits_of_table = particles.tilt_range()
        if limits_of_table is not None:
            return Wedges(n, shape, tilt_range=limits_of_table)
        if not particles.has(CTF_IMAGE):
            return None
        weights = _ctf_images(particles, source.path, datadir)
    _check_masks(weights, source)
    return Wedges(n, shape, weights=weights, pixel_size_factor=pixel_size_factor)


def wedges_asked_for(
    source: Source, asked: str, shape: tuple[int, ...], pixel_size_factor: float
) -> Wedges:
    """Find what ``model.wedge`` asks for: ``auto``, ``LOW,HIGH`` or a file.

    See :func:`open_wedges`.

    Raises
    ------
    InputError
        Where it cannot be had, also where ``auto`` finds nothing.
    """
    wedge: Wedge | None = Path(asked)
    if asked == "auto":
        wedge = None
    elif "," in asked and not Path(asked).exists():
        limits = _vector(asked, "--wedge")
        if len(limits) != 2:
            raise InputError.of("--wedge", "the value", repr(asked), "two tilts, as -60,60")
        wedge = (float(limits[0]), float(limits[1]))
    found = open_wedges(source, wedge, shape=shape, pixel_size_factor=pixel_size_factor)
    if found is None:
        raise InputError(
            f"{source.particles.name}: nothing tells of a missing wedge (modposeTiltMin and "
            "modposeTiltMax, or rlnCtfImage), expected two tilts, as --wedge -60,60, or a file"
        )
    return found


def _check_range(limits: Floats, where: str) -> None:
    import torch

    from modpose.observe.wedge import check_tilt_range

    check_tilt_range(torch.from_numpy(limits), where)


# --- masks as volumes -------------------------------------------------------------------------


def _open_masks(wedge: str | Path | NDArray[Any]) -> Stack:
    if isinstance(wedge, str | Path):
        path = Path(wedge)
        if not path.exists():
            raise InputError(f"{path}: no such file of wedge masks")
        if is_mrc(path):
            return open_mrc(path, "volumes")
        stack = open_stack(path)
        if len(stack.shape) == 3:
            return stack
        wedge = stack.read(np.arange(stack.n))[:, 0]  # one (D, H, W) looks like D images
    if wedge.ndim not in (3, 4):
        raise InputError.of("wedge", "the shape of the mask", wedge.shape, "(D, D, D)")
    items = wedge.reshape(-1, *wedge.shape[-3:])
    return _PlainVolumes(items)


class _PlainVolumes(Stack):
    """Volumes of any shape in memory (halves of a Fourier transform are no cubes)."""

    def __init__(self, items: NDArray[Any]) -> None:
        self._items = items
        self.n, self.shape, self.channels = len(items), items.shape[1:], 1
        self.pixel_size, self.name, self.dtype = None, "wedge", items.dtype

    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        out[:, 0] = self._items[rows]


def _ctf_images(particles: Particles, table: Path | None, datadir: Path | None) -> Stack:
    names = [str(name) for name in particles.column(CTF_IMAGE)]
    found, missing = find_files(names, table or Path(particles.name), datadir)
    if missing:
        raise InputError(
            f"{particles.name}: the file {missing[0]} of {CTF_IMAGE} cannot be found beside the "
            "table, in its parent folders or in --datadir"
        )
    files = list(found)
    parts = [open_mrc(found[name], "volumes") for name in files]
    number = {name: i for i, name in enumerate(files)}
    if len(files) == 1:
        return parts[0]
    part = np.array([number[name] for name in names], np.int64)
    return RowsStack(parts, part, np.zeros(len(part), np.int64), particles.name)


def _check_masks(weights: Stack, source: Source) -> None:
    box = source.stack.shape
    half = (*box[:2], box[2] // 2 + 1)
    if weights.shape not in (box, half):
        found = " x ".join(map(str, weights.shape))
        raise InputError.of(
            weights.name,
            "the size of the wedge mask",
            found,
            f"{' x '.join(map(str, box))} as the volumes, or {' x '.join(map(str, half))}",
        )
    if weights.n not in (1, source.n):
        raise InputError.of(
            weights.name, "the number of wedge masks", weights.n, f"1 or {source.n}, one a volume"
        )


def _whole(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn centred weights, or half of an FFT's, into the order of a whole FFT."""
    if weights.shape[2] == weights.shape[1]:
        return np.fft.ifftshift(weights)
    import torch

    from modpose.observe.wedge import whole_mask

    return whole_mask(torch.from_numpy(weights)[None], weights.shape[1])[0].numpy()


def _resampled(
    mask: NDArray[np.float32], shape: tuple[int, ...], factor: float
) -> NDArray[np.float32]:
    """Read a whole mask at the nearest of its frequencies for volumes of another box."""
    index = []
    for axis, side in enumerate(shape):
        frequency = np.fft.fftfreq(side) / factor
        frequency = frequency[: side // 2 + 1] if axis == 2 else frequency
        index.append(np.rint(frequency * mask.shape[axis]).astype(np.int64) % mask.shape[axis])
    return np.ascontiguousarray(mask[np.ix_(*index)])


# --- tilts of tomograms -----------------------------------------------------------------------


def tilt_ranges(particles: Particles, tomograms: Path) -> Floats:
    """Look up each particle's tomogram; its smallest and largest tilt, (N, 2) degrees.

    Frames that rlnTomoVisibleFrames marks with 0 for a particle are left out for it.
    """
    tilts = _tilts_of_tomograms(tomograms)
    names = [str(name) for name in particles.column(TOMOGRAM)]
    unknown = next((name for name in names if name not in tilts), None)
    if unknown is not None:
        raise InputError(
            f"{tomograms}: there is no tomogram {unknown}, which {particles.name} names"
        )
    frames = particles.column(FRAMES) if particles.has(FRAMES) else None
    limits = np.empty((particles.n, 2))
    for row, name in enumerate(names):
        angles = tilts[name]
        if frames is not None:
            seen = _vector(frames[row], f"{particles.name}: {FRAMES} in row {row + 1}")
            if len(seen) != len(angles):
                raise InputError.of(
                    f"{particles.name}: row {row + 1}",
                    FRAMES,
                    f"{len(seen)} numbers",
                    f"{len(angles)}, the tilts of {name}",
                )
            angles = angles[seen != 0]
        limits[row] = (angles.min(), angles.max()) if len(angles) else (0.0, 0.0)
    _check_range(limits, particles.name)
    return limits


def _tilts_of_tomograms(path: Path) -> dict[str, Floats]:
    """Read the tilts of every tomogram of a RELION 4 or 5 list, degrees."""
    blocks = read_star(path)
    tilts: dict[str, Floats] = {}
    for name, block in blocks.items():
        if "rlnTomoProjZ" in columns_of(block):
            rows = [
                _vector(v, f"{path}: rlnTomoProjZ of {name}")
                for v in _column(block, "rlnTomoProjZ")
            ]
            beam = np.stack([row[:3] for row in rows])
            if np.abs(beam[:, 1]).max() > OFF_AXIS:
                raise InputError(f"{path}: {name} was tilted about another axis than y")
            tilts[name] = np.rad2deg(np.arctan2(-beam[:, 0], beam[:, 2]))
    for block in blocks.values():
        if "rlnTomoTiltSeriesStarFile" in columns_of(block):
            files = [str(v) for v in _column(block, "rlnTomoTiltSeriesStarFile")]
            found, missing = find_files(files, path, None)
            if missing:
                raise InputError(f"{path}: the tilt series {missing[0]} cannot be found")
            for name, file in zip(_column(block, TOMOGRAM), files, strict=True):
                tilts[str(name)] = _nominal_tilts(found[file])
    if not tilts:
        raise InputError(f"{path}: it names no tilts (rlnTomoProjZ or rlnTomoTiltSeriesStarFile)")
    return tilts


def _nominal_tilts(path: Path) -> Floats:
    for block in read_star(path).values():
        if "rlnTomoNominalStageTiltAngle" in columns_of(block):
            return np.array(_column(block, "rlnTomoNominalStageTiltAngle"), np.float64)
    raise InputError(f"{path}: it has no column rlnTomoNominalStageTiltAngle")


def _column(block: Any, name: str) -> Sequence[Any]:
    return [block[name]] if isinstance(block, dict) else list(block[name])


def _vector(text: Any, where: str) -> Floats:
    try:
        return np.array([float(word) for word in str(text).strip("[] ").split(",")])
    except ValueError:
        raise InputError.of(where, "the value", repr(text), "numbers in brackets") from None
