"""Whether what moves in sharp maps is only the whole map: then content shows errors of poses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modpose.content_maps.solution import ContentMaps

MOSTLY = 0.5
"""Part of the motion, shifts and turns of the whole map, from which on poses are doubted."""


def rigid_share(maps: NDArray[np.floating]) -> float:
    """Return how much of what moves is explained by small shifts and turns of the mean.

    Parameters
    ----------
    maps
        (J, b, b, b): the mean, and maps of functions of equal variance.

    Returns
    -------
    float
        Part of the power of all maps beside the mean that lies in the span of six maps: the
        derivatives of the mean for a shift along each axis, and for a turn about each; 0 to 1.
    """
    mean, side = np.asarray(maps[0], float), maps.shape[-1]
    spectrum, frequency = np.fft.fftn(mean), 2j * np.pi * np.fft.fftfreq(side)
    shape = [(-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    z, y, x = (np.fft.ifftn(spectrum * frequency.reshape(axis)).real for axis in shape)
    at_z, at_y, at_x = ((np.arange(side) - side // 2).reshape(axis) for axis in shape)
    turns = at_y * z - at_z * y, at_z * x - at_x * z, at_x * y - at_y * x
    rigid = np.linalg.qr(np.stack([part.ravel() for part in (z, y, x, *turns)], 1))[0]
    power = explained = 0.0
    for one in maps[1:]:
        moving = np.asarray(one, float).ravel()
        power += float(moving @ moving)
        explained += float(((moving @ rigid) ** 2).sum())
    return explained / power if power > 0 else 0.0


def doubt_about_poses(maps: ContentMaps) -> str | None:
    """Say that content shows errors of poses, if that is most of what moves; else None."""
    share = rigid_share(maps.bands[-1].maps)
    if share < MOSTLY:
        return None
    refined = maps.pose is not None
    do = "--refine-poses was not enough" if refined else "--refine-poses corrects them a little"
    return (
        f"Content shows mostly errors of the given poses: {share:.0%} of what moves in the sharp "
        f"maps is the whole map, shifted or turned.  {do}; a new refinement of the poses is better."
    )
