"""True maps of simulated projections, as ``modpose simulate projections --maps`` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.fourier.fsc import read_map

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class TrueMap:
    """A true map and what it is of.

    Attributes
    ----------
    volume
        (D, H, W).
    label
        Class; 0 where there is one only.
    hinge_deg
        Hinge angle, degrees; 0 where nothing moves.
    """

    volume: Volume
    label: int
    hinge_deg: float


def read_true_maps(folder: Path) -> list[TrueMap]:
    """Read the maps that ``maps.csv`` in a folder lists.

    Raises
    ------
    InputError
        If the list or a map is missing, or the list lacks a column.
    """
    import pandas as pd

    path = folder / "maps.csv"
    if not path.is_file():
        raise InputError(f"{folder}: there is no maps.csv, expected what simulate --maps writes")
    table = pd.read_csv(path)
    for name in ("file", "class", "hinge_deg"):
        if name not in table:
            raise InputError.of(path, "the columns", ", ".join(table.columns), f"also {name}")
    rows = zip(table["file"], table["class"], table["hinge_deg"], strict=True)
    return [TrueMap(read_map(folder / str(f))[0], int(k), float(h)) for f, k, h in rows]
