"""Placing images in the latent map of a trained model (affinity-VAE's paper, section 2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modpose.affinity.known import known_name
from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.evaluate.latent_map import Distance, LatentMap
from modpose.infer.latents import content_of_table

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.source import Source
    from modpose.run import Run


def map_of_run(run: Run, distance: Distance | None = None) -> LatentMap:
    """Return the contents of a run's labelled images as a map.

    Parameters
    ----------
    run
        A finished run that knows the classes of its images (``fit --labels``).
    distance
        ``euclidean`` or ``cosine``; None uses the cosine if the run was trained on an affinity,
        which is a cosine, and otherwise the Euclidean distance.

    Raises
    ------
    InputError
        If the run knows no classes.
    """
    table = run.latents()
    if "label" not in table:
        raise InputError(
            f"{run.path}: the run knows no classes, expected one that was fitted with --labels"
        )
    names = [known_name(label) for label in table["label"].tolist()]
    labelled = np.array([name is not None for name in names])
    z = content_of_table(table)[labelled]
    if distance is None:
        distance = "cosine" if run.config.train.gamma.used else "euclidean"
    return LatentMap.of(z, [name for name in names if name is not None], distance)


@on_its_device
def place_images(
    run: Run, source: Source, distance: Distance | None = None, *, device: str | None = None
) -> pd.DataFrame:
    """Place images in the latent map of a run.

    Parameters
    ----------
    run, distance
        See :func:`map_of_run`.
    source
        The images, seen or unseen.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: as :meth:`modpose.PoseModel.load`.

    Returns
    -------
    DataFrame
        One row per image: ``index``, the columns of :meth:`LatentMap.place`, and its content.
    """
    known = map_of_run(run, distance)
    encoded = PoseModel.load(run.path).encode(source)
    table = known.place(encoded.z)
    table.insert(0, "index", np.arange(len(table)))
    for k, column in enumerate(encoded.z.T):
        table[f"z_{k}"] = column
    return table


def summary(table: pd.DataFrame) -> list[str]:
    """Summarise the result of :func:`place_images` in a few lines."""
    lines = []
    for name, group in table.groupby("nearest"):
        share = group["share"].mean()
        new = int(group["new"].sum())
        lines.append(
            f"{name}: {len(group)} images, {share:.0%} of their neighbours on average"
            + (f", {new} like a new class" if new else "")
        )
    further = table["new"].mean()
    return [*lines, f"{further:.1%} of {len(table)} images lie further out than known ones do"]
