"""Equivariance of inference: the pose follows the image and content does not change.

The pure functions take angles in degrees and shifts in pixels.  A *twin* is the same picture with
pose zero in the same box.  The inferred pose of a transformed image minus that of its twin is
compared with the true pose.  So the upright frame that a model chooses for each object has no
effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from modpose.evaluate.metrics import circular_rmse_deg, resultant_length
from modpose.geometry.degrees import wrap_deg
from modpose.geometry.rotations import wrap

if TYPE_CHECKING:
    from modpose.data.batches import Batch
    from modpose.model.vae import Vae

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Move = tuple[float, tuple[float, float]]
"""Degrees, and pixels along x and y."""

# --- errors of rotation -----------------------------------------------------------------------


@dataclass(frozen=True)
class RotationErrors:
    """How large angular errors are.

    Attributes
    ----------
    images
        Number of errors.
    median_deg
        Median of their sizes; 90 by chance.
    resultant
        Length of their mean unit vector, without removing an offset; 0 by chance.
    rmse_deg
        Root mean square; 104 by chance.
    """

    images: int
    median_deg: float
    resultant: float
    rmse_deg: float

    @classmethod
    def of(cls, errors: ArrayLike) -> RotationErrors:
        """Summarise errors of any shape, degrees."""
        flat = wrap_deg(errors).ravel()
        return cls(
            images=len(flat),
            median_deg=float(np.median(np.abs(flat))),
            resultant=resultant_length(flat),
            rmse_deg=circular_rmse_deg(flat),
        )


def twin_angle_errors(moved: ArrayLike, twin: ArrayLike, true: ArrayLike) -> Array:
    """Return inferred angle of the image − that of its twin − true angle, in (−180, 180].

    Parameters
    ----------
    moved, twin
        (N,) angles inferred of the transformed images and of the untransformed ones.
    true
        (N,) angles that the images were rotated by.
    """
    return wrap_deg(np.asarray(moved, float) - np.asarray(twin, float) - np.asarray(true, float))


def twin_shift_errors(
    moved: ArrayLike, twin: ArrayLike, true: ArrayLike, true_angle_deg: ArrayLike
) -> Array:
    """Return inferred shift of the image − R(θ) that of its twin − true shift, (N, 2) pixels.

    A model that draws an object off its centre by c infers −c for the twin, and t − R(θ) c for the
    image: the offset turns with the object.

    Parameters
    ----------
    moved, twin
        (N, 2) shifts (x, y) inferred of the transformed images and of the untransformed ones.
    true, true_angle_deg
        (N, 2) and (N,) what the images were moved by: signal(x) = f(Rᵀ(x − t)).
    """
    turned = turn_vectors(twin, true_angle_deg)
    errors: Array = np.asarray(moved, float) - turned - np.asarray(true, float)
    return errors


def turn_vectors(vectors: ArrayLike, angle_deg: ArrayLike) -> Array:
    """Turn (..., 2) vectors (x, y) by R(angle), the angles broadcast over the leading axes."""
    pairs, radians = np.asarray(vectors, float), np.deg2rad(np.asarray(angle_deg, float))
    cosine, sine, x, y = np.cos(radians), np.sin(radians), pairs[..., 0], pairs[..., 1]
    turned: Array = np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1)
    return turned


# --- what a model infers ----------------------------------------------------------------------


@dataclass(frozen=True)
class Poses:
    """What a model infers of images, without decoding them.

    Attributes
    ----------
    z
        (N, k) posterior mean of content.
    angle_deg
        (N,) in (−180, 180].
    shift
        (N, 2) pixels.
    """

    z: Array
    angle_deg: Array
    shift: Array


@torch.no_grad()
def infer_batch(vae: Vae, batch: Batch) -> Poses:
    """Infer content and pose of the most probable cell, as ``encode`` does, of prepared images."""
    parts = []
    for few in batch.chunks(vae.whole_batch):
        best = vae.posterior(few).best()
        angle = wrap(best.angle[:, 0]).rad2deg()
        parts.append([part.cpu() for part in (best.z[:, 0], angle, best.shift[:, 0])])
    return Poses(*(torch.cat(column).double().numpy() for column in zip(*parts, strict=True)))


def move(images: Floats, angle_deg: ArrayLike, shift_px: ArrayLike) -> Floats:
    """Rotate and shift images about the centre pixel: moved(x) = image(Rᵀ(x − t)).

    Cubic splines; beyond an image's edge is the median of its border, and values stay within
    those of the image.

    Parameters
    ----------
    images
        (N, H, W) or (N, H, W, C).
    angle_deg
        Degrees, one for all or (N,).
    shift_px
        (x, y) pixels, one for all or (N, 2).
    """
    stack = np.asarray(images, np.float32)
    pictures = stack[..., None] if stack.ndim == 3 else stack
    angles = np.broadcast_to(np.asarray(angle_deg, float), len(pictures))
    shifts = np.broadcast_to(np.asarray(shift_px, float), (len(pictures), 2))
    moved = np.empty_like(pictures)
    for i, picture in enumerate(pictures):
        for channel in range(picture.shape[-1]):
            moved[i, ..., channel] = _move_plane(picture[..., channel], angles[i], shifts[i])
    return moved[..., 0] if stack.ndim == 3 else moved


def _move_plane(plane: Floats, angle_deg: float, shift_px: Array) -> Floats:
    from scipy.ndimage import affine_transform

    border = np.concatenate([plane[0], plane[-1], plane[1:-1, 0], plane[1:-1, -1]])
    cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    inverse = np.array([[cosine, -sine], [sine, cosine]])  # Rᵀ on (y, x)
    centre = np.array(plane.shape) // 2
    offset = centre - inverse @ (centre + shift_px[::-1])
    moved = affine_transform(plane, inverse, offset, cval=float(np.median(border)))
    return np.clip(moved, plane.min(), plane.max())


# --- the measure ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Followed:
    """Errors of inference for n images after each of T moves.

    Attributes
    ----------
    angle_deg, shift_px
        Errors (T, n) and (T, n, 2).
    content
        (T, n) distances by which content moved, divided by the mean distance between images.
    """

    angle_deg: Array
    shift_px: Array
    content: Array

    @property
    def shift_length(self) -> Array:
        """(T, n) pixels."""
        length: Array = np.linalg.norm(self.shift_px, axis=-1)
        return length


def follow(still: Poses, ways: Iterable[Move], infer: Callable[[Move], Poses]) -> Followed:
    """Compare the inferred poses and contents of moved images with the expected ones.

    Parameters
    ----------
    still
        What is inferred of the images as they are.
    ways
        T moves.
    infer
        Moves the images and infers.
    """
    apart = _mean_distance(still.z)
    angle, shift, content = [], [], []
    for way in ways:
        found = infer(way)
        angle.append(twin_angle_errors(found.angle_deg, still.angle_deg, way[0]))
        shift.append(twin_shift_errors(found.shift, still.shift, way[1], way[0]))
        content.append(np.linalg.norm(found.z - still.z, axis=1) / apart)
    return Followed(np.stack(angle), np.stack(shift), np.stack(content))


def _mean_distance(z: Array) -> float:
    """Mean distance between different rows, of at most 1,000; a tiny number where all are one."""
    from scipy.spatial.distance import pdist

    return max(float(pdist(z[:1000]).mean()), 1e-12)
