"""Sharpened maps: the fall of amplitudes with frequency is measured and taken off.

Amplitudes of a map fall as exp(-B s^2 / 4).  The B-factor B is the slope of their logarithm over
s^2, from 10 Å to the resolution (Rosenthal & Henderson 2003).  Each shell then also counts by
sqrt(2 FSC / (1 + FSC)), the expected correlation with a map without noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from modpose.fourier.fsc import HALF_MAPS, FscCurve
from modpose.fourier.shells import make_shells

COARSEST = 10.0
"""Å; coarser amplitudes are those of the molecule's shape."""
LEAST_SHELLS = 4
"""Shells that a B-factor is measured from."""
SHAPE = 0.5
"""Where there are fewer, it is measured from this fraction of the highest frequency."""


@dataclass(frozen=True)
class Sharpened:
    """A sharpened map.

    Attributes
    ----------
    volume
        (D, D, D).
    b_factor
        What was taken off, Å² (squared pixels where their size is not known); 0 if nothing was.
    coarsest, finest
        Resolutions between which it was measured, Å or pixels.
    pixel_size
        Å; None where it is not known.
    """

    volume: NDArray[np.float32]
    b_factor: float
    coarsest: float
    finest: float
    pixel_size: float | None

    def sentence(self) -> str:
        """Say what was taken off, and where it was measured."""
        unit = "px" if self.pixel_size is None else "Å"
        if self.b_factor == 0:
            return "not sharpened, because no fall of amplitudes was found"
        text = (
            f"sharpened by a B-factor of {self.b_factor:.0f} {unit}², measured from "
            f"{self.coarsest:.3g} to {self.finest:.3g} {unit}"
        )
        if self.pixel_size is None or self.coarsest > 1.01 * COARSEST:
            text += " (this also flattens the molecule's shape: for viewing)"
        return text


def sharpened(first: ArrayLike, second: ArrayLike, mask: ArrayLike, curve: FscCurve) -> Sharpened:
    """Average two half maps and take off the fall of their amplitudes.

    Parameters
    ----------
    first, second
        (D, D, D) without a filter.
    mask
        (D, D, D) inside which amplitudes are measured.
    curve
        How well they agree; nothing is left beyond its resolution at 0.143.
    """
    mean = torch.from_numpy((np.asarray(first, np.float64) + np.asarray(second, np.float64)) / 2)
    box, size = curve.box, curve.pixel_size or 1.0
    last = math.floor(curve.crossing(HALF_MAPS) * box + 1e-6)
    if last < 2:
        return Sharpened(mean.float().numpy(), 0.0, math.inf, math.inf, curve.pixel_size)
    agreed = np.clip(curve.correlation, 0, 1)
    worth = np.sqrt(2 * agreed / (1 + agreed))
    worth[last:] = 0
    square = (curve.frequency / size) ** 2
    first_shell = math.ceil(box * size / COARSEST)
    if last - first_shell + 1 < LEAST_SHELLS or curve.pixel_size is None:
        first_shell = max(1, min(math.ceil(SHAPE * last), last - LEAST_SHELLS + 1))
    used = slice(first_shell - 1, last)
    inside = torch.fft.rfftn(mean * torch.from_numpy(np.asarray(mask, np.float64)))
    amplitude = worth[used] * _amplitudes(inside, (box,) * 3)[used]
    slope = np.polyfit(square[used], np.log(amplitude.clip(1e-30)), 1)[0]
    factor = max(0.0, -4 * float(slope))
    gain = np.concatenate([[worth[0]], worth * np.exp(factor * square / 4)])
    axes = [torch.fft.fftfreq(box), torch.fft.fftfreq(box), torch.fft.rfftfreq(box)]
    radius = box * torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0).numpy()
    filtered = torch.fft.rfftn(mean) * torch.from_numpy(
        np.interp(radius, np.arange(len(gain)), gain, right=0.0)
    )
    volume = torch.fft.irfftn(filtered, s=(box,) * 3).float().numpy()
    coarsest, finest = box * size / first_shell, box * size / last
    return Sharpened(volume, factor, coarsest, finest, curve.pixel_size)


def _amplitudes(spectrum: torch.Tensor, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Root mean square of a half spectrum by shell, (K,), shells 1 to half the side."""
    shells = make_shells(shape)
    power = spectrum.abs().square().flatten()[shells.position] * shells.weight
    parts = torch.split(power, shells.size.tolist())
    total = torch.stack([part.sum() for part in parts])
    return (total / shells.count).sqrt().numpy()
