"""``data``: from the user's file to the input of the model."""

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
        If it is neither; its text says what is expected.
    """
    if kind not in KINDS and not _AXES.fullmatch(kind):
        named = ", ".join(f"'{known}'" for known in KINDS)
        raise ValueError(f"one of {named}, or the axes as letters, such as NCYX, NYXC or NZYX")
    return kind


class DataConfig(Frozen):
    """Processing of an image between the user's file and the model, in this order."""

    kind: Annotated[str, AfterValidator(check_axes)] = "auto"
    """Meaning of an array with an ambiguous shape: ``images``, ``rgb`` (channels last),
    ``volumes``, or the letters of its axes, such as ``NCYX`` with channels first.
    """
    crop: Side | None = None
    """Keep the central ``crop`` pixels of each side (before Fourier cropping)."""
    box: Side | None = None
    """Fourier-crop (down-sample) to this box; the pixel size grows in proportion."""
    invert: bool = False
    """Multiply by -1, so that dark particles become bright."""
    normalize: Literal["none", "image", "background", "set", "range"] = "none"
    """``image``: zero mean and unit s.d. for each image; ``background``: the same, measured
    outside the inscribed circle; ``set``: zero mean and unit s.d. for the whole set (from a
    sample); ``range``: the whole set to [0, 1] (by type for integers, else by the smallest and
    largest value of a sample).
    """
    window: tuple[float, float] | None = None
    """Radii of a soft circular window as fractions of the half box: images are unchanged within
    the first and fade to zero at the second.
    """
    mask: float | None = Field(None, gt=0, le=100)
    """Radius of a circular mask as a fraction of the half box; pixels outside are ignored."""
    twin: Literal["none", "permutation", "noise"] = "none"
    """Input of the encoder in place of each image (an evil twin): a fixed other image of the set,
    or fixed noise with the set's mean and s.d.
    """
    val_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of the images held out for validation (chosen by the seed)."""
