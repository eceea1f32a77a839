"""The surface of a volume as triangles, and the modules with which a page draws and turns it.

Surface nets (Gibson 1998): one corner for each cell of eight voxels that the surface crosses, at
the mean of its crossings of the cell's edges; one quadrilateral for each edge that it crosses.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

HEIGHT = 2.5
"""Level of a surface, in standard deviations of the volume above its mean."""
MODULES = {
    "modpose/surface": Path(__file__).with_name("surface.js"),
    "modpose/ogl": Path(__file__).parent / "vendor" / "ogl.js",
}
"""Modules of JavaScript, by the names by which they import each other."""


class Surface(NamedTuple):
    """Triangles, counter-clockwise as seen from outside.

    Attributes
    ----------
    corners
        (V, 3) order x, y, z: voxels from the centre n // 2.
    normals
        (V, 3) unit vectors that point outwards.
    faces
        (F, 3) rows of the corners.
    """

    corners: Floats
    normals: Floats
    faces: NDArray[np.uint32]

    def packed(self) -> bytes:
        """Write for the page: two counts (uint32), corners, normals (float32), faces (uint32)."""
        counts = np.array([len(self.corners), len(self.faces)], "<u4")
        parts = self.corners.astype("<f4"), self.normals.astype("<f4"), self.faces.astype("<u4")
        return b"".join(part.tobytes() for part in (counts, *parts))


def turning(volumes: Floats, names: list[str]) -> dict[str, Any]:
    """Collect surfaces of volumes (S, D, D, D) for a page, ready for JSON.

    All are drawn at one level, :data:`HEIGHT` for the mean and standard deviation of all, and in a
    box that they fill.
    """
    level = float(volumes.mean() + HEIGHT * volumes.std())
    found = [surface_of(one, level) for one in volumes]
    radius = max([float(np.linalg.norm(one.corners, axis=1).max(initial=1.0)) for one in found])
    packed = [base64.b64encode(one.packed()).decode() for one in found]
    steps = [{"name": n, "packed": text} for n, text in zip(names, packed, strict=True)]
    return {"side": 2 * radius, "steps": steps}


def surface_of(volume: Floats, level: float) -> Surface:
    """Find where a volume (D, H, W), order z, y, x, equals a level.

    The surface is closed: beyond the box the volume is below the level.  It has no corners if no
    voxel is above the level.
    """
    low = min(float(volume.min()), level) - 1.0
    padded = np.pad(volume.astype(np.float32), 1, constant_values=low)
    cells = tuple(side - 1 for side in padded.shape)
    crossings = [_crossings(padded, level, axis) for axis in range(3)]
    around = [_cells_around(start, axis, cells) for axis, (start, _, _) in enumerate(crossings)]
    where = np.concatenate([four.ravel() for four in around])
    used, rows = np.unique(where, return_inverse=True)
    points = np.concatenate([np.tile(point, (4, 1)) for _, point, _ in crossings])
    count = np.bincount(rows, minlength=len(used))[:, None]
    sums = [np.bincount(rows, points[:, k], minlength=len(used)) for k in range(3)]
    place = np.stack(sums, axis=1) / np.maximum(count, 1)
    faces = []
    for four, (_, _, leaves) in zip(around, crossings, strict=True):
        a, b, c, d = np.searchsorted(used, four)
        b, d = np.where(leaves, d, b), np.where(leaves, b, d)
        faces += [np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)]
    normals = _normals(padded, place)
    corners = (place - 1.0 - np.array([side // 2 for side in volume.shape]))[:, ::-1]
    return Surface(corners.astype(np.float32), normals, np.concatenate(faces).astype(np.uint32))


def _crossings(
    padded: Floats, level: float, axis: int
) -> tuple[Integers, NDArray[np.float64], NDArray[np.bool_]]:
    """Return the edges along an axis that cross the surface: first voxels (E, 3), place, direction.

    The last (E,) is true where the edge leads out of the object.
    """
    first = padded.take(np.arange(padded.shape[axis] - 1), axis)
    second = padded.take(np.arange(1, padded.shape[axis]), axis)
    start = np.argwhere((first > level) != (second > level))
    one, two = first[tuple(start.T)], second[tuple(start.T)]
    point = start.astype(np.float64)
    point[:, axis] += (level - one) / (two - one)
    return start, point, one > level


def _cells_around(start: Integers, axis: int, cells: tuple[int, ...]) -> Integers:
    """Return the four cells about each edge, going around it, (4, E) as flat positions."""
    b, c = (axis + 1) % 3, (axis + 2) % 3
    around = []
    for step_b, step_c in ((0, 0), (-1, 0), (-1, -1), (0, -1)):
        cell = start.copy()
        cell[:, b] += step_b
        cell[:, c] += step_c
        around.append(np.ravel_multi_index(tuple(cell.T), cells))
    return np.array(around, dtype=np.int64)


def _normals(padded: Floats, place: NDArray[np.float64]) -> Floats:
    """Return minus the gradient at places (V, 3), order x, y, z, of length 1."""
    inner = np.pad(padded[1:-1, 1:-1, 1:-1], 1, mode="edge")  # without the step at the border
    slopes = []
    for axis in range(3):
        ends = [map_coordinates(inner, (place + step * _unit(axis)).T, order=1) for step in (-1, 1)]
        slopes.append(ends[0] - ends[1])
    normal = np.stack(slopes[::-1], axis=1)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.asarray(normal / np.maximum(length, 1e-12), np.float32)


def _unit(axis: int) -> NDArray[np.float64]:
    return np.asarray(np.eye(3)[axis])
