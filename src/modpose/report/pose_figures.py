"""Figures of the sections on symmetry and on equivariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from modpose.report.figures import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    RULE,
    SMALL,
    Look,
    new_figure,
    style,
)
from modpose.report.grids import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mode_histograms(posterior: Floats, orders: Sequence[int], names: Sequence[str]) -> Figure:
    """Mean posterior of the angle relative to the best mode, a row a class.

    Parameters
    ----------
    posterior
        (classes, bins) probability of each bin; bin b is centred on 360° b / bins − 180°.
    orders
        Of each class's symmetry group, whose turns are marked; 0 marks none.
    names
        Of the classes.
    """
    from matplotlib.ticker import FixedLocator

    count, bins = posterior.shape
    width = 360.0 / bins
    centres = np.append(width * np.arange(bins) - 180.0, 180.0)  # both ends are half a turn
    fig = new_figure(0.75 * count + 0.7, 7.6)
    axes = fig.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for ax, row, order, name in zip(axes, 100 * posterior, orders, names, strict=True):
        style(ax)
        for turn in range(order):
            for place in (360.0 * turn / order, 360.0 * turn / order - 360.0):
                ax.axvline(place, color=ORANGE, ls=":", lw=1.3, zorder=0)
        ax.bar(centres, np.append(row, row[0]), width=width, color=BLUE, alpha=0.85)
        ax.set_xlim(-180 - width, 180 + width)
        ax.set_yscale("function", functions=(np.sqrt, np.square))  # small modes are to be seen
        ax.set_ylim(0, 1.12 * max(float(row.max()), 1e-6))
        ax.yaxis.set_major_locator(FixedLocator([t for t in (0, 10, 50, 100) if t <= row.max()]))
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=SMALL, color=INK)
    ticks = np.arange(-180, 181, 45)
    axes[-1].set_xticks(ticks, [f"{t}°".replace("-", "−") for t in ticks])
    axes[-1].set_xlabel(
        f"angle from the best mode (posterior in {width:g}°, %, square-root scale)",
        fontsize=SMALL + 0.5,
        color=INK,
    )
    return fig


def two_ways_up(
    images: Floats,
    ways: Sequence[Floats],
    names: Sequence[str],
    captions: Sequence[Sequence[str]],
    look: Look,
) -> Figure:
    """Images in the first row, and in two more the same turned upright by either mode.

    Parameters
    ----------
    images
        (n, H, W[, 3]).
    ways
        Two of that shape.
    names
        Of the images' classes.
    captions
        Of the pictures in ``ways``.
    look
        How real images are drawn.
    """
    n, height, width = images.shape[:3]
    cell = 1.15
    fig = new_figure(3 * (cell * height / width + 0.25), cell * n + 0.9)
    grid = np.asarray(fig.subplots(3, n, squeeze=False))
    rows = zip((images, *ways), (names, *captions), ("image", "best mode", "second"), strict=True)
    for axes, (pictures, texts, side) in zip(grid, rows, strict=True):
        for ax, picture, text in zip(axes, look.image(pictures), texts, strict=True):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            style(ax)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_title(text, fontsize=SMALL, color=MUTED)
        axes[0].set_ylabel(side, rotation=0, ha="right", va="center", fontsize=SMALL, color=INK)
    return fig


def turning_errors(
    turns_deg: Floats,
    panels: Sequence[tuple[str, str, Floats]],
    shifted: Sequence[float],
    shift_px: float,
) -> Figure:
    """How far inference misses an image that was turned, against the angle it was turned by.

    Parameters
    ----------
    turns_deg
        (T,) angles.
    panels
        Title, unit and (T, n) sizes of errors.
    shifted
        Median of the same quantity when images are shifted by ``shift_px``; NaN draws nothing.
    """
    fig = new_figure(3.3, 3.2 * len(panels))
    axes = np.atleast_1d(fig.subplots(1, len(panels)))
    for ax, (title, unit, sizes), level in zip(axes, panels, shifted, strict=True):
        low, middle, high = np.percentile(sizes, [10, 50, 90], axis=1)
        ax.fill_between(turns_deg, low, high, color=BLUE, alpha=0.18, lw=0, label="10 to 90 %")
        ax.plot(turns_deg, middle, color=BLUE, lw=1.6, label="median")
        if np.isfinite(level):
            label = f"shifted by {shift_px:g} px"
            ax.axhline(level, color=ORANGE, ls="--", lw=1.3, label=label)
        style(ax, "turned by (degrees)", unit, title)
        ax.grid(axis="y", color=RULE, linewidth=0.6)
        ax.set_xticks(np.arange(0, 361, 90))
        ax.set_ylim(0, None)
    fig.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
    )
    return fig
