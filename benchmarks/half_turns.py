"""Half turns of a fitted model: how often, of which digits, and whether content turns over too.

    python -m benchmarks.poses --data mnist.npz --seed 0 --set train.epochs=1 --run RUN
    python -m benchmarks.half_turns --data mnist.npz --run RUN

Each test image is read at seven rotations.  *Turned*: the posed image is rotated, as a user would.
*Drawn anew*: the digit itself is drawn at the other pose, so no image is interpolated twice.
*Copies*: turned, and each image read from so many rotated copies.  *Heavier end*: turned, and the
way up along the inferred axis is told by the image alone, without the model.  *Linear rule*: the
way up is told by that linear function of the image, odd under half a turn, whose variance among
images is largest beside that among rotations of one image; it is found on the first half of the
images and used on the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.linalg import eigh

from benchmarks import machine
from benchmarks.digits import FAR, Images
from benchmarks.poses import ROTATIONS, pictures
from modpose import PoseModel
from modpose.evaluate.equivariance import Array, move
from modpose.evaluate.metrics import circular_rmse_deg
from modpose.geometry.degrees import wrap_deg
from modpose.model.encoders.polar import PolarEncoder
from modpose.simulate.digits import place, transform
from studies.common.equivariance import consistency_errors, infer_poses

SAME_CONTENT = 0.1
"""Of the mean distance from an image's content to the mean: a smaller change is none."""
HARMONICS = (1, 3, 5)
"""Along the angle; all odd ones change sign by half a turn."""
RINGS_TOGETHER = 3
BANDS = (0.0, 6.0, 9.0, np.inf)
"""Pixels from the middle of the box."""


class Readings(NamedTuple):
    """What is inferred of N images at K rotations, the first of them none.

    Attributes
    ----------
    angle
        (N, K) degrees, inferred.
    errors
        (N, K) degrees, against the unturned image.
    z
        (N, K, z_dim).
    """

    angle: Array
    errors: Array
    z: Array

    @property
    def over(self) -> np.ndarray:
        """(N, K) whether a reading is a half turn off."""
        return np.abs(self.errors) > 90


def read(model: PoseModel, views: Sequence[Images], angles: Array, copies: int = 1) -> Readings:
    """Read the K views of all images."""
    poses = [infer_poses(model, view, copies=copies) for view in views]
    angle = np.stack([pose.angle_deg for pose in poses], axis=1)
    return told(angle, np.stack([pose.z for pose in poses], axis=1), angles)


def told(angle: Array, z: Array, angles: Array) -> Readings:
    """Compare inferred angles (N, K) with those of the unturned images."""
    return Readings(angle, wrap_deg(consistency_errors(angle, angle[:, 0], angles)), z)


def by_the_heavier_end(readings: Readings, views: Sequence[Images], angles: Array) -> Readings:
    """Keep the inferred axes, and tell the way up by the sign of a third moment along them."""
    columns = zip(views, readings.angle.T, strict=True)
    moments = np.stack([third_moment(view, angle) for view, angle in columns], axis=1)
    return told(readings.angle + 180.0 * (moments < 0), readings.z, angles)


def by_a_linear_rule(
    model: PoseModel, readings: Readings, views: Sequence[Images], angles: Array
) -> Readings:
    """Keep the axes of the second half of the images, and tell the way up by a linear rule."""
    turned = readings.angle[:, :1] + angles  # the axis of every view is that of the first
    numbers = np.stack(
        [odd_numbers(model, *pair) for pair in zip(views, turned.T, strict=True)], axis=1
    )
    half = len(numbers) // 2
    rule = steadiest(numbers[:half])
    told_up = turned[half:] + 180.0 * (numbers[half:] @ rule < 0)
    return told(told_up, readings.z[half:], angles)


@torch.no_grad()
def odd_numbers(model: PoseModel, images: Images, angle_deg: Array) -> Array:
    """Odd harmonics of the rings about the object, (N, numbers), from an angle (N,) on."""
    encoder, dataset, found = model.vae.encoder, model.dataset(images), []
    assert isinstance(encoder, PolarEncoder)
    for batch in dataset.batches(np.arange(dataset.n), 256):
        at = encoder.around(batch.image)
        of_ring = torch.fft.rfft(at.rings[:, 0], dim=1)[:, list(HARMONICS)] * encoder.rings.area
        whole = of_ring.shape[-1] // RINGS_TOGETHER * RINGS_TOGETHER
        part = of_ring[..., :whole].unflatten(-1, (-1, RINGS_TOGETHER)).sum(-1)
        start = np.deg2rad(angle_deg[batch.index.numpy()]) - at.start.double().numpy()
        turn = np.exp(1j * np.outer(start, HARMONICS))[..., None]
        found.append((part.numpy() * turn).reshape(len(batch), -1))
    numbers = np.concatenate(found)
    return np.concatenate([numbers.real, numbers.imag], axis=1)


