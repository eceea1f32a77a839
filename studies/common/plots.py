"""Figures that experiments share; the report draws the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modpose.plot.figures import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    RULE,
    SMALL,
    TEXT,
    WIDTH,
    DisplayStyle,
    new_figure,
    style,
    traversals,
)
from modpose.plot.grids import Floats, mosaic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREEN = "#2f8f5b"
COLOURS = (GREEN, ORANGE, BLUE, MUTED)
"""Of the models in the order of a legend: in the paper spatial-VAE is green, fixed pose orange,
VAE blue."""
UNIT = DisplayStyle((0.0, 1.0), (0.0, 1.0), "upper")
"""How pictures that are ready to draw are drawn."""

Curve = tuple[Sequence[float], Sequence[float]]


def against_z(panels: Mapping[str, Mapping[str, Curve]], x: str = "content dimensions") -> Figure:
    """Held-out ELBO against the number of latents: a panel per sample, one line per model.

    Parameters
    ----------
    panels
        Title → model → (z dims, ELBO).
    x
        Name of the horizontal axis.
    """
    fig = new_figure(3.3, min(WIDTH, 3.4 * len(panels) + 0.8))
    axes = np.atleast_1d(fig.subplots(1, len(panels)))
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        style(ax, x, "held-out ELBO (nats per image)" if ax is axes[0] else "", title)
        for (name, (dims, elbo)), colour in zip(lines.items(), COLOURS, strict=False):
            ax.plot(dims, elbo, color=colour, marker="o", ms=4, lw=1.6, label=name)
        dims = sorted({d for line, _ in lines.values() for d in line})
        ax.set_xticks(dims, [f"{d:g}" for d in dims])
        _grid(ax)
    if max(map(len, panels.values())) > 1:
        axes[0].legend(frameon=False, fontsize=SMALL, labelcolor=INK)
    return fig


def curves_in_images(
    lines: Mapping[str, Sequence[Curve]],
    levels: Mapping[str, float],
    printed: float | None = None,
    y: str = "validation ELBO (nats per image)",
) -> Figure:
    """Curves against the number of images seen: a colour per model, one line per seed.

    Parameters
    ----------
    lines
        Model → (images seen, value) of each seed; five models at most.
    levels
        Horizontal lines by name: the null model, or what the paper prints.
    printed
        Images that the paper's training sees, a vertical line.
    y
        Name of the vertical axis.
    """
    fig = new_figure(3.6, 6.4)
    ax = style(fig.subplots(), "images seen", y)
    for (name, seeds), colour in zip(lines.items(), (*COLOURS, INK), strict=False):
        for k, (seen, values) in enumerate(seeds):
            label = name if k == 0 else None
            ax.plot(seen, values, color=colour, lw=1.3, alpha=0.85, label=label)
    for (name, level), dash in zip(levels.items(), ("--", ":", "-."), strict=False):
        ax.axhline(level, color=INK, lw=0.9, ls=dash, label=name)
    if printed is not None:
        ax.axvline(printed, color=MUTED, lw=0.9, ls=":", label="images seen in the paper")
    ax.set_xscale("log")
    _grid(ax)
    ax.legend(frameon=False, fontsize=SMALL, labelcolor=INK)
    return fig


def table_of_mosaics(
    tiles: Mapping[tuple[str, str], Floats], columns: int, width: float = WIDTH
) -> Figure:
    """Mosaics in rows and columns with a title each.

    Parameters
    ----------
    tiles
        (row title, column title) → pictures (n, H, W[, 3]) in [0, 1] in reading order.
    columns
        Of each mosaic.
    width
        Of the figure, inches.
    """
    rows = list(dict.fromkeys(row for row, _ in tiles))
    heads = list(dict.fromkeys(head for _, head in tiles))
    fig, axes = _axes_for(list(tiles.values()), columns, (len(rows), len(heads)), 0, 1, width)
    for (row, head), pictures in tiles.items():
        ax = axes[rows.index(row)][heads.index(head)]
        ax.imshow(mosaic(pictures, columns, 0), cmap="gray", vmin=0, vmax=1)
        if row == rows[0]:
            ax.set_title(head, fontsize=TEXT, color=INK)
        if head == heads[0]:
            ax.set_ylabel(row, fontsize=TEXT, color=INK)
    return fig


def titled_mosaics(tiles: Mapping[str, Floats], columns: int, across: int, gap: int = 0) -> Figure:
    """Mosaics in reading order, ``across`` in a row; title → pictures as above."""
    shape = (-(-len(tiles) // across), min(across, len(tiles)))
    fig, axes = _axes_for(list(tiles.values()), columns, shape, gap, shape[0], WIDTH)
    for k, (title, pictures) in enumerate(tiles.items()):
        ax = axes[k // across][k % across]
        ax.imshow(mosaic(pictures, columns, gap), cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=TEXT, color=INK)
    return fig


def _axes_for(
    tiles: Sequence[Floats],
    columns: int,
    shape: tuple[int, int],
    gap: int,
    titled: int,
    width: float,
) -> tuple[Figure, list[list[Axes]]]:
    """Return bare axes of the proportions of the mosaics; ``titled`` rows have titles."""
    high, wide = mosaic(tiles[0], columns, gap).shape[:2]
    cell = (width - 0.3) / shape[1]
    fig = new_figure(shape[0] * (cell * high / wide + 0.06) + 0.28 * titled, width)
    axes = fig.subplots(*shape, squeeze=False)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    return fig, [list(row) for row in axes]


def strips(rows: Mapping[str, Floats]) -> Figure:
    """Named rows of pictures (n, H, W) in [0, 1], n the same in every row."""
    return traversals(np.stack(list(rows.values())), list(rows), UNIT)


def _grid(ax: Axes) -> None:
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
