"""Fourier shell correlation (FSC) between maps: how alike they are, frequency by frequency.

In shell k, FSC(k) = Re Σ A B* / √(Σ|A|² Σ|B|²) over the coefficients whose frequency rounds to k
over the box (Harauz & van Heel 1986).  The shells are those of :mod:`modpose.affinity.spectra`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from modpose.data.mrc import is_mrc, open_mrc
from modpose.errors import InputError
from modpose.fourier.shells import Shells, make_shells
from modpose.geometry.windows import soft_window

Floats = NDArray[np.float64]
Volume = NDArray[np.float32]

HALF_MAPS, KNOWN = 0.143, 0.5
"""Thresholds: between two half maps (Rosenthal & Henderson 2003), and against a known map."""
EDGE = 0.1
"""Width of the fall of a mask given by its radius, of half the box."""


@dataclass(frozen=True)
class FscCurve:
    """A Fourier shell correlation.

    Attributes
    ----------
    correlation
        (K,) shells 1 to K = half of the box.
    box
        Side of the maps, pixels.
    pixel_size
        Å; None if it is not known.
    """

    correlation: Floats
    box: int
    pixel_size: float | None = None

    @property
    def frequency(self) -> Floats:
        """(K,) cycles per pixel, up to 1/2."""
        return np.arange(1, len(self.correlation) + 1) / self.box

    def crossing(self, threshold: float) -> float:
        """Return the frequency, cycles per pixel, where the curve first falls below ``threshold``.

        Straight lines join the shells; Nyquist where it never falls below, 0 where it starts
        below.
        """
        below = np.flatnonzero(self.correlation < threshold)
        if not below.size:
            return float(self.frequency[-1])
        k = int(below[0])
        if k == 0:
            return 0.0
        high, low = self.correlation[k - 1], self.correlation[k]
        return float(k + (high - threshold) / (high - low)) / self.box

    def resolution(self, threshold: float) -> float:
        """Return one over :meth:`crossing`: Å, or pixels where their size is not known."""
        frequency = self.crossing(threshold)
        return float("inf") if frequency == 0 else (self.pixel_size or 1.0) / frequency

    def area(self, limit: float = 0.5) -> float:
        """Return the mean of the curve up to ``limit`` cycles per pixel: 1 for equal maps.

        The area under the curve over frequencies from 0 to 1/2, as CryoBench (Jeon et al. 2024)
        has it, is half of this.
        """
        return float(self.correlation[self.frequency <= limit + 1e-9].mean())

    def columns(self) -> dict[str, Floats]:
        """Return a table of shells: cycles per pixel, Å (where known), correlation."""
        found = {"cycles_per_px": self.frequency}
        if self.pixel_size is not None:
            found["resolution_A"] = self.pixel_size / self.frequency
        return found | {"fsc": self.correlation}

    def sentence(self, threshold: float) -> str:
        """Say at which resolution the curve falls below a threshold."""
        unit = "px" if self.pixel_size is None else "Å"
        found = self.resolution(threshold)
        if not np.isfinite(found):
            return f"FSC below {threshold:g} from the first shell on"
        beyond = "" if (self.correlation < threshold).any() else " (Nyquist; it never falls below)"
        return f"FSC = {threshold:g} at {found:.3g} {unit}{beyond}"


def fsc(
    a: ArrayLike,
    b: ArrayLike,
    mask: ArrayLike | None = None,
    pixel_size: float | None = None,
) -> FscCurve:
    """Correlate two maps shell by shell.

    Parameters
    ----------
    a, b
        (D, D, D) maps, or (D, D) images (then it is the ring correlation).
    mask
        What both are multiplied with, of the same shape.
    pixel_size
        Å.

    Raises
    ------
    InputError
        If the shapes differ, are not cubes, or a value is not finite.
    """
    first, second = (torch.as_tensor(np.asarray(x, np.float64)) for x in (a, b))
    shape = tuple(first.shape)
    if len(shape) not in (2, 3) or len(set(shape)) != 1 or second.shape != first.shape:
        found = f"{shape} and {tuple(second.shape)}"
        raise InputError.of("FSC", "the shapes of the maps", found, "two cubes of one size")
    if mask is not None:
        weight = torch.as_tensor(np.asarray(mask, np.float64))
        if weight.shape != first.shape:
            found = f"{tuple(weight.shape)}"
            raise InputError.of("FSC", "the shape of the mask", found, f"{shape}, that of the maps")
        first, second = first * weight, second * weight
    if not (first.isfinite().all() and second.isfinite().all()):
        raise InputError("FSC: a map holds a value that is NaN or infinite, expected finite ones")
    correlation = shell_correlation(first[None], second[None])[0].numpy()
    return FscCurve(correlation, shape[0], pixel_size)


def read_pair(
    a: Path, b: Path, mask: Path | None = None, radius: float | None = None
) -> tuple[Volume, Volume, Volume | None, float | None]:
    """Read two maps, the mask that both are seen in, or a soft ball, and their pixel size in Å.

    Raises
    ------
    InputError
        If a file is not one map, or pixel sizes differ.
    """
    if mask is not None and radius is not None:
        raise InputError("fsc: --mask and --radius are given, expected one of the two")
    if radius is not None and not 0 < radius <= 2:
        raise InputError.of("fsc", "--radius", radius, "a fraction of half the box, up to 2")
    (first, size), (second, other) = read_map(a), read_map(b)
    if size is not None and other is not None and abs(size - other) > 0.01 * size:
        found = f"{size:g} Å in {a} and {other:g} Å in {b}"
        raise InputError.of("fsc", "the pixel size", found, "one")
    weight = None if mask is None else read_map(mask)[0]
    if radius is not None:
        weight = soft_window(first.shape, radius - EDGE, radius).astype(np.float32)
    return first, second, weight, size or other


def read_map(path: Path) -> tuple[NDArray[np.float32], float | None]:
    """Read one map, (D, H, W), and its pixel size in Å from an MRC file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not is_mrc(path):
        raise InputError.of(path, "the extension", f"'{path.suffix}'", ".mrc or .map")
    stack = open_mrc(path, "volumes")
    if stack.n != 1:
        raise InputError.of(path, "the number of maps", stack.n, "1")
    return stack.read(np.array([0]))[0, 0], stack.pixel_size


