"""Whether inference turns and moves with the image, and content stays: numbers for any model.

The pure functions take angles in degrees and shifts in pixels.  A *twin* is the same picture with
pose zero in the same box: what a model infers of a transformed image, less what it infers of the
twin, is compared with the true pose, so that the upright frame that a model chooses for each
object does not count.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from modpose.data.batches import Batch
from modpose.errors import InputError
from modpose.evaluate.metrics import circular_rmse_deg, resultant_length, shift_rmse_px
from modpose.geometry.degrees import wrap_deg
from modpose.geometry.rotations import wrap
from modpose.infer.copies import check_copies, picked, read_copies
from modpose.progress import Progress

if TYPE_CHECKING:
    from modpose.estimator import PoseModel

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

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
        Length of their mean unit vector, no offset taken out of it; 0 by chance.
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
        (N,) angles that the images were turned by.
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


def by_label(errors: ArrayLike, labels: ArrayLike) -> dict[Hashable, RotationErrors]:
    """Summarise the errors of each class.

    Parameters
    ----------
    errors
        (N,) or (N, K) degrees.
    labels
        (N,) classes.

    Returns
    -------
    dict
        Class → its errors, in the order of the classes.
    """
    values, names = np.asarray(errors, float), np.asarray(labels)
    if len(values) != len(names):
        raise ValueError(f"{len(values)} rows of errors have {len(names)} labels")
    return {name.item(): RotationErrors.of(values[names == name]) for name in np.unique(names)}


def consistency_errors(turned: ArrayLike, unturned: ArrayLike, angles_deg: ArrayLike) -> Array:
    """Return what each of K rotations of an image is off by, (N, K) degrees in (−180, 180].

    Nasiri & Bepler 2022, Table 3: each image is turned by K angles, and what is inferred of the
    image as it is is subtracted.

    Parameters
    ----------
    turned
        (N, K) angles inferred of each image after each rotation.
    unturned
        (N,) angles inferred of the images as they are.
    angles_deg
        (K,) the rotations.
    """
    reference = np.asarray(unturned, float)[:, None]
    return twin_angle_errors(turned, reference, np.asarray(angles_deg, float)[None])


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
def infer_poses(model: PoseModel, images: Floats, batch: int = 256, copies: int = 1) -> Poses:
    """Infer content and pose of the most probable cell, as ``encode`` does, and no ELBO.

    Parameters
    ----------
    model
        A trained model with an encoder, for pictures.
    images
        (N, H, W) or (N, H, W, 3), in the units that the model was fitted in.
    batch
        Images at a time.
    copies
        Turned copies of each image that are read, as ``encode`` does.
    """
    if model.config.model.encoder.kind == "table":
        raise InputError("equivariance: a lookup table infers nothing of images that were moved")
    check_copies(copies, model.vae.layout, given=False, searched=False)
    dataset, parts = model.dataset(images), []
    with Progress("infer", dataset.n, quiet=model.quiet) as progress:
        for ready in dataset.batches(np.arange(dataset.n), batch):
            found, which = _read(model, ready.to(model.device), copies)
            parts.append([part.cpu() for part in picked(found, which).values()])
            progress.advance(len(ready), 0.0)
    z, angle, shift = (torch.cat(column).double().numpy() for column in zip(*parts, strict=True))
    return Poses(z, np.rad2deg(angle), shift)


def _read(
    model: PoseModel, batch: Batch, copies: int
) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
    """Infer from each copy; say which to keep of every image."""
    vae, which = model.vae, torch.zeros(len(batch), dtype=torch.int64, device=batch.image.device)
    if copies == 1:
        posteriors = [vae.posterior(batch)]
    else:
        posteriors, which, _ = read_copies(
            lambda *how: vae.posterior(batch, *how), copies, vae.layout
        )
    best = [one.best() for one in posteriors]
    return [
        {"z": one.z[:, 0], "angle": wrap(one.angle[:, 0]), "shift": one.shift[:, 0]} for one in best
    ], which


def move(images: Floats, angle_deg: ArrayLike, shift_px: ArrayLike) -> Floats:
    """Turn and shift images about the centre pixel: moved(x) = image(Rᵀ(x − t)).

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


# --- the measurements -------------------------------------------------------------------------


