"""Shells of Fourier coefficients, and vectors whose products are mean shell correlations.

With N_k coefficients in shell k, the weighted mean Fourier shell correlation of two volumes is
sum_k N_k FSC(k) / sum_k N_k (Brown et al. 2015, Acta Cryst. D 71, 136-153).  Each volume's
coefficients are divided by the square root of their power in the shell and multiplied by
sqrt(N_k / sum N); the correlation is then an inner product of two vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.errors import InputError

EMPTY = 1e-12
"""Mean power in a shell, relative to the strongest shell, that is only float32 rounding."""


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
        Highest shell, cycles per box; None is Nyquist, half of the shortest side.  The zero
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
    """Scale every shell to the power N_k / sum N, so that the vector has unit length.

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
