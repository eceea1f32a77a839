"""The resolution of half maps: inside a mask, corrected for the mask, and by direction.

A mask that is shared by two maps correlates them.  How much is measured with maps whose phases are
replaced by random ones beyond a frequency: FSC = (FSC_masked - FSC_random) / (1 - FSC_random) there
(Chen et al. 2013, Ultramicroscopy 135, 24-35).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from modpose.errors import InputError
from modpose.fourier.fsc import HALF_MAPS, KNOWN, FscCurve, fsc, read_pair
from modpose.fourier.shells import make_shells
from modpose.limits import check_seed

logger = logging.getLogger("modpose")

Floats = NDArray[np.float64]

RANDOM_BELOW = 0.8
"""Phases are randomised beyond where the FSC of whole maps first falls below this."""
SAFE_SHELLS = 2
"""Shells after that, in which the correction is not stable yet and is left out."""
CONE_DEG = 20.0
"""Half angle of a cone."""


@dataclass(frozen=True)
class Cones:
    """Correlations inside double cones about directions.

    Attributes
    ----------
    direction
        (C, 3) unit vectors, order x, y, z, one of each pair of opposite ones.
    correlation
        (C, K) shells 1 to K; NaN in shells of which a cone has no coefficient.
    curve
        Box and pixel size are those of this curve.
    """

    direction: Floats
    correlation: Floats
    curve: FscCurve

    def resolutions(self, threshold: float) -> Floats:
        """Return where each curve falls below a threshold, (C,) Å or pixels."""
        found = []
        for values in self.correlation:
            filled = np.where(np.isfinite(values), values, 1.0)
            curve = FscCurve(filled, self.curve.box, self.curve.pixel_size)
            found.append(curve.resolution(threshold))
        return np.array(found)

    def sentence(self, threshold: float = HALF_MAPS) -> str:
        """Describe how much the resolution depends on direction."""
        found = self.resolutions(threshold)
        best, worst = int(found.argmin()), int(found.argmax())
        unit = "px" if self.curve.pixel_size is None else "Å"

        def where(k: int) -> str:
            return (
                f"{found[k]:.3g} {unit} along ({', '.join(f'{x:.2f}' for x in self.direction[k])})"
            )

        return f"FSC = {threshold:g} by direction: best {where(best)}, worst {where(worst)}"


@dataclass(frozen=True)
class Resolution:
    """Curves of two maps.

    Attributes
    ----------
    curve
        The one that counts: inside the mask, and corrected where phases were randomised.
    unmasked
        Of the whole maps.
    masked
        Inside the mask; None without one.
    randomised
        The same of maps with random phases; None if they were not requested.
    beyond
        First shell of random phases, cycles per box; None as above.
    cones
        By direction; None if they were not requested.
    """

    curve: FscCurve
    unmasked: FscCurve
    masked: FscCurve | None = None
    randomised: FscCurve | None = None
    beyond: int | None = None
    cones: Cones | None = None

    def curves(self, name: str) -> dict[str, FscCurve]:
        """Return the curves to draw, the one that counts first, under ``name``."""
        found = {name: self.curve}
        if self.masked is not None and self.randomised is not None:
            found |= {"not corrected": self.masked, "random phases": self.randomised}
        if self.masked is not None:
            found["whole maps"] = self.unmasked
        return found

    def facts(self) -> dict[str, object]:
        """Name the figures: resolutions in Å, or in pixels where their size is not known."""
        facts: dict[str, object] = {
            f"resolution_{t:g}": self.curve.resolution(t) for t in (HALF_MAPS, KNOWN)
        }
        unit = "px" if self.curve.pixel_size is None else "A"
        facts |= {"unit": unit, "mean_fsc": self.curve.area(), "random_beyond": self.beyond}
        if self.cones is not None:
            facts["cones"] = self.cones.resolutions(HALF_MAPS)
        return facts

    def lines(self) -> list[str]:
        """Say what was done, and how much the resolution differs with direction."""
        found = []
        if self.beyond is not None:
            size, unit = (
                self.curve.pixel_size or 1.0,
                "px" if self.curve.pixel_size is None else "Å",
            )
            at = size * self.curve.box / self.beyond
            found.append(
                f"phases are random beyond {at:.3g} {unit} (shell {self.beyond}), where the FSC of "
                f"the whole maps falls below {RANDOM_BELOW:g}; the FSC is corrected from there"
            )
        if self.cones is not None:
            mask = self.masked is not None and self.randomised is None
            note = "; what the mask adds is not taken off (--randomise)" if mask else ""
            found.append(self.cones.sentence() + note)
        return found


def resolution(
    a: ArrayLike,
    b: ArrayLike,
    mask: ArrayLike | None = None,
    pixel_size: float | None = None,
    *,
    randomise: bool = False,
    cones: int = 0,
    cone_deg: float = CONE_DEG,
    seed: int = 0,
) -> Resolution:
    """Correlate two half maps.

    Parameters
    ----------
    a, b
        (D, D, D) maps.
    mask
        What both are multiplied with; None for the whole maps.
    pixel_size
        Å.
    randomise
        Take off what the mask adds.
    cones
        Number of directions, spread evenly over half a sphere; 0 for none.
    cone_deg
        Half angle of a cone, degrees.
    seed
        Of the random phases.

    Raises
    ------
    InputError
        The maps do not fit together; phases are to be random and there is no mask, or the maps
        agree so well that there is no frequency to begin at.
    """
    if randomise and mask is None:
        raise InputError("fsc: --randomise is given without a mask, expected --mask or --radius")
    if cones < 0 or not 0 < cone_deg <= 90:
        raise InputError.of("fsc", "a cone", f"{cones} of {cone_deg:g} degrees", "up to 90 degrees")
    check_seed("fsc", seed)
    unmasked = fsc(a, b, None, pixel_size)
    masked = None if mask is None else fsc(a, b, mask, pixel_size)
    curve, randomised, beyond, drawn = masked or unmasked, None, None, None
    weight = np.ones(1) if mask is None else np.asarray(mask, np.float64)
    pair = [np.asarray(x, np.float64) for x in (a, b)]
    if randomise and masked is not None:
        beyond = _first_below(unmasked)
        drawn = [with_random_phases(x, beyond, seed + k) * weight for k, x in enumerate(pair)]
        randomised = fsc(drawn[0], drawn[1], None, pixel_size)
        values = _corrected(masked.correlation, randomised.correlation, beyond)
        curve = FscCurve(values, masked.box, pixel_size)
    found = None
    if cones:
        directions = half_sphere(cones)
        values = _in_cones(pair[0] * weight, pair[1] * weight, directions, cone_deg)
        if drawn is not None and beyond is not None:
            chance = _in_cones(drawn[0], drawn[1], directions, cone_deg)
            values = _corrected(values, chance, beyond)
        found = Cones(directions, values, curve)
    return Resolution(curve, unmasked, masked, randomised, beyond, found)


def resolution_of_files(
    a: Path,
    b: Path,
    mask: Path | None = None,
    radius: float | None = None,
    *,
    randomise: bool = False,
    cones: int = 0,
    cone_deg: float = CONE_DEG,
    seed: int = 0,
) -> Resolution:
    """Do the same for MRC files; ``radius`` is that of a soft ball, in half boxes."""
    first, second, weight, size = read_pair(a, b, mask, radius)
    if np.array_equal(first, second):
        logger.warning("%s and %s hold the same map, so their FSC is 1 everywhere", a, b)
    return resolution(
        first,
        second,
        weight,
        size,
        randomise=randomise,
        cones=cones,
        cone_deg=cone_deg,
        seed=seed,
    )


def with_random_phases(volume: Floats, first: int, seed: int) -> Floats:
    """Keep the amplitudes of a map and draw its phases at random from shell ``first`` on."""
    noise = np.random.default_rng(seed).standard_normal(volume.shape)
    spectrum, drawn = (torch.fft.rfftn(torch.from_numpy(x)) for x in (volume, noise))
    beyond = _radius(volume.shape) >= first - 0.5
    spectrum[beyond] = torch.polar(spectrum[beyond].abs(), drawn[beyond].angle())
    return np.asarray(torch.fft.irfftn(spectrum, s=volume.shape).numpy())


def _radius(shape: tuple[int, ...]) -> torch.Tensor:
    """Length of each frequency of ``rfftn``, cycles per box."""
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) * shape[0] for side in shape[:-1]]
    axes.append(torch.fft.rfftfreq(shape[-1], dtype=torch.float64) * shape[0])
    radius: torch.Tensor = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    return radius


def _first_below(curve: FscCurve) -> int:
    below = np.flatnonzero(curve.correlation < RANDOM_BELOW)
    if not below.size:
        expected = f"maps whose FSC falls below {RANDOM_BELOW:g} (half maps of noisy data)"
        raise InputError.of("fsc", "the smallest FSC", f"{curve.correlation.min():.3g}", expected)
    return int(below[0]) + 1


def _corrected(masked: Floats, chance: Floats, beyond: int) -> Floats:
    """Correct curves (..., K) for the effect of the mask."""
    values = masked.copy()
    late = slice(beyond + SAFE_SHELLS - 1, None)
    left = np.maximum(1 - chance[..., late], 1e-6)
    values[..., late] = (masked[..., late] - chance[..., late]) / left
    return values


def _in_cones(a: Floats, b: Floats, directions: Floats, cone_deg: float) -> Floats:
    """Correlate inside double cones about directions (C, 3); (C, K), NaN in empty shells."""
    shells = make_shells(a.shape)
    first, second = (
        torch.fft.rfftn(torch.from_numpy(x)).flatten()[shells.position] for x in (a, b)
    )
    shell = torch.repeat_interleave(torch.arange(len(shells.size)), shells.size)
    cross = (first.conj() * second).real * shells.weight
    powers = [part.abs().square() * shells.weight for part in (first, second)]
    k = _directions_of(tuple(a.shape), shells.position)
    limit = np.cos(np.deg2rad(cone_deg))
    found = np.full((len(directions), len(shells.size)), np.nan)
    for row, direction in enumerate(directions):
        inside = (k @ torch.from_numpy(direction)).abs() >= limit
        sums = [
            torch.bincount(shell[inside], part[inside], minlength=len(shells.size))
            for part in (cross, *powers)
        ]
        both = (sums[1] * sums[2]).sqrt()
        found[row] = torch.where(both > 0, sums[0] / both.clamp_min(1e-30), torch.nan).numpy()
    return found


def _directions_of(shape: tuple[int, ...], position: torch.Tensor) -> torch.Tensor:
    """Directions (F, 3) of coefficients at positions of a flattened ``rfftn``, order x, y, z."""
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) for side in shape[:-1]]
    axes.append(torch.fft.rfftfreq(shape[-1], dtype=torch.float64))
    z, y, x = (part.flatten()[position] for part in torch.meshgrid(*axes, indexing="ij"))
    k = torch.stack([x, y, z], dim=1)
    direction: torch.Tensor = k / k.norm(dim=1, keepdim=True)
    return direction


def half_sphere(count: int) -> Floats:
    """Spread (count, 3) unit vectors evenly over the half sphere z >= 0 (a golden spiral)."""
    place = np.arange(count) + 0.5
    z, turn = 1 - place / count, np.pi * (1 + np.sqrt(5)) * place
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)
