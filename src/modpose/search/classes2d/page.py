"""The picture of numbered averages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modpose.plot.figures import INK, MUTED, new_figure
from modpose.plot.grids import grey_range, mosaic, to_unit
from modpose.plot.scale_bar import scale_bar

if TYPE_CHECKING:
    from modpose.search.classes2d.run import Classes2d

COLUMNS, TILE, LABEL = 10, 1.15, 0.34
"""Pictures of a row; the side of one and the height of its label, inches."""


def draw_classes(found: Classes2d, path: Path) -> None:
    """Draw the averages, each with its number, count and resolution."""
    unit = "px" if found.pixel_size is None else "Å"
    side, count = found.averages.shape[-1], len(found.averages)
    columns = min(COLUMNS, count)
    label = round(side * LABEL / TILE)
    tiles = np.ones((count, side + label, side + 1), np.float32)
    for tile, picture in zip(tiles, found.averages, strict=True):
        tile[label:, :side] = to_unit(picture, grey_range(picture))[::-1]
    sheet = mosaic(tiles, columns, gap=0)
    inch = TILE / side
    figure = new_figure(sheet.shape[0] * inch, sheet.shape[1] * inch, constrained=False)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, aspect="auto")
    axis.set_axis_off()
    rows = zip(found.table["kind"], found.table["images"], found.table["resolution"], strict=True)
    for number, (kind, images, resolution) in enumerate(rows):
        x, y = (number % columns + 0.5) * (side + 1), (number // columns) * (side + label) + label
        told = f"{resolution:.3g} {unit}" if kind == "good" else kind
        text, color = f"{number + 1}: {images:,}\n{told}", INK if kind == "good" else MUTED
        axis.text(x, y - 1, text, fontsize=7, color=color, ha="center", va="bottom")
    scale_bar(axis, found.pixel_size, side, (0, side + label))
    figure.savefig(path, format="png", dpi=110)
