"""Directions on the sphere, as equal-area maps of its two halves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from modpose.plot.figures import BLUE, INK, MUTED, TEXT, colour_bar
from modpose.plot.grids import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 2000
"""Of more directions, the density is drawn."""
CELLS = 28
"""Hexagons across a half."""


def draw_halves(
    fig: Figure, axes: Sequence[Axes], directions: Floats, names: Sequence[str]
) -> None:
    """Draw directions (N, 3), unit vectors, on two discs: z > 0 on the first, z < 0 on the second.

    Equal areas of a disc are equal areas of the sphere (Lambert).  The middle is the z axis, the
    rim is across it; x is to the right, y upwards.  Many are drawn as their number in each hexagon,
    relative to even directions.
    """
    from matplotlib.patches import Circle

    many = len(directions) > MOST_POINTS
    area = 1.5 * np.sqrt(3) * (2 / CELLS / np.sqrt(3)) ** 2 / np.pi  # of a hexagon, of the disc
    even = len(directions) / 2 * area
    drawn = None
    for ax, sign, name in zip(axes, (1, -1), names, strict=True):
        x, y, z = directions[sign * directions[:, 2] >= 0].T
        scale = np.sqrt(1 / (1 + np.abs(z)))
        rim = Circle((0, 0), 1.0, fill=False, color=MUTED, lw=0.8)
        ax.add_patch(rim)
        if many:
            drawn = ax.hexbin(
                x * scale,
                y * scale,
                C=np.full(len(x), 1 / even),
                reduce_C_function=np.sum,
                gridsize=(CELLS, round(CELLS / np.sqrt(3))),
                extent=(-1, 1, -1, 1),
                cmap="Blues",
                vmin=0,
                vmax=3,
                linewidths=0.1,
            )
            drawn.set_clip_path(rim)
        else:
            ax.scatter(x * scale, y * scale, s=4, alpha=0.6, color=BLUE, linewidths=0)
        ax.set_aspect("equal")
        ax.set_axis_off()
        ax.set_xlim(-1.05, 1.05)
        ax.set_ylim(-1.05, 1.05)
        ax.set_title(name, fontsize=TEXT, color=INK)
    if drawn is not None:
        colour_bar(fig, drawn, axes, "number, relative to even directions")
