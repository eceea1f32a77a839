"""A pose moves the upright object into the image: signal(x) = f(R^T (x - t)).

In the plane, R may be a reflection followed by a rotation, R(theta) M^m with M = diag(1, -1).
"""

from __future__ import annotations

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
        # one product for all poses: many, with inner dimensions of two or three, are slow
        every = x @ self.rotation.movedim(-2, 0).flatten(1)
        turned = every.reshape(len(x), *self.rotation.shape[:-2], -1).movedim(0, -2)
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
