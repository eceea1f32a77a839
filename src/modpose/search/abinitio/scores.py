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
from modpose.fourier.reference import make_references, read_side_by_side, side_by_side
from modpose.search.so3_search import pose_score

NUMBERS_AT_ONCE = 1 << 22
TILE = 1 << 18
"""Numbers of a matrix product that stay in a cache until they are compared."""
BLOCK = 32
"""Scores that are summed, or whose highest is taken, before places among them are found."""
NEVER = -60.0
"""Nats below the best at which a pose is never drawn; smaller exponentials are slow to compute."""
UNLIKELY = 0.1, 4.0
"""A map is unlikely for an image where its score is lower than the best by so much of this and so
many nats."""
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


class SeveralPoses(NamedTuple):
    """Poses of N images where several are nearly equally probable, the best first.

    Attributes
    ----------
    rotation, shift
        (N, H, 3, 3), and (N, H, 2) pixels of the images.
    number
        (N,) int64 how many of these an image has.
    """

    rotation: Tensor
    shift: Tensor
    number: Tensor

    @classmethod
    def empty(cls, count: int, most: int) -> SeveralPoses:
        """Make room for ``most`` poses of each of so many images."""
        rotation, shift = torch.zeros(count, most, 3, 3), torch.zeros(count, most, 2)
        return cls(rotation, shift, torch.zeros(count, dtype=torch.int64))


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
    likely: Tensor | None = None,
) -> Poses:
    """Draw poses from the posterior over a grid, each at its best shift.

    ``likely`` (B, C) says which maps are compared with an image; by default, all are.
    """
    take = partial(draw_from_scores, draws=draws, generator=generator)
    return _search(images, maps, rotations, shifts, take, normalised=False, likely=likely)


