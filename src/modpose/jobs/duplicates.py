"""Remove particles that were picked twice: of two close particles, keep the better one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from modpose.data.identity import particles_of_rows
from modpose.data.particles import Particles
from modpose.errors import InputError
from modpose.jobs.positions import centres, groups

Ints = NDArray[np.int64]

QUALITIES = (
    "rlnMaxValueProbDistribution",
    "rlnAutopickFigureOfMerit",
    "alignments3D/class_posterior",
    "alignments2D/class_posterior",
    "pick_stats/ncc_score",
)
"""Columns that rank particles, the most reliable first; larger is better."""


def without_duplicates(
    particles: Particles,
    distance: float,
    *,
    by: str | None = None,
    micrograph_pixel_size: float | None = None,
) -> NDArray[np.bool_]:
    """Mark the particles to keep: no two of one micrograph or tomogram are closer than a distance.

    The best particle is kept first, and those closer to it are dropped; then the next best, and so
    on.  Rows of one image (of a set expanded by symmetry) are kept or dropped together.

    Parameters
    ----------
    particles
        With coordinates and the names of micrographs or tomograms; shifts count.
    distance
        Å.
    by
        Column that says which particle is better: the larger value, or, with ``-`` before the
        name, the smaller one.  None: the first that is there of :data:`QUALITIES`; without any, the
        order of the rows.
    micrograph_pixel_size
        Å per pixel of the coordinates, if the table does not give it.

    Returns
    -------
    (N,) bool.

    Raises
    ------
    InputError
        The distance is not positive, or places or the column are missing.
    """
    if not (np.isfinite(distance) and distance > 0):
        raise InputError.of("duplicates", "--distance", f"{distance:g}", "a positive number of Å")
    unit = particles_of_rows(particles)
    first = np.unique(unit, return_index=True)[1]
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, unit, quality(particles, by))
    place = centres(particles, micrograph_pixel_size)[first]
    kept = _kept(place, groups(particles)[first], best, distance)
    return np.asarray(kept[unit])


def quality(particles: Particles, by: str | None) -> NDArray[np.float64]:
    """Return how good each particle is, (N,); larger is better."""
    if by is None:
        by = next((name for name in QUALITIES if particles.has(name)), None)
        if by is None:
            particles.note("no column says which particle is better; the first one is kept")
            return np.zeros(particles.n)
        particles.note(f"{by} says which particle is better")
    sign = -1 if by.startswith("-") else 1
    return sign * particles.numbers(by.removeprefix("-"))


def _kept(
    place: NDArray[np.float64], group: Ints, quality: NDArray[np.float64], distance: float
) -> NDArray[np.bool_]:
    """Go through particles, the best first, and drop those near to one that is kept."""
    kept = np.ones(len(place), bool)
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    for rows in np.split(order, cuts):
        tree = cKDTree(place[rows])
        near: dict[int, list[int]] = {}
        for a, b in tree.query_pairs(distance * (1 - 1e-12)):
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
        best_first = sorted(near, key=lambda k: (-quality[rows[k]], k))
        for k in best_first:
            if kept[rows[k]]:
                kept[rows[near[k]]] = False
    return kept
