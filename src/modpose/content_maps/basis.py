"""Smooth functions of content: the slowest modes of a random walk among the images.

The walk steps between images of similar content (Coifman & Lafon 2006: diffusion maps, with part of
the density divided out).  Its leading eigenvectors are harmonics of the content, whatever the
shape that content has: sines and cosines on a closed curve, indicators of separate clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from modpose.content_maps.cells import centres_of
from modpose.errors import InputError

Floats = NDArray[np.float64]

LANDMARKS = 1500
"""Images between which the walk steps."""
SPARSE, LONELY = 0.08, 8.0
"""Landmarks with fewer others than this within a step are left out, at most this fraction of all.
Otherwise single outliers would take the leading functions.  A rare state has more."""
WIDTH = 2.0
"""Standard deviation of a step, in usual errors of content."""
NEIGHBOURS = 8
"""The step is at least as wide as the median distance to the landmark of this rank."""
ALPHA = 0.5
"""Power of the density that is divided out of the walk."""
SLOW = 1e-3
"""Smallest eigenvalue of a function: the part of it that a step of the walk keeps."""
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class ContentBasis:
    """J orthonormal functions of content, the first of them 1.

    Attributes
    ----------
    scale
        (k,) unit of each dimension of content.
    width
        Standard deviation of a step of the walk, in these units.
    landmarks
        (L, k) contents, in these units.
    weight
        (L,) weight of each landmark as the end of a step.
    vectors
        (L, J) values of the functions at the landmarks, before they are averaged by a step.
    """

    scale: Floats
    width: float
    landmarks: Floats
    weight: Floats
    vectors: Floats

    @classmethod
    def fit(cls, z: Floats, unit: Floats, count: int, seed: int = 0) -> ContentBasis:
        """Find the functions from the content of the images.

        Parameters
        ----------
        z
            (N, k) posterior means of content.
        unit
            (k,) usual error of each dimension; where it is 0, the spread of content.
        count
            Number of functions; fewer, where content has no more.
        seed
            Of the choice of landmarks.

        Raises
        ------
        InputError
            If content does not vary, or there are fewer images than functions.
        """
        check_content(z, count)
        scale = np.where(unit > 0, unit, np.maximum(z.std(0), 1e-12))
        rng = np.random.default_rng(seed)
        some = np.sort(rng.choice(len(z), min(LANDMARKS, len(z)), replace=False))
        landmarks = z[some] / scale
        width = max(WIDTH, _usual_distance(landmarks))
        density = np.exp(_log_kernel(landmarks, landmarks, width)).sum(1)
        landmarks = landmarks[density >= min(LONELY, float(np.quantile(density, SPARSE)))]
        kernel = np.exp(_log_kernel(landmarks, landmarks, width))
        weight = kernel.sum(1) ** -ALPHA
        kernel = kernel * weight[:, None] * weight
        degree = kernel.sum(1) ** -0.5
        still = 1 / degree / np.linalg.norm(1 / degree)
        # without the constant: separate clusters have more than one eigenvector of eigenvalue 1
        walk = kernel * degree[:, None] * degree - still[:, None] * still
        last = len(walk) - 1
        slowest = [max(last + 1 - max(count - 1, 1), 0), last]
        values, vectors = eigh(walk, subset_by_index=slowest)
        slow = vectors[:, values > SLOW][:, ::-1][:, : count - 1] * degree[:, None]
        vectors = np.concatenate([np.ones((len(slow), 1)), slow], 1)
        at_images = cls(scale, width, landmarks, weight, vectors)(z)
        lower = np.linalg.cholesky(at_images.T @ at_images / len(z))
        turned = np.linalg.solve(lower, vectors.T).T
        return cls(scale, width, landmarks, weight, turned)

    def __len__(self) -> int:
        return len(self.vectors.T)

    def __call__(self, z: Floats) -> Floats:
        """Evaluate the functions at contents (M, k); (M, J)."""
        parts = []
        for rows in np.split(z, range(ROWS_AT_ONCE, len(z), ROWS_AT_ONCE)):
            log = _log_kernel(rows / self.scale, self.landmarks, self.width) + np.log(self.weight)
            step = np.exp(log - log.max(1, keepdims=True))
            parts.append(step @ self.vectors / step.sum(1, keepdims=True))
        return np.concatenate(parts)

    def first(self, count: int) -> ContentBasis:
        """Keep the first functions."""
        vectors = self.vectors[:, :count]
        return ContentBasis(self.scale, self.width, self.landmarks, self.weight, vectors)

    def centres(self, count: int, seed: int = 0) -> Floats:
        """Return contents (C, k) spread over the landmarks: the centres of k-means."""
        return np.asarray(centres_of(self.landmarks, count, seed) * self.scale)


def check_content(z: Floats, count: int) -> None:
    """Refuse content (N, k) that does not vary, or fewer than two images for each function."""
    if len(z) < 2 * count:
        expected = f"at least {2 * count}, two for each function of content"
        raise InputError.of("content maps", "the number of images", len(z), expected)
    if not np.ptp(z, axis=0).max(initial=0) > 0:
        raise InputError("content maps: all images have the same content, expected some spread")


def _log_kernel(a: Floats, b: Floats, width: float) -> Floats:
    """Logarithm of a Gaussian of the distances between (M, k) and (L, k); (M, L)."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(-0.5 * np.maximum(squared, 0) / width**2)


def _usual_distance(points: Floats) -> float:
    """Median distance of points (L, k) to their neighbour of rank ``NEIGHBOURS``."""
    squared = -2 * _log_kernel(points, points, 1.0)
    rank = min(NEIGHBOURS, len(points) - 1)
    return float(np.sqrt(np.median(np.partition(squared, rank, axis=1)[:, rank])))
