"""The prior of the maps: their spectra, from the agreement of halves, and their amplitude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from modpose.content_maps.equations import Equations, MaskBox

LOOSE, SHARE = 3.0, 0.05
"""Spectrum of the mean and of each other map, over the consensus's, before any is known."""
CONSENSUS_ROUNDS = 3
SMOOTH_MEAN, SMOOTH = 1.0, 2.0
"""Width of the smoothing over shells: of the mean's spectrum, and of ratios to it."""
LEAST, MOST = 1e-3, 3.0
"""Smallest and largest ratio of a spectrum to the mean's."""
CONSENSUS_ITERATIONS = 20
LARGEST_VOXELS = 0.01
"""Fraction of the voxels, the strongest, whose amplitude is taken to be one."""
FAINTEST, BRIGHTEST = 0.02, 1.5
"""Bounds of the amplitude's square."""


class Prior(NamedTuple):
    """What is expected of the maps before the images are seen.

    Attributes
    ----------
    spectrum
        (J, shells) variance of unitary coefficients of the stationary fields.
    amplitude
        (J or 1, b, b, b) what these are multiplied by.
    """

    spectrum: Tensor
    amplitude: Tensor


def consensus_spectrum(halves: Sequence[Equations]) -> Tensor:
    """Return the spectrum (shells,) of the first map, from the agreement of two halves.

    The two are solved with the spectrum so far, and the shrinkage that it causes is divided out.
    """
    first = [half.of_the_mean() for half in halves]
    box = first[0].box
    energy = box.mask.square().sum()
    noise = 1 / (first[0].precision() + first[1].precision())
    spectrum, maps = LOOSE * LOOSE * noise, [torch.zeros_like(half.right) for half in first]
    for _ in range(CONSENSUS_ROUNDS):
        maps = [
            half.solve(spectrum, box.mask[None], CONSENSUS_ITERATIONS, start)
            for half, start in zip(first, maps, strict=True)
        ]
        gain = [spectrum / (spectrum + 1 / half.precision()) for half in first]
        shared = box.power(*maps) / energy / (gain[0] * gain[1])
        ratio = (shared / noise).clamp(min=LEAST).log()
        smooth = _smoothed(ratio, torch.ones_like(ratio), SMOOTH_MEAN, box.last)
        spectrum = _ends(smooth.exp() * noise, box.last)
    return spectrum[0]


def loose_spectra(consensus: Tensor, count: int) -> Tensor:
    """Return spectra (count, shells) for a first solution, from that of the mean (shells,)."""
    return torch.cat([LOOSE * consensus[None], SHARE * consensus.expand(count - 1, -1)])


def spectra(
    maps: Sequence[Tensor],
    precision: Sequence[Tensor],
    consensus: Tensor,
    regions: Tensor,
    box: MaskBox,
) -> Tensor:
    """Return the spectra (J, shells) of all maps, from what those of two parts agree on.

    Parameters
    ----------
    maps
        (J, b, b, b) of each part, solved with loose spectra.
    precision
        (J, shells) that the images of each part give (:meth:`Equations.precision`).
    consensus
        (shells,) spectrum of the mean.
    regions
        (J, b, b, b) where each map may be, from 0 to 1.
    box
        Where they are.

    Notes
    -----
    Estimated again from maps that were solved with them, spectra would feed on themselves: weak
    ones vanish and strong ones grow.
    """
    loose = loose_spectra(consensus, len(maps[0]))
    energy = regions.square().sum((1, 2, 3))[:, None]
    gain = [loose / (loose + 1 / one) for one in precision]
    shared = box.power(*maps) / energy / (gain[0] * gain[1])
    noise = 1 / (precision[0] + precision[1])
    independent = (box.count * energy / box.side**3).clamp(min=1)
    variance = (2 * noise + shared.clamp(min=0)).square() / independent
    certainty = consensus.square() / variance
    ratio = _smoothed(shared / consensus, certainty, SMOOTH, box.last).clamp(LEAST, MOST)
    return _ends(ratio * consensus, box.last)


def amplitude_prior(
    maps: Tensor, spectrum: Tensor, box: MaskBox, regions: Tensor, groups: tuple[int, int, int]
) -> Prior:
    """Let the fields be strong where the maps are: one amplitude for each group of maps.

    Parameters
    ----------
    maps
        (J, b, b, b) a first solution.
    spectrum
        (J, shells) found with the regions as the amplitudes; the power of the maps is kept.
    box, regions
        Where they are.
    groups
        How many maps are in each group: the mean, the other functions of content, nuisances.
    """
    amplitude, ends = regions.clone(), [groups[0], groups[0] + groups[1]]
    for held, region in zip(*(x.tensor_split(ends) for x in (maps, amplitude)), strict=True):
        if len(held):
            region.mul_(_amplitude(held, box))
    energy = [part.square().sum((1, 2, 3)).clamp(min=1e-9) for part in (regions, amplitude)]
    scale = energy[0] / energy[1]
    return Prior(spectrum * scale[:, None], amplitude)


def _amplitude(maps: Tensor, box: MaskBox) -> Tensor:
    """Square root of the local root mean square of maps."""
    power = torch.from_numpy(gaussian_filter(maps.square().sum(0).cpu().numpy(), 1.0))
    local = power.to(maps).clamp(min=0).sqrt()
    rank = max(1, round(LARGEST_VOXELS * box.box**3))
    strong = local.flatten().sort(descending=True).values[min(rank, local.numel()) - 1]
    return (local / strong.clamp(min=1e-30)).clamp(FAINTEST, BRIGHTEST).sqrt()


def _smoothed(values: Tensor, weight: Tensor, width: float, last: int) -> Tensor:
    """Weighted Gaussian mean of tables (J, shells) over shells; the first and last count nothing.

    The first is the mean of the volume; the last is cut by the limit of the images, and there are
    no data beyond.
    """
    shell = torch.arange(values.shape[1], device=values.device)
    window = torch.exp(-0.5 * ((shell[:, None] - shell) / width).square())
    window[:, 0] = window[:, last:] = 0
    return (weight * values) @ window.T / (weight @ window.T).clamp(min=1e-30)


def _ends(spectrum: Tensor, last: int) -> Tensor:
    """Continue a spectrum to its first shell, and from the last one with data on."""
    spectrum[:, 0], spectrum[:, last:] = spectrum[:, 1], spectrum[:, last - 1 : last]
    return spectrum
