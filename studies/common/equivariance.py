"""How well inference follows images that are moved before they are prepared, for any model."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from modpose.data.batches import Batch
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.evaluate.equivariance import (
    Array,
    Floats,
    Move,
    Poses,
    RotationErrors,
    follow,
    move,
    twin_angle_errors,
)
from modpose.evaluate.metrics import circular_rmse_deg, shift_rmse_px
from modpose.geometry.rotations import wrap
from modpose.infer.copies import check_copies, picked, read_copies
from modpose.progress import Progress


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

    Nasiri & Bepler 2022, Table 3: each image is rotated by K angles, and what is inferred of the
    image as it is is subtracted.

    Parameters
    ----------
    turned
        (N, K) angles inferred of each image after each rotation.
    unrotated
        (N,) angles inferred of the images as they are.
    angles_deg
        (K,) the rotations.
    """
    reference = np.asarray(unturned, float)[:, None]
    return twin_angle_errors(turned, reference, np.asarray(angles_deg, float)[None])


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
    """How far inference follows an image that is rotated and shifted.

    Attributes
    ----------
    images
        Number of images.
    turned_median_deg, turned_resultant, turned_rmse_deg
        Errors of the angle when images are rotated by every ``step`` degrees about their centre;
        None if the model infers no angle.
    turned_shift_rmse_px
        RMS length of the error of the shift then (it should turn with the image); None if the
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
    has_angle, has_shift = config.rotation.prior != "none", config.shift.prior != "none"
    still = infer_poses(model, images)

    def infer(way: Move) -> Poses:
        return infer_poses(model, move(images, *way))

    turns = [(angle, (0.0, 0.0)) for angle in np.arange(step_deg, 360.0, step_deg)]
    ways = [(shift_px, 0.0), (-shift_px, 0.0), (0.0, shift_px), (0.0, -shift_px)]
    turned = follow(still, turns, infer)
    shifted = follow(still, [(0.0, way) for way in ways], infer)
    angle = RotationErrors.of(turned.angle_deg)
    return Equivariance(
        images=len(images),
        turned_median_deg=angle.median_deg if has_angle else None,
        turned_resultant=angle.resultant if has_angle else None,
        turned_rmse_deg=angle.rmse_deg if has_angle else None,
        turned_shift_rmse_px=shift_rmse_px(turned.shift_px) if has_shift else None,
        turned_content=float(turned.content.mean()),
        shifted_rmse_deg=circular_rmse_deg(shifted.angle_deg.ravel()) if has_angle else None,
        shifted_shift_rmse_px=shift_rmse_px(shifted.shift_px) if has_shift else None,
        shifted_content=float(shifted.content.mean()),
    )