def shell_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Correlate maps shell by shell, (C, *shape) each; (C, K), shells 1 to half the shortest side.

    A shell in which one of the two has nothing has the correlation 0.
    """
    shells = _shells(tuple(first.shape[1:]))
    axes = tuple(range(1, first.ndim))
    a, b = (
        torch.fft.rfftn(maps, dim=axes).flatten(1)[:, shells.position] for maps in (first, second)
    )
    sizes, weight = shells.size.tolist(), shells.weight.to(first.dtype)

    def summed(values: torch.Tensor) -> torch.Tensor:
        parts = torch.split(values * weight, sizes, 1)
        return torch.stack([part.sum(1) for part in parts], 1)

    both = (summed(a.abs().square()) * summed(b.abs().square())).sqrt()
    cross = summed((a.conj() * b).real)
    return torch.where(both > 0, cross / both.clamp_min(1e-30), 0.0)


@lru_cache(maxsize=8)
def _shells(shape: tuple[int, ...]) -> Shells:
    return make_shells(shape)


def ssnr_of(fsc: torch.Tensor, *, halved: bool) -> torch.Tensor:
    """Spectral signal-to-noise ratio from the correlation of two halves; of their sum: halved."""
    bounded = fsc.clamp(1e-3, 0.9999)
    ratio = bounded / (1 - bounded)
    return 2 * ratio if halved else ratio


def fsc_of_classes(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Fourier shell correlation (C, shells) of volumes (C, D, D, D); the mean's, shell 0, is 1."""
    found = shell_correlation(a, b)
    return torch.cat([torch.ones_like(found[:, :1]), found], 1)


def resolution_shell(fsc: torch.Tensor, threshold: float = 0.143) -> torch.Tensor:
    """Return the last shell (C,) before the correlation first falls below the threshold."""
    below = fsc[:, 1:] < threshold
    return torch.where(below.any(1), below.float().argmax(1), below.shape[1])
