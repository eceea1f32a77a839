"""Poses of images by search: the posterior over a pose grid, its modes, and their weights.

The grid is coarse (:mod:`modpose.infer.grid`); its best local maxima are then optimised on the
full image by Fisher scoring, and weighted by Laplace's approximation: density at the maximum times
the volume of the Gaussian with the same curvature.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from modpose.errors import InputError
from modpose.geometry.rotations import wrap
from modpose.infer.climb import LocalMaxima, PoseOptimizer
from modpose.infer.grid import PoseGrid, log_likelihood_grid, log_prior
from modpose.model.latents import Latents
from modpose.model.settings import SearchSettings

if TYPE_CHECKING:
    from modpose.data.batches import Batch
    from modpose.model.vae import Vae

GRID_NUMBERS = 1 << 22
"""Numbers of the rotated predictions of a grid that are held in memory at once."""


class PoseModes(NamedTuple):
    """The distinct modes of p(pose | image, content), most probable first.

    Where an image has fewer than K, the last ones repeat the first with ``log_weight`` -inf.

    Attributes
    ----------
    angle
        (B, K) radians in (-pi, pi].
    shift
        (B, K, 2) pixels (x, y).
    log_weight
        (B, K) log posterior probability of each mode; they sum to one over K.
    angle_std, shift_std
        (B, K) radians and (B, K, 2) pixels: the width of each mode along one coordinate while the
        others are fixed, so that a Gaussian of these widths fits inside it.
    hypothesis
        (B, K) int64, the content hypothesis of each mode.
    """

    angle: Tensor
    shift: Tensor
    log_weight: Tensor
    angle_std: Tensor
    shift_std: Tensor
    hypothesis: Tensor


class Candidates(NamedTuple):
    """Poses to optimise: (B, K), (B, K, 2), and the log posterior and hypothesis of each."""

    angle: Tensor
    shift: Tensor
    log_posterior: Tensor
    hypothesis: Tensor


def modes_of(
    vae: Vae,
    batch: Batch,
    z: Tensor,
    settings: SearchSettings | None = None,
    start: tuple[Tensor, Tensor] | None = None,
) -> PoseModes:
    """Find the distinct poses that explain each image, with their posterior weights.

    Parameters
    ----------
    vae
        A model of 2-D images with an inferred rotation or shift.
    batch
        B images.
    z
        (B, H, z_dim) hypotheses of the content, or (1, H, z_dim) where all images share them.
    settings
        Of the search.
    start
        Angle (B,) and shift (B, 2) of one more pose to consider, with the first hypothesis.

    Raises
    ------
    InputError
        If the model has no pose in two dimensions to search for.
    """
    check_searchable(vae)
    settings = settings or SearchSettings()
    with torch.no_grad():
        found = grid_candidates(vae, batch, z, settings)
    if start is not None:
        first = torch.zeros_like(found.hypothesis[:, :1])
        nothing = torch.full_like(found.log_posterior[:, :1], -math.inf)
        more = Candidates(start[0][:, None], start[1][:, None], nothing, first)
        if settings.climb_steps:
            found = Candidates(*(torch.cat(pair, 1) for pair in zip(found, more, strict=True)))
    climber = PoseOptimizer(vae, batch, z, reach=reach_of(vae, settings))
    tops = climber.climb(found.angle, found.shift, found.hypothesis, settings.climb_steps)
    if not settings.climb_steps:
        tops = tops._replace(value=found.log_posterior)
    merge = (2.5 * math.pi / settings.angles, spacing_of(vae, settings))
    return _distinct(tops, found, merge, settings.modes)


@torch.no_grad()
def content_modes(vae: Vae, batch: Batch, z: Tensor, settings: SearchSettings) -> PoseModes:
    """Weight hypotheses of content alone, if poses are given; the best are the modes.

    Parameters
    ----------
    vae, batch, settings
        As in :func:`modes_of`.
    z
        (B, H, z_dim) hypotheses, or (1, H, z_dim) where all images share them.
    """
    z = z.expand(len(batch), -1, -1)
    still, none = z.new_zeros(*z.shape[:2], 2), z.new_zeros(*z.shape[:2], dtype=torch.int64)
    one = [slice(h, h + 1) for h in range(z.shape[1])]
    nats = [
        vae.log_likelihood(batch, Latents(z[:, h], still[:, h, 0], still[:, h], none[:, h]))
        for h in one
    ]
    density = torch.cat(nats, dim=1) - 0.5 * z.square().sum(-1)
    best, which = density.topk(min(settings.modes, z.shape[1]), dim=1)
    still = still[:, : which.shape[1]]
    width = torch.ones_like(still)
    return PoseModes(still[..., 0], still, best.log_softmax(-1), width[..., 0], width, which)


def check_searchable(vae: Vae) -> None:
    """Refuse models without a pose in two dimensions, unless poses are given."""
    if vae.imaging.poses_given:
        return
    if len(vae.shape) != 2:
        raise InputError.of("search", "the data", f"{len(vae.shape)}-D", "images: poses are 2-D")
    if vae.layout.scale.inferred:
        found, expected = "log-normal", "none: the search knows one scale"
        raise InputError.of("search", "model.scale.prior", found, expected)
    if vae.layout.reflects:
        found, expected = "uniform", "none: the search knows no mirror images"
        raise InputError.of("search", "model.reflection.prior", found, expected)
    if not (infers_angle(vae) or infers_shift(vae)):
        raise InputError("search: the model infers neither rotation nor shift, there is no pose")


def infers_angle(vae: Vae) -> bool:
    """Whether rotation is a latent variable of the model."""
    return vae.layout.rotation.inferred


def infers_shift(vae: Vae) -> bool:
    """Whether shift is a latent variable of the model."""
    return vae.layout.shift.inferred


def spacing_of(vae: Vae, settings: SearchSettings) -> float:
    """Pixels between nodes of the coarse lattice."""
    return max(1.0, max(vae.shape) / settings.nodes)


def reach_of(vae: Vae, settings: SearchSettings) -> float:
    """Largest shift along an axis that is searched, pixels."""
    return min(settings.reach_std * vae.layout.shift.std, max(vae.shape) / 2)


# --- the grid ---------------------------------------------------------------------------------


def grid_candidates(vae: Vae, batch: Batch, z: Tensor, settings: SearchSettings) -> Candidates:
    """Return the best local maxima of the posterior on the coarse grid, ``settings.modes`` each."""
    angles = settings.angles if infers_angle(vae) else 1
    reach, spacing = reach_of(vae, settings), spacing_of(vae, settings)
    side = max(vae.shape) / spacing + 2 * reach / spacing
    few = max(1, int(GRID_NUMBERS / (angles * z.shape[1] * (vae.channels + 1) * side**2)))
    parts = []
    for first in range(0, len(batch), few):
        rows = torch.arange(first, min(first + few, len(batch)), device=z.device)
        content = z if len(z) == 1 else z[rows]
        grid = log_likelihood_grid(
            vae, batch.rows(rows), content, angles=angles, reach=reach, spacing=spacing
        )
        parts.append(_maxima(vae, grid, settings.modes))
    return Candidates(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _maxima(vae: Vae, grid: PoseGrid, count: int) -> Candidates:
    """Pick the best local maxima over angle and shift, and refine them by parabolas."""
    score, hypothesis = grid.log_likelihood.max(1)
    mesh = torch.meshgrid(grid.angle, grid.shift_y, grid.shift_x, indexing="ij")
    angle, shift = wrap(mesh[0]), torch.stack([mesh[2], mesh[1]], dim=-1)
    score = score + log_prior(vae, angle, shift)
    is_top = _is_top(score)
    flat = score.masked_fill(~is_top, -math.inf).flatten(1)
    best, place = flat.topk(min(count, flat.shape[1]), dim=1)
    offset, rise = [], torch.zeros_like(best)
    for axis in (1, 2, 3):
        low, high = (_neighbour(score, axis, step).flatten(1).gather(1, place) for step in (-1, 1))
        bend = (2 * best - low - high).clamp(min=1e-6)
        inside = torch.isfinite(low) & torch.isfinite(high) & torch.isfinite(best)
        slope = torch.where(inside, 0.5 * (high - low), 0.0)
        offset.append((slope / bend).clamp(-0.5, 0.5))
        rise = rise + torch.where(inside, 0.5 * slope * offset[-1], 0.0)
    turn = grid.angle[1] if len(grid.angle) > 1 else 0.0
    step_px = grid.shift_x[1] - grid.shift_x[0] if len(grid.shift_x) > 1 else 0.0
    top_shift = shift.flatten(0, 2)[place] + step_px * torch.stack([offset[2], offset[1]], dim=-1)
    return Candidates(
        angle=wrap(angle.flatten()[place] + turn * offset[0]),
        shift=top_shift,
        log_posterior=best + rise,
        hypothesis=hypothesis.flatten(1).gather(1, place),
    )


def _is_top(score: Tensor) -> Tensor:
    """Find the nodes (B, A, Sy, Sx) that are not lower than any neighbour along an axis."""
    is_top = score >= score.roll(1, 1)
    is_top &= score >= score.roll(-1, 1)
    for axis in (2, 3):
        steps = score.shape[axis] - 1
        if steps:
            low, high = score.narrow(axis, 0, steps), score.narrow(axis, 1, steps)
            is_top.narrow(axis, 1, steps).logical_and_(high >= low)
            is_top.narrow(axis, 0, steps).logical_and_(low >= high)
    return is_top


def _neighbour(score: Tensor, axis: int, step: int) -> Tensor:
    """Score of the next node along an axis; angles (axis 1) are periodic; -inf outside."""
    moved = score.roll(-step, axis)
    if axis > 1:
        moved.select(axis, -1 if step == 1 else 0).fill_(-math.inf)
    return moved


# --- what is distinct ---------------------------------------------------------------------------


def _distinct(
    tops: LocalMaxima, found: Candidates, merge: tuple[float, float], count: int
) -> PoseModes:
    """Drop modes that are equal to a better one, weight the rest and sort them."""
    weight = torch.where(torch.isfinite(tops.value), tops.value + tops.log_volume, -math.inf)
    order = weight.argsort(dim=1, descending=True)
    weight = weight.gather(1, order)
    angle, shift = tops.angle.gather(1, order), _rows(tops.shift, order)
    turned = wrap(angle[:, :, None] - angle[:, None]).abs()
    moved = (shift[:, :, None] - shift[:, None]).abs().amax(-1)
    same = (turned < merge[0]) & (moved < merge[1])
    keep = torch.isfinite(weight)
    keep[:, 0] = True
    for k in range(1, keep.shape[1]):
        keep[:, k] &= ~(same[:, k, :k] & keep[:, :k]).any(1)
    weight = weight.masked_fill(~keep, -math.inf)
    final = weight.argsort(dim=1, descending=True, stable=True)[:, :count]
    weight = weight.gather(1, final)
    final = torch.where(torch.isfinite(weight), final, final[:, :1])
    place = order.gather(1, final)
    return PoseModes(
        angle=wrap(tops.angle.gather(1, place)),
        shift=_rows(tops.shift, place),
        log_weight=weight.log_softmax(1),
        angle_std=tops.angle_std.gather(1, place),
        shift_std=_rows(tops.shift_std, place),
        hypothesis=found.hypothesis.gather(1, place),
    )


def _rows(values: Tensor, place: Tensor) -> Tensor:
    return values.gather(1, place.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
