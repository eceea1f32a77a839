"""Lengths that are asked of a search and that its images cannot hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modpose.data.agreement import TOLERANCE
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.data.source import Source


def check_sizes(
    source: Source,
    box: int | None = None,
    diameter_px: float | None = None,
    max_shift_px: float | None = None,
    *,
    usual: int | None = None,
) -> None:
    """Refuse a box that is larger than the images, and lengths that are larger than the box.

    Parameters
    ----------
    source
        The images or volumes.
    box
        Side of the box of the search, pixels; None: that of the images.
    diameter_px, max_shift_px
        Diameter of a mask and largest shift, pixels of that box.
    usual
        Without ``box``, larger images are cropped to this side.

    Raises
    ------
    InputError
        If one of them is too large.
    """
    name, side = source.stack.name, min(source.stack.shape)
    if box is not None and box > side:
        raise InputError.of(name, "--box", box, f"at most {side}, the side of the images")
    searched = box or min(side, usual or side)
    if max_shift_px is not None and max_shift_px > searched:
        expected = f"at most the {searched} pixels of the box"
        raise InputError.of(name, "--max-shift", f"{max_shift_px:g}", expected)
    if diameter_px is None or diameter_px <= (1 + TOLERANCE) * searched:
        return
    size = source.pixel_size
    if size is None:
        found, expected = f"{diameter_px:g} pixels", f"at most the box, {searched} pixels"
    else:
        found = f"{diameter_px * size * side / searched:.6g} Å"
        expected = f"at most the box, {side * size:.4g} Å"
    raise InputError.of(name, "--mask-diameter", found, expected)
