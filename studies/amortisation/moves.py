"""Does an encoder amortise?  What it says of an image that is moved, and what it leaves undone.

Edelberg & Lederman 2023 (section 3.4) train on images, shift each by a pixel or turn it by a right
angle, and look where the encoder puts it.  A particle that lies elsewhere in its image is the same
particle, so content should not move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.data.source import Source
from modpose.data.stack import Stack
from modpose.estimator import PoseModel
from modpose.geometry.pose import Pose
from modpose.observe.ctf import CtfColumn

Floats = NDArray[np.float32]
Mode = Literal["as-published", "consistent"]

PAIRS = 20_000
"""Random pairs of images that the mean distance of content is taken from."""


@dataclass(frozen=True)
class Move:
    """What is done to an image: rotated by a right angle, or shifted, or neither.

    Attributes
    ----------
    name
        Of tables.
    pixels
        To the right; what leaves on one side comes back on the other.
    turned
        By 90 degrees from x towards y about the centre n // 2: clockwise with row 0 at the top.
    """

    name: str
    pixels: int = 0
    turned: bool = False

    def of_images(self, images: Tensor) -> Tensor:
        """Move images (..., H, W)."""
        if self.turned:
            side = images.shape[-2]
            flipped = images.flip(-2).roll(1 - side % 2, -2)
            images = flipped.transpose(-1, -2)
        return images.roll(self.pixels, -1)

    def of_pose(self, pose: Pose) -> Pose:
        """Return the pose of a projection (B) that was moved."""
        rotation, shift = pose
        if self.turned:
            turn = rotation.new_tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
            rotation = turn @ rotation
            shift = shift @ turn[:2, :2].T
        return Pose(rotation, shift + shift.new_tensor([float(self.pixels), 0.0]))

    def of_source(self, source: Source, mode: Mode) -> Source:
        """Move images as stored; with ``consistent``, poses and axes of astigmatism with them.

        The published runs left pose and CTF as they were, so that the encoder and the decoder saw
        an image at odds with what they were told of it.
        """
        particles, size = source.particles, source.stack.pixel_size
        if mode == "consistent":
            poses, ctf = particles.poses(size), particles.ctf(size)
            if poses is not None:
                moved = self.of_pose(Pose(*(torch.from_numpy(part) for part in poses)))
                poses = moved.rotation.numpy(), moved.shift.numpy()
            if ctf is not None and self.turned:
                ctf[:, CtfColumn.DEFOCUS_ANGLE] += 90.0
            angles = None if ctf is None else ctf.astype(np.float64)
            particles = replace(particles, given_poses=poses, given_ctf=angles)
        return replace(source, stack=_MovedStack(source.stack, self), particles=particles)


class _MovedStack(Stack):
    """A stack whose images are moved as they are read."""

    def __init__(self, stack: Stack, move: Move) -> None:
        self._stack, self._move = stack, move
        self.n, self.shape, self.channels = stack.n, stack.shape, stack.channels
        self.pixel_size, self.name, self.dtype = stack.pixel_size, stack.name, stack.dtype

    def _read_into(self, rows: NDArray[np.int64], out: Floats) -> None:
        out[:] = self._move.of_images(torch.from_numpy(self._stack.read(rows))).numpy()


SHIFT = Move("shift by 1 px", pixels=1)
SHIFT_5 = Move("shift by 5 px", pixels=5)
TURN = Move("turn by 90°", turned=True)


@dataclass(frozen=True)
class Displacement:
    """Content of images before and after they were moved.

    Attributes
    ----------
    before, after
        (N, k) posterior means.
    std
        (N, k) posterior s.d. before.
    """

    before: Floats
    after: Floats
    std: Floats

    @property
    def lengths(self) -> Floats:
        """(N,) how far content moves."""
        return np.asarray(np.linalg.norm(self.after - self.before, axis=1), np.float32)

    def of_pairs(self, seed: int = 0) -> float:
        """Mean displacement over the mean distance of two images: 1 says nothing is kept."""
        rng = np.random.default_rng(seed)
        first, second = rng.integers(len(self.before), size=(2, PAIRS))
        apart = np.linalg.norm(self.before[first] - self.before[second], axis=1)
        typical = float(apart[first != second].mean())
        return float(self.lengths.mean()) / typical if typical > 0 else math.nan

    def in_std(self) -> float:
        """Mean over images of the root mean square displacement in posterior s.d. a dimension."""
        ratio = (self.after - self.before) / self.std
        return float(np.sqrt((ratio**2).mean(1)).mean())


@torch.no_grad()
def displace(model: PoseModel, source: Source, move: Move, mode: Mode) -> Displacement:
    """Encode images as they are, and moved.

    Parameters
    ----------
    model
        With an encoder that sees images.
    source
        The images.
    move, mode
        What is done to them.
    """
    before, std = _content(model, source)
    after, _ = _content(model, move.of_source(source, mode))
    return Displacement(before, after, std)


def _content(model: PoseModel, source: Source) -> tuple[Floats, Floats]:
    """Posterior means of content over all cells, and s.d. in the best one, (N, k) each."""
    vae, dataset = model.vae, model.dataset(source)
    means, stds = [], []
    for batch in dataset.batches(np.arange(dataset.n), vae.whole_batch):
        posterior = vae.posterior(batch.to(model.device))
        means.append(posterior.content_mean().cpu().numpy())
        stds.append(posterior.spread(posterior.best().cell).z[:, 0].cpu().numpy())
    return np.concatenate(means), np.concatenate(stds)
