"""The axes of content along which a density and paths are measured, where content has many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from modpose.content.density import NEIGHBOURS, Floats, axes_for_density
from modpose.content.embedding import principal_axes
from modpose.content.paths import DensePath, Landscape


@dataclass(frozen=True)
class FewAxes:
    """The first principal components of content, each dimension in usual errors of one image.

    In other units a dimension that tells nothing may be as wide as one that tells a motion.

    Attributes
    ----------
    z
        (N, k) content.
    mean, unit
        (k,) of content, and the usual error; 1 where errors are not known.
    axes
        (d, k) unit vectors: :func:`modpose.content.density.axes_for_density`.
    """

    z: Floats
    mean: Floats
    unit: Floats
    axes: Floats

    @classmethod
    def of(cls, z: ArrayLike, error: ArrayLike) -> FewAxes:
        """Choose them for content (N, k) with errors (N, k), standard deviations."""
        rows = np.asarray(z, np.float64)
        errors = np.asarray(error, np.float64)
        unit = np.median(errors, 0) if (np.median(errors, 0) > 0).all() else np.ones(rows.shape[1])
        _, axes, width = (np.asarray(one, np.float64) for one in principal_axes(rows / unit))
        blur = np.sqrt(((errors / unit) ** 2 @ axes.T**2).mean(0))
        few = axes_for_density(width[: len(axes)], blur, len(rows))
        return cls(rows, rows.mean(0), unit, axes[:few])

    def on(self, z: ArrayLike) -> Floats:
        """Coordinates (M, d) of contents (M, k)."""
        return np.asarray((np.asarray(z, np.float64) - self.mean) / self.unit @ self.axes.T)

    def landscape(self, seed: int = 0) -> Landscape:
        """Join the images that are near along these axes."""
        return Landscape(self.on(self.z), seed=seed)

    def content_at(self, places: Floats) -> Floats:
        """Content (M, k) at coordinates (M, d): along other axes, the mean of near images."""
        from sklearn.neighbors import NearestNeighbors

        own = self.on(self.z)
        beside = (self.z - self.mean) / self.unit - own @ self.axes
        joined = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(own))).fit(own)
        near = joined.kneighbors(places, return_distance=False)
        found = places @ self.axes + beside[near].mean(1)
        return np.asarray(self.mean + found * self.unit)

    def path(self, ends: ArrayLike, steps: int, names: tuple[str, ...]) -> tuple[DensePath, Floats]:
        """Find the path along these axes through contents (E, k), and its content (steps, k).

        Raises
        ------
        InputError
            If an end lies in an empty region, or no images join two of them.
        """
        path = self.landscape().path(self.on(ends), steps, names)
        return path, self.content_at(path.z)