def steadiest(numbers: Array) -> Array:
    """Return the linear function of numbers (N, K, n) that varies most beside its noise, (n,)."""
    still, noise = numbers[:, 0], (numbers[:, 1:] - numbers[:, :1]).reshape(-1, numbers.shape[-1])
    spread = noise.T @ noise / len(noise)
    spread += 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))
    rules: Array = eigh(still.T @ still / len(still), spread)[1]
    return rules[:, -1]


def third_moment(images: Images, angle_deg: Array) -> Array:
    """Mean of r²x about the centre of mass, x along the angle (N,) of each image."""
    y, x = np.indices(images.shape[1:]).reshape(2, 1, -1)
    mass = images.reshape(len(images), -1).astype(float)
    mass = mass / mass.sum(1, keepdims=True)
    x = x - (mass * x).sum(1, keepdims=True)
    y = y - (mass * y).sum(1, keepdims=True)
    along = x * np.cos(np.deg2rad(angle_deg))[:, None] + y * np.sin(np.deg2rad(angle_deg))[:, None]
    moment: Array = (mass * (x**2 + y**2) * along).sum(1)
    return moment


def drawn_at(test: Images, truth: pd.DataFrame, angle: float) -> Images:
    """Draw the digits again, their poses rotated by ``angle`` degrees about the middle."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    shift = truth[["shift_x", "shift_y"]].to_numpy() @ np.array([[c, s], [-s, c]])
    return place(test, FAR.box, truth["angle_deg"].to_numpy() + angle, shift)


def both_contents(readings: Readings) -> np.ndarray:
    """(M,) whether content changes with the half turn, of the M images with one."""
    z, over = readings.z, readings.over
    usual = np.linalg.norm(z[:, 0] - z[:, 0].mean(0), axis=-1).mean()
    return np.array(
        [
            np.linalg.norm(z[i, over[i]].mean(0) - z[i, ~over[i]].mean(0)) > SAME_CONTENT * usual
            for i in np.flatnonzero(over.any(1))
        ],
        dtype=bool,
    )


def say(name: str, readings: Readings, labels: np.ndarray) -> None:
    """Print one line of all images, and one of each digit."""
    errors, over, moved = readings.errors, readings.over, both_contents(readings)
    print(
        f"{name}: RMSE {circular_rmse_deg(errors):.1f} degrees, median "
        f"{np.median(np.abs(errors)):.2f}, half turns {100 * over.mean():.3f} % (in "
        f"{len(moved)} of {len(over)} images; content changes in {moved.sum()} of them)",
        flush=True,
    )
    for digit in np.unique(labels):
        mine = labels == digit
        print(
            f"  {digit}: median {np.median(np.abs(errors[mine])):.2f} degrees, half turns "
            f"{100 * over[mine].mean():.3f} %"
        )


def say_by_distance(readings: Readings, truth: pd.DataFrame) -> None:
    """Print half turns against the distance of the object from the middle of the box."""
    off = np.linalg.norm(truth[["shift_x", "shift_y"]].to_numpy(), axis=1)
    for low, high in pairwise(BANDS):
        band = (off >= low) & (off < high)
        share = 100 * readings.over[band].mean() if band.any() else 0.0
        print(f"  {low:g} to {high:g} px off the middle: {share:.3f} % of {band.sum()} images")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half_turns", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--run", type=Path, required=True, help="of benchmarks.poses --run")
    parser.add_argument("--test", type=int, default=10_000, help="test images, at most")
    parser.add_argument("--smooth", type=float, default=0.0, help="as of the fit, pixels")
    parser.add_argument("--copies", type=int, default=3, help="1: not read from copies")
    parser.add_argument("--turned-only", action="store_true", help="leave the other readings out")
    options = parser.parse_args(arguments)
    print(machine.sentence(1), flush=True)
    model = PoseModel.load(options.run)
    test, labels = pictures(options.data, "test", options.test, options.smooth)
    images, truth = transform(test, box=FAR.box, shift_std_px=FAR.shift_std_px, seed=2)
    angles = 360.0 * np.arange(ROTATIONS) / ROTATIONS
    turned = [move(images, angle, 0.0) for angle in angles]
    once = read(model, turned, angles)
    say("turned, read once", once, labels)
    say_by_distance(once, truth)
    if options.turned_only:
        return
    say("turned, the heavier end", by_the_heavier_end(once, turned, angles), labels)
    ruled = by_a_linear_rule(model, once, turned, angles)
    say("turned, a linear rule, second half", ruled, labels[-len(ruled.angle) :])
    anew = [drawn_at(test, truth, angle) for angle in angles]
    say("drawn anew, read once", read(model, anew, angles), labels)
    if options.copies > 1:
        several = read(model, turned, angles, options.copies)
        say(f"turned, {options.copies} copies", several, labels)


if __name__ == "__main__":
    main()
