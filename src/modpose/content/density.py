"""Density of content, and its free energy -ln p in units of kT."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.errors import InputError

Floats = NDArray[np.float64]

NEIGHBOURS = 30
"""Neighbours of the density at an image: its standard error is 1/sqrt(30), 0.18 kT."""
FEWEST_AXES = 2
NEAR = 0.25
"""A density is measured along so few axes that the neighbours of an image are within this part of
the width of content."""
MOST_POINTS = 50_000
"""Images whose neighbours are searched; of more, a random part represents all."""
BINS = 120
"""Cells of a map along each axis."""
SHARP = 0.5
"""Width of the kernel relative to Scott's rule, which is for one normal cloud."""
LEAST_IMAGES = 1.0
"""Images in the kernel below which a cell counts as empty."""
EDGE = 0.1
"""Per cent of the images beyond each side of a map."""


@dataclass(frozen=True)
class FreeEnergy:
    """Free energy on a grid of one or two axes.

    Attributes
    ----------
    ticks
        Centres of the cells along each axis, (G,) each.
    energy
        (G,) or (G, G) [first axis, second axis]: -ln(density / largest density), in kT; NaN where
        there are no images.
    error
        Its standard error from the number of images, in kT, of the same shape.
    width
        Standard deviation of the Gaussian kernel along each axis.
    """

    ticks: tuple[Floats, ...]
    energy: Floats
    error: Floats
    width: Floats


def rows_of(z: ArrayLike, where: str) -> Floats:
    """Return content as finite rows (N, d), N at least 2 and d at least 1."""
    rows = np.asarray(z, np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if not np.isfinite(rows).all():
        raise InputError(f"{where}: content has values that are not finite, expected numbers")
    if rows.ndim != 2 or len(rows) < 2 or not rows.shape[1]:
        raise InputError.of(where, "the shape of content", rows.shape, "(N, d), N at least 2")
    if (rows == rows[0]).all():
        raise InputError(f"{where}: all images have the same content, expected different ones")
    return rows


def axes_for_density(spread: ArrayLike, error: ArrayLike, images: int) -> int:
    """Return along how many axes of content a density and paths are measured.

    Along an axis on which images spread less than the error of one, all that is seen is error.  And
    the 30 neighbours of an image lie in the part 30/N of all images: along d axes that is the part
    (30/N)^(1/d) of the width of each, which must stay small for a density to be a local one.

    Parameters
    ----------
    spread, error
        (k,) standard deviation of content along each axis, the widest first, and that of the error
        of one image.
    images
        N, at least 1.

    Returns
    -------
    int
        At most k.  At least 2, where content has 2: a map is drawn along these.
    """
    wide = np.asarray(spread, np.float64) > np.asarray(error, np.float64)
    seen = len(wide) if wide.all() else int(wide.argmin())  # up to the first that is not
    local = math.floor(math.log(max(images / NEIGHBOURS, 1.0)) / -math.log(NEAR))
    return min(max(FEWEST_AXES, min(seen, local)), len(wide))


def log_density(z: ArrayLike, neighbours: int = NEIGHBOURS, seed: int = 0) -> Floats:
    """Logarithm of the density of content at every image, from its nearest neighbours.

    log p = log(k / (M V_d r^d)), r the distance to the k-th of M other images and V_d the volume
    of the unit ball (Loftsgaarden & Quesenberry 1965).

    Parameters
    ----------
    z
        (N, d) content.
    neighbours
        k; the standard error of the result is about 1/sqrt(k).
    seed
        Of the choice of images, of more than 50,000.

    Returns
    -------
    array
        (N,) natural logarithm of the share of images per unit of content^d.

    Raises
    ------
    InputError
        If content is constant or not finite.
    """
    rows = rows_of(z, "density")
    chosen = some(len(rows), MOST_POINTS, seed)
    k = min(neighbours, len(chosen) - 1)
    distance = neighbour_distances(rows[chosen], rows, k)
    return _of_distance(distance, k, len(chosen), rows.shape[1])


def _of_distance(distance: Floats, k: int, count: int, d: int) -> Floats:
    ball = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1)
    least = max(float(distance.max()) * 1e-12, np.finfo(float).tiny)  # several images in one place
    return np.asarray(np.log(k / count) - ball - d * np.log(np.maximum(distance, least)))


def neighbour_distances(points: Floats, at: Floats, k: int) -> Floats:
    """Distance from each of ``at`` (N, d) to the k-th of other ``points`` (M, d); (N,)."""
    from sklearn.neighbors import NearestNeighbors

    found, _ = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(at)
    own = found[:, 0] <= 0  # the image itself
    return np.asarray(np.where(own, found[:, k], found[:, k - 1]), np.float64)


def some(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """Choose at most ``most`` of n rows at random, in their order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def free_energy(points: ArrayLike, bins: int = BINS) -> FreeEnergy:
    """Free energy of images on a line or a plane: -ln of a kernel density, in kT.

    This is the free energy of the molecule only where the images are a fair sample of its
    equilibrium and the coordinates do not stretch; see ``docs/analyze.md``.

    Parameters
    ----------
    points
        (N,), (N, 1) or (N, 2) coordinates of images.
    bins
        Cells along each axis.

    Returns
    -------
    FreeEnergy
        0 at the densest place; the width of the kernel is half of Scott's rule,
        N^(-1/(d + 4)) / 2 standard deviations.

    Raises
    ------
    InputError
        If there are not one or two coordinates, or one does not vary.
    """
    rows = rows_of(points, "free energy")
    n, d = rows.shape
    if d > 2:
        raise InputError.of("free energy", "the number of coordinates", d, "1 or 2")
    spread = rows.std(0)
    if not (spread > 0).all():
        raise InputError("free energy: a coordinate is the same for all images")
    width = SHARP * spread * n ** (-1 / (d + 4))
    low, high = np.percentile(rows, [EDGE, 100 - EDGE], axis=0)
    edges = [
        np.linspace(a - 3 * w, b + 3 * w, bins + 1)
        for a, b, w in zip(low, high, width, strict=True)
    ]
    count, _ = np.histogramdd(rows, edges)
    return _smoothed(count, edges, width)


def _smoothed(count: Floats, edges: list[Floats], width: Floats) -> FreeEnergy:
    """Blur counts by the kernel; images in the kernel tell what is empty, and the error."""
    from scipy.ndimage import gaussian_filter

    cell = np.array([edge[1] - edge[0] for edge in edges])
    blurred = np.maximum(gaussian_filter(count, width / cell, mode="constant"), 0)
    inside = blurred * np.prod(np.sqrt(4 * np.pi) * width / cell)
    empty = inside < LEAST_IMAGES
    with np.errstate(divide="ignore"):
        energy = -np.log(blurred / blurred.max())
        error = 1 / np.sqrt(inside)
    energy[empty] = error[empty] = np.nan
    ticks = tuple((edge[1:] + edge[:-1]) / 2 for edge in edges)
    return FreeEnergy(ticks, energy, error, width)
