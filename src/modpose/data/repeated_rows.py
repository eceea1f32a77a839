"""Rows of a table that name the image of another row at the same pose: they count twice."""

from __future__ import annotations

import logging

import numpy as np

from modpose.data.identity import identities_of
from modpose.data.particles import Particles

logger = logging.getLogger("modpose")

DIGITS = 4
"""Decimals of a pose (entries of a matrix, pixels) that must be the same."""


def repeated_rows(particles: Particles, pixel_size: float | None = None) -> int:
    """Count the rows that name the image of an earlier row at the same pose.

    A set that is expanded by symmetry names an image several times, at different poses; its rows
    do not count.  Where there are no poses, every further row of an image counts.

    Parameters
    ----------
    particles
        The table.
    pixel_size
        Å of the images, for a table without a pixel size.
    """
    found = identities_of(particles)
    if not found or not found[0].occurrence.any():
        return 0
    _, image = np.unique(found[0].key, return_inverse=True)
    some = np.flatnonzero(np.bincount(image)[image] > 1)
    poses = particles.subset(some).poses(pixel_size)
    values = [] if poses is None else [part.reshape(len(some), -1) for part in poses]
    rows = np.concatenate([image[some][:, None], *values], axis=1).round(DIGITS) + 0.0
    return len(some) - len(np.unique(rows, axis=0))


def repeated_rows_sentence(particles: Particles, pixel_size: float | None = None) -> str | None:
    """Say how many rows repeat another one; None if there are none."""
    count = repeated_rows(particles, pixel_size)
    if not count:
        return None
    some = "1 row names" if count == 1 else f"{count} rows name"
    return (
        f"{some} the same image at the same pose as an earlier row, so these images count several "
        "times: keep one row of each (--index)."
    )


def warn_of_repeated_rows(particles: Particles, pixel_size: float | None = None) -> None:
    """Log a warning if rows of a table repeat others."""
    sentence = repeated_rows_sentence(particles, pixel_size)
    if sentence is not None:
        logger.warning("warning: %s: %s", particles.name, sentence)