def turned_consistency(
    model: PoseModel, images: Floats, rotations: int = 160, copies: int = 1
) -> Array:
    """Turn each image by ``rotations`` even angles and compare what is inferred: (N, K) degrees.

    Nasiri & Bepler 2022, Table 3 (they draw the angles at random).  ``copies`` as in ``encode``.
    """
    angles = 360.0 * np.arange(rotations) / rotations
    unturned = infer_poses(model, images, copies=copies).angle_deg
    turned = [infer_poses(model, move(images, a, 0.0), copies=copies).angle_deg for a in angles]
    return consistency_errors(np.stack(turned, axis=1), unturned, angles)


@dataclass(frozen=True)
class Equivariance:
    """How far inference follows an image that is turned and shifted.

    Attributes
    ----------
    images
        Number of images.
    turned_median_deg, turned_resultant, turned_rmse_deg
        Errors of the angle when images are turned by every ``step`` degrees about their centre;
        None where the model infers no angle.
    turned_shift_rmse_px
        RMS length of the error of the shift then (it should turn with the image); None where the
        model infers no shift.
    turned_content
        Mean distance that content moves then, over the mean distance between images.
    shifted_rmse_deg, shifted_shift_rmse_px, shifted_content
        The same when images are shifted along an axis, either way.
    """

    images: int
    turned_median_deg: float | None
    turned_resultant: float | None
    turned_rmse_deg: float | None
    turned_shift_rmse_px: float | None
    turned_content: float
    shifted_rmse_deg: float | None
    shifted_shift_rmse_px: float | None
    shifted_content: float

    def to_dict(self) -> dict[str, float | int]:
        """Return the figures that apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def measure_equivariance(
    model: PoseModel, images: Floats, *, step_deg: float = 10.0, shift_px: float = 8.0
) -> Equivariance:
    """Turn images by every ``step_deg`` and shift them by ±``shift_px`` along each axis.

    Parameters
    ----------
    model
        A trained model of pictures.
    images
        (N, H, W) or (N, H, W, 3), at least two, in the units that the model was fitted in, with
        room about the object for the shift.
    step_deg, shift_px
        Of the transformations.
    """
    if len(images) < 2:
        raise InputError.of("equivariance", "the number of images", len(images), "at least 2")
    config = model.config.model
    has_angle, has_shift = config.rotation.inferred, config.shift.inferred
    still = infer_poses(model, images)
    turns = [(angle, (0.0, 0.0)) for angle in np.arange(step_deg, 360.0, step_deg)]
    ways = [(shift_px, 0.0), (-shift_px, 0.0), (0.0, shift_px), (0.0, -shift_px)]
    turned = _Changes.of(_followed(model, images, still, turns))
    shifted = _Changes.of(_followed(model, images, still, [(0.0, way) for way in ways]))
    apart = _mean_distance(still.z)
    angle = RotationErrors.of(turned.angle)
    return Equivariance(
        images=len(images),
        turned_median_deg=angle.median_deg if has_angle else None,
        turned_resultant=angle.resultant if has_angle else None,
        turned_rmse_deg=angle.rmse_deg if has_angle else None,
        turned_shift_rmse_px=shift_rmse_px(turned.shift) if has_shift else None,
        turned_content=float(turned.content.mean()) / apart,
        shifted_rmse_deg=circular_rmse_deg(shifted.angle) if has_angle else None,
        shifted_shift_rmse_px=shift_rmse_px(shifted.shift) if has_shift else None,
        shifted_content=float(shifted.content.mean()) / apart,
    )


@dataclass(frozen=True)
class _Changes:
    """Errors of angle (M,) and shift (M, 2), and distances that content moved (M,)."""

    angle: Array
    shift: Array
    content: Array

    @classmethod
    def of(cls, parts: Iterator[_Changes]) -> _Changes:
        angle, shift, content = zip(*((p.angle, p.shift, p.content) for p in parts), strict=True)
        return cls(np.concatenate(angle), np.concatenate(shift), np.concatenate(content))


def _followed(
    model: PoseModel,
    images: Floats,
    still: Poses,
    moves: list[tuple[float, tuple[float, float]]],
) -> Iterator[_Changes]:
    for angle, shift in moves:
        found = infer_poses(model, move(images, angle, shift))
        yield _Changes(
            twin_angle_errors(found.angle_deg, still.angle_deg, angle),
            twin_shift_errors(found.shift, still.shift, shift, angle),
            np.linalg.norm(found.z - still.z, axis=1),
        )


def _mean_distance(z: Array) -> float:
    """Mean distance between different rows, of at most 1,000; a tiny number where all are one."""
    from scipy.spatial.distance import pdist

    return max(float(pdist(z[:1000]).mean()), 1e-12)
