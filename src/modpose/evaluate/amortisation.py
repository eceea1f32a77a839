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

from modpose.data.batches import Batch
from modpose.data.dataset import Dataset
from modpose.geometry.pose import Pose
from modpose.model import PoseModel
from modpose.observe.ctf import CtfColumn

Floats = NDArray[np.float32]
Mode = Literal["as-published", "consistent"]

PAIRS = 20_000
"""Random pairs of images that the mean distance of content is taken from."""


@dataclass(frozen=True)
class Move:
    """What is done to an image: turned by a right angle, or shifted, or neither.

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

    def of_batch(self, batch: Batch, mode: Mode) -> Batch:
        """Move images; with ``consistent``, poses and the axes of astigmatism with them.

        The published runs left pose and CTF as they were, so that the encoder and the decoder saw
        an image at odds with what they were told of it.
        """
        moved = replace(
            batch,
            image=self.of_images(batch.image),
            twin=None if batch.twin is None else self.of_images(batch.twin),
        )
        if mode == "as-published":
            return moved
        pose = None if batch.pose is None else self.of_pose(batch.pose)
        ctf = batch.ctf
        if ctf is not None and self.turned:
            ctf = ctf.clone()
            ctf[:, CtfColumn.DEFOCUS_ANGLE] += 90.0
        return replace(moved, pose=pose, ctf=ctf)


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
def displace(
    model: PoseModel, dataset: Dataset, move: Move, mode: Mode, rows: NDArray[np.int64] | None
) -> Displacement:
    """Encode images as they are, and moved.

    Parameters
    ----------
    model
        With an encoder that sees images.
    dataset
        Images prepared for it (:meth:`PoseModel.dataset`).
    move, mode
        What is done to them.
    rows
        Which; None: all.
    """
    vae = model.vae
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    rows = np.arange(dataset.n) if rows is None else rows
    for batch in dataset.batches(rows, vae.whole_batch):
        ready = batch.to(model.device)
        posterior = vae.posterior(ready)
        spread = posterior.spread(posterior.best().cell).z[:, 0]
        after = vae.posterior(move.of_batch(ready, mode)).content_mean()
        parts.append((posterior.content_mean(), after, spread))
    whole = [torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)]
    return Displacement(*(np.asarray(part, np.float32) for part in whole))
