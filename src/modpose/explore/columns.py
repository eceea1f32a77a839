"""Columns of a run as numbers for the page: latents, the table of the input, and a projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modpose.content.embedding import embed

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.particles import Particles

MOST_NAMES = 1000
"""Different texts of a column; a column with more of them (names of images) is left out."""
Group = Literal["latents", "content", "input"]


@dataclass(frozen=True)
class Column:
    """One column, (N,) float32.

    Attributes
    ----------
    name
        As in the table.
    group
        ``latents``, ``content`` (computed from it) or ``input`` (the user's table).
    values
        Numbers, NaN if missing; of a column of text the position in ``names``.
    names
        The different texts, sorted; None of a column of numbers.
    """

    name: str
    group: Group
    values: NDArray[np.float32]
    names: list[str] | None = None

    def about(self) -> dict[str, Any]:
        """Describe the column for the page."""
        return {"name": self.name, "group": self.group, "names": self.names}


def latent_columns(latents: pd.DataFrame, content: list[str]) -> list[Column]:
    """Columns of ``latents.parquet``, and the principal components of content of 3 or more.

    Parameters
    ----------
    latents
        Latents of a run.
    content
        Names of the columns that are its content.
    """
    found = [_column(str(name), "latents", latents[name].to_numpy()) for name in latents]
    z = latents[content].to_numpy(np.float64)
    if z.shape[1] > 2:
        scores = embed(z, "pca", COMPONENTS)
        names = {k: f"pca_{k}" for k in range(COMPONENTS) if f"pca_{k}" not in latents}
        found += [_column(name, "content", scores[:, k]) for k, name in names.items()]
    return [column for column in found if column is not None]


COMPONENTS = 2
"""Principal components of content that are shown."""


def input_columns(particles: Particles, taken: set[str]) -> list[Column]:
    """Columns of the input's table and of its optics groups, except names that are taken."""
    names = [name for name in dict.fromkeys(particles.columns()) if name not in taken]
    found = [_column(name, "input", particles.column(name)) for name in names]
    return [column for column in found if column is not None]


def _column(name: str, group: Group, values: NDArray[Any]) -> Column | None:
    """Make a column of numbers or of a few different texts; None for any other."""
    if values.dtype.kind in "biuf" and values.ndim == 1:
        with np.errstate(over="ignore"):
            return Column(name, group, values.astype(np.float32))
    import pandas as pd

    if values.ndim != 1 or not all(isinstance(v, str) for v in values[:1]):
        return None
    codes, texts = pd.factorize(values, sort=True)
    if len(texts) > MOST_NAMES:
        return None
    numbers = np.where(codes < 0, np.nan, codes).astype(np.float32)
    return Column(name, group, numbers, [str(text) for text in texts])
