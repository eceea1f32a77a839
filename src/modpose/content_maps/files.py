"""Content maps in a file of plain arrays, and what a drawn map is written as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modpose.backprojection.files import draw_curve, write_curve
from modpose.content_maps.bands import Band
from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.resolution import local_resolution
from modpose.content_maps.solution import ContentMaps, DrawnMap, Volume
from modpose.data.mrc import write_mrcs
from modpose.errors import InputError
from modpose.files.writing import replace_atomically
from modpose.fourier.fsc import HALF_MAPS
from modpose.jobs.hand import mirrored

ARRAYS = ("moment", "z", "std", "half")
OPTIONAL = ("focus", "pose")
OF_BAND = ("mask", "maps", "half1", "half2", "noise")
"""Arrays of each band: of the first ``mask``, ..., of the second ``band2.mask``, ...."""
OF_BASIS = ("scale", "landmarks", "weight", "vectors")
COMPANIONS = ("half1.mrc", "half2.mrc", "resolution.mrc", "fsc.csv", "fsc.png")
"""What stands beside ``volume-001.mrc``, as ``volume-001-half1.mrc``."""
MAPS_BESIDE = sum(name.endswith(".mrc") for name in COMPANIONS)


def write_content_maps(found: ContentMaps, path: Path, about: dict[str, str]) -> None:
    """Write content maps in one step, with texts about them."""
    from safetensors.numpy import save

    arrays = {name: getattr(found, name) for name in ARRAYS}
    arrays |= {f"basis.{name}": getattr(found.basis, name) for name in OF_BASIS}
    arrays |= {name: value for name in OPTIONAL if (value := getattr(found, name)) is not None}
    for number, band in enumerate(found.bands):
        values = band.mask, band.maps, *band.halves, band.noise
        arrays |= dict(zip(_names(number), values, strict=True))
    limit, *others = (band.limit for band in found.bands)
    numbers = [found.basis.width, limit, found.pixel_size or 0.0, *others]
    arrays["numbers"] = np.array(numbers, np.float64)
    raw = save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, about)
    replace_atomically(path, lambda file: file.write(raw), overwrite=True)


def read_content_maps(path: Path) -> ContentMaps:
    """Read content maps.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        width, limit, size, *others = (float(value) for value in arrays["numbers"])
        landmarks = {name: arrays[f"basis.{name}"] for name in OF_BASIS}
        values = {name: arrays[name] for name in ARRAYS}
        bands = tuple(_band(arrays, *pair) for pair in enumerate([limit, *others]))
        focus, pose = (arrays.get(name) for name in OPTIONAL)
    except (SafetensorError, OSError, KeyError, ValueError):
        raise InputError(f"{path}: damaged, expected content maps; delete the file") from None
    return ContentMaps(
        basis=ContentBasis(width=width, **landmarks),
        bands=bands,
        pixel_size=size or None,
        focus=focus,
        pose=pose,
        **values,
    )


def _names(number: int) -> list[str]:
    """Return the names of the arrays of a band."""
    before = f"band{number + 1}." if number else ""
    return [f"{before}{name}" for name in OF_BAND]


def _band(arrays: dict[str, Any], number: int, limit: float) -> Band:
    """Return a band of a file."""
    mask, maps, first, second, noise = (arrays[name] for name in _names(number))
    return Band(mask, maps, (first, second), noise, limit)


def read_about(path: Path) -> dict[str, str]:
    """Read the texts about the content maps in a file; none if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def companions_of(path: Path) -> list[Path]:
    """Name what is written beside a map."""
    return [path.with_name(f"{path.stem}-{name}") for name in COMPANIONS]


def write_companions(drawn: DrawnMap, mask: Volume, targets: list[Path], flip: bool) -> float:
    """Write half maps, local resolution and FSC of a map; return its resolution, Å or pixels.

    Parameters
    ----------
    drawn
        The map.
    mask
        (D, D, D) where the local resolution is given; 0 outside.
    targets
        Where to write, in the order of :func:`companions_of`.
    flip
        Mirror the maps along z.
    """
    size = drawn.curve.pixel_size
    local = local_resolution(drawn.first, drawn.second, size) * (mask > 0.5)
    for target, volume in zip(targets, (drawn.first, drawn.second, local), strict=False):
        write_mrcs(target, (mirrored(volume) if flip else volume)[None].astype(np.float32), size)
    write_curve(drawn.curve, targets[3])
    draw_curve({"half maps": drawn.curve}, targets[4], HALF_MAPS)
    return drawn.curve.resolution(HALF_MAPS)
