"""Maps under rotations: averaged over a group, and moved into the frame of its axes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import half_sphere, phases, transform
from modpose.fourier.reference import make_references, sample, side_by_side


class Frame(NamedTuple):
    """Where the axes of a group are in a map f: that of the frame is f(Q x + c).

    Attributes
    ----------
    rotation
        Q, (3, 3); its columns are the axes x, y and z of the group.
    centre
        c, (3,) voxels, (x, y, z).
    """

    rotation: Tensor
    centre: Tensor


OVERSAMPLING = 3
"""Of the transforms that are read at turned frequencies: half a per cent of error."""


def symmetrised(maps: Tensor, group: Tensor) -> Tensor:
    """Average maps (C, D, D, D) over the rotations of a group (G, 3, 3) about the centre D // 2."""
    return maps if len(group) == 1 else _turned(maps, group)


def in_frame(maps: Tensor, frame: Frame) -> Tensor:
    """Move maps (C, D, D, D) so that the axes of a group are those of the box."""
    # f(Q x + c) is f moved by -c and then turned by the inverse of Q
    box = maps.shape[-1]
    frequency, place = half_sphere(box, 0.5 - 1e-3)
    moved = transform(maps, place) * phases(frequency, -frame.centre[None].float())
    return _turned(back(moved, place, maps), frame.rotation.T[None])


def _turned(maps: Tensor, turns: Tensor) -> Tensor:
    """Average of maps turned actively by each of (G, 3, 3), read from their Fourier transforms."""
    box = maps.shape[-1]
    frequency, place = half_sphere(box, 0.5 - 1 / box)
    references = side_by_side(make_references(maps, 0.5 - 1 / box, oversampling=OVERSAMPLING))
    first = torch.zeros(1, dtype=torch.int64)
    total = torch.zeros(1, len(frequency), len(maps), dtype=torch.complex64)
    for turn in turns.float():
        read = sample(references, first, (frequency @ turn)[None])
        total += read.reshape(total.shape)
    return back(total[0].T / len(turns), place, maps)


def back(coefficients: Tensor, place: Tensor, maps: Tensor) -> Tensor:
    """Transform coefficients (C, K) back; the mean of each map stays, the rest is zero."""
    box = maps.shape[-1]
    spectrum = torch.zeros(len(maps), box * box * (box // 2 + 1), dtype=torch.complex64)
    spectrum[:, place] = coefficients
    spectrum[:, 0] = maps.mean((1, 2, 3)) * box**1.5
    shaped = _filled(spectrum.view(len(maps), box, box, -1))
    axes = (1, 2, 3)
    found = torch.fft.irfftn(shaped, s=(box,) * 3, dim=axes, norm="ortho")
    back: Tensor = torch.fft.fftshift(found, dim=axes)
    return back


def _filled(spectrum: Tensor) -> Tensor:
    """Fill in the second of each pair k, -k in the plane x = 0 of an ``rfftn``."""
    plane = spectrum[..., 0]
    mate = plane.flip((1, 2)).roll((1, 1), (1, 2)).conj()
    spectrum[..., 0] = torch.where(plane == 0, mate, plane)
    return spectrum
