"""Rotated and shifted digits, the data of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.simulate.digits import glyphs, transform

Images = NDArray[np.float32]


class Posing(NamedTuple):
    """How digits are rotated and shifted.

    Attributes
    ----------
    box
        Side of the images, pixels.
    angle_std_deg
        Angles are N(0, angle_std_deg²), degrees; None: uniform on the circle.
    shift_std_px
        Shifts are N(0, shift_std_px²) on each axis, pixels.
    """

    box: int
    angle_std_deg: float | None
    shift_std_px: float


SLIGHT = Posing(28, 45.0, 1.4)
"""The rotated and translated digits of the spatial-VAE paper."""
FAR = Posing(50, None, 5.0)
"""MNIST(U) of the TARGET-VAE paper."""
PICTURE = 28


def posed_digits(
    data: Path | None, n_train: int, n_val: int, seed: int = 0, posing: Posing = SLIGHT
) -> tuple[Images, Images]:
    """Rotate and shift digits at random, as in the papers.

    Parameters
    ----------
    data
        ``mnist.npz`` with arrays x_train and x_test of 8-bit pictures; None draws the ten digits
        of a built-in font again and again.
    n_train, n_val
        Images wanted; MNIST gives as many as it has.
    seed
        Of poses.
    posing
        Which poses, and the box.

    Returns
    -------
    train, val
        (n, box, box) float32 in [0, 1].
    """
    parts: list[Images]
    if data is None:
        alphabet = glyphs("0123456789", PICTURE)
        parts = [alphabet[np.arange(n) % len(alphabet)] for n in (n_train, n_val)]
    else:
        parts = [
            np.divide(_stored(data, name)[:n], 255, dtype=np.float32)
            for name, n in (("x_train", n_train), ("x_test", n_val))
        ]
    train, val = (
        transform(
            part,
            box=posing.box,
            angle_std_deg=posing.angle_std_deg,
            shift_std_px=posing.shift_std_px,
            seed=2 * seed + which,
        )[0]
        for which, part in enumerate(parts)
    )
    return train, val


def _stored(data: Path, name: str) -> NDArray[np.uint8]:
    if not data.is_file():
        raise InputError(f"{data}: no such file, expected mnist.npz")
    with np.load(data, allow_pickle=False) as arrays:
        if name not in arrays:
            raise InputError.of(data, "its arrays", ", ".join(arrays), f"one named {name}")
        images: NDArray[np.uint8] = arrays[name]
    return images
