"""Writing half maps, their Fourier shell correlation and its figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modpose.data.mrc import write_mrcs
from modpose.files.writing import all_or_nothing, check_outputs, replace_atomically
from modpose.fourier.fsc import HALF_MAPS, FscCurve
from modpose.plot.figures import MUTED, SMALL, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modpose.backprojection.halves import HalfMaps

MAPS = ("half1.mrc", "half2.mrc", "map.mrc")
WRITTEN = (*MAPS, "fsc.csv", "fsc.png")


def outputs_in(folder: Path) -> list[Path]:
    """Name what :func:`write_halves` writes."""
    return [folder / name for name in WRITTEN]


def write_halves(made: HalfMaps, folder: Path, overwrite: bool = False) -> list[Path]:
    """Write ``half1.mrc``, ``half2.mrc``, ``map.mrc`` (their filtered mean), ``fsc.csv``, ``.png``.

    Parameters
    ----------
    made
        The half maps.
    folder
        Created if missing.
    overwrite
        Replace files of these names.
    """
    check_outputs(outputs_in(folder), overwrite)
    with all_or_nothing() as place:
        write_curve(made.curve, place(folder / "fsc.csv"))
        draw_curve({"half maps": made.curve}, place(folder / "fsc.png"), HALF_MAPS)
        for name, volume in zip(MAPS, (made.first, made.second, made.combined()), strict=True):
            write_mrcs(place(folder / name), volume[None], made.pixel_size)
    return outputs_in(folder)


def write_curve(curve: FscCurve, path: Path) -> None:
    """Write a table of shells: cycles per pixel, Å (where known), correlation."""
    import pandas as pd

    text = pd.DataFrame(curve.columns()).to_csv(index=False).encode()
    replace_atomically(path, lambda file: file.write(text), overwrite=False)


def curve_figure(curves: dict[str, FscCurve], threshold: float, title: str) -> Figure:
    """Draw Fourier shell correlations by name, with a threshold."""
    fig = new_figure(3.4, 5.2)
    first = next(iter(curves.values()))
    pixel_size = first.pixel_size or 1.0
    unit = "cycles per pixel" if first.pixel_size is None else "cycles per Å"
    ax = style(fig.add_subplot(), x=f"spatial frequency ({unit})", y="FSC")
    for name, curve in curves.items():
        ax.plot(curve.frequency / pixel_size, curve.correlation, label=name)
    ax.axhline(threshold, color=MUTED, linewidth=0.8, linestyle="--")
    ax.set(xlim=(0, 0.5 / pixel_size), ylim=(-0.1, 1.02))
    ax.set_title(title, fontsize=SMALL + 1, loc="left")
    ax.legend(frameon=False, fontsize=SMALL)
    return fig


def draw_curve(curves: dict[str, FscCurve], path: Path, threshold: float) -> None:
    """Draw Fourier shell correlations by name as a PNG file; the title tells of the first."""
    title = next(iter(curves.values())).sentence(threshold)
    fig = curve_figure(curves, threshold, title)
    replace_atomically(path, lambda file: fig.savefig(file, format="png"), overwrite=False)
