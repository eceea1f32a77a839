"""Averages over shells of the Fourier transforms of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modpose.alarms.sample import Floats


class Shells:
    """Shells of one cycle per box of the half plane of a real transform.

    Parameters
    ----------
    shape
        (H, W) of the images.
    first
        The first shell that counts, cycles per box.
    """

    def __init__(self, shape: tuple[int, ...], first: int) -> None:
        from scipy.sparse import csr_array

        self.shape = (shape[0], shape[1])
        ky = np.fft.fftfreq(shape[0])[:, None]
        kx = np.fft.rfftfreq(shape[1])[None]
        side = min(shape)
        index = np.rint(np.sqrt(ky**2 + kx**2) * side).astype(int).ravel()
        used = np.flatnonzero((index >= first) & (index <= side // 2))
        shells = side // 2 + 1 - first
        count = np.bincount(index[used] - first, minlength=shells)
        weights = 1 / count[index[used] - first]
        self._average = csr_array((weights, (used, index[used] - first)), (len(index), shells))

    def mean(self, values: NDArray[np.floating]) -> Floats:
        """Average (B, H, W // 2 + 1) over shells up to half the sampling rate, (B, shells)."""
        return np.asarray(values.reshape(len(values), -1) @ self._average, np.float64)
