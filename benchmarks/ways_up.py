"""How well any rule can tell which way up a digit lies: half turns without a model.

    python -m benchmarks.ways_up --data mnist.npz

A rule knows the axis of an object and gives the way up as the sign of a linear function of moments
of the image about its centre of mass, odd under half a turn.  Of these functions it takes, on
training digits, the one whose variance among images is largest beside that among rotations of one
image.  Test digits are rotated by a cubic spline, as in ``benchmarks.half_turns``.  *Cut*: values
stay within those of the image, as in a picture of 8 bits and as ``modpose`` reads it.  *Not cut*:
the spline as it is, which overshoots beside strokes.  *A rule of each digit* is told the labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import rotate

from benchmarks import machine
from benchmarks.digits import FAR, Images
from benchmarks.half_turns import steadiest
from benchmarks.poses import ROTATIONS, pictures
from modpose.simulate.digits import transform

Array = NDArray[np.float64]
HARMONICS = (1, 3, 5)
"""Along the angle; all odd ones change sign by half a turn."""
POWERS = 3
"""Powers of the squared radius, from 0 on, that each harmonic is weighed with."""
WIDTH = 5.0
"""Standard deviation of the Gaussian around the centre of mass, pixels."""
TOGETHER = 500


def moments(images: Images, turn: Array, axis: Array | None = None) -> tuple[Array, Array]:
    """Return odd moments along the axis of each image, and the axis.

    Parameters
    ----------
    images
        (N, H, W).
    turn
        (N,) radians, how far each image has been rotated.
    axis
        (N,) radians, of the unturned images; None measures it here.

    Returns
    -------
    numbers, axis
        (N, 18) and (N,).
    """
    y, x = np.indices(images.shape[1:]).reshape(2, 1, -1)
    mass = images.reshape(len(images), -1).astype(float)
    mass = mass / mass.sum(1, keepdims=True)
    z = (x - (mass * x).sum(1, keepdims=True)) + 1j * (y - (mass * y).sum(1, keepdims=True))
    if axis is None:
        axis = np.angle((mass * z**2).sum(1)) / 2 - turn
    z *= np.exp(-1j * (axis + turn))[:, None] / WIDTH
    square = z.real**2 + z.imag**2
    weights = [mass * np.exp(-square / 2) * square**power for power in range(POWERS)]
    found = np.stack([(w * z**k).sum(1) for k in HARMONICS for w in weights], axis=1)
    return np.concatenate([found.real, found.imag], axis=1), axis


def turned_moments(images: Images, angles: Array) -> tuple[Array, Array]:
    """Moments (N, K, 18) of images rotated by K angles (degrees): cut, and not cut."""
    cut, free = [], []
    for first in range(0, len(images), TOGETHER):
        some = images[first : first + TOGETHER]
        low, high = (end(some, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
        _, axis = moments(some, np.zeros(len(some)))
        of_angles: list[list[Array]] = [[], []]
        for angle in angles:
            image = rotate(some, angle, axes=(1, 2), reshape=False) if angle else some
            turn = np.full(len(some), -np.deg2rad(angle))
            of_angles[0].append(moments(np.clip(image, low, high), turn, axis)[0])
            of_angles[1].append(moments(image, turn, axis)[0])
        cut.append(np.stack(of_angles[0], axis=1))
        free.append(np.stack(of_angles[1], axis=1))
    return np.concatenate(cut), np.concatenate(free)


def over(numbers: Array, rule: Array) -> NDArray[np.bool_]:
    """(N, K) whether a rotated image is read the other way up than the unturned one."""
    up = numbers @ rule > 0
    changed: NDArray[np.bool_] = up != up[:, :1]
    return changed


def say(name: str, wrong: NDArray[np.bool_], labels: NDArray[np.int64]) -> None:
    """Print one line: the share of readings that are half a turn off, and that of each digit."""
    share = wrong.mean()
    digits = ", ".join(f"{100 * wrong[labels == digit].mean():.3f}" for digit in range(10))
    print(
        f"{name}: half turns {100 * share:.3f} % (in {wrong.any(1).sum()} of {len(wrong)} images), "
        f"RMSE {180 * np.sqrt(share):.1f} degrees; digits 0 to 9: {digits} %",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ways_up", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--train", type=int, default=6_000, help="training images for the rules")
    parser.add_argument("--test", type=int, default=10_000, help="test images, at most")
    options = parser.parse_args(arguments)
    print(machine.sentence(1), flush=True)
    angles = 360.0 * np.arange(ROTATIONS) / ROTATIONS
    found, digits = [], []
    for part, most, seed in (("train", options.train, 1), ("test", options.test, 2)):
        pictured, labels = pictures(options.data, part, most)
        images, _ = transform(pictured, box=FAR.box, shift_std_px=FAR.shift_std_px, seed=seed)
        found.append(turned_moments(images, angles))
        digits.append(labels)
    scale = np.sqrt(np.square(found[0][0]).mean((0, 1)))
    for name, fitted, tested in zip(("cut", "not cut"), *found, strict=True):
        fitted, tested = fitted / scale, tested / scale
        say(f"{name}, one rule", over(tested, steadiest(fitted)), digits[1])
        each = np.zeros(tested.shape[:2], bool)
        for digit in range(10):
            mine = digits[1] == digit
            each[mine] = over(tested[mine], steadiest(fitted[digits[0] == digit]))
        say(f"{name}, a rule of each digit", each, digits[1])


if __name__ == "__main__":
    main()
