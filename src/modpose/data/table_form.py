"""The original form of a table of particles, for writing it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.files.reading import open_regular

if TYPE_CHECKING:
    import pandas as pd

HEAD = 1 << 16
"""Bytes at the start of a STAR file that are searched for its version."""


@dataclass(frozen=True)
class TableForm:
    """Data besides the columns for writing a table in its original form.

    Attributes
    ----------
    version
        The number in ``# version 30001`` of a STAR file; None in files of RELION 3.0.
    block
        Name of the STAR block of the particles: ``particles``, ``images`` or nothing.
    others
        Other blocks of the STAR file than particles and optics groups.
    dtype
        Fields of a cryoSPARC table, with their types and shapes.
    """

    version: int | None = None
    block: str = "particles"
    others: Mapping[str, pd.DataFrame | dict[str, Any]] = field(default_factory=dict)
    dtype: np.dtype[Any] | None = None


def star_version(path: Path) -> int | None:
    """Return the number in the line ``# version`` of a STAR file; None without one."""
    with open_regular(path) as file:
        head = file.read(HEAD)
    match = re.search(rb"^#[ \t]*version[ \t]+(\d{5,6})\b", head, re.MULTILINE)
    return None if match is None else int(match[1])
