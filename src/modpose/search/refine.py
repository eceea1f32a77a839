"""Refinement in two halves that share only their start.

Every volume is compared only with averages of its own half.  The agreement of the halves
(gold-standard Fourier shell correlation) sets the frequency limit and the filter of each shell.
A volume is left out of the average that it is compared with, which contains its noise and would
favour the present pose.  Averages are compared within the region of the molecule: the noise around
it would move poses, and more so with each round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients, map_coefficients
from modpose.fourier.fsc import fsc_of_classes, resolution_shell, ssnr_of
from modpose.fourier.insertion import FourierSums, averages
from modpose.fourier.reference import make_references
from modpose.geometry.rotations import geodesic, haar_rotations
from modpose.search.classify import (
    Assignment,
    Schedule,
    State,
    best_of,
    climb_poses,
    generator_of,
    grid_poses,
)
from modpose.search.look_alikes import APART_DEG, LookAlikes, look_alikes
from modpose.search.shared import row_by_row, sums_of_all
from modpose.search.so3_climb import climb
from modpose.search.solvent import molecule_within

BEYOND = 2
"""Number of shells that a round uses beyond the present resolution."""
SEARCHED_AGAIN = (0, 2)
"""Rounds that search all poses and classes again; the others start from the last poses."""
TURNED = (1, 3, 5, 7)
"""Rounds that also try look-alikes; each makes the average, and with it the next decision, better.
"""
SETTLED = 0.005
"""These rounds end when a smaller share of every class changes."""
TURNS = 3
"""Number of look-alikes that are tried."""
FOLDS = 3
"""Number of folds of a half; each volume is compared with averages of the other folds."""
LARGEST_MOVE = 3.0
"""Largest shift on an axis of a half's frame, voxels."""
JOIN_LIMIT = 0.2
"""Highest frequency for aligning the frames of the halves, cycles per voxel."""


class HalfMaps(NamedTuple):
    """Averages of two independent halves, in one frame.

    Attributes
    ----------
    first, second
        (C, D, D, D), each filtered by the agreement of both.
    plain_first, plain_second
        (C, D, D, D), wedges compensated, not filtered; for the correlation.
    combined
        (C, D, D, D) average of all volumes.
    fsc
        (C, shells).
    """

    first: Tensor
    second: Tensor
    plain_first: Tensor
    plain_second: Tensor
    combined: Tensor
    fsc: Tensor


def split_in_halves(class_index: Tensor, generator: torch.Generator) -> Tensor:
    """Draw half 0 or 1 for each volume, equally many in every class; (N,) int64."""
    half = torch.empty_like(class_index)
    for k in torch.unique(class_index):
        members = (class_index == k).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        half[members[order]] = torch.arange(len(members)) % 2
    return half


def half_maps(
    data: Coefficients, assignment: Assignment, half: Tensor, classes: int, mask: Tensor
) -> HalfMaps:
    """Average the halves at their poses."""
    sums = sums_of_all(
        data, 2 * assignment.class_index + half, 2 * classes, assignment.rotation, assignment.shift
    )
    slots = torch.arange(0, 2 * classes, 2)
    first, second = sums.slots(slots), sums.slots(slots + 1)
    plain_first = averages(first, data.box, mask)
    plain_second = averages(second, data.box, mask)
    fsc = fsc_of_classes(plain_first, plain_second)
    fsc[:, first.highest_shell + 1 :] = 0.0
    ratio = ssnr_of(fsc, halved=False)

    def filtered(part: FourierSums) -> Tensor:
        return averages(part, data.box, mask, ratio)

    combined = averages(first + second, data.box, mask, 2 * ratio)
    return HalfMaps(filtered(first), filtered(second), plain_first, plain_second, combined, fsc)


