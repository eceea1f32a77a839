"""Scores of images at every rotation and shift of a grid, and poses taken from them.

A turn by 180 degrees in the plane of the image conjugates a central slice, so half of the rotations
give the scores of all: with G+ = Re m Re d and G- = Im m Im d, the two are G+ + G- and G+ - G-.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.devices import HOST, at_once, near
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


class Cells(NamedTuple):
    """M cells of the grid for each of B images.

    Attributes
    ----------
    row
        (B, M) int64 reference.
    half_turn
        (B, M) whether it is turned by 180 degrees in the plane.
    shift
        (B, M, 2) pixels of the box.
    score
        (B, M) nats.
    """

    row: Tensor
    half_turn: Tensor
    shift: Tensor
    score: Tensor

    def to(self, device: torch.device) -> Cells:
        """Move to a device."""
        return Cells(*(part.to(device) for part in self))

    def rows(self, index: Tensor) -> Cells:
        """Keep some images."""
        return Cells(*(part[index] for part in self))


def draw_poses(
    images: Coefficients,
    maps: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Poses:
    """Draw poses from the posterior over a grid, each at its best shift."""
    take = partial(draw_from_scores, draws=draws, generator=generator)
    return _search(images, maps, rotations, shifts, take, normalised=False)


def draw_from_scores(score: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Draw places (B, draws) in proportion to the exponential of scores (R, B)."""
    weight = (score - score.amax(0)).exp()
    if weight.device == HOST:
        return torch.multinomial(weight.T, draws, replacement=True, generator=generator)
    below = weight.T.cumsum(1)
    drawn = torch.rand(len(below), draws, generator=generator).to(below) * below[:, -1:]
    return torch.searchsorted(below, drawn).clamp(max=below.shape[1] - 1)


def best_poses(
    images: Coefficients,
    maps: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    count: int,
    apart_deg: float = 0.0,
    any_map: bool = False,
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
    any_map
        Between poses with different maps, too.
    """
    many = count if apart_deg <= 0 else 16 * count

    def take(score: Tensor) -> Tensor:
        return score.topk(min(many, len(score)), dim=0).indices.T

    found = _search(images, maps, rotations, shifts, take, normalised=True)
    return found if apart_deg <= 0 else _apart(found, count, apart_deg, any_map)


def _search(
    images: Coefficients,
    maps: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    take: Callable[[Tensor], Tensor],
    normalised: bool,
) -> Poses:
    """Score all images at a grid of poses, and take poses from each table of scores."""
    count, grid = len(maps), len(rotations)
    references = make_references(maps, float(images.radius[-1]))
    which = torch.arange(count).repeat_interleave(grid)
    slices = sample(references, which, turned(images.frequency, rotations).repeat(count, 1, 1))
    found = search_slices(images, slices, shifts, take, normalised)
    rotation = rotations[found.row % grid]
    turned_over = HALF_TURN.to(rotation) @ rotation
    rotation = torch.where(found.half_turn[..., None, None], turned_over, rotation)
    return Poses(rotation, found.shift, found.row // grid, found.score)


def search_slices(
    images: Coefficients,
    slices: Tensor,
    shifts: Tensor,
    take: Callable[[Tensor], Tensor],
    normalised: bool,
) -> Cells:
    """Score all images against references, and take cells from each table of scores.

    Parameters
    ----------
    images
        B images, a part at a time.
    slices
        (R, K) references; each also turned by 180 degrees in the plane.
    shifts
        (S, 2) pixels of the box; each score is that of the best of these.
    take
        From scores (2 R, b) to the indices (b, M) of those to return.
    normalised
        Whether scores are those of the best amplitude.
    """
    home, device = images.value.device, near(images.value)
    slices, shifts = slices.to(device), shifts.to(device)
    energy = 2 * (slices.real.square() + slices.imag.square())
    flat = torch.cat([shifts, shifts.new_zeros(len(shifts), 1)], 1)
    moving = phases(images.frequency.to(device), -flat)
    step = max(1, at_once(NUMBERS_AT_ONCE, device) // (len(slices) * len(shifts)))
    parts = []
    for first in range(0, len(images), step):
        part = images.rows(slice(first, first + step)).to(device)
        data = ((part.value * part.transfer)[None] * moving[:, None]).flatten(0, 1)  # (S B, K)
        real, imaginary = 2 * slices.real @ data.real.T, 2 * slices.imag @ data.imag.T
        shape = (len(slices), len(shifts), len(part))
        same = (real + imaginary).view(shape).amax(1)
        mate = (real - imaginary).view(shape).amax(1)
        norm = (energy @ part.transfer.square().T).repeat(2, 1)
        score = pose_score(torch.cat([same, mate]), norm, normalised)  # (2 R, B)
        index = take(score)
        row, mated = index % len(slices), index >= len(slices)
        chosen = slices[row]
        chosen = torch.where(mated[..., None], chosen.conj(), chosen)
        at = torch.einsum("bmk,sbk->bms", chosen.conj(), data.view(*shape[1:], -1))
        found = row, mated, shifts[at.real.argmax(-1)], score.T.gather(1, index)
        parts.append([each.to(home) for each in found])
    return Cells(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _apart(poses: Poses, count: int, angle_deg: float, any_map: bool = False) -> Poses:
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
        alive.masked_fill_((trace > limit) & (own | any_map), -math.inf)
        alive[rows, best] = -math.inf
    index = torch.stack(kept, 1)
    pick = [part[rows[:, None], index] for part in poses]
    return Poses(*pick)
