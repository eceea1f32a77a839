"""The picture of numbered averages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modpose.plot.figures import INK, MUTED, new_figure
from modpose.plot.grids import grey_range

if TYPE_CHECKING:
    from modpose.search.classes2d.run import Classes2d

COLUMNS, TILE = 10, 1.15
"""Pictures of a row, and their side in inches."""


def draw_classes(found: Classes2d, path: Path) -> None:
    """Draw the averages, each with its number, count and resolution."""
    unit = "px" if found.pixel_size is None else "Å"
    count = len(found.averages)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = new_figure(rows * (TILE + 0.45) + 0.3, columns * TILE, constrained=False)
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - 0.35 / (rows * (TILE + 0.45)), 0.03, 0.42)
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for number, (axis, picture) in enumerate(zip(axes, found.averages, strict=False)):
        row = found.table.iloc[number]
        low, high = grey_range(picture)
        axis.imshow(picture, cmap="gray", origin="lower", vmin=low, vmax=high)
        told = f"{row['resolution']:.3g} {unit}" if row["kind"] == "good" else row["kind"]
        color = INK if row["kind"] == "good" else MUTED
        axis.set_title(f"{number + 1}: {row['images']:,}\n{told}", fontsize=7, color=color, pad=2)
    figure.savefig(path, format="png", dpi=110)