def draw_from_scores(score: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Draw places (B, draws) in proportion to the exponential of scores (R, B)."""
    weight = (score - score.amax(0)).clamp_(min=NEVER).exp_()
    blocks = _blocks(weight, 0.0)
    block = _drawn(blocks.sum(1).T, draws, generator)  # (B, draws)
    rows = torch.arange(len(block), device=block.device)
    within = blocks[block, :, rows[:, None]].flatten(0, 1)
    place = _drawn(within, 1, generator).view(block.shape)
    return (block * BLOCK + place).clamp(max=len(score) - 1)


def _drawn(weight: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Draw places (B, draws) in proportion to weights (B, R)."""
    if weight.device == HOST:
        return torch.multinomial(weight, draws, replacement=True, generator=generator)
    below = weight.cumsum(1)
    drawn = torch.rand(len(below), draws, generator=generator).to(below) * below[:, -1:]
    return torch.searchsorted(below, drawn).clamp(max=below.shape[1] - 1)


def _blocks(score: Tensor, empty: float) -> Tensor:
    """Rows (R, B) in blocks, (blocks, BLOCK, B), the last of them filled up."""
    missing = -len(score) % BLOCK
    if missing:
        score = torch.nn.functional.pad(score, (0, 0, 0, missing), value=empty)
    return score.view(-1, BLOCK, score.shape[1])


def highest_scores(score: Tensor, count: int) -> Tensor:
    """Places (B, M) of the highest of scores (R, B), at most so many, best first."""
    blocks = _blocks(score, -math.inf)
    count = min(count, len(score))
    if len(blocks) <= count:
        return score.topk(count, dim=0).indices.T
    block = blocks.amax(1).topk(count, dim=0).indices  # no others hold any of the highest
    within = torch.arange(BLOCK, device=score.device)
    place = (block[:, None] * BLOCK + within[:, None]).flatten(0, 1)
    seen = blocks.flatten(0, 1).gather(0, place)
    return place.gather(0, seen.topk(count, dim=0).indices).T


def best_poses(
    images: Coefficients,
    maps: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    count: int,
    apart_deg: float = 0.0,
    any_map: bool = False,
    likely: Tensor | None = None,
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
    likely
        (B, C) which maps are compared with an image; by default, all are.
    """
    many = count if apart_deg <= 0 else 16 * count

    def take(score: Tensor) -> Tensor:
        return highest_scores(score, many)

    found = _search(images, maps, rotations, shifts, take, normalised=True, likely=likely)
    return found if apart_deg <= 0 else _apart(found, count, apart_deg, any_map)


def scores_by_map(images: Coefficients, maps: Tensor, rotations: Tensor, shifts: Tensor) -> Tensor:
    """Log-likelihood (B, C) of images at the best pose with each map, with the best amplitude."""
    each = [best_poses(images, one[None], rotations, shifts, 1).score for one in maps]
    return torch.cat(each, 1)


def likely_maps(
    images: Coefficients, maps: Tensor, rotations: Tensor, shifts: Tensor
) -> Tensor | None:
    """Which maps (B, C) may explain an image, from a coarse grid; None for one map."""
    if len(maps) == 1:
        return None
    score = scores_by_map(images, maps, rotations, shifts)
    best = score.amax(1, keepdim=True)
    return score > best - UNLIKELY[0] * best - UNLIKELY[1]


def _search(
    images: Coefficients,
    maps: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    take: Callable[[Tensor], Tensor],
    normalised: bool,
    likely: Tensor | None,
) -> Poses:
    """Score all images at a grid of poses, and take poses from each table of scores."""
    count, grid = len(maps), len(rotations)
    references = side_by_side(make_references(maps, float(images.radius[-1])))
    slices = read_side_by_side(references, images.frequency, rotations).view(grid, -1, count)
    slices = slices.movedim(2, 0).flatten(0, 1)
    found = search_slices(images, slices, shifts, take, normalised, likely)
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
    likely: Tensor | None = None,
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
    likely
        (B, C) which of C equal groups of references are compared with an image.
    """
    home, device = images.value.device, near(images.value)
    slices, shifts = slices.to(device), shifts.to(device)
    energy = 2 * (slices.real.square() + slices.imag.square())
    flat = torch.cat([shifts, shifts.new_zeros(len(shifts), 1)], 1)
    moving = phases(images.frequency.to(device), -flat)
    step = max(
        1,
        at_once(NUMBERS_AT_ONCE, device) // (2 * len(slices) + 16 * slices.shape[1] * len(shifts)),
    )
    doubled = (2 * slices.real).contiguous(), (2 * slices.imag).contiguous()
    parts = []
    for first in range(0, len(images), step):
        part = images.rows(slice(first, first + step)).to(device)
        data = ((part.value * part.transfer)[None] * moving[:, None]).flatten(0, 1)  # (S B, K)
        norm = (energy @ part.transfer.square().T).repeat(2, 1)
        some = None if likely is None else likely[first : first + step].to(device)
        highest = _highest(doubled, data, len(shifts), some)
        score = pose_score(highest, norm, normalised)  # (2 R, B)
        if some is not None:
            groups = score.view(2, some.shape[1], -1, len(part))
            groups.masked_fill_(~some.T[None, :, None], -math.inf)
        index = take(score)
        row, mated = index % len(slices), index >= len(slices)
        chosen = slices[row]
        chosen = torch.where(mated[..., None], chosen.conj(), chosen)
        moved = data.view(len(shifts), len(part), -1)
        at = torch.einsum("bmk,sbk->bms", chosen.conj(), moved)
        found = row, mated, shifts[at.real.argmax(-1)], score.T.gather(1, index)
        parts.append([each.to(home) for each in found])
    return Cells(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _highest(
    slices: tuple[Tensor, Tensor], data: Tensor, shifts: int, likely: Tensor | None
) -> Tensor:
    """Highest inner product (2 R, B) of slices, then of these turned over, with shifted images.

    ``slices`` are real and imaginary parts (R, K); ``data`` (S B, K) are S shifts of B images.
    """
    count, moved = len(slices[0]), data.view(shifts, -1, data.shape[1])
    found = slices[0].new_zeros(2, count, moved.shape[1])
    groups = 1 if likely is None else likely.shape[1]
    for group in range(groups):
        own = slice(None) if likely is None else likely[:, group].nonzero().squeeze(1)
        seen = moved[:, own].flatten(0, 1)
        if not len(seen):
            continue
        real, imaginary = seen.real.T.contiguous(), seen.imag.T.contiguous()
        tile = max(1, at_once(TILE, data.device) // len(seen))
        last = (group + 1) * count // groups
        for first in range(group * count // groups, last, tile):
            rows = slice(first, min(first + tile, last))
            even, odd = slices[0][rows] @ real, slices[1][rows] @ imaginary
            shape = (len(even), shifts, -1)
            found[0, rows, own] = (even + odd).view(shape).amax(1)
            found[1, rows, own] = even.sub_(odd).view(shape).amax(1)
    return found.flatten(0, 1)


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
