"""Fourier shell and ring correlation, averaged over shells, for all pairs in one product.

The affinity of two volumes is the mean of their Fourier shell correlation (affinity-VAE, equation
4) weighted by the number of coefficients in each shell (:mod:`modpose.fourier.shells`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from torch import Tensor

from modpose.affinity.matrix import Matrix
from modpose.errors import InputError
from modpose.fourier.shells import make_shells, whitened_spectra
from modpose.limits import check_real


def cosines(features: Tensor, power: float = 1.0) -> Matrix:
    """Return the (N, N) inner products of unit vectors (N, F), each to a power.

    With a power other than 1, no product may be negative except by rounding.
    """
    product = (features @ features.T).double()
    product = ((product + product.T) / 2).clamp(-1.0, 1.0)
    product = product.clamp_min(0.0).pow(power) if power != 1 else product
    return product.fill_diagonal_(1.0).numpy()


@dataclass(frozen=True)
class Fsc:
    """Fourier shell correlation (in 2-D: ring), its shells weighted by their coefficients.

    It does not align the objects, so it is for templates in one canonical pose; one object in two
    random poses gives about 0.03.  Between 1 and -1; always positive semi-definite.

    Attributes
    ----------
    kmax
        Highest shell, cycles per box; None is Nyquist.  Most coefficients are in the outer shells,
        which dominate without a limit.
    """

    kmax: int | None = None

    def describe(self, images: Tensor) -> Tensor:
        """Whiten (B, *shape) images to (B, F) unit vectors."""
        return whitened_spectra(images, make_shells(images.shape[1:], self.kmax))

    def compare(self, features: Tensor) -> Matrix:
        """Multiply: (N, F) to (N, N)."""
        return cosines(features)


def check_zeta(zeta: float) -> None:
    """Refuse a power that does not keep the order of affinities."""
    check_real("zeta", "the power of the cosine", zeta, 0, 1000, low_counts=False)


def refuse_too_large(count: int, numbers: int, metric: str) -> None:
    """Refuse ``count`` descriptors of ``numbers`` float32 each if they do not fit into memory."""
    needed = 4 * count * numbers + 16 * count**2
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * have:
        raise InputError(
            f"{metric}: the descriptors of {count} images need {needed / 2**30:.1f} GiB and this "
            f"machine has {have / 2**30:.1f}, expected fewer images, or a lower limit (--kmax)"
        )