def refine(
    data: Coefficients,
    state: State,
    *,
    mask: Tensor,
    reach: float,
    schedule: Schedule | None = None,
    seed: int = 0,
    half: Tensor | None = None,
    report: Callable[[State], None] | None = None,
) -> tuple[State, HalfMaps, Tensor]:
    """Refine poses and classes in two independent halves.

    Parameters
    ----------
    data
        N volumes.
    state
        The state at the end of the search.
    mask, reach, schedule, seed
        As in :func:`modpose.search.classify.classify`.
    half
        (N,) int64 0 or 1, the half of each volume; drawn at random, evenly in each class, by
        default.
    report
        Called after every round.

    Returns
    -------
    state, maps, half
        The assignment with the combined averages and the independent halves' correlation; the
        averages of the halves; and (N,) the half of each volume.
    """
    schedule = schedule or Schedule()
    generator = generator_of(seed, schedule.rounds + 1)
    assignment, classes = state.assignment, len(state.volumes)
    if half is None:
        half = split_in_halves(assignment.class_index, generator)
    limit = schedule.limits[1]
    maps = half_maps(data.within(limit), assignment, half, classes, mask)
    settled = False
    for number in range(schedule.refine_rounds):
        seen, before = data.within(limit), assignment.rotation
        trying = number in TURNED and not settled and schedule.search_again
        turns = look_alikes(maps.combined, TURNS) if trying else None
        again = number in SEARCHED_AGAIN and turns is None and schedule.search_again
        folds = _Folds.drawn(half, generator, again)
        others = folds.averages(seen, assignment, maps, mask)
        compute = partial(_refined, assignment, folds, others, turns, reach, schedule)
        assignment = Assignment(*row_by_row(seen, compute))
        if trying:
            settled = _turned(before, assignment, classes) < SETTLED
        maps = half_maps(seen, assignment, half, classes, mask)
        turns = look_alikes(maps.first, TURNS) if trying else None
        assignment = _in_one_frame(assignment, half, maps, turns, min(JOIN_LIMIT, limit))
        limit = _next_limit(maps.fsc, data, schedule)
        maps = half_maps(data.within(limit), assignment, half, classes, mask)
        state = State(state.round + 1, assignment, maps.combined, maps.fsc)
        if report is not None:
            report(state)
    return state, maps, half


def _turned(before: Tensor, now: Assignment, classes: int) -> float:
    """Return the share of the volumes, of the class where it is largest, that were rotated."""
    far = geodesic(before, now.rotation) > math.radians(APART_DEG)
    count = torch.bincount(now.class_index, minlength=classes)
    turned = torch.bincount(now.class_index[far], minlength=classes)
    return float((turned / count.clamp(min=1)).max())


def _climbed(
    seen: Coefficients, owner: Tensor, mine: Assignment, volumes: Tensor, reach: float
) -> Assignment:
    """Optimise the last poses of some volumes, (n,) ``owner``."""
    references = make_references(volumes, float(seen.radius[-1]), slopes=True)
    posed = climb(
        seen, references, owner, mine.class_index, mine.rotation, mine.shift, steps=3, reach=reach
    )
    return Assignment(posed.rotation, posed.shift, mine.class_index, posed.score, posed.amplitude)


class _Folds(NamedTuple):
    """The volumes of each half divided into folds, each with the averages of the other folds.

    An average contains the noise of its volumes at their present poses, and would favour these
    poses.

    Attributes
    ----------
    number
        (N,) FOLDS * half + fold of each volume.
    turn
        (2 FOLDS, 1, 3, 3) random rotations of the grid for a new search; None for no search.
    """

    number: Tensor
    turn: Tensor | None

    @classmethod
    def drawn(cls, half: Tensor, generator: torch.Generator, search: bool) -> _Folds:
        """Draw the folds, and the rotations of their grids."""
        number, turns = torch.empty_like(half), []
        for side in range(2):
            rows = (half == side).nonzero().squeeze(1)
            fold = torch.randperm(len(rows), generator=generator) % FOLDS
            number[rows] = FOLDS * side + fold.to(half.device)
            turns += [haar_rotations(1, generator) for _ in range(FOLDS if search else 0)]
        return cls(number, torch.stack(turns) if search else None)

    def averages(
        self, seen: Coefficients, assignment: Assignment, maps: HalfMaps, mask: Tensor
    ) -> list[Tensor]:
        """Average, for each fold, the others of its half; (C, D, D, D) each."""
        classes, ratio = len(maps.fsc), ssnr_of(maps.fsc, halved=False)
        slot = self.number * classes + assignment.class_index
        slots = 2 * FOLDS * classes
        sums = sums_of_all(seen, slot, slots, assignment.rotation, assignment.shift)
        found = []
        for side, volumes in enumerate((maps.first, maps.second)):
            region = torch.stack([molecule_within(one[None], mask) for one in volumes])
            folds = range(FOLDS * side, FOLDS * (side + 1))
            for number in folds:
                others = torch.tensor([fold for fold in folds if fold != number])
                index = others * classes + torch.arange(classes)[:, None]
                rest = FourierSums(sums.value[index].sum(1), sums.weight[index].sum(1), sums.padded)
                found.append(averages(rest, seen.box, region, ratio))
        return found


