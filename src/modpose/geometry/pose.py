"""A pose moves the upright object into the image: signal(x) = f(R^T (x - t)).

In the plane, R may be a reflection followed by a rotation, R(theta) M^m with M = diag(1, -1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.geometry.rotations import rotation_2d


class Pose(NamedTuple):
    """Rotation and shift, active: an object point u appears at R u + t.

    Attributes
    ----------
    rotation
        (..., d, d) rotation matrices; the determinant is -1 for a mirrored picture.
    shift
        (..., d) pixels, ordered (x, y[, z]).
    """

    rotation: Tensor
    shift: Tensor

    def to_object(self, x: Tensor) -> Tensor:
        """Map image coordinates to the object's frame, u = R^T (x - t).

        Parameters
        ----------
        x
            (P, d) pixels, relative to the box centre.

        Returns
        -------
        Tensor
            (..., P, d) pixels.
        """
        # one product for all poses, each axis in one piece of memory: sampling there is faster
        turn = self.rotation.transpose(-1, -2)
        every = turn.reshape(-1, turn.shape[-1]) @ x.T
        turned = every.reshape(*turn.shape[:-1], len(x)).transpose(-1, -2)
        found: Tensor = turned - self.shift.unsqueeze(-2) @ self.rotation
        return found

    def to_image(self, u: Tensor) -> Tensor:
        """Map object coordinates (P, d) to the image, x = R u + t; (..., P, d)."""
        return u @ self.rotation.transpose(-1, -2) + self.shift.unsqueeze(-2)


def mirror(vectors: Tensor) -> Tensor:
    """Reflect vectors (..., 2) of the plane, (x, y) to (x, -y)."""
    return vectors * vectors.new_tensor([1.0, -1.0])


def mirror_images(images: Tensor) -> Tensor:
    """Reflect pictures (..., H, W) about the row through the centre, H // 2, without interpolation.

    A picture of pose (theta, m, t) becomes one of pose (-theta, 1 - m, mirror(t)).  With an even
    number of rows, the first row has no partner and stays.
    """
    flipped = images.flip(-2)
    return flipped if images.shape[-2] % 2 else flipped.roll(1, -2)


def sample_images(
    images: Tensor, x: Tensor, padding: str = "zeros", *, mode: str = "bilinear"
) -> Tensor:
    """Sample images at real-valued coordinates by (bi-, tri-) linear or cubic interpolation.

    Parameters
    ----------
    images
        (B, C, H, W) or (B, C, D, H, W).
    x
        (B, P, d) pixels relative to the centre n//2, ordered (x, y[, z]).
    padding
        Values outside the image: ``zeros`` or ``border``.
    mode
        ``bilinear`` (trilinear for volumes), or ``bicubic``, which blurs less, for pictures.

    Returns
    -------
    Tensor
        (B, P, C).
    """
    sizes = images.shape[:1:-1]
    scales = [2 / max(n - 1, 1) for n in sizes]
    firsts = [scale * (n // 2) - 1 for n, scale in zip(sizes, scales, strict=True)]
    if len(set(sizes)) == 1:  # without a sum over an axis of two or three, which is slow
        unit = (x * scales[0]).add_(firsts[0])
    else:
        unit = torch.addcmul(x.new_tensor(firsts), x, x.new_tensor(scales))
    grid = unit.reshape(x.shape[0], *([1] * (x.shape[-1] - 1)), x.shape[1], x.shape[-1])
    values = torch.nn.functional.grid_sample(
        images, grid.to(images.dtype), mode=mode, padding_mode=padding, align_corners=True
    )
    return values.flatten(2).transpose(1, 2)


def linear_weights(x: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the four pixels about each point and their weights, (P, 4) each.

    The sum of weights times pixels is what :func:`sample_images` reads with ``padding`` "border".

    Parameters
    ----------
    x
        (P, 2) pixels relative to the centre, ordered (x, y).
    shape
        Rows and columns of the picture, two or more.
    """
    height, width = shape
    column = (x[:, 0] + width // 2).clamp(0, width - 1)
    row = (x[:, 1] + height // 2).clamp(0, height - 1)
    left, top = column.floor().clamp(max=width - 2), row.floor().clamp(max=height - 2)
    right_share, low_share = column - left, row - top
    first = (top * width + left).long()
    index = torch.stack([first, first + 1, first + width, first + width + 1], -1)
    across = torch.stack([1 - right_share, right_share], -1)
    return index, torch.cat([(1 - low_share)[:, None] * across, low_share[:, None] * across], -1)


def rotate_images(images: Tensor, angle: Tensor, x: Tensor, centre: Tensor | None = None) -> Tensor:
    """Rotate pictures (B, C, H, W) by ``angle`` (B,) radians; ``x`` is the lattice.

    They rotate about their middle, or about ``centre`` (B, 2), which becomes the middle: a picture
    of pose (theta, t) becomes one of pose (theta + angle, R(angle) (t - centre)).  Interpolation is
    cubic.  Linear interpolation would blur rotated pictures and their noise, so that a network
    could recognise them.
    """
    pose = Pose(rotation_2d(angle), torch.zeros(len(angle), 2, device=angle.device))
    place = pose.to_object(x) if centre is None else pose.to_object(x) + centre.unsqueeze(-2)
    turned = sample_images(images, place, mode="bicubic")
    return turned.transpose(1, 2).reshape(images.shape)
