"""Choose images by cluster, by an expression over columns, or by a region of content space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.csv_reader import csv_rows
from modpose.data.particles import listed, no_column
from modpose.errors import InputError, shown
from modpose.files.text import number, read_utf8, whole_number
from modpose.outputs.where import Mask, Where, evaluate_where

if TYPE_CHECKING:
    import pandas as pd

    from modpose.run import Run

__all__ = ["choose", "evaluate_where", "in_clusters", "in_region", "none_left"]


def choose(
    run: Run, *, cluster: str | None = None, where: str | None = None, region: str | None = None
) -> Mask:
    """Mark the images of a run that meet every condition given.

    Parameters
    ----------
    run
        A finished run.
    cluster
        See :func:`in_clusters`.
    where
        See :func:`evaluate_where`; columns of the latents, and of the particles table.
    region
        See :func:`in_region`.

    Returns
    -------
    (N,) bool, in input order.

    Raises
    ------
    InputError
        No condition is given, or one is not valid.
    """
    if cluster is None and where is None and region is None:
        raise InputError("select: no condition is given, expected --cluster, --where or --region")
    latents = run.latents()
    mask = np.ones(len(latents), dtype=bool)
    if cluster is not None:
        mask &= in_clusters(latents, cluster)
    if where is not None:
        expression = Where(where)
        mask &= expression.mask(_with_columns(run, latents, expression.names()))
    if region is not None:
        mask &= in_region(latents, region)
    return mask


def none_left(run: Run, where: str | None) -> InputError:
    """Return the error for conditions that no image meets, with the range of the columns named."""
    ranges = []
    if where is not None:
        expression = Where(where)
        table = _with_columns(run, run.latents(), expression.names())
        for name in sorted(expression.names() & set(table.columns)):
            column = table[name]
            if column.dtype.kind in "iuf" and column.notna().any():
                ranges.append(f"{name} is between {column.min():.4g} and {column.max():.4g}")
    known = f"; {', '.join(ranges)}" if ranges else ""
    return InputError(f"select: no image meets the conditions, expected at least one{known}")


def _with_columns(run: Run, latents: pd.DataFrame, names: set[str]) -> pd.DataFrame:
    """Add columns of the particles table, and of its optics groups, where they are requested.

    Where all names are columns of the latents the images need not be opened.
    """
    missing = names - set(latents.columns)
    if not missing:
        return latents
    particles = run.dataset().source.particles
    every = [*particles.table, *([] if particles.optics is None else particles.optics)]
    known = [str(name) for name in every if str(name) not in latents]
    wanted = [name for name in dict.fromkeys(known) if name in missing] or known[:SUGGESTED]
    return latents.assign(**{name: particles.column(name) for name in wanted})


SUGGESTED = 60
"""Number of columns that are searched for a name similar to a missing one."""


# --- by cluster -------------------------------------------------------------------------------


def in_clusters(table: pd.DataFrame, text: str) -> Mask:
    """Mark the images of the clusters in ``text``, a comma-separated list such as ``1,3``.

    Parameters
    ----------
    table
        One row per image, with a column ``cluster``.
    text
        Cluster numbers as in that column.

    Returns
    -------
    (N,) bool.

    Raises
    ------
    InputError
        There are no clusters, a number is not one, or a cluster does not exist.
    """
    if "cluster" not in table or table["cluster"].isna().all():
        raise InputError(
            "--cluster: the run has no clusters, make them with: modpose cluster RUN --k K"
        )
    labels = table["cluster"].to_numpy()
    if labels.dtype.kind not in "iuf":
        raise InputError("--cluster: the column cluster of the run does not hold numbers")
    known = np.unique(labels[np.isfinite(labels.astype(np.float64))]).astype(int)
    return labelled(labels, known, text, "--cluster", "cluster")


def labelled(
    labels: NDArray[Any], known: NDArray[np.int64], text: str, option: str, what: str
) -> Mask:
    """Mark the labels (N,) that a list of numbers such as ``1,3`` names, all of them known."""
    parts = text.split(",")
    wanted = [n for n in map(whole_number, map(str.strip, parts)) if n is not None]
    if len(wanted) < len(parts):
        expected = "whole numbers separated by commas, such as 1,3"
        raise InputError.of(option, "the list", shown(text), expected)
    for label in wanted:
        if label not in known:
            raise InputError.of(option, f"the {what}", label, f"one of {listed(known)}")
    return np.isin(labels, wanted)


# --- by region --------------------------------------------------------------------------------


def in_region(table: pd.DataFrame, text: str) -> Mask:
    """Mark the images whose content lies in a box or polygon.

    Parameters
    ----------
    table
        One row per image, with the columns of the region's two axes.
    text
        ``x0,y0,x1,y1`` in the axes ``z_0``, ``z_1``; or a CSV file with one corner a line, whose
        header, where it has one, names the two axes.

    Returns
    -------
    (N,) bool; points on the edge of a box count as inside.

    Raises
    ------
    InputError
        The text or file is not a region, or the table lacks an axis.
    """
    path = Path(text)
    if path.suffix.lower() in {".csv", ".txt"} or _is_file(path):
        axes, corners = _read_polygon(path)
    else:
        axes, corners = ("z_0", "z_1"), _parse_box(text)
    for axis in axes:
        if axis not in table:
            raise InputError(f"--region {text}: {no_column(axis, table.columns)}")
        if table[axis].dtype.kind not in "iuf":
            raise InputError.of(f"--region {text}", f"the column {axis}", "text", "numbers")
    points = table[list(axes)].to_numpy(dtype=np.float64)
    if len(corners) == 2:
        (x0, y0), (x1, y1) = np.sort(corners, axis=0)
        x, y = points.T
        return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
    from matplotlib.path import Path as Outline

    inside = np.asarray(Outline(corners).contains_points(points), dtype=bool)
    return np.asarray(inside & np.isfinite(points).all(axis=1), dtype=bool)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _parse_box(text: str) -> NDArray[np.float64]:
    """Read ``x0,y0,x1,y1`` as two opposite corners, (2, 2)."""
    box = [number(part.strip()) for part in text.split(",")]
    if len(box) != 4 or None in box:
        expected = "four numbers x0,y0,x1,y1 or the name of a CSV file of corners"
        raise InputError.of("--region", "the region", shown(text), expected)
    return np.array(box, dtype=np.float64).reshape(2, 2)


def _read_polygon(path: Path) -> tuple[tuple[str, str], NDArray[np.float64]]:
    """Read the axes' names and the corners, (M >= 3, 2), of a polygon."""
    axes = ("z_0", "z_1")
    corners: list[list[float]] = []
    first = True
    for line, cells in csv_rows(path, read_utf8(path, "a polygon", LARGEST)):
        values = [number(cell.strip()) for cell in cells]
        header, first = first and values == [None, None], False
        if header:
            axes = (cells[0].strip(), cells[1].strip())
            continue
        corner = [value for value in values if value is not None]
        if len(cells) != 2 or len(corner) != 2:
            found = shown(",".join(cells))
            raise InputError.of(path, f"line {line}", found, "two numbers x,y, a corner")
        corners.append(corner)
    if len(corners) < 3:
        raise InputError.of(path, "the number of corners", len(corners), "three or more")
    return axes, np.array(corners, dtype=np.float64)


LARGEST = 1 << 24
"""Bytes of a file of corners."""
