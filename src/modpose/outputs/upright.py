"""Images rotated upright by the inferred poses, and the denoised images, as MRCS."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.mrc import write_mrcs
from modpose.infer.latents import content_columns

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.estimator import PoseModel

CHUNK = 256


def turn_upright(
    images: NDArray[np.float32],
    angle_deg: NDArray[np.float64],
    shift: NDArray[np.float64],
    mirrored: NDArray[np.bool_] | None = None,
    scale: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Read each image at its posed coordinates by cubic splines, aligned(u) = image(R M^m s u + t).

    Parameters
    ----------
    images
        (N, H, W).
    angle_deg
        (N,) degrees.
    shift
        (N, 2) pixels, (x, y).
    mirrored
        (N,) whether m is 1 and M is diag(1, -1); None: nowhere.
    scale
        (N,) scale relative to the upright object, s; None: 1.

    Returns
    -------
    (N, H, W) float32; pixels from outside an image have the mean of its border.
    """
    from scipy.ndimage import affine_transform

    center = np.array([side // 2 for side in images.shape[1:]])
    upright = np.empty(images.shape, np.float32)
    for i, image in enumerate(images):
        cos, sin = np.cos(np.deg2rad(angle_deg[i])), np.sin(np.deg2rad(angle_deg[i]))
        rotation = np.array([[cos, sin], [-sin, cos]])  # on (row, column) = (y, x)
        if mirrored is not None and mirrored[i]:
            rotation = rotation * [-1.0, 1.0]
        if scale is not None:
            rotation = rotation * scale[i]
        offset = center + shift[i, ::-1] - rotation @ center
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).mean()
        upright[i] = affine_transform(image, rotation, offset, order=3, cval=float(edge))
    return upright


def write_pictures(
    model: PoseModel, dataset: Dataset, latents: pd.DataFrame, paths: list[Path]
) -> None:
    """Write the images rotated upright, and the model's noise-free version of each."""
    n = dataset.n
    angle = np.broadcast_to(latents.get("angle_deg", 0.0), n).astype(np.float64)
    shift = np.stack([np.broadcast_to(latents.get(f"shift_{a}", 0.0), n) for a in "xy"], axis=1)
    mirrored = np.broadcast_to(latents.get("mirrored", 0), n) == 1
    scale = np.broadcast_to(latents.get("scale", 1.0), n).astype(np.float64)
    content = content_columns(latents)
    z = latents[content].to_numpy(np.float32).reshape(n, len(content))
    rows = [np.arange(i, min(i + CHUNK, n)) for i in range(0, n, CHUNK)]
    upright = (
        turn_upright(
            dataset.batch(r).image[:, 0].numpy(), angle[r], shift[r], mirrored[r], scale[r]
        )
        for r in rows
    )
    denoised = (
        np.asarray(model.decode(z[r]), np.float32).reshape(-1, *dataset.shape) for r in rows
    )
    for path, chunks in zip(paths, (upright, denoised), strict=True):
        with tempfile.TemporaryFile(dir=path.parent) as scratch:
            stack = _gathered(chunks, (n, *dataset.shape), scratch)
            write_mrcs(path, stack, dataset.pixel_size)


def _gathered(
    chunks: Iterable[NDArray[np.float32]], shape: tuple[int, ...], scratch: Any
) -> NDArray[np.float32]:
    """Write chunks one after another into a temporary file, so that memory use stays constant."""
    if hasattr(os, "posix_fallocate"):  # a full disk is an error now rather than a crash later
        os.posix_fallocate(scratch.fileno(), 0, 4 * int(np.prod(shape)))
    stack = np.memmap(scratch, np.float32, "w+", shape=shape)
    start = 0
    for chunk in chunks:
        stack[start : start + len(chunk)] = chunk
        start += len(chunk)
    return stack
