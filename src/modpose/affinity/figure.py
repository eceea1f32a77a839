"""Drawing an affinity matrix: a heat map in the order of a dendrogram."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from modpose.affinity.matrix import Affinity
from modpose.files.writing import replace_atomically
from modpose.plot.figures import BLUE, INK, SMALL, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MOST_NAMES = 60
"""Largest number of names that are written beside the heat map."""


def draw_affinity(affinity: Affinity) -> Figure:
    """Draw the matrix with its rows ordered by average linkage on 1 - affinity.

    Parameters
    ----------
    affinity
        A valid affinity; its rows keep their names, not their order.
    """
    fig = new_figure(8.0, 8.6, constrained=False)
    ax = fig.add_axes((0.22, 0.05, 0.66, 0.71))
    order = np.arange(len(affinity.names))
    if len(order) > 1:
        tree = fig.add_axes((0.22, 0.77, 0.66, 0.17))
        order = _draw_tree(style(tree, y="1 - affinity"), affinity)
    lowest = min(0.0, float(affinity.values.min()))
    image = ax.imshow(
        affinity.values[np.ix_(order, order)],
        vmin=-1.0 if lowest < 0 else 0.0,
        vmax=1.0,
        cmap="RdBu_r" if lowest < 0 else "Blues",
        interpolation="nearest",
        aspect="auto",
    )
    style(ax)
    names = [affinity.names[i] for i in order]
    shown = len(names) <= MOST_NAMES
    ax.set_xticks(range(len(names)) if shown else [], names if shown else [], rotation=90)
    ax.set_yticks(range(len(names)) if shown else [], names if shown else [])
    bar = fig.colorbar(image, cax=fig.add_axes((0.9, 0.05, 0.02, 0.71)))
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label("affinity", color=INK)
    return fig


def write_figure(affinity: Affinity, path: str | Path, overwrite: bool = False) -> None:
    """Write the heat map as a PNG."""
    fig = draw_affinity(affinity)

    def write(file: BinaryIO) -> None:
        fig.savefig(file, format="png", bbox_inches="tight")  # with the whole of long names

    replace_atomically(Path(path), write, overwrite)


def _linkage(affinity: Affinity) -> NDArray[np.float64]:
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distance = np.clip(1 - affinity.values, 0, None)
    np.fill_diagonal(distance, 0.0)
    return linkage(squareform(distance, checks=False), "average")


def _draw_tree(ax: Axes, affinity: Affinity) -> NDArray[np.int64]:
    """Draw the dendrogram over the columns; return their order."""
    from scipy.cluster.hierarchy import dendrogram

    found = dendrogram(_linkage(affinity), no_plot=True)
    for across, up in zip(found["icoord"], found["dcoord"], strict=True):
        ax.plot(np.asarray(across) / 10 - 0.5, up, color=BLUE, lw=1)  # leaf i is at 5 + 10 i
    ax.set_xlim(-0.5, len(affinity.names) - 0.5)
    ax.set_ylim(bottom=0)
    ax.set_xticks([])
    return np.asarray(found["leaves"], dtype=np.int64)
