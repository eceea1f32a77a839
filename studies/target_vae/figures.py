"""Figures of the TARGET-VAE studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.content.embedding import tsne
from modpose.plot.figures import INK, MUTED, RULE, SMALL, TEXT, WIDTH, new_figure, style
from modpose.plot.grids import Floats, mosaic
from modpose.plot.scatter import CATEGORY_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_DRAWN = 2000
"""Points of a scatter."""
FEW = 10
"""Epochs of a fit, up to which a curve has a dot for each: one alone has no line."""


def learning(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], levels: Mapping[str, float]
) -> Figure:
    """Validation ELBO against images seen, one line per model; the first climb is cut off.

    ``levels`` are lines across, by name: bounds to compare with.
    """
    fig = new_figure(3.9, 8.4)
    ax = style(fig.subplots(), "images seen", "validation ELBO (nats per image)")
    late: list[float] = list(levels.values())
    for name, level in levels.items():
        ax.axhline(level, color=INK, lw=0.9, ls="--", label=name)
    for k, (name, (seen, elbo)) in enumerate(curves.items()):
        dashes = "-" if k < len(CATEGORY_COLOURS) else "--"
        colour = CATEGORY_COLOURS[k % len(CATEGORY_COLOURS)]
        dot = "o" if len(elbo) <= FEW else None
        ax.plot(seen, elbo, dashes, color=colour, lw=1.4, label=name, marker=dot, ms=4)
        late += [value for value in elbo[len(elbo) // 10 :] if np.isfinite(value)]
    if late:
        low, high = np.percentile(late, [2 if len(late) > FEW * len(curves) else 0, 100])
        low = min(low, *levels.values(), high)
        pad = 0.05 * (high - low) + 1e-6
        ax.set_ylim(low - pad, high + pad)
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.legend(
        frameon=False, fontsize=SMALL, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return fig


def angle_scatters(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike]], columns: int, height: float = 1.9
) -> Figure:
    """Inferred angle (across) against the true one (up), degrees, a panel per class."""
    rows = -(-len(panels) // columns)
    fig = new_figure(rows * height + 0.4, min(WIDTH, columns * height + 0.4))
    axes = fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, (inferred, true)) in zip(axes.flat, panels.items(), strict=False):
        x, y = (np.asarray(values, float)[:MOST_DRAWN] for values in (inferred, true))
        size = float(np.clip(1500 / max(len(x), 1), 0.8, 8))
        ax.scatter(x, y, size, CATEGORY_COLOURS[0], lw=0, alpha=0.6, rasterized=True)
        _circle_axes(ax)
        ax.set_title(title, fontsize=SMALL, color=INK)
    fig.supxlabel("inferred rotation (degrees)", fontsize=TEXT, color=INK)
    fig.supylabel("true rotation", fontsize=TEXT, color=INK)
    return fig


def _circle_axes(ax: Axes) -> None:
    style_ticks = np.array([-180, 0, 180])
    ax.set_xlim(-180, 180)
    ax.set_ylim(-180, 180)
    ax.set_xticks(style_ticks)
    ax.set_yticks(style_ticks)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=SMALL - 1, colors=MUTED, length=2)
    for spine in ax.spines.values():
        spine.set_color(RULE)


def confusion_and_tsne(
    counts: NDArray[np.int64], names: Sequence[str], z: Floats, labels: NDArray[Any], seed: int
) -> Figure:
    """Confusion of matched clusters with classes, and an embedding of content by class.

    Parameters
    ----------
    counts
        (k, k) images of each class (rows) in the cluster matched with each class (columns).
    names
        k classes.
    z, labels
        (N, d) content and (N,) classes.
    seed
        Of the embedding.
    """
    fig = new_figure(4.2, WIDTH)
    left, right = fig.subplots(1, 2)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    left.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*share.shape):
        if share[row, column] >= 0.005:
            colour = "white" if share[row, column] > 0.5 else INK
            text = f"{100 * share[row, column]:.0f}"
            left.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    style(left, "cluster matched with", "class", "Confusion (% of the class)")
    left.set_xticks(range(len(names)), names)
    left.set_yticks(range(len(names)), names)
    some = np.random.default_rng(seed).permutation(len(z))[:MOST_DRAWN]
    points = tsne(z[some], seed) if z.shape[1] > 2 else z[some]
    title = "t-SNE of content" if z.shape[1] > 2 else "Content"
    content_scatter(style(right, title=title), points, labels[some], names)
    return fig


def content_scatter(ax: Axes, points: Floats, labels: NDArray[Any], names: Sequence[str]) -> None:
    """Scatter (N, 2) points coloured by class, with a legend."""
    size = float(np.clip(6000 / max(len(points), 1), 2, 12))
    for k, name in enumerate(names):
        own = labels.astype(str) == name
        colour = CATEGORY_COLOURS[k % len(CATEGORY_COLOURS)]
        x, y = points[own, :2].T
        ax.scatter(x, y, size, colour, label=name, lw=0, alpha=0.8, rasterized=True)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.legend(
        frameon=False, fontsize=SMALL, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5)
    )


def content_maps(panels: Mapping[str, tuple[Floats, NDArray[Any]]]) -> Figure:
    """Content of each model coloured by class: its two dimensions, or two principal components."""
    across = min(3, len(panels))
    rows = -(-len(panels) // across)
    fig = new_figure(3.2 * rows, WIDTH)
    axes = fig.subplots(rows, across, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, (z, labels)) in zip(axes.flat, panels.items(), strict=False):
        names = sorted(set(labels.astype(str)))
        content_scatter(style(ax, title=title), flat(z), labels, names)
    return fig


def flat(z: Floats) -> Floats:
    """Return two coordinates a row: z itself, padded with zeros, or two principal components."""
    if z.shape[1] <= 2:
        return np.pad(z, ((0, 0), (0, 2 - z.shape[1])))
    centred = z - z.mean(0)
    return np.asarray(centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T)


def picture_rows(rows: Mapping[str, Floats], width: float = WIDTH) -> Figure:
    """Named rows of n pictures each, (n, H, W[, 3]) in [0, 1]."""
    n, high = next(iter(rows.values())).shape[:2]
    gap = max(1, high // 24)
    sheet = mosaic(np.concatenate(list(rows.values())), n, gap)
    names = max(1.6, 0.08 * max(map(len, rows)))  # inches
    fig = new_figure((width - names) * sheet.shape[0] / sheet.shape[1] + 0.15, width)
    ax = fig.subplots()
    ax.set_anchor("E")  # what room there is, is for the names
    ax.imshow(np.clip(sheet, 0, 1), cmap="gray", vmin=0, vmax=1)
    ax.set_xticks([])
    centres = (high + gap) * np.arange(len(rows)) + high / 2
    ax.set_yticks(centres, list(rows), fontsize=SMALL, color=INK)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig
