"""``data``: from the user's file to what the model sees."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from modpose.config.section import Frozen, Side

KINDS = ("auto", "images", "rgb", "volumes")
"""Words for the axes of an array."""
_AXES = re.compile(r"N?(C?Z?YX|Z?YXC)")


def check_axes(kind: str) -> str:
    """Return ``kind`` where it is one of :data:`KINDS` or the letters of axes.

    Raises
    ------
    ValueError
        Where it is neither; its text says what is expected.
    """
    if kind not in KINDS and not _AXES.fullmatch(kind):
        named = ", ".join(f"'{known}'" for known in KINDS)
        raise ValueError(f"one of {named}, or the axes as letters, such as NCYX, NYXC or NZYX")
    return kind


class DataConfig(Frozen):
    """What happens to an image between the user's file and the model, in this order."""

    kind: Annotated[str, AfterValidator(check_axes)] = "auto"
    """How to read an array whose shape is ambiguous: ``images``, ``rgb`` (channels last),
    ``volumes``, or the letters of its axes, as ``NCYX`` where channels come first."""
    crop: Side | None = None
    """Keep the central ``crop`` pixels of each side (before Fourier cropping)."""
    box: Side | None = None
    """Fourier-crop (down-sample) to this box; the pixel size grows in proportion."""
    invert: bool = False
    """Multiply by -1, so that particles that are dark become bright."""
    normalize: Literal["none", "image", "background", "set", "range"] = "none"
    """``image``: zero mean, unit s.d. an image; ``background``: the same statistics taken outside
    the inscribed circle; ``set``: zero mean, unit s.d. of the whole set (by a sample); ``range``:
    the whole set to [0, 1] (by type for integers, else by the smallest and largest value of a
    sample)."""
    window: tuple[float, float] | None = None
    """Radii of a soft circular window as fractions of the half box: images keep what lies within
    the first and fade to zero at the second."""
    mask: float | None = Field(None, gt=0, le=100)
    """Radius of a circular mask as a fraction of the half box; pixels outside do not count."""
    twin: Literal["none", "permutation", "noise"] = "none"
    """What the encoder is shown in place of each image, whose own pixels it then never sees: a
    fixed other image of the set, or fixed noise with the set's mean and s.d. (an evil twin)."""
    val_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of the images held out for validation (chosen by the seed)."""
