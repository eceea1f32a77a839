"""Scores of images at every rotation and shift of a grid, and poses taken from them.

A turn by 180 degrees in the plane of the image conjugates a central slice, so half of the rotations
give the scores of all: with G+ = Re m Re d and G- = Im m Im d, the two are G+ + G- and G+ - G-.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.reference import make_references, sample, turned
from modpose.search.so3_search import pose_score

NUMBERS_AT_ONCE = 1 << 22
HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


class Poses(NamedTuple):
    """M poses of each of B images.

    Attributes
    ----------
    rotation
        (B, M, 3, 3).
    shift
        (B, M, 2) pixels of the box.
    class_index
        (B, M) int64.
    score
        (B, M) nats.
    """

    rotation: Tensor
    shift: Tensor
    class_index: Tensor
    score: Tensor

    def rows(self, index: Tensor) -> Poses:
        """Keep some images."""
        return Poses(*(part[index] for part in self))


def draw_poses(
    images: Coefficients,
    maps: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Poses:
    """Draw poses from the posterior over a grid, each at its best shift."""

    def take(score: Tensor) -> Tensor:
        weight = (score - score.amax(0)).exp()
        return torch.multinomial(weight.T, draws, replacement=True, generator=generator)

    return _search(images, maps, rotations, shifts, take, normalised=False)


def best_poses(
    images: Coefficients,
    maps: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    count: int,
    apart_deg: float = 0.0,
) -> Poses:
    """Return the best poses of each image, with the best amplitude, none near a better one.

    Parameters
    ----------
    images
        B images.
    maps
        (C, D, D, D).
    rotations
        (R, 3, 3); each also turned by 180 degrees in the plane.
    shifts
        (S, 2) pixels of the box.
    count
        How many.
    apart_deg
        Least angle between poses with one map.
    """
    many = count if apart_deg <= 0 else 16 * count

    def take(score: Tensor) -> Tensor:
        return score.topk(min(many, len(score)), dim=0).indices.T

    found = _search(images, maps, rotations, shifts, take, normalised=True)
    return found if apart_deg <= 0 else _apart(found, count, apart_deg)


def _search(
    images: Coefficients,
    maps: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    take: Callable[[Tensor], Tensor],
    normalised: bool,
) -> Poses:
    """Score all images, a part at a time, and take poses from each table of scores."""
    count, grid = len(maps), len(rotations)
    references = make_references(maps, float(images.radius[-1]))
    which = torch.arange(count).repeat_interleave(grid)
    slices = sample(references, which, turned(images.frequency, rotations).repeat(count, 1, 1))
    energy = 2 * (slices.real.square() + slices.imag.square())
    flat = torch.cat([shifts, torch.zeros(len(shifts), 1)], 1)
    moving = phases(images.frequency, -flat)
    step = max(1, NUMBERS_AT_ONCE // (len(slices) * len(shifts)))
    parts = []
    for first in range(0, len(images), step):
        part = images.rows(slice(first, first + step))
        data = ((part.value * part.transfer)[None] * moving[:, None]).flatten(0, 1)  # (S B, K)
        real, imaginary = 2 * slices.real @ data.real.T, 2 * slices.imag @ data.imag.T
        shape = (len(slices), len(shifts), len(part))
        same = (real + imaginary).view(shape).amax(1)
        mate = (real - imaginary).view(shape).amax(1)
        norm = (energy @ part.transfer.square().T).repeat(2, 1)
        score = pose_score(torch.cat([same, mate]), norm, normalised)  # (2 C R, B)
        index = take(score)
        row, mated = index % len(slices), index >= len(slices)
        chosen = slices[row]
        chosen = torch.where(mated[..., None], chosen.conj(), chosen)
        at = torch.einsum("bmk,sbk->bms", chosen.conj(), data.view(*shape[1:], -1))
        rotation = rotations[row % grid]
        turned_over = HALF_TURN.to(rotation) @ rotation
        rotation = torch.where(mated[..., None, None], turned_over, rotation)
        shift = shifts[at.real.argmax(-1)]
        parts.append(Poses(rotation, shift, row // grid, score.T.gather(1, index)))
    return Poses(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _apart(poses: Poses, count: int, angle_deg: float) -> Poses:
    """Keep the best poses, none of them nearer than an angle to a better one with its map."""
    alive, rows = poses.score.clone(), torch.arange(len(poses.score))
    limit = 1 + 2 * math.cos(math.radians(angle_deg))
    kept = []
    for _ in range(count):
        best = alive.argmax(1)
        kept.append(best)
        here = poses.rotation[rows, best]
        trace = torch.einsum("bij,bmij->bm", here, poses.rotation)
        own = poses.class_index == poses.class_index[rows, best][:, None]
        alive.masked_fill_((trace > limit) & own, -math.inf)
        alive[rows, best] = -math.inf
    index = torch.stack(kept, 1)
    pick = [part[rows[:, None], index] for part in poses]
    return Poses(*pick)
