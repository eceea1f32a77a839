"""The section on the quality of sharp maps: FSC of halves, local resolution, images behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modpose.backprojection.files import curve_figure
from modpose.content_maps.resolution import local_resolution
from modpose.fourier.fsc import HALF_MAPS
from modpose.plot.figures import INK, TEXT, colour_bar, new_figure
from modpose.plot.grids import Floats
from modpose.plot.html import Picture, Section
from modpose.report.material import ReportData

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def resolution(m: ReportData) -> Section | None:
    """How well halves of the images agree on the sharp maps at the centres of k-means."""
    if m.volumes is None or m.volumes.sharp is None or m.volumes.centres is None:
        return None
    sharp, stops = m.volumes.sharp, m.volumes.centres
    images = [sharp.images(z) for z in stops.z]
    unit = m.unit.name
    short = [name.partition(":")[0] for name in stops.names]
    curves = {name: sharp.draw(z).curve for name, z in zip(short, stops.z, strict=True)}
    rows: list[tuple[str, ...]] = [
        (name, f"{count:,.0f}", f"{curve.resolution(HALF_MAPS):.3g} {unit}")
        for name, count, curve in zip(stops.names, images, curves.values(), strict=True)
    ]
    most = int(np.argmax(images))
    title = f"{short[most]}: {curves[short[most]].sentence(HALF_MAPS)}"
    best = sharp.draw(stops.z[most])
    local = local_resolution(best.first, best.second, m.pixel_size)
    pictures = [
        Picture.of(
            curve_figure(curves, HALF_MAPS, title), "fsc.png", "FSC of half maps of each cluster"
        ),
        Picture.of(
            section_figure(np.where(sharp.mask > 0.5, local, np.nan), unit),
            "local-resolution.png",
            f"Local resolution of the map of {short[most]} in three sections",
        ),
    ]
    return Section(
        "resolution",
        "Resolution of the sharp maps",
        "The maps at the centres of k-means from two halves of the images, which share neither "
        "mean, motions nor content: their Fourier shell correlation inside the mask, and where it "
        f"falls below {HALF_MAPS} (dashed).  A map is the mean of as many images, in effect, as "
        "the table says; they are those near its content.  Below, the local resolution of the map "
        f"of {short[most]} in its three central sections, inside the mask.",
        "curves near one at low frequency that fall to about zero, and a fine core with a coarser "
        "rim or arm: what moves is less resolved.",
        "a curve that never falls (images in both halves, or a mask that is too tight), or a map "
        "of a few images, which says little.",
        pictures,
        ("map", "images behind it", "resolution"),
        rows,
    )


def section_figure(volume: Floats, unit: str) -> Figure:
    """Draw the central sections of a volume (D, D, D) across z, y and x; NaN stays empty."""
    middle = volume.shape[0] // 2
    sections = (volume[middle], volume[:, middle], volume[:, :, middle])
    known = volume[np.isfinite(volume)]
    low, high = (known.min(), np.percentile(known, 98)) if known.size else (0.0, 1.0)
    fig = new_figure(2.6)
    axes = fig.subplots(1, 3)
    drawn = None
    for ax, section, name in zip(axes, sections, "zyx", strict=True):
        drawn = ax.imshow(section, cmap="viridis_r", vmin=low, vmax=high, origin="lower")
        ax.set_axis_off()
        ax.set_title(f"across {name}", fontsize=TEXT, color=INK)
    colour_bar(fig, drawn, axes, f"local resolution ({unit})")
    return fig
