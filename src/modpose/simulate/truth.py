"""Where the truth of a simulated set is kept: STAR columns of its own, never the pose columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TRUTH_COLUMNS = {
    "angle_deg": "modposeTruthAngle",
    "shift_x": "modposeTruthShiftX",
    "shift_y": "modposeTruthShiftY",
    "hinge_deg": "modposeTruthHinge",
}
"""Columns of a table of truth (degrees, pixels), and their names in a STAR file."""


def truth_of(particles: pd.DataFrame) -> pd.DataFrame | None:
    """Pick the truth out of a particles table, as a table of truth; None where it has none."""
    names = {star: column for column, star in TRUTH_COLUMNS.items() if star in particles}
    return particles[list(names)].astype(float).rename(columns=names) if names else None
