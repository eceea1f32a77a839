"""Rotated and shifted copies of given pictures, such as digits, with their truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.geometry.degrees import wrap_deg
from modpose.limits import check_data_set
from modpose.progress import bar

if TYPE_CHECKING:
    import pandas as pd


def transform(
    images: NDArray[np.floating],
    *,
    box: int,
    angle_std_deg: float | None = None,
    shift_std_px: float = 0.0,
    seed: int = 0,
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Rotate and shift each picture at random: signal(x) = f(Rᵀ(x − t)).

    A cubic spline (zero outside the picture) gives the value at the posed coordinates of every
    pixel.  Values are clipped to [0, 1], because splines overshoot.

    Parameters
    ----------
    images
        (N, h, w) pictures with values in [0, 1]; centre at pixel ``(h // 2, w // 2)``.
    box
        Side of the result, pixels; parts outside are cut off.
    angle_std_deg
        Angles are N(0, angle_std_deg²), degrees; None is uniform on the circle.
    shift_std_px
        Shifts are N(0, shift_std_px²) on each axis, pixels.
    seed
        Seed of angles and shifts.

    Returns
    -------
    images
        (N, box, box) float32.
    truth
        ``angle_deg`` in (−180, 180], ``shift_x`` and ``shift_y`` (pixels), one row per image.

    Raises
    ------
    InputError
        If the pictures are not (N, h, w) in [0, 1], or an option is out of range.
    """
    import pandas as pd

    _check(images, box, angle_std_deg, shift_std_px, seed)
    rng = np.random.default_rng(seed)
    n = len(images)
    if angle_std_deg is None:
        angle = 180.0 - rng.uniform(0.0, 360.0, size=n)
    else:
        angle = wrap_deg(angle_std_deg * rng.standard_normal(n))
    shift = shift_std_px * rng.standard_normal((n, 2))
    turned = place(images, box, angle, shift)
    return turned, pd.DataFrame(
        {"angle_deg": angle, "shift_x": shift[:, 0], "shift_y": shift[:, 1]}
    )


def place(
    images: NDArray[np.floating],
    box: int,
    angle: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Sample every picture at Rᵀ(x − t) for given poses, as :func:`transform` does.

    Parameters
    ----------
    images, box
        As in :func:`transform`.
    angle
        (N,) degrees.
    shift
        (N, 2) pixels (x, y).

    Returns
    -------
    array
        (N, box, box) float32 in [0, 1].
    """
    from scipy.ndimage import affine_transform, spline_filter

    margin = 8  # the spline's ringing beyond the border of the picture is negligible here
    centre = np.array(images.shape[1:]) // 2 + margin
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    inverse = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(-1, 2, 2)  # on (y, x)
    offset = centre - np.einsum("nij,nj->ni", inverse, box // 2 + shift[:, ::-1])
    turned = np.empty((len(images), box, box), np.float32)
    for i in bar(range(len(images)), "turning"):
        coefficients = spline_filter(np.pad(images[i], margin), output=np.float32)
        affine_transform(
            coefficients,
            inverse[i],
            offset[i],
            output=turned[i],
            output_shape=(box, box),
            prefilter=False,
        )
    return np.clip(turned, 0.0, 1.0, out=turned)


def _check(
    images: NDArray[np.floating],
    box: int,
    angle_std_deg: float | None,
    shift_std_px: float,
    seed: int,
) -> None:
    if images.ndim != 3 or images.size == 0:
        raise InputError.of("digits", "the array's shape", images.shape, "(N, h, w)")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):
        raise InputError.of("digits", "the range of values", f"{low:g} to {high:g}", "0 to 1")
    if box < 1:
        raise InputError.of("digits", "box", box, "at least 1 pixel")
    for name, value in (("angle_std_deg", angle_std_deg), ("shift_std_px", shift_std_px)):
        if value is not None and not 0 <= value < float("inf"):
            raise InputError.of("digits", name, value, "0 or more")
    check_data_set("digits", n=len(images), box=box, seed=seed, lengths=(shift_std_px,))


def glyphs(characters: str, size: int) -> NDArray[np.float32]:
    """Draw characters in Pillow's bundled font, white on black: a set without a download.

    Parameters
    ----------
    characters
        One picture each.
    size
        Side of the pictures, pixels; the ink is centred on pixel ``size // 2``.

    Returns
    -------
    array
        (len(characters), size, size) float32 in [0, 1].

    Raises
    ------
    InputError
        If there is nothing to draw, or the pictures are too small.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not characters or size < 8:
        raise InputError.of("glyphs", "the size", size, "at least 8 pixels and one character")
    font = ImageFont.load_default(0.8 * size)
    pictures = []
    for character in characters:
        left, top, right, bottom = font.getbbox(character)
        corner = (size // 2 + 0.5 - (left + right) / 2, size // 2 + 0.5 - (top + bottom) / 2)
        picture = Image.new("L", (size, size))
        ImageDraw.Draw(picture).text(corner, character, fill=255, font=font)
        pictures.append(np.asarray(picture, np.float32) / 255)
    return np.stack(pictures)
