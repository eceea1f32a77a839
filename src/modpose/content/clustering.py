"""Clusters of content."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.errors import InputError

Method = Literal["ward", "kmeans", "gmm", "motion"]
WARD_MAX = 20_000
"""Ward's method keeps all pairwise distances: 1.6 GB for this number of rows."""


def cluster(z: ArrayLike, k: int, method: Method = "ward", seed: int = 0) -> NDArray[np.int64]:
    """Group the rows of ``z``.

    Parameters
    ----------
    z
        (N, d) content vectors (or (N,)), used as they are: no scaling.
    k
        Number of clusters.
    method
        ``ward``: agglomerative with Ward's criterion (the published figures for content of
        digits use it; no chance involved, at most 20,000 rows).  ``kmeans``: ten starts.
        ``gmm``: Gaussian mixture with full covariances, three starts.  ``motion``: classes that
        share a motion (:mod:`modpose.content.moving_classes`).
    seed
        Of the starts.

    Returns
    -------
    array
        (N,) labels 0…k−1, the largest cluster first.

    Raises
    ------
    InputError
        If ``z`` has values that are not finite or fewer different rows than clusters, or is too
        long for the method.
    """
    rows = np.asarray(z, float)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if not np.isfinite(rows).all():
        raise InputError("clusters: content has values that are not finite, expected numbers")
    different = len(np.unique(rows, axis=0))
    if not 1 <= k <= different:
        raise InputError.of(
            "clusters", "the number of clusters", k, f"1 to {different} (the different rows)"
        )
    if method == "ward" and len(rows) > WARD_MAX:
        raise InputError.of(
            "clusters", "the number of rows", len(rows), f"at most {WARD_MAX} for ward (or kmeans)"
        )
    return _largest_first(_fit(rows, k, method, seed))


def usual_method(n: int) -> Method:
    """Return the method for n rows where none is asked for: Ward's while it is fast."""
    return "ward" if n <= WARD_MAX // 2 else "kmeans"


def _fit(rows: NDArray[np.float64], k: int, method: Method, seed: int) -> NDArray[np.int64]:
    if k == 1:
        return np.zeros(len(rows), np.int64)
    if method == "ward":
        from sklearn.cluster import AgglomerativeClustering

        return np.asarray(AgglomerativeClustering(k).fit_predict(rows), np.int64)
    if method == "kmeans":
        from sklearn.cluster import KMeans

        return np.asarray(KMeans(k, n_init=10, random_state=seed).fit_predict(rows), np.int64)
    if method == "gmm":
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(k, n_init=3, max_iter=500, random_state=seed)
        return np.asarray(mixture.fit_predict(rows), np.int64)
    if method == "motion":
        from modpose.content.moving_classes import classes_along_motion

        return classes_along_motion(rows, k, seed)
    raise InputError.of("clusters", "the method", repr(method), "ward, kmeans, gmm or motion")


def _largest_first(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty_like(counts)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[index].astype(np.int64)
