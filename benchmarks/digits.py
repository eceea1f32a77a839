"""Turned and shifted digits, the data of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.simulate.digits import glyphs, transform

BOX = 28
ANGLE_STD_DEG = 45.0
SHIFT_STD_PX = 1.4

Images = NDArray[np.float32]


def posed_digits(
    data: Path | None, n_train: int, n_val: int, seed: int = 0
) -> tuple[Images, Images]:
    """Digits turned by N(0, 45 degrees) and shifted by N(0, 1.4 px), as in the paper.

    Parameters
    ----------
    data
        ``mnist.npz`` with arrays x_train and x_test of 8-bit pictures; None draws the ten digits
        of a built-in font again and again.
    n_train, n_val
        Images wanted; MNIST gives as many as it has.
    seed
        Of poses.

    Returns
    -------
    train, val
        (n, 28, 28) float32 in [0, 1].
    """
    parts: list[Images]
    if data is None:
        alphabet = glyphs("0123456789", BOX)
        parts = [alphabet[np.arange(n) % len(alphabet)] for n in (n_train, n_val)]
    else:
        parts = [
            np.divide(_stored(data, name)[:n], 255, dtype=np.float32)
            for name, n in (("x_train", n_train), ("x_test", n_val))
        ]
    train, val = (
        transform(
            part,
            box=BOX,
            angle_std_deg=ANGLE_STD_DEG,
            shift_std_px=SHIFT_STD_PX,
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
