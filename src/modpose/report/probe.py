"""A few images for tests of the inference: evenly spread, equally many of each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from modpose.data.batches import Batch
    from modpose.data.dataset import Dataset
    from modpose.model.vae import Vae

Integers = NDArray[np.int64]

MOST_PIXELS = 300_000
MOST, FEWEST = 200, 24
"""Number of images: as many as have this many pixels together, within limits."""
MOST_CLASSES = 20
"""More distinct labels than this are not treated as classes."""


@dataclass(frozen=True)
class Probe:
    """Images, the model, and the classes that they belong to.

    Attributes
    ----------
    vae
        The model.
    batch
        n images, where the model is.
    rows
        (n,) their positions in the table of latents, class after class.
    classes
        (n,) the name of each image's class.
    kind
        Source of the classes: ``label`` or ``cluster``; empty if all images are one class.
    mask
        (H, W) pixels inside the mask of the preprocessing; None without a mask.
    """

    vae: Vae
    batch: Batch
    rows: Integers
    classes: NDArray[np.str_]
    kind: str = ""
    mask: NDArray[np.bool_] | None = None

    @property
    def names(self) -> list[str]:
        """The classes in their order."""
        return list(dict.fromkeys(self.classes.tolist()))

    def few(self, count: int) -> Probe:
        """Keep at most ``count`` images, evenly spread."""
        if len(self.rows) <= count:
            return self
        kept = np.linspace(0, len(self.rows) - 1, count).round().astype(np.int64)
        batch = self.batch.rows(torch.from_numpy(kept).to(self.batch.image.device))
        return replace(self, batch=batch, rows=self.rows[kept], classes=self.classes[kept])


def choose_probe(
    vae: Vae, dataset: Dataset, columns: Mapping[str, NDArray[Any]], n: int
) -> Probe | None:
    """Choose and read the images.

    Parameters
    ----------
    vae
        A trained model.
    dataset
        The images that it was fitted to.
    columns
        (N,) ``label`` and ``cluster``, where known.
    n
        Number of images N.

    Returns
    -------
    Probe
        None if the model does not draw pictures, or there are fewer than two images.
    """
    if len(vae.shape) != 2 or n < 2:
        return None
    count = int(np.clip(MOST_PIXELS // (vae.shape[0] * vae.shape[1]), FEWEST, MOST))
    kind, classes = classes_of(columns, n)
    rows = spread_rows(classes, count)
    batch = dataset.batch(rows).to(vae.coordinates.device)
    return Probe(vae, batch, rows, classes[rows], kind, dataset.mask)


def classes_of(columns: Mapping[str, NDArray[Any]], n: int) -> tuple[str, NDArray[np.str_]]:
    """Return each image's class: its label, else its cluster, else one class for all.

    Returns
    -------
    kind
        The column that was taken, or ''.
    classes
        (N,) names.
    """
    for kind in ("label", "cluster"):
        if kind in columns:
            names = np.array([class_name(value) for value in columns[kind]])
            if kind == "cluster":
                names[names == "-1"] = ""  # belongs to none
            if 1 <= len(np.unique(names[names != ""])) <= MOST_CLASSES:
                return kind, names
    return "", np.full(n, "all images")


def class_name(value: object) -> str:
    """Format a class: whole numbers without a point, '' for a missing one (NaN)."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return ""
    if isinstance(value, int | float | np.integer | np.floating):
        return f"{float(value):g}"
    return str(value)


def spread_rows(classes: NDArray[np.str_], count: int) -> Integers:
    """Choose about ``count`` rows, evenly spread, equally many (at least one) of each class."""
    names = _ordered([str(name) for name in np.unique(classes) if name])
    each = max(1, count // max(len(names), 1))
    chosen = []
    for name in names:
        own = np.flatnonzero(classes == name)
        chosen.append(own[np.unique(np.linspace(0, len(own) - 1, each).round().astype(int))])
    return np.concatenate(chosen).astype(np.int64)


def _ordered(names: list[str]) -> list[str]:
    """Sort names, numbers by value and before words."""

    def key(name: str) -> tuple[bool, float, str]:
        try:
            return False, float(name), name
        except ValueError:
            return True, 0.0, name

    return sorted(names, key=key)
