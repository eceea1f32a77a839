"""Pictures as arrays: grey scales, mosaics, walks through content, alignment by a known pose.

All functions take and return numpy arrays.  A *picture* is (H, W) or (H, W, 3).  Poses follow the
convention of the package: an image is ``signal(x) = f(R(angle)^T (x - shift))`` with coordinates
(x, y) counted from the pixel ``n // 2`` of each side, so ``aligned(u) = image(R u + shift)``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.content.embedding import principal_axes
from modpose.geometry.grids import lattice
from modpose.geometry.pose import Pose, sample_images
from modpose.geometry.rotations import orthogonal_2d

Floats = NDArray[np.floating]
Origin = Literal["upper", "lower"]
"""Where row 0 of a picture is drawn: natural images at the top, EM images at the bottom."""

_CHUNK = 256


# --- pictures ---------------------------------------------------------------------------------


def as_pictures(images: Floats) -> Floats:
    """Turn preprocessed images into pictures.

    Parameters
    ----------
    images
        (N, C, H, W) with C = 1 or 3, or volumes (N, 1, D, H, W).

    Returns
    -------
    (N, H, W) or (N, H, W, 3); for volumes the three mean projections side by side.
    """
    if images.ndim == 5:
        return volume_pictures(images[:, 0])
    return images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)


def volume_pictures(volumes: Floats) -> Floats:
    """Mean projections of (N, D, H, W) along z, y and x, side by side: (N, max(D, H), ...)."""
    projections = [volumes.mean(axis) for axis in (1, 2, 3)]
    height = max(p.shape[1] for p in projections)
    padded = [np.pad(p, ((0, 0), (0, height - p.shape[1]), (0, 0))) for p in projections]
    return np.concatenate(padded, axis=2)


def grey_range(pictures: Floats, percent: float = 0.5) -> tuple[float, float]:
    """Black and white level of a set: its extreme percentiles, never equal, NaN left out."""
    finite = pictures[np.isfinite(pictures)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, [percent, 100 - percent]))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def to_unit(pictures: Floats, levels: tuple[float, float]) -> Floats:
    """Map ``levels`` (black, white) to 0 and 1, and clip."""
    low, high = levels
    filled = np.nan_to_num(pictures, nan=low)
    return np.asarray(np.clip((filled - low) / (high - low), 0.0, 1.0))


def drawn(pictures: Floats, origin: Origin) -> Floats:
    """Flip (..., N, H, W[, 3]) if row 0 belongs at the bottom, for drawing from the top.

    The first axis counts pictures.
    """
    return pictures if origin == "upper" else np.flip(pictures, axis=1)


def mosaic(tiles: Floats, columns: int, gap: int = 1, fill: float = 1.0) -> Floats:
    """Lay (N, H, W[, 3]) tiles out in reading order, ``gap`` pixels of ``fill`` between them."""
    n, height, width = tiles.shape[:3]
    rows = -(-n // columns)
    channels = tiles.shape[3:]
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, *channels), fill, tiles.dtype
    )
    for k in range(n):
        y, x = (k // columns) * (height + gap), (k % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = tiles[k]
    return sheet


# --- walks through content --------------------------------------------------------------------


def normal_quantiles(n: int) -> Floats:
    """(n,) ascending quantiles of N(0, 1): inverse CDF of (i+½)/n."""
    from scipy.special import ndtri

    return np.asarray(ndtri((np.arange(n) + 0.5) / n))


def manifold_codes(z: Floats, n: int) -> Floats:
    """Content on a regular walk through the prior, ready to decode.

    With one latent, ``n`` quantiles of N(0, 1) from left to right: (n, 1).  With two, their
    product in reading order, the first latent rising to the right and the second upwards:
    (n*n, 2).  With more, the same walk over the first two principal components of the posterior
    means ``z`` (N, k), in units of their standard deviation: (n*n, k).
    """
    steps = normal_quantiles(n)
    k = z.shape[1]
    if k == 1:
        return steps[:, None]
    first, second = np.meshgrid(steps, steps[::-1])
    plane = np.stack([first.ravel(), second.ravel()], axis=1)
    if k == 2:
        return plane
    mean, axes, spread = principal_axes(z)
    return np.asarray(mean + (plane * spread[:2]) @ axes[:2])


def traversal_codes(z: Floats, dimension: int, n: int) -> Floats:
    """(n, k): one latent from its 2nd to its 98th percentile, the others at their median."""
    codes = np.repeat(np.median(z, axis=0)[None], n, axis=0)
    low, high = np.percentile(z[:, dimension], [2, 98])
    codes[:, dimension] = np.linspace(low, high, n)
    return codes


def busiest_latents(z: Floats, most: int = 12) -> list[int]:
    """Up to ``most`` latents with the widest spread of posterior means, in their own order."""
    order = np.argsort(-z.std(0), kind="stable")[:most]
    return sorted(int(i) for i in order)


def distant_pairs(z: Floats, count: int, seed: int, candidates: int = 20) -> list[tuple[int, int]]:
    """Choose pairs to interpolate: a random image and the most distant of some random others."""
    rng = np.random.default_rng(seed)
    count = min(count, len(z) // 2)
    starts = rng.choice(len(z), count, replace=False)
    pairs = []
    for start in starts:
        others = rng.choice(len(z), min(candidates, len(z)), replace=False)
        distance = np.linalg.norm(z[others] - z[start], axis=1)
        pairs.append((int(start), int(others[int(distance.argmax())])))
    return pairs


def interpolation_codes(start: Floats, end: Floats, n: int) -> Floats:
    """(n, k) points on the straight line from ``start`` (k,) to ``end`` (k,), both included."""
    fraction = np.linspace(0, 1, n)[:, None]
    return np.asarray((1 - fraction) * start + fraction * end)


# --- alignment --------------------------------------------------------------------------------


def align(
    pictures: Floats,
    angle_deg: Floats,
    shift_px: Floats,
    mirrored: NDArray[np.bool_] | None = None,
    scale: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Undo known poses by bilinear interpolation: ``aligned(u) = image(R(angle) M^m s u + shift)``.

    Parameters
    ----------
    pictures
        (N, H, W) or (N, H, W, C).
    angle_deg
        (N,) angles, degrees.
    shift_px
        (N, 2) shifts (x, y), pixels.
    mirrored
        (N,) whether m is 1 and M is diag(1, -1); None: nowhere.
    scale
        (N,) how many times larger than upright, s; None: 1.

    Returns
    -------
    aligned, with the shape of the pictures, and inside (N, H, W): 1 if the value comes from within
    the image, 0 if from beyond its edge (there ``aligned`` is 0).
    """
    image = torch.as_tensor(np.ascontiguousarray(pictures), dtype=torch.float32)
    image = image[:, None] if image.ndim == 3 else image.movedim(-1, 1)
    height, width = image.shape[2:]
    angle = torch.deg2rad(torch.as_tensor(np.asarray(angle_deg), dtype=torch.float32))
    shift = torch.as_tensor(np.asarray(shift_px), dtype=torch.float32)
    flips = None if mirrored is None else torch.as_tensor(np.asarray(mirrored))
    upright = lattice((height, width)).expand(len(image), -1, -1)
    if scale is not None:
        upright = upright * torch.as_tensor(np.asarray(scale), dtype=torch.float32)[:, None, None]
    place = Pose(orthogonal_2d(angle, flips), shift).to_image(upright)
    values = sample_images(image, place, padding="border").reshape(len(image), height, width, -1)
    centre = torch.tensor([width // 2, height // 2])
    corner = place + centre
    edge = 1e-3  # rounding must not put the border pixels of an unrotated image outside
    last = torch.tensor([width - 1, height - 1])
    inside = ((corner >= -edge) & (corner <= last + edge)).all(-1)
    inside = inside.reshape(len(image), height, width)
    values = values * inside[..., None]
    out = values[..., 0] if pictures.ndim == 3 else values
    return out.numpy(), inside.numpy().astype(np.float32)


def aligned_average(
    pictures: Floats,
    angle_deg: Floats,
    shift_px: Floats,
    mirrored: NDArray[np.bool_] | None = None,
    scale: Floats | None = None,
) -> Floats:
    """Average the aligned images; each pixel over the images that cover it.

    Parameters are those of :func:`align`; the result is one picture, float64.  A pixel that fewer
    than a quarter of the images cover (the corners) gets the mean of the images' border pixels.
    """
    total = np.zeros(pictures.shape[1:])
    weight = np.zeros(pictures.shape[1:3])
    for start in range(0, len(pictures), _CHUNK):
        part = slice(start, start + _CHUNK)
        flips = None if mirrored is None else mirrored[part]
        sizes = None if scale is None else scale[part]
        upright, inside = align(pictures[part], angle_deg[part], shift_px[part], flips, sizes)
        total += upright.sum(0, dtype=np.float64)
        weight += inside.sum(0, dtype=np.float64)
    edge = np.ones(weight.shape, bool)
    edge[1:-1, 1:-1] = False
    background = pictures[:, edge].mean(axis=(0, 1), dtype=np.float64)
    reached = weight >= 0.25 * len(pictures)
    count = np.maximum(weight, 1.0).reshape(*weight.shape, *[1] * (total.ndim - 2))
    average = total / count
    average[~reached] = background
    return average
