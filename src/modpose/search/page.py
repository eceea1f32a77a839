"""The page about an alignment: averages from three sides, agreement of halves, poses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.files.writing import Staging
from modpose.plot.directions import draw_halves
from modpose.plot.figures import BLUE, INK, MUTED, ORANGE, SMALL, TEXT, new_figure, style
from modpose.plot.html import Picture, Section, render
from modpose.plot.scale_bar import scale_bar
from modpose.search.files import STEPS, along_motion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modpose.data.source import Source
    from modpose.search.alignment import Alignment, AlignSettings

THRESHOLD = 0.143
SHOWN = 12
"""Largest number of classes that are drawn."""


def write_page(
    folder: Path, source: Source, found: Alignment, settings: AlignSettings, place: Staging
) -> None:
    """Draw ``index.html`` and ``figures/*.png``."""
    size, box = source.pixel_size, source.stack.shape[0]
    sections = [_averages(found, size, box), _agreement(found, size, box), _poses(found)]
    if found.motions:
        sections.append(_motions(found))
    for section in sections:
        for picture in section.pictures:
            place(folder / "figures" / picture.name).write_bytes(picture.png)
    facts = [
        ("volumes", f"{source.n}"),
        ("box", f"{box}³" + ("" if size is None else f", {size:g} Å per voxel")),
        *([] if settings.box is None else [("brought to", f"{settings.box}³")]),
        ("classes", f"{settings.classes}"),
        ("seed", f"{settings.seed}"),
    ]
    html = render("Alignment", source.stack.name, facts, [], sections)
    place(folder / "index.html").write_bytes(html.encode())


def _averages(found: Alignment, pixel_size: float | None, box: int) -> Section:
    count = torch.bincount(found.assignment.class_index, minlength=len(found.maps.fsc)).tolist()
    resolution = found.resolution(pixel_size, box)
    return Section(
        "averages",
        "Class averages",
        "Each class from three sides: density summed along z, y and x.",
        good="a compact shape with details, of similar size from all sides.",
        bad="a ball (poses were not found), or a shape cut by the mask.",
        pictures=[
            Picture.of(
                projections(found.maps.combined, pixel_size), "averages.png", "class averages"
            )
        ],
        header=("class", "volumes", "resolution"),
        table=[
            (str(number), str(volumes), text)
            for number, (volumes, text) in enumerate(zip(count, resolution, strict=True), 1)
        ],
    )


def _agreement(found: Alignment, pixel_size: float | None, box: int) -> Section:
    return Section(
        "fsc",
        "Agreement of independent halves",
        "Fourier shell correlation of two independently refined halves of each class; the dashed "
        f"line is {THRESHOLD}.",
        good="near one at low frequency, then a fall to about zero.",
        bad="a curve that never falls: the mask is too tight or the volumes are not independent.",
        pictures=[
            Picture.of(
                correlations(found.maps.fsc, pixel_size, box), "fsc.png", "shell correlation"
            )
        ],
    )


def _poses(found: Alignment) -> Section:
    return Section(
        "poses",
        "Directions of the volumes",
        "Direction of each object's own z axis in the tomogram, an equal-area map of the upper and "
        "lower half, and the lengths of the shifts.",
        good="all directions, unless the objects lie on a membrane or a grid.",
        bad="volumes crowded about the missing wedge: poses follow the wedge, not the object.",
        pictures=[Picture.of(directions(found), "poses.png", "directions and shifts")],
    )


def _motions(found: Alignment) -> Section:
    count = found.motions[0].z.shape[1]
    pictures = [
        Picture.of(
            motion_figure(found, number, motion),
            f"class{number + 1:03d}_motion{motion + 1}.png",
            f"class {number + 1} along motion {motion + 1}",
        )
        for number in range(min(SHOWN, len(found.motions)))
        for motion in range(count)
    ]
    return Section(
        "motions",
        "Motions within a class",
        "Each class at two standard deviations below its mean to two above, summed along z (top) "
        "and y, and the distribution of its volumes.",
        good="a part that moves, and a distribution that is not a simple bell curve.",
        bad="noise, or the whole shape rotates slightly: there is no motion, or poses are wrong.",
        pictures=pictures,
    )


def motion_figure(found: Alignment, number: int, motion: int) -> Figure:
    """Draw a class along one of its motions, and a histogram of its volumes."""
    volumes = along_motion(found, number, motion).numpy()
    fig = new_figure(3.4)
    axes = fig.subplots(
        2, len(STEPS) + 2, gridspec_kw={"width_ratios": [1] * len(STEPS) + [0.1, 2]}
    )
    low, high = float(volumes.sum(1).min()), float(volumes.sum(1).max())
    for column, (volume, step) in enumerate(zip(volumes, STEPS, strict=True)):
        for row in range(2):
            ax = axes[row, column]
            ax.imshow(volume.sum(row), cmap="gray", origin="lower", vmin=low, vmax=high)
            ax.set_axis_off()
        axes[0, column].set_title(f"{step:+g} σ", fontsize=TEXT, color=INK)
    for ax in (*axes[:, -2], axes[1, -1]):
        ax.set_axis_off()
    z = found.motions[number].z[:, motion].numpy()
    style(axes[0, -1], f"motion {motion + 1}", "volumes").hist(z, 24, color=BLUE)
    return fig


def projections(volumes: torch.Tensor, pixel_size: float | None = None) -> Figure:
    """Draw volumes (C, D, D, D), one column each, summed along z, y and x."""
    shown = volumes[:SHOWN].numpy()
    count = len(shown)
    fig = new_figure(1.7 * 3 + 0.3, min(9.6, 1.7 * count + 0.6))
    axes = fig.subplots(3, count, squeeze=False)
    for number, volume in enumerate(shown):
        for row, axis in enumerate("zyx"):
            ax = axes[row, number]
            ax.imshow(volume.sum(row), cmap="gray", origin="lower")
            ax.set_xticks([])
            ax.set_yticks([])
            if number == 0:
                ax.set_ylabel(f"along {axis}", fontsize=SMALL, color=MUTED)
            if row == 0:
                ax.set_title(f"class {number + 1}", fontsize=TEXT, color=INK)
    scale_bar(axes[0, 0], pixel_size, shown.shape[-1])
    return fig


def correlations(fsc: torch.Tensor, pixel_size: float | None, box: int) -> Figure:
    """Draw the shell correlation of each class."""
    fig = new_figure(3.2)
    name = "cycles per voxel" if pixel_size is None else "1 / Å"
    ax = style(fig.subplots(), name, "shell correlation")
    frequency = np.arange(fsc.shape[1]) / box / (pixel_size or 1.0)
    for number, curve in enumerate(fsc[:SHOWN].numpy()):
        ax.plot(frequency, curve, lw=1.4, label=f"class {number + 1}")
    ax.axhline(THRESHOLD, color=MUTED, lw=0.8, ls="--")
    ax.set_ylim(-0.1, 1.05)
    ax.legend(frameon=False, fontsize=SMALL, ncols=3)
    return fig


def directions(found: Alignment) -> Figure:
    """Draw the objects' z axes on two equal-area discs, and a histogram of shifts."""
    axis: NDArray[np.float32] = found.assignment.rotation[:, :, 2].numpy()
    fig = new_figure(3.2)
    left, middle, right = fig.subplots(1, 3)
    draw_halves(fig, (left, middle), axis, ("upper half", "lower half"))
    lengths = found.shift_px.norm(dim=1).numpy()
    style(right, "shift, voxels", "volumes").hist(lengths, 24, color=ORANGE)
    return fig
