"""``latents.parquet``: one row per image, with the results of inference and of the fit."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.content.clustering import cluster, usual_method
from modpose.data.identity import image_names
from modpose.errors import InputError
from modpose.infer.outliers import outlier_score

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.data.source import Source


def complete_table(
    inferred: pd.DataFrame,
    dataset: Dataset,
    labels: NDArray[Any] | None,
    clusters: int | None,
    seed: int,
    contrast_std: float = 0.0,
) -> pd.DataFrame:
    """Lay out ``latents.parquet``: names, inference, then outlier, split, cluster and label.

    Parameters
    ----------
    inferred
        Columns of :meth:`modpose.infer.encoded.Encoded.to_dataframe`, of all images or of some.
    dataset
        All images.
    labels
        (N,) classes of all images.
    clusters, seed
        Number of clusters to find, and the seed for it.
    contrast_std
        Prior standard deviation of the contrast, for the outlier score.
    """
    rows = inferred["index"].to_numpy()
    split = np.full(dataset.n, "train", dtype=object)
    split[dataset.val] = "val"
    table = inferred.assign(split=split[rows])
    outlier = outlier_score(inferred, contrast_std)
    if outlier is not None:
        table.insert(inferred.shape[1], "outlier", outlier)
    if clusters is not None:
        z = content_of_table(inferred).astype(np.float32)
        table["cluster"] = cluster(z, clusters, usual_method(len(rows)), seed)
    if labels is not None:
        table["label"] = labels[rows]
    return with_names(table, dataset.source)


def with_names(table: pd.DataFrame, source: Source) -> pd.DataFrame:
    """Put the names of the images beside their positions (column ``index``), if they have any."""
    names = image_names(source)
    if names is not None:
        table.insert(1, "name", names[table["index"].to_numpy()])
    return table


def savable_labels(labels: NDArray[Any]) -> list[Any]:
    """Return labels as ``environment.json`` keeps them.

    Raises
    ------
    InputError
        If they cannot be written there or to ``latents.parquet``.
    """
    import pandas as pd

    values: list[Any] = labels.tolist()
    try:
        read_back = np.asarray(json.loads(json.dumps(values)))
        pd.DataFrame({"label": read_back}).to_parquet(io.BytesIO())
    except (TypeError, ValueError, OverflowError):  # those of Arrow and of Unicode among them
        raise InputError(
            f"labels: values of type {labels.dtype} cannot be saved, expected numbers or text"
        ) from None
    if read_back.shape != labels.shape:
        raise InputError("labels: a label holds several values, expected a number or a text each")
    return values


def content_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold the posterior means of content, z_0, z_1 ..."""
    return [name for name in map(str, table.columns) if name[:2] == "z_" and name[2:].isdigit()]


def content_of_table(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the posterior means of content, (N, z_dim)."""
    values: NDArray[np.float64] = table[content_columns(table)].to_numpy(np.float64)
    return values


def rotations_of_table(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return rotations in space (N, 3, 3); those in the plane are about z.

    A mirrored picture is the object seen from behind: R(angle) after a rotation by 180 degrees
    about x.  So the in-plane part is the reflection, and the determinant is 1.
    """
    n = len(table)
    if "r00" in table:
        entries = [f"r{i}{j}" for i in range(3) for j in range(3)]
        return np.asarray(table[entries].to_numpy(np.float64).reshape(n, 3, 3))
    angle = np.deg2rad(np.broadcast_to(np.asarray(table.get("angle_deg", 0.0), np.float64), n))
    side = np.where(np.broadcast_to(np.asarray(table.get("mirrored", 0)), n) == 1, -1.0, 1.0)
    rotation = np.zeros((n, 3, 3))
    rotation[:, 0, 0], rotation[:, 0, 1] = np.cos(angle), -np.sin(angle) * side
    rotation[:, 1, 0], rotation[:, 1, 1] = np.sin(angle), np.cos(angle) * side
    rotation[:, 2, 2] = side
    return rotation
