"""A codebook: a few contents that represent many, and poses of volumes by comparison with it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.reference import (
    References,
    make_references,
    read_side_by_side,
    side_by_side,
)
from modpose.geometry.groups import grid_spacing, so3_grid
from modpose.geometry.pose import Pose
from modpose.model.settings import SpaceSearch
from modpose.search.look_alikes import LookAlikes, look_alikes
from modpose.search.so3_climb import PosedVolumes, climb
from modpose.search.so3_search import pose_score, search, shift_grid

ROUNDS = 20
TURNS = 1
"""Rotations that leave a volume nearly unchanged; they are tried on the best pose."""
SHIFT_STEP, GRID_LIMIT = 0.33, 0.15
"""Step of the searched shifts, in periods of the highest frequency (cycles per voxel)."""


def centres_of(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the centres of groups of points, by Lloyd's algorithm from the farthest points.

    Parameters
    ----------
    points
        (N, k).
    count
        Largest number of groups; never more than points.

    Returns
    -------
    centres, group
        (C, k), and (N,) int64.
    """
    centres = points.mean(0, keepdim=True)
    for _ in range(min(count, len(points)) - 1):
        farthest = torch.cdist(points, centres).amin(1).argmax()
        centres = torch.cat([centres, points[farthest][None]])
    for _ in range(ROUNDS):
        group = torch.cdist(points, centres).argmin(1)
        size = torch.bincount(group, minlength=len(centres))[:, None]
        total = torch.zeros_like(centres).index_add_(0, group, points)
        centres = torch.where(size > 0, total / size.clamp(min=1), centres)
    return centres, group


class RankedPoses(NamedTuple):
    """Poses of B volumes, K each, the most promising first.

    Attributes
    ----------
    rotation, shift
        (B, K, 3, 3) and (B, K, 3) voxels.
    which
        (B, K) int64, the volume of the codebook that each shows.
    """

    rotation: Tensor
    shift: Tensor
    which: Tensor


class Codebook(NamedTuple):
    """The volumes that the model predicts for H contents.

    Attributes
    ----------
    volumes
        (H, D, D, D).
    references
        Their Fourier coefficients, with derivatives.
    low
        Their low-frequency coefficients, side by side.
    turns
        Rotations that leave the volumes nearly unchanged.
    """

    volumes: Tensor
    references: References
    low: References
    turns: LookAlikes

    @classmethod
    def of(cls, volumes: Tensor, low: float, limit: float) -> Codebook:
        """Transform volumes up to two frequency limits, cycles per voxel."""
        return cls(
            volumes,
            make_references(volumes, limit, slopes=True),
            side_by_side(make_references(volumes, low)),
            look_alikes(volumes, TURNS),
        )

    def best(self, low: Coefficients, pose: Pose, count: int) -> RankedPoses:
        """Compare poses (B, P) of volumes at low frequencies; keep the best ``count``."""
        n, proposals = pose.shift.shape[:2]
        owner = torch.arange(n, device=low.value.device).repeat_interleave(proposals)
        rotation, shift = pose.rotation.flatten(0, 1), pose.shift.flatten(0, 1)
        model = read_side_by_side(self.low, low.frequency, rotation)  # (B P, freq, H)
        transfer = low.transfer if low.shared else low.transfer[owner]
        target = low.value[owner] * (phases(low.frequency, -shift) * transfer)
        inner = 2 * (model.conj() * target[..., None]).real.sum(1)
        norm = 2 * (model * transfer[..., None]).abs().square().sum(1)
        score, which = pose_score(inner, norm, True).max(-1)
        place = score.reshape(n, proposals).topk(min(count, proposals), dim=1).indices
        rows = torch.arange(n)[:, None]
        shown = which.reshape(n, proposals).gather(1, place)
        return RankedPoses(pose.rotation[rows, place], pose.shift[rows, place], shown)

    def searched(self, seen: Coefficients, thorough: SpaceSearch, reach: float) -> RankedPoses:
        """Compare volumes at every rotation and shift of a grid."""
        low = seen.within(min(GRID_LIMIT, float(seen.radius[-1])))
        limit = float(low.radius[-1])
        few = max(1, -(-thorough.hypotheses // len(self.volumes)))
        found = search(
            low,
            make_references(self.volumes, limit),
            so3_grid(thorough.rotations).float(),
            shift_grid(reach, SHIFT_STEP / limit),
            top=few,
            apart=1.5 * grid_spacing(thorough.rotations),
        )
        score = found.score.flatten(1)
        place = score.topk(min(thorough.hypotheses, score.shape[1]), dim=1).indices
        rows = torch.arange(len(seen))[:, None]
        rotation, shift = found.rotation.flatten(1, 2), found.shift.flatten(1, 2)
        return RankedPoses(rotation[rows, place], shift[rows, place], place // few)

    def climbed(
        self, seen: Coefficients, shown: RankedPoses, steps: int, reach: float
    ) -> PosedVolumes:
        """Optimise poses, and poses that look like the best one; (B (K + TURNS)), by volume."""
        return self._climbed_from(seen, self._with_look_alikes(shown), steps, reach)

    def climbed_twice(
        self,
        seen: Coefficients,
        shown: RankedPoses,
        limit: float,
        steps: tuple[int, int],
        reach: float,
    ) -> PosedVolumes:
        """Optimise as :meth:`climbed`, first up to a frequency limit, then the best K on all."""
        tried = self._with_look_alikes(shown)
        first = self._climbed_from(seen.within(limit), tried, steps[0], reach)
        shape, count = tried.which.shape, shown.which.shape[1]
        place = first.score.reshape(shape).topk(count, dim=1).indices
        rows = torch.arange(shape[0])[:, None]
        best = RankedPoses(
            first.rotation.reshape(*shape, 3, 3)[rows, place],
            first.shift.reshape(*shape, 3)[rows, place],
            tried.which[rows, place],
        )
        return self._climbed_from(seen, best, steps[1], reach)

    def _climbed_from(
        self, seen: Coefficients, shown: RankedPoses, steps: int, reach: float
    ) -> PosedVolumes:
        owner = torch.arange(len(seen), device=seen.value.device)
        owner = owner.repeat_interleave(shown.which.shape[1])
        start = (shown.which.flatten(), shown.rotation.flatten(0, 1), shown.shift.flatten(0, 1))
        return climb(seen, self.references, owner, *start, steps=steps, reach=reach)

    def _with_look_alikes(self, shown: RankedPoses) -> RankedPoses:
        """Add poses that look like the best one, (B, K + TURNS)."""
        first = shown.which[:, 0]
        turns = self.turns.of(first, shown.rotation[:, 0], shown.shift[:, 0])
        return RankedPoses(
            torch.cat([shown.rotation, turns[0]], 1),
            torch.cat([shown.shift, turns[1]], 1),
            torch.cat([shown.which, first[:, None].expand(-1, TURNS)], 1),
        )
