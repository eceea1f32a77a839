"""Averages of posed images, corrected for the CTF, with the agreement of their two halves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.fsc import fsc_of_classes, ssnr_of
from modpose.geometry.windows import soft_window
from modpose.search.abinitio.scores import Cells
from modpose.search.classes2d.turning import Turning

EDGE_PX = 3.0
"""Pixels over which the mask of the averages falls."""
HARDLY = 1e-3
"""Share of the mean weight of a class that is added to weights without a prior."""


class ClassSums(NamedTuple):
    """Sums over posed images of C classes: the even images first, then the odd ones.

    Attributes
    ----------
    value
        (2, C, A, K) sums of coefficients times CTF, for each of A angles.
    weight
        (2, C, shells) sums of squared CTF.
    """

    value: Tensor
    weight: Tensor

    @staticmethod
    def empty(classes: int, angles: int, shell: Tensor) -> ClassSums:
        """Return sums over nothing, of K coefficients in shells (K,)."""
        value = torch.zeros(2, classes, angles, len(shell), dtype=torch.complex64)
        return ClassSums(value, torch.zeros(2, classes, int(shell.max()) + 1))

    def plus(self, other: ClassSums, share: float) -> ClassSums:
        """Add a share of other sums, which may reach to a lower frequency."""
        value = torch.view_as_real(other.value)
        value = pad(value, (0, 0, 0, self.value.shape[-1] - value.shape[-2]))
        weight = pad(other.weight, (0, self.weight.shape[-1] - other.weight.shape[-1]))
        return ClassSums(
            self.value + share * torch.view_as_complex(value), self.weight + share * weight
        )

    def add(self, data: Coefficients, rows: Tensor, cells: Cells) -> None:
        """Add B images at M cells each, with equal shares; ``rows`` are their numbers."""
        _, classes, angles, count = self.value.shape
        draws = cells.row.shape[1]
        owner = torch.arange(len(data)).repeat_interleave(draws)
        flat = pad(cells.shift.flatten(0, 1), (0, 1))
        back = (data.value * data.transfer)[owner] * phases(data.frequency, -flat)
        back = torch.where(cells.half_turn.flatten()[:, None], back.conj(), back) / draws
        row, half = cells.row.flatten(), (rows % 2)[owner]
        self.value.view(-1, count).index_add_(0, half * classes * angles + row, back)
        slot = half * classes + row // angles
        self.weight.flatten(0, 1).index_add_(0, slot, power_by_shell(data)[owner] / draws)


def power_by_shell(data: Coefficients) -> Tensor:
    """Mean of the squared transfer of B images by shell, (B, shells)."""
    number = torch.bincount(data.shell)
    total = torch.zeros(len(data), len(number))
    total.index_add_(1, data.shell, data.transfer.square().expand(len(data), -1))
    return total / number.clamp(min=1)


def averages(sums: ClassSums, turning: Turning, diameter: float) -> tuple[Tensor, Tensor]:
    """Divide sums by the squared CTF, with a prior from the agreement of the halves (Wiener).

    Parameters
    ----------
    sums
        Of C classes.
    turning
        Their angles, frequencies and box.
    diameter
        Of the circle outside of which the averages are zero, pixels.

    Returns
    -------
    pictures, frc
        (C, D, D), and (C, shells) the correlation of two halves that share their references.
    """
    box, shells = turning.box, sums.weight.shape[-1]
    edges = ((diameter - EDGE_PX) / box, (diameter + EDGE_PX) / box)
    mask = torch.from_numpy(soft_window((box, box), *edges))
    value = torch.cat([*sums.value, sums.value.sum(0)])
    weight = torch.cat([*sums.weight, sums.weight.sum(0)])
    weight = weight + HARDLY * weight.mean(1, keepdim=True) + 1e-12
    first, second, both = (turning.turned_back(value, weight) * mask).chunk(3)
    frc = fsc_of_classes(first, second)
    frc = pad(frc, (0, max(0, shells - frc.shape[1])))[:, :shells]
    return _filtered(both, 1 / (1 + 1 / ssnr_of(frc, halved=True))) * mask, frc


def _filtered(pictures: Tensor, factor: Tensor) -> Tensor:
    """Multiply the coefficients of pictures (C, D, D) by factors (C, shells); zero beyond these."""
    box, shells = pictures.shape[-1], factor.shape[1]
    x, y = torch.fft.rfftfreq(box) * box, torch.fft.fftfreq(box) * box
    shell = torch.hypot(y[:, None], x).round().long()
    every = pad(factor, (0, max(0, int(shell.max()) + 1 - shells)))
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(pictures) * every[:, shell], s=(box, box))
    return found
