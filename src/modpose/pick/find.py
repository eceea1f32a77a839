"""Find objects in an image: by a radius alone, or by templates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.limits import check_real
from modpose.pick.peaks import expected_by_chance, how_many, local_maxima
from modpose.pick.spectrum import Spectrum, blob, even, spectrum_of
from modpose.pick.templates import Templates

PACKED_RADIUS = 0.6
"""Radius of the blob over half the distance of packed objects, found on simulated lattices."""
FINE = 8.0
"""Radius in pixels that is enough: images of larger objects are reduced."""
APART = 1.2
"""Least distance of two objects, in radii."""
MARGIN = 0.5
"""Objects whose middle is nearer to the edge than so many radii are left out."""
LEAST_SIDE = 8
LARGEST_RADIUS = 10_000


@dataclass(frozen=True)
class Picks:
    """Objects, best first.

    Attributes
    ----------
    x, y
        (N,) column and row of the middle, pixels from 0 at the middle of the first pixel.
    score
        (N,) height over the standard deviation that noise has; NaN where it is not known.
    angle_deg
        (N,) angle of the template that fits best, or None.
    template
        (N,) int64 which template fits best, or None.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    score: NDArray[np.float64]
    angle_deg: NDArray[np.float64] | None = None
    template: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.x)


def find_objects(
    image: NDArray[Any],
    *,
    radius: float | None = None,
    templates: Templates | None = None,
    dark: bool = False,
    packed: bool = False,
    false_fraction: float = 0.02,
    threshold: float | None = None,
    separation: float | None = None,
) -> Picks:
    """Find objects in one image.

    Parameters
    ----------
    image
        (H, W).
    radius
        Of the objects, pixels; where they are packed, half the distance of neighbours.
    templates
        What they look like, in place of a radius (:func:`modpose.pick.templates.templates_of`).
    dark
        With a radius: objects are darker than what is around them.
    packed
        With a radius: objects touch, as atoms of a crystal do.  Noise is then judged by the finest
        details, which must be white, and not by the whole spectrum of the image.
    false_fraction
        Fraction of the objects that may be there by chance, on average.
    threshold
        Least score, in place of that.
    separation
        Least distance of two objects, pixels; None takes 1.2 radii.

    Raises
    ------
    InputError
        If the image or an option cannot be used.
    """
    _check(image, radius, templates, dark, packed, false_fraction, threshold, separation)
    if radius is not None and packed:
        radius = PACKED_RADIUS * radius
    size = templates.radius if radius is None and templates is not None else float(radius or 0)
    reduced = max(1, int(size // FINE))
    spectrum = spectrum_of(even(_reduce(image, reduced), size / reduced), size / reduced)
    if templates is None:
        score, roughness = _blobs(spectrum, size / reduced, packed)
        best, tries = None, 1
        score = -score if dark else score
    else:
        score, best, roughness = templates.match(spectrum, reduced)
        tries = templates.count
    apart = APART * size if separation is None else separation
    place, height = local_maxima(score, apart / reduced)
    margin = MARGIN * size / reduced
    last = np.array(score.shape) - 1 - margin
    inside = ((place >= margin) & (place <= last)).all(1)
    place, height = place[inside], height[inside]
    chance = expected_by_chance(height, float(score.size), roughness, tries)
    if threshold is None:
        count = how_many(height, chance, false_fraction)
    else:
        count = int((height >= threshold).sum())
    place, height = place[:count], height[:count]
    full = (place + 0.5) * reduced - 0.5
    picks = Picks(full[:, 1], full[:, 0], height)
    if best is None or templates is None:
        return picks
    chosen = best[tuple(np.rint(place).astype(np.int64).T)]
    which, angle = templates.named(chosen)
    return Picks(picks.x, picks.y, height, angle, which)


def _reduce(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Average blocks of ``factor`` x ``factor`` pixels; what is left over at the end is cut."""
    if factor == 1:
        return image
    height, width = (side // factor for side in image.shape)
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    means: NDArray[Any] = blocks.mean((1, 3), dtype=np.float64)
    return means


def _blobs(spectrum: Spectrum, radius: float, packed: bool) -> tuple[NDArray[np.float32], float]:
    """Score every pixel; also the roughness of the score of noise.

    Objects that lie apart take a small part of the spectrum, which is that of the noise: the
    matched filter divides by it (white noise or not).  Objects that are packed make the spectrum,
    but for the noise of the pixels: the filter keeps what rises above it (Wiener 1949), twice.
    """
    shape = blob(spectrum.frequency, radius)
    if packed:
        noise = spectrum.pixel_noise()
        response = shape * np.maximum(0, 1 - noise / spectrum.power) ** 2
        power = noise * response**2
    else:
        response = shape / spectrum.power
        power = shape**2 / spectrum.power
    total = spectrum.sum_of(power)
    if not total > 0:
        return np.zeros(spectrum.shape, np.float32), 1.0
    return spectrum.apply(response / math.sqrt(total)), spectrum.roughness(power)


def _check(
    image: NDArray[Any],
    radius: float | None,
    templates: Templates | None,
    dark: bool,
    packed: bool,
    false_fraction: float,
    threshold: float | None,
    separation: float | None,
) -> None:
    if (radius is None) == (templates is None):
        raise InputError("pick: a radius and a model are two ways, expected one of them")
    if templates is not None and (dark or packed):
        raise InputError("pick: --dark and --packed go with a radius, not with a model")
    if radius is not None:
        check_real("--radius", "the radius, pixels,", radius, 1, LARGEST_RADIUS)
    check_real("--false", "the fraction", false_fraction, 0, 1, low_counts=False)
    if threshold is not None:
        check_real("--threshold", "the score", threshold, 0, 1e6)
    if separation is not None:
        check_real("--separation", "the distance", separation, 1, LARGEST_RADIUS)
    if image.ndim != 2 or min(image.shape) < LEAST_SIDE:
        found = " x ".join(map(str, image.shape))
        raise InputError.of("pick", "the image", found, f"at least {LEAST_SIDE} pixels a side")
    if not np.isfinite(image).all():
        raise InputError("pick: the image has pixels that are not numbers, expected finite ones")
    if float(np.ptp(image)) == 0:
        raise InputError("pick: every pixel of the image has the same value, expected a picture")
    size = float(radius or 0) if templates is None else templates.radius
    if 2 * size > min(image.shape):
        shown = " x ".join(map(str, image.shape))
        raise InputError.of("pick", "the diameter", f"{2 * size:g} px", f"less than {shown}")
