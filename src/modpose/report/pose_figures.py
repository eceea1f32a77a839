"""Figures of inferred poses, their symmetry and their equivariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.plot.figures import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    RULE,
    SMALL,
    TEXT,
    DisplayStyle,
    legend,
    new_figure,
    style,
)
from modpose.plot.grids import Floats, Origin

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def angle_histogram(angle_deg: Floats, std_deg: Floats | None, origin: Origin) -> Figure:
    """Polar histogram of the inferred angles and, when known, of their uncertainty.

    The polar plot rotates like the pictures: a positive angle is counter-clockwise if row 0 is
    drawn at the bottom, clockwise if it is at the top.
    """
    fig = new_figure(3.7, 7.6 if std_deg is not None else 3.8)
    polar: Any = fig.add_subplot(1, 2 if std_deg is not None else 1, 1, projection="polar")
    bins = 36
    counts, edges = np.histogram(np.deg2rad(angle_deg), bins=bins, range=(-np.pi, np.pi))
    polar.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=BLUE, alpha=0.85)
    mean = len(angle_deg) / bins
    circle = np.linspace(-np.pi, np.pi, 200)
    polar.plot(circle, np.full(200, mean), color=ORANGE, lw=1.2, ls="--")
    polar.set_theta_direction(1 if origin == "lower" else -1)
    polar.set_ylim(0, max(1.15 * counts.max(), 1.3 * mean))
    style(polar, title="Inferred angle (dashed: uniform)")
    polar.grid(color=RULE, linewidth=0.6)
    polar.set_yticks([])
    ticks = np.arange(-135, 181, 45)
    polar.set_xticks(np.deg2rad(ticks), [f"{t}°".replace("-", "−") for t in ticks])
    polar.set_xlim(-np.pi, np.pi)
    if std_deg is not None:
        ax = style(fig.add_subplot(1, 2, 2), "s.d. of the angle (degrees)", "images")
        ax.set_title("Uncertainty of the angle", fontsize=TEXT + 1, color=INK, loc="left")
        finite = std_deg[np.isfinite(std_deg)]
        ax.hist(finite, bins=40, color=BLUE, alpha=0.85)
    return fig


def shift_histograms(shift: Floats, prior_std: float | None, origin: Origin, unit: str) -> Figure:
    """Inferred shifts (N, 2) in a unit: their density in the plane and along each axis."""
    fig = new_figure(3.7, 8.2)
    plane, along = fig.subplots(1, 2)
    reach = max(float(np.percentile(np.abs(shift), 99.5)) * 1.1, 0.5)
    plane.hist2d(shift[:, 0], shift[:, 1], bins=41, range=[[-reach, reach]] * 2, cmap="Blues")
    style(plane, f"shift along x ({unit})", f"shift along y ({unit})", "Positions of the objects")
    plane.set_aspect("equal")
    plane.axhline(0, color=RULE, lw=0.8)
    plane.axvline(0, color=RULE, lw=0.8)
    if origin == "upper":
        plane.invert_yaxis()
    bins = np.linspace(-reach, reach, 51)
    for axis, colour in ((0, BLUE), (1, ORANGE)):
        along.hist(shift[:, axis], bins, histtype="step", color=colour, lw=1.6, label="xy"[axis])
    if prior_std is not None:
        x = np.linspace(-reach, reach, 300)
        density = np.exp(-0.5 * (x / prior_std) ** 2) / (prior_std * np.sqrt(2 * np.pi))
        scale = len(shift) * (bins[1] - bins[0])
        along.plot(x, density * scale, color=MUTED, ls="--", lw=1.2, label="prior")
    style(along, f"shift ({unit})", "images", "Along each axis")
    legend(along)
    return fig


def scale_histogram(scale: Floats) -> Figure:
    """Size of the objects relative to the upright ones, (N,)."""
    fig = new_figure(2.6, 4.5)
    ax = fig.subplots()
    ax.hist(scale, bins=min(60, max(10, len(scale) // 20)), color=BLUE, alpha=0.85)
    style(ax, "scale (1: as upright)", "images", "Size of the objects")
    return fig


def mode_histograms(posterior: Floats, orders: Sequence[int], names: Sequence[str]) -> Figure:
    """Mean posterior of the angle relative to the best mode, one row per class.

    Parameters
    ----------
    posterior
        (classes, bins) probability of each bin; bin b is centred on 360° b / bins − 180°.
    orders
        Order of each class's symmetry group; its rotations are marked; 0 marks none.
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
        ax.set_yscale("function", functions=(np.sqrt, np.square))  # so that small modes are visible
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
    look: DisplayStyle,
) -> Figure:
    """Draw images in the first row, and below each rotated upright by either of two modes.

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
    """Draw errors of inference against the angle by which an image was rotated.

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
        style(ax, "rotated by (degrees)", unit, title)
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
