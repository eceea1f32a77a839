"""Content in fewer dimensions: principal components, UMAP, t-SNE."""

from __future__ import annotations

import importlib
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.errors import InputError

Method = Literal["pca", "umap", "tsne"]
Floats = NDArray[np.floating]

PERPLEXITY = 30.0
TSNE_DIMS = 3
"""Largest number of dimensions of t-SNE: its fast algorithm has a tree of space."""
LEAST_ROWS = 5
"""Smallest number of rows for UMAP and t-SNE: with fewer there are no neighbours to keep."""


def embed(z: ArrayLike, method: Method = "pca", dims: int = 2, seed: int = 0) -> Floats:
    """Reduce content to fewer dimensions.

    Parameters
    ----------
    z
        (N, d) content vectors (or (N,)), used as they are.
    method
        ``pca``: coordinates along the principal components, in the units of content.  ``umap``
        (McInnes et al. 2018), needs the package umap-learn; ``tsne`` (van der Maaten & Hinton
        2008), perplexity 30: both keep neighbours together, their distances and areas mean little.
    dims
        Dimensions of the result: at most d for ``pca``, at most 3 for ``tsne``.
    seed
        Of ``umap`` and ``tsne``.

    Returns
    -------
    array
        (N, dims).

    Raises
    ------
    InputError
        If ``z`` has values that are not finite or too few rows, ``dims`` is out of range, or the
        package is missing.
    """
    rows = np.asarray(z, float)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if method not in get_args(Method):
        raise InputError.of("embedding", "the method", repr(method), "pca, umap or tsne")
    if not np.isfinite(rows).all():
        raise InputError("embedding: content has values that are not finite, expected numbers")
    least = 1 if method == "pca" else LEAST_ROWS
    if len(rows) < least:
        raise InputError.of("embedding", "the number of rows", len(rows), f"at least {least}")
    most = TSNE_DIMS if method == "tsne" else rows.shape[1]
    if not 1 <= dims <= most:
        raise InputError.of("embedding", "the number of dimensions", dims, f"1 to {most}")
    if method == "pca":
        mean, axes, _ = principal_axes(rows)
        return np.asarray((rows - mean) @ axes[:dims].T)
    return tsne(rows, seed, dims) if method == "tsne" else _umap(rows, seed, dims)


def principal_axes(z: Floats) -> tuple[Floats, Floats, Floats]:
    """Principal components of content.

    Parameters
    ----------
    z
        (N, k) posterior means.

    Returns
    -------
    mean (k,), unit axes (k, k) as rows by falling spread, and the standard deviation (k,) along
    each.  The sign is fixed: the largest entry of an axis is positive.
    """
    mean = z.mean(0)
    few = len(z) < z.shape[1]  # only then are axes missing; the full left matrix is (N, N)
    _, singular, axes = np.linalg.svd(z - mean, full_matrices=few)
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    spread = np.zeros(z.shape[1])
    spread[: len(singular)] = singular / np.sqrt(max(len(z) - 1, 1))
    return mean, axes, spread


def tsne(z: Floats, seed: int, dims: int = 2) -> Floats:
    """(N, dims) t-SNE embedding of content (van der Maaten & Hinton 2008), seeded."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(z) - 1) / 3)
    start = "pca" if min(z.shape) >= dims else "random"
    embedding = TSNE(dims, perplexity=perplexity, init=start, random_state=seed)
    spread = z.std(0).max()
    return np.asarray(embedding.fit_transform(z / (spread if spread > 0 else 1.0)), float)


def _umap(z: Floats, seed: int, dims: int) -> Floats:
    try:
        umap = importlib.import_module("umap")
    except ImportError:
        expected = "umap-learn (pip install 'modpose[umap]'), or another method"
        raise InputError.of("embedding", "the package for UMAP", "missing", expected) from None
    neighbours = min(15, len(z) - 1)
    reducer = umap.UMAP(n_components=dims, n_neighbors=neighbours, random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(z), float)
