"""Fourier shell and ring correlation, averaged over shells, for all pairs in one product.

With N_k coefficients in shell k, the affinity of two volumes is the mean of their Fourier shell
correlation (affinity-VAE, equation 4) weighted by N_k (Brown et al. 2015, Acta Cryst. D 71,
136-153).  Dividing each volume's coefficients by the square root of their power in the shell, and
multiplying by sqrt(N_k / sum N), turns that into an inner product of two vectors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.affinity.matrix import Matrix
from modpose.errors import InputError

EMPTY = 1e-12
"""Mean power in a shell, relative to the strongest shell, which is rounding of float32."""


@dataclass(frozen=True)
class Shells:
    """The Fourier coefficients inside a frequency limit, half of them as the others are conjugate.

    Attributes
    ----------
    position
        (F,) positions in the flattened ``rfftn`` of a volume, shell after shell: frequencies
        that round to 1, 2, ... kmax over the shortest side.
    size
        (kmax,) how many of these positions are in each shell.
    weight
        (F,) how many coefficients each stands for: 2, or 1 where its conjugate is listed too.
    count
        (kmax,) coefficients in each shell, N_k.
    """

    position: Tensor
    size: Tensor
    weight: Tensor
    count: Tensor


def make_shells(shape: Sequence[int], kmax: int | None = None) -> Shells:
    """List the coefficients of shells 1 to ``kmax``.

    Parameters
    ----------
    shape
        (H, W) or (D, H, W).
    kmax
        Highest shell, cycles a box; None is Nyquist, half of the shortest side.  The zero
        frequency, a volume's mean, is left out.
    """
    nyquist = min(shape) // 2
    limit = nyquist if kmax is None else kmax
    if not 1 <= limit <= nyquist:
        expected = f"1 to {nyquist} for images of {'x'.join(map(str, shape))}"
        raise InputError.of("kmax", "the highest shell", limit, expected)
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) for side in shape[:-1]]
    axes.append(torch.fft.rfftfreq(shape[-1], dtype=torch.float64))
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    shell = (frequency * min(shape)).round().long().reshape(-1)
    position = torch.nonzero((shell >= 1) & (shell <= limit)).squeeze(-1)
    position = position[shell[position].argsort(stable=True)]
    column = position % len(axes[-1])
    alone = (column == 0) | (2 * column == shape[-1])
    weight = torch.where(alone, 1.0, 2.0)
    size = torch.bincount(shell[position] - 1, minlength=limit)
    count = torch.stack([some.sum() for some in torch.split(weight, size.tolist())])
    return Shells(position, size, weight, count)


def whitened_spectra(images: Tensor, shells: Shells) -> Tensor:
    """Return unit vectors whose inner products are the weighted mean shell correlations.

    Parameters
    ----------
    images
        (B, H, W) or (B, D, H, W).
    shells
        Of :func:`make_shells`, for that shape.

    Returns
    -------
    Tensor
        (B, 2F) float32.  A shell in which an image has no power counts for nothing: its vector
        is scaled to unit length without it.
    """
    axes = tuple(range(1, images.ndim))
    centred = images.float() - images.float().mean(dim=axes, keepdim=True)
    spectrum = torch.fft.rfftn(centred, dim=axes).flatten(1)[:, shells.position]
    return torch.view_as_real(whiten(spectrum, shells)).flatten(1)


def whiten(spectrum: Tensor, shells: Shells) -> Tensor:
    """Give every shell the power N_k / sum N, so that the whole has unit length.

    Parameters
    ----------
    spectrum
        (B, F) complex coefficients at the shells' positions, in that order.
    shells
        Which coefficient is in which shell.

    Returns
    -------
    Tensor
        (B, F) complex, each times the square root of how many coefficients it stands for.
    """
    energy = torch.view_as_real(spectrum).square().sum(dim=-1) * shells.weight
    power = [some.sum(dim=1) for some in torch.split(energy, shells.size.tolist(), 1)]
    density = torch.stack(power, dim=1) / shells.count
    there = density > EMPTY * density.amax(dim=1, keepdim=True)
    held = (there * shells.count).sum(dim=1, keepdim=True).clamp_min(1.0)
    gain = torch.where(there, (density * held).clamp_min(1e-38).rsqrt(), 0.0)
    return spectrum * (gain.repeat_interleave(shells.size, dim=1) * shells.weight.sqrt())


def cosines(features: Tensor, power: float = 1.0) -> Matrix:
    """Return the (N, N) inner products of unit vectors (N, F), each to a power.

    With a power other than 1 the vectors are such that no product is negative but by rounding.
    """
    product = (features @ features.T).double()
    product = ((product + product.T) / 2).clamp(-1.0, 1.0)
    product = product.clamp_min(0.0).pow(power) if power != 1 else product
    return product.fill_diagonal_(1.0).numpy()


@dataclass(frozen=True)
class Fsc:
    """Fourier shell correlation (in 2-D: ring), its shells weighted by their coefficients.

    It compares objects as they lie, so it is for templates in one canonical pose: of one object
    in two random poses it is about 0.03.  Between 1 and -1; always positive semi-definite.

    Attributes
    ----------
    kmax
        Highest shell, cycles a box; None is Nyquist.  Most coefficients are in the outer shells,
        so without a limit these decide.
    """

    kmax: int | None = None

    def describe(self, images: Tensor) -> Tensor:
        """Whiten (B, *shape) images to (B, F) unit vectors."""
        return whitened_spectra(images, make_shells(images.shape[1:], self.kmax))

    def compare(self, features: Tensor) -> Matrix:
        """Multiply: (N, F) to (N, N)."""
        return cosines(features)


def check_zeta(zeta: float) -> None:
    """Refuse a power that does not keep affinities in order."""
    if not 0 < zeta < float("inf"):
        raise InputError.of("zeta", "the power of the cosine", zeta, "more than zero")


def refuse_too_large(count: int, numbers: int, metric: str) -> None:
    """Say so before memory runs out: ``count`` descriptors of ``numbers`` float32 each."""
    needed = 4 * count * numbers + 16 * count**2
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * have:
        raise InputError(
            f"{metric}: the descriptors of {count} images need {needed / 2**30:.1f} GiB and this "
            f"machine has {have / 2**30:.1f}, expected fewer images, or a lower limit (--kmax)"
        )
