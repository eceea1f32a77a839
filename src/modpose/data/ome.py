"""Axes and pixel sizes in the metadata of OME-TIFF and OME-Zarr."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from modpose.data.stack import Kind
from modpose.errors import InputError

KINDS = {
    **dict.fromkeys(("YX", "TYX", "ZYX"), "images"),
    **dict.fromkeys(("YXS", "TYXS", "ZYXS"), "rgb"),
    "TZYX": "volumes",
}
"""Axes (T time, Z depth, C channel, S colour) with a single possible meaning."""
ANGSTROM = {
    **{"µm": 1e4, "um": 1e4, "micrometer": 1e4, "nm": 10.0, "nanometer": 10.0},
    **{"Å": 1.0, "angstrom": 1.0, "mm": 1e7, "millimeter": 1e7, "pm": 0.01, "picometer": 0.01},
}
"""Units of length in angstrom."""


def ome_kind(path: Path, axes: str, shape: tuple[int, ...] = ()) -> Kind:
    """Return the meaning of named axes.

    Parameters
    ----------
    path
        Name for messages.
    axes
        Letters of the axes.
    shape
        Sides, for messages.

    Raises
    ------
    InputError
        If they have several possible meanings.
    """
    kind = KINDS.get(axes)
    if kind is None:
        sides = f" ({' x '.join(map(str, shape))})" if shape else ""
        raise InputError(
            f"{path}: its axes {axes}{sides} can have several meanings; say which are images and "
            "channels (for example --axes NCYX)"
        )
    return kind


def angstrom(size: Any, unit: str) -> float | None:
    """Convert a pixel size to angstrom; None if size or unit are unknown."""
    try:
        value = float(size)
    except (TypeError, ValueError):
        return None
    scale = ANGSTROM.get(unit)
    return value * scale if scale and math.isfinite(value) and value > 0 else None