def _refined(
    assignment: Assignment,
    folds: _Folds,
    others: list[Tensor],
    turns: LookAlikes | None,
    reach: float,
    schedule: Schedule,
    rows: Tensor,
    here: Coefficients,
) -> Assignment:
    """Improve poses and classes of some rows, each compared with averages without it."""
    parts = []
    for number in torch.unique(folds.number[rows]).tolist():
        some = (folds.number[rows] == number).nonzero().squeeze(1)
        few = Assignment(*(part[rows[some]] for part in assignment))
        if turns is None and folds.turn is None:
            found = _climbed(here, some, few, others[number], reach)
        else:
            grid = None if folds.turn is None else folds.turn[number]
            found = _elsewhere(here.rows(some), few, others[number], turns, grid, reach, schedule)
        parts.append((some, found))
    return _gathered(parts)


def _elsewhere(
    seen: Coefficients,
    mine: Assignment,
    volumes: Tensor,
    turns: LookAlikes | None,
    grid: Tensor | None,
    reach: float,
    schedule: Schedule,
) -> Assignment:
    """Optimise the last poses, and look-alikes or poses of a new search; return the best."""
    owner = torch.arange(len(seen), device=seen.value.device)
    here = _climbed(seen, owner, mine, volumes, reach)
    if turns is None:
        assert grid is not None
        found = grid_poses(seen, volumes, reach, schedule, grid, here.shift)
        others, which = climb_poses(seen, volumes, found, reach, schedule, steps=4)
        return best_of(here, others, which)
    rotation, shift = turns.of(mine.class_index, here.rotation, here.shift)
    owner = torch.arange(len(seen), device=seen.value.device)
    several = owner.repeat_interleave(TURNS)
    which = mine.class_index.repeat_interleave(TURNS)
    references = make_references(volumes, float(seen.radius[-1]), slopes=True)
    others = climb(
        seen,
        references,
        several,
        which,
        rotation.flatten(0, 1),
        shift.flatten(0, 1),
        steps=3,
        reach=reach,
    )
    return best_of(here, others, which)


def _gathered(parts: list[tuple[Tensor, Assignment]]) -> Assignment:
    order = torch.cat([rows for rows, _ in parts]).argsort()
    columns = zip(*(found for _, found in parts), strict=True)
    return Assignment(*(torch.cat(column)[order] for column in columns))


def _in_one_frame(
    assignment: Assignment, half: Tensor, maps: HalfMaps, turns: LookAlikes | None, limit: float
) -> Assignment:
    """Align the second half's upright frames with the first's, six numbers per class.

    The halves of an object with look-alikes may differ by such a rotation.
    """
    classes, seen = len(maps.first), map_coefficients(maps.second, limit)
    device = maps.first.device
    own, shift = torch.arange(classes, device=device), maps.first.new_zeros(classes, 1, 3)
    rotation = torch.eye(3, device=device).expand(classes, 1, 3, 3)
    if turns is not None:
        turned, moved = turns.of(own, rotation[:, 0], shift[:, 0])
        rotation, shift = torch.cat([rotation, turned], 1), torch.cat([shift, moved], 1)
    tried = rotation.shape[1]
    several = own.repeat_interleave(tried)
    references = make_references(maps.first, limit, slopes=True)
    found = climb(
        seen,
        references,
        several,
        several,
        rotation.flatten(0, 1),
        shift.flatten(0, 1),
        steps=6,
        reach=LARGEST_MOVE,
    )
    best = found.rows(found.score.reshape(classes, tried).argmax(1) + own * tried)
    turn, move = best.rotation[assignment.class_index], best.shift[assignment.class_index]
    rotation = assignment.rotation @ turn
    shift = assignment.shift + torch.einsum("nij,nj->ni", assignment.rotation, move)
    second = half == 1
    return assignment._replace(
        rotation=torch.where(second[:, None, None], rotation, assignment.rotation),
        shift=torch.where(second[:, None], shift, assignment.shift),
    )


def _next_limit(fsc: Tensor, data: Coefficients, schedule: Schedule) -> float:
    """Return a limit slightly beyond the best resolution of any class, at least the search's."""
    reached = (int(resolution_shell(fsc).max()) + BEYOND) / data.box
    highest = min(schedule.refine_limit, float(data.radius[-1]))
    return min(highest, max(reached, schedule.limits[1]))
