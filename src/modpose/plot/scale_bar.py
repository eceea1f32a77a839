"""Scale bars in pictures whose pixel size is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 0.45
"""Largest length of a bar, in heights of the picture."""
LARGEST_TEXT, SMALLEST_TEXT = 6.5, 4.0
"""Points of the letters; a picture that is too small for the smallest has no bar."""
LETTER = 0.6
"""Width of a letter in its points."""


def round_length(most: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20 ... that is not above ``most``, a positive number."""
    decade = 10.0 ** np.floor(np.log10(most))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= most * (1 + 1e-9)))


def in_words(angstrom: float) -> str:
    """Write a length: Å, nm from 100 nm on, µm from 10 µm on."""
    for unit, size in (("µm", 1e4), ("nm", 10.0)):
        if angstrom >= (10 * size if unit == "µm" else 100 * size):
            return f"{angstrom / size:g} {unit}"
    return f"{angstrom:g} Å"


def scale_bar(
    ax: Axes,
    pixel_size: float | None,
    height: int,
    corner: tuple[float, float] | None = None,
) -> None:
    """Draw a bar with its length into a square picture.

    Nothing is drawn if the pixel size is unknown, or the picture is narrower than the words.

    Parameters
    ----------
    ax
        Axes whose data units are pixels.
    pixel_size
        Å.
    height
        Height of the picture, pixels.
    corner
        (x, y) of its lower left corner; None: of a picture at row and column 0.
    """
    if pixel_size is None:
        return
    from matplotlib.patheffects import withStroke

    angstrom = round_length(LONGEST * height * pixel_size)
    length, pad = angstrom / pixel_size, 0.06 * height
    words = in_words(angstrom)
    across = abs(ax.transData.transform((height, 0))[0] - ax.transData.transform((0, 0))[0])
    room = (1 - pad / height) * across * 72 / ax.figure.dpi
    letters = min(LARGEST_TEXT, room / (LETTER * len(words)))
    if letters < SMALLEST_TEXT:
        return
    down = 1 if ax.yaxis_inverted() else -1  # rows grow downwards, or upwards
    x, y = (0.0, height if down > 0 else 0.0) if corner is None else corner
    ends = [x + pad - 0.5, x + pad + length - 0.5]
    level = [y - down * pad - 0.5] * 2
    [bar] = ax.plot(ends, level, color="white", linewidth=1.6, scalex=False, scaley=False)
    bar.set_solid_capstyle("butt")
    bar.set_path_effects([withStroke(linewidth=3.0, foreground="black")])
    outline = [withStroke(linewidth=1.6, foreground="black")]
    place = (x + pad - 0.5, y - down * 1.4 * pad - 0.5)
    ax.text(*place, words, color="white", fontsize=letters, va="bottom", path_effects=outline)
