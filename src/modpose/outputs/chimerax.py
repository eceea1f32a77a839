"""ChimeraX scripts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 2.5
"""Contour, in standard deviations of the first map."""


def series_script(names: Sequence[str], first: NDArray[np.floating]) -> str:
    """Write a script that opens maps as a series, and plays it to and fro.

    Parameters
    ----------
    names
        Files of the maps in order, as seen from the folder of the script: ChimeraX runs a script
        in its folder.
    first
        (D, D, D) the first map, for the level of the contour.
    """
    level = float(first.mean() + LEVEL * first.std())
    return "\n".join(
        [
            "# Opens the maps as a movie: double-click, or in ChimeraX: open series.cxc",
            f"open {' '.join(names)} vseries true",
            f"volume #1 style surface level {level:.4g} step 1 color #8fb8de",
            "lighting soft",
            "view",
            "vseries slider #1",
            "vseries play #1 direction oscillate loop true maxFrameRate 8",
            "# To record it, give these commands:",
            "# vseries stop #1",
            f"# movie record; vseries play #1; wait {len(names)}; movie encode series.mp4",
            "",
        ]
    )
