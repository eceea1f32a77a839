"""Places where a score is highest, and how many of them chance would bring."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]

FLOOR = 2.0
"""Scores, in standard deviations of noise, below which nothing is looked at."""


def local_maxima(score: NDArray[np.float32], separation: float) -> tuple[Floats, Floats]:
    """Find maxima that are ``separation`` pixels apart, best first.

    Parameters
    ----------
    score
        (H, W).
    separation
        Pixels; of two nearer ones the lower is dropped.

    Returns
    -------
    place, height
        (N, 2) row and column, between pixels by the parabola through the neighbours, and (N,).
    """
    side = 2 * max(1, int(separation / 2)) + 1
    highest = ndimage.maximum_filter(score, size=side, mode="nearest")
    found = np.argwhere((score >= highest) & (score > FLOOR))
    height = score[tuple(found.T)].astype(np.float64)
    order = np.argsort(-height, kind="stable")
    found, height = found[order], height[order]
    keep = np.ones(len(found), bool)
    if len(found):
        near = cKDTree(found).query_pairs(separation, output_type="ndarray")
        for better, worse in near[np.argsort(near[:, 0], kind="stable")]:
            if keep[better]:
                keep[worse] = False
    found, height = found[keep], height[keep]
    return found + between_pixels(score, found), height


def between_pixels(score: NDArray[np.float32], place: NDArray[Any]) -> Floats:
    """Offsets (N, 2), at most half a pixel, of the maxima of parabolas through maxima (N, 2)."""
    offset = np.zeros((len(place), 2))
    for axis, size in enumerate(score.shape):
        inside = (place[:, axis] > 0) & (place[:, axis] < size - 1)
        here = place[inside]
        step = np.eye(2, dtype=int)[axis]
        before, middle, after = (
            score[tuple((here + shift * step).T)].astype(float) for shift in (-1, 0, 1)
        )
        curve = before - 2 * middle + after
        flat = curve > -1e-12
        slope = np.where(flat, 0.0, 0.5 * (before - after) / np.where(flat, -1.0, curve))
        offset[inside, axis] = np.clip(slope, -0.5, 0.5)
    return offset


def expected_by_chance(height: Floats, area: float, roughness: float, tries: int = 1) -> Floats:
    """Maxima above each height that noise alone has on average, (N,).

    A smooth Gaussian random field of variance 1 has area x roughness x t exp(-t²/2) / (2 pi)^(3/2)
    maxima above a high level t (Adler 1981, The Geometry of Random Fields, section 6.7).

    Parameters
    ----------
    height
        (N,) in standard deviations.
    area
        Pixels.
    roughness
        Variance of the slope along an axis, over the variance, per square pixel.
    tries
        Filters of which the best counts.
    """
    level = np.maximum(height, 1.0)
    chance = level * np.exp(-(level**2) / 2) / (2 * math.pi) ** 1.5
    expected: Floats = area * roughness * tries * chance
    return expected


def how_many(height: Floats, chance: Floats, fraction: float) -> int:
    """Count the best maxima of which at most ``fraction`` are by chance, as expected.

    ``height`` falls, and ``chance`` is what :func:`expected_by_chance` gives.
    """
    below = np.nonzero(chance <= fraction * np.arange(1, len(height) + 1))[0]
    return int(below[-1]) + 1 if len(below) else 0
