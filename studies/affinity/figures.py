"""Figures of the affinity-VAE experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.content.embedding import principal_axes, tsne
from modpose.evaluate.latent_map import LatentMap
from modpose.plot.figures import (
    BLUE,
    INK,
    ORANGE,
    RULE,
    SMALL,
    WIDTH,
    new_figure,
    style,
)
from modpose.plot.scatter import CATEGORY_COLOURS
from studies.affinity.classification import Confusion
from studies.affinity.common import Found

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MOST_SHOWN = 1000
"""Fitted samples in an embedding at most; held-out ones come on top."""
LEGEND_ENTRY = 1.1
"""Width of one in a legend below panels, inches."""


def embedded(found: Found, seed: int, quick: bool) -> tuple[Floats, NDArray[np.str_], Floats]:
    """Lay contents out in the plane, those of fitted and of held-out samples together.

    Returns
    -------
    plane, names, kind
        (N, 2); classes; 0 for fitted, 1 for held-out, 2 for unseen classes.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(found.known.z))[:MOST_SHOWN]
    z = np.concatenate([found.known.z[rows], found.z])
    names = np.concatenate([np.array(found.known.names)[found.known.member[rows]], found.names])
    kind = np.concatenate([np.zeros(len(rows)), np.where(found.seen, 1.0, 2.0)])
    if z.shape[1] <= 2:
        return np.asarray(np.pad(z, ((0, 0), (0, 2 - z.shape[1])))), names, kind
    if quick:
        mean, axes, _ = principal_axes(z)
        return np.asarray((z - mean) @ axes[:2].T, np.float64), names, kind
    return np.asarray(tsne(z, seed), np.float64), names, kind


def embeddings(panels: Mapping[str, Found], seed: int, quick: bool, across: int = 3) -> Figure:
    """Contents in the plane, a panel per model; classes in colour, unseen ones as crosses."""
    rows = -(-len(panels) // across)
    columns = min(across, len(panels))
    fig = new_figure(3.1 * rows + 0.5, min(WIDTH, 3.2 * columns + 0.6))
    axes = np.atleast_1d(fig.subplots(rows, columns)).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, found) in zip(axes, panels.items(), strict=False):
        style(ax, title=title)
        _bare(ax)
        _scatter(ax, *embedded(found, seed, quick))
    handles, labels = axes[0].get_legend_handles_labels()
    ncols = max(1, int(fig.get_figwidth() / LEGEND_ENTRY))
    fig.legend(
        handles, labels, loc="outside lower center", ncols=ncols, frameon=False, fontsize=SMALL
    )
    return fig


def _scatter(ax: Axes, plane: Floats, names: NDArray[np.str_], kind: Floats) -> None:
    for k, name in enumerate(sorted(set(names.tolist()))):
        mine = names == name
        colour = CATEGORY_COLOURS[k % len(CATEGORY_COLOURS)]
        unseen = bool((kind[mine] == 2).any())
        for which, size, alpha in ((0, 5, 0.35), (1, 9, 0.9), (2, 14, 0.9)):
            dots = plane[mine & (kind == which)]
            if len(dots):
                marker = "x" if unseen else "o"
                label = f"{name}, unseen" if unseen else name
                first = which == max(kind[mine])
                ax.scatter(
                    dots[:, 0],
                    dots[:, 1],
                    s=size,
                    color=colour,
                    alpha=alpha,
                    marker=marker,
                    linewidths=0.8 if unseen else 0,
                    label=label if first else None,
                )


def coloured(panels: Mapping[str, Floats], plane: Floats) -> Figure:
    """The same plane (N, 2) coloured by several quantities (N,): title → values."""
    fig = new_figure(3.4, min(WIDTH, 3.8 * len(panels)))
    for ax, (title, values) in zip(
        np.atleast_1d(fig.subplots(1, len(panels))), panels.items(), strict=True
    ):
        style(ax, title=title)
        _bare(ax)
        dots = ax.scatter(plane[:, 0], plane[:, 1], c=values, s=8, cmap="viridis")
        fig.colorbar(dots, ax=ax).ax.tick_params(labelsize=SMALL)
    return fig


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def matrices(
    panels: Mapping[str, tuple[Sequence[str], Sequence[str], Floats]], decimals: int = 0
) -> Figure:
    """Tables of numbers with a shade each: title → (row names, column names, values)."""
    most = max(len(rows) for rows, _, _ in panels.values())
    fig = new_figure(0.34 * most + 1.0, min(WIDTH, (0.42 * most + 1.2) * len(panels)))
    for ax, (title, (rows, columns, values)) in zip(
        np.atleast_1d(fig.subplots(1, len(panels))), panels.items(), strict=True
    ):
        style(ax, title=title)
        high = float(values.max())
        ax.imshow(values, cmap="Blues", vmin=0, vmax=high or 1.0, aspect="auto")
        ax.set_xticks(range(len(columns)), [name or "none" for name in columns])
        ax.set_yticks(range(len(rows)), list(rows))
        for (i, j), value in np.ndenumerate(values):
            shade = "white" if value > 0.6 * high else INK
            text = f"{value:.{decimals}f}"
            ax.text(j, i, text, ha="center", va="center", fontsize=SMALL - 2, color=shade)
    return fig


def proximity(panels: Mapping[str, LatentMap]) -> Figure:
    """Distances between the centres of classes, each matrix scaled to a largest of 100."""
    shown = {}
    for title, known in panels.items():
        distances = replace(known, distance="euclidean").centroid_distances()
        shown[title] = (known.names, known.names, 100 * distances / max(distances.max(), 1e-300))
    return matrices(shown)


def confusions(panels: Mapping[str, Confusion]) -> Figure:
    """Counts of predicted (columns) for true classes (rows)."""
    return matrices(
        {t: (c.true, c.predicted, c.counts.astype(np.float64)) for t, c in panels.items()}
    )


def pose_lines(
    angle_deg: Floats, channel: Floats, names: NDArray[np.str_], shown: Sequence[str]
) -> Figure:
    """A component of the pose channel against the true angle, a panel per class."""
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    fig = new_figure(2.1 * rows + 0.3, min(WIDTH, 2.4 * columns))
    axes = np.atleast_1d(fig.subplots(rows, columns, sharex=True)).ravel()
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for ax, name in zip(axes, shown, strict=False):
        mine = names == name
        style(ax, "true angle (degrees)", "pose", name)
        ax.plot(angle_deg[mine], channel[mine], "o", ms=2.5, color=BLUE, alpha=0.6)
        if mine.sum() > 1:
            slope, start = np.polyfit(angle_deg[mine], channel[mine], 1)
            ends = np.array([angle_deg[mine].min(), angle_deg[mine].max()])
            ax.plot(ends, start + slope * ends, color=ORANGE, lw=1.2)
    return fig


def against(x: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """A panel a quantity: its name → (values of x, values)."""
    fig = new_figure(2.8, min(WIDTH, 3.2 * len(lines)))
    for ax, (name, (at, values)) in zip(
        np.atleast_1d(fig.subplots(1, len(lines))), lines.items(), strict=True
    ):
        style(ax, x, name)
        ax.plot(range(len(at)), values, color=BLUE, marker="o", ms=4, lw=1.5)
        ax.set_xticks(range(len(at)), [f"{v:g}" for v in at])
        ax.grid(axis="y", color=RULE, linewidth=0.6)
    return fig
