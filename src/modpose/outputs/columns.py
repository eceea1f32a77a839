"""Clusters and embeddings of a run's content, added to the run as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modpose.content.clustering import Method as Clustering
from modpose.content.clustering import cluster, usual_method
from modpose.content.embedding import Method as Embedding
from modpose.content.embedding import embed
from modpose.errors import InputError
from modpose.infer.latents import content_columns
from modpose.run.added import add_columns, check_names

if TYPE_CHECKING:
    import pandas as pd

    from modpose.content.embedding import Floats
    from modpose.run import Run

CLUSTER = "cluster"


def cluster_run(
    run: Run,
    k: int,
    *,
    method: Clustering | None = None,
    name: str = CLUSTER,
    seed: int | None = None,
    overwrite: bool = False,
) -> list[int]:
    """Cluster the content of a run, and add the column ``name``.

    Parameters
    ----------
    run
        A finished run.
    k
        Number of clusters.
    method
        See :func:`modpose.content.clustering.cluster`; None: ``ward``, or above 10,000 images
        ``kmeans``, as a fit does.
    name
        Of the column.
    seed
        Of the starts; None: that of the run.
    overwrite
        Replace a column of this name.

    Returns
    -------
    The number of images in each cluster, the largest first.

    Raises
    ------
    InputError
        If the run has no content, the number of clusters or the name does not fit, or the column
        already exists.
    """
    check_names(run, [name], overwrite=overwrite)
    z = content_of(run)
    chosen = usual_method(len(z)) if method is None else method
    start = run.config.seed if seed is None else seed
    labels = cluster(run.content_in_errors() if chosen == "motion" else z, k, chosen, start)
    add_columns(run, {name: labels}, f"{chosen}, {k} clusters, seed {start}", overwrite=overwrite)
    return [int(count) for count in np.bincount(labels)]


def embed_run(
    run: Run,
    method: Embedding = "pca",
    *,
    dims: int = 2,
    name: str | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Embed the content of a run in fewer dimensions, and add the columns ``name_0``, ....

    Parameters
    ----------
    run
        A finished run.
    method, dims
        See :func:`modpose.content.embedding.embed`.
    name
        Of the columns, before the number; None: the method.
    seed
        Of ``umap`` and ``tsne``, refused for ``pca``; None: that of the run.
    overwrite
        Replace columns of these names.

    Returns
    -------
    The names of the columns.

    Raises
    ------
    InputError
        As :func:`cluster_run` and :func:`modpose.content.embedding.embed`.
    """
    if method == "pca" and seed is not None:
        raise InputError.of("--seed", "the seed", seed, "none: pca draws no random numbers")
    names = [f"{method if name is None else name}_{i}" for i in range(dims)]
    check_names(run, names, overwrite=overwrite)
    start = run.config.seed if seed is None else seed
    made = embed(content_of(run), method, dims, start)
    columns = dict(zip(names, made.T, strict=True))
    how = method if method == "pca" else f"{method}, seed {start}"
    return add_columns(run, columns, how, overwrite=overwrite)


def content_of(run: Run) -> Floats:
    """Return the content of a run, (N, d), or say that it has none."""
    z = run.content()
    if not z.shape[1]:
        raise InputError(f"{run.path}: the model has no content (z_dim is 0)")
    return z


def error_of_content(latents: pd.DataFrame) -> Floats:
    """Return the posterior standard deviation (N, d) of content; 0 where it is not known."""
    known = [
        latents.get(f"{name}_std", np.zeros(len(latents))) for name in content_columns(latents)
    ]
    return np.stack([np.asarray(part, np.float64) for part in known], axis=1)
