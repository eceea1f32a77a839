"""Figures of the free energy of content, and of a path through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from modpose.content.density import FreeEnergy
from modpose.plot.figures import BLUE, INK, ORANGE, SMALL, TEXT, new_figure, style
from modpose.plot.grids import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGHEST = 8.0
"""kT up to which colours differ: e^8, 3,000 times fewer images than in the densest place."""


def free_energy_map(
    found: FreeEnergy, names: Sequence[str], places: Floats, labels: Sequence[str], path: Floats
) -> Figure:
    """Draw a free energy, with marked places and a path.

    Parameters
    ----------
    found
        Along one or two axes.
    names
        Of the axes.
    places, labels
        (K, d) marks, and what stands beside each.
    path
        (S, d) stops, or (0, d).
    """
    fig = new_figure(5.4, 6.6)
    if len(found.ticks) == 1:
        ax = style(fig.subplots(), names[0], "free energy (kT)")
        (x,) = found.ticks
        ax.fill_between(x, found.energy - found.error, found.energy + found.error, alpha=0.25)
        ax.plot(x, found.energy, color=BLUE)
        for place, label in zip(places[:, 0], labels, strict=True):
            _mark(ax, label, (place, float(np.interp(place, x, found.energy))))
        return fig
    ax = style(fig.subplots(), *names)
    x, y = found.ticks
    drawn = ax.pcolormesh(x, y, found.energy.T, cmap="viridis_r", vmin=0, vmax=HIGHEST)
    levels = np.arange(1, HIGHEST)
    ax.contour(x, y, found.energy.T, levels=levels, colors="white", linewidths=0.4)
    fig.colorbar(drawn, ax=ax, extend="max").set_label("free energy (kT)", fontsize=TEXT)
    if len(path):
        ax.plot(*path.T, "-o", color=ORANGE, ms=3.5, lw=1.4)
    for place, label in zip(places, labels, strict=True):
        _mark(ax, label, (float(place[0]), float(place[1])))
    return fig


def _mark(ax: Axes, label: str, place: tuple[float, float]) -> None:
    """Write the name of a cluster at its place."""
    ax.annotate(
        label, place, ha="center", va="center", fontsize=SMALL, color=INK,
        bbox={"boxstyle": "circle,pad=0.2", "fc": "white", "ec": INK, "lw": 0.6},
    )  # fmt: skip


def path_profile(position: Floats, energy: Floats, error: Floats) -> Figure:
    """Draw the free energy along a path: position 0 to 1, kT and its standard error."""
    fig = new_figure(3.4, 6.6)
    ax = style(fig.subplots(), "position along the path", "free energy (kT)")
    ax.errorbar(position, energy, error, fmt="-o", color=BLUE, ms=4, lw=1.4, capsize=2)
    return fig
