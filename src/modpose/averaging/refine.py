"""Refinement in two halves that share nothing but their start.

Every volume is compared with averages of its own half only, so noise that averages have come to
share with it cannot pull it; what the halves agree on is signal (gold-standard Fourier shell
correlation), and it says how far in frequency to go and how much of each shell to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.averaging.average import (
    Sums,
    averages,
    fsc_of_classes,
    put_back,
    resolution_shell,
    ssnr_of,
)
from modpose.averaging.classify import (
    Assignment,
    Schedule,
    State,
    best_of,
    climb_poses,
    generator_of,
    grid_poses,
)
from modpose.averaging.coefficients import Coefficients, coefficients_of, white_noise
from modpose.averaging.reference import make_references
from modpose.posterior.so3_climb import climb

BEYOND = 2
"""Shells beyond the resolution so far that a round looks at."""
SEARCHED_AGAIN = (0, 2)
"""Rounds that search all poses and classes again; the others climb from the last pose."""
JOIN_LIMIT = 0.2
"""Highest frequency at which the frames of the halves are brought together, cycles a voxel."""


class HalfMaps(NamedTuple):
    """Averages of two independent halves, in one frame.

    Attributes
    ----------
    first, second
        (C, D, D, D), each filtered by the agreement of both.
    plain_first, plain_second
        (C, D, D, D), wedges compensated, not filtered; what a correlation is computed from.
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


def split_in_halves(klass: Tensor, generator: torch.Generator) -> Tensor:
    """Draw half 0 or 1 for each volume, as many of each in every class; (N,) int64."""
    half = torch.empty_like(klass)
    for k in torch.unique(klass):
        members = (klass == k).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        half[members[order]] = torch.arange(len(members)) % 2
    return half


def half_maps(
    data: Coefficients, assignment: Assignment, half: Tensor, classes: int, mask: Tensor
) -> HalfMaps:
    """Average the halves at their poses."""
    sums = put_back(
        data, 2 * assignment.klass + half, 2 * classes, assignment.rotation, assignment.shift
    )
    slots = torch.arange(0, 2 * classes, 2)
    first, second = sums.slots(slots), sums.slots(slots + 1)
    plain_first = averages(first, data.box, mask)
    plain_second = averages(second, data.box, mask)
    fsc = fsc_of_classes(plain_first, plain_second)
    fsc[:, first.highest_shell + 1 :] = 0.0
    ratio = ssnr_of(fsc, halved=False)

    def filtered(part: Sums) -> Tensor:
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
    report: Callable[[State], None] | None = None,
) -> tuple[State, HalfMaps, Tensor]:
    """Refine poses and classes in two independent halves.

    Parameters
    ----------
    data
        N volumes.
    state
        Where the search ended.
    mask, reach, schedule, seed
        As in :func:`modpose.averaging.classify.classify`.
    report
        Called after every round.

    Returns
    -------
    state, maps, half
        The assignment with the combined averages and the independent halves' correlation; the
        averages of the halves; and (N,) which half each volume is in.
    """
    schedule = schedule or Schedule()
    generator = generator_of(seed, schedule.rounds + 1)
    assignment, classes = state.assignment, len(state.volumes)
    half = split_in_halves(assignment.klass, generator)
    limit = schedule.limits[1]
    maps = half_maps(data.within(limit), assignment, half, classes, mask)
    for number in range(schedule.refine_rounds):
        seen = data.within(limit)
        again = number in SEARCHED_AGAIN
        parts = []
        for side, volumes in enumerate((maps.first, maps.second)):
            rows = (half == side).nonzero().squeeze(1)
            mine = Assignment(*(part[rows] for part in assignment))
            parts.append(
                (rows, _again(seen.rows(rows), mine, volumes, again, reach, schedule, generator))
            )
        assignment = _gathered(parts)
        maps = half_maps(seen, assignment, half, classes, mask)
        assignment = _in_one_frame(assignment, half, maps, min(JOIN_LIMIT, limit))
        limit = _next_limit(maps.fsc, data, schedule)
        maps = half_maps(data.within(limit), assignment, half, classes, mask)
        state = State(state.round + 1, assignment, maps.combined, maps.fsc)
        if report is not None:
            report(state)
    return state, maps, half


def _again(
    seen: Coefficients,
    mine: Assignment,
    volumes: Tensor,
    again: bool,
    reach: float,
    schedule: Schedule,
    generator: torch.Generator,
) -> Assignment:
    """Climb from the last pose, and from a new search where that is due; keep the best."""
    n = len(seen)
    owner = torch.arange(n)
    references = make_references(volumes, float(seen.radius[-1]), slopes=True)
    posed = climb(
        seen, references, owner, mine.klass, mine.rotation, mine.shift, steps=3, reach=reach
    )
    if not again:
        return Assignment(posed.rotation, posed.shift, mine.klass, posed.score, posed.amplitude)
    found = grid_poses(seen, volumes, reach, schedule, generator)
    others, which = climb_poses(seen, volumes, found, reach, schedule, steps=4)
    return best_of(posed, mine.klass, others, which)


def _gathered(parts: list[tuple[Tensor, Assignment]]) -> Assignment:
    order = torch.cat([rows for rows, _ in parts]).argsort()
    columns = zip(*(found for _, found in parts), strict=True)
    return Assignment(*(torch.cat(column)[order] for column in columns))


def _in_one_frame(assignment: Assignment, half: Tensor, maps: HalfMaps, limit: float) -> Assignment:
    """Turn and move the second half's upright frames onto the first's, six numbers a class."""
    classes, box = len(maps.first), maps.first.shape[-1]
    whole = torch.ones(1, box, box, box // 2 + 1)
    seen = coefficients_of(maps.second, whole, white_noise(box, 1.0), limit)
    own = torch.arange(classes)
    eye = torch.eye(3).expand(classes, 3, 3)
    references = make_references(maps.first, limit, slopes=True)
    found = climb(seen, references, own, own, eye, torch.zeros(classes, 3), steps=6, reach=2.0)
    turn, move = found.rotation[assignment.klass], found.shift[assignment.klass]
    rotation = assignment.rotation @ turn
    shift = assignment.shift + torch.einsum("nij,nj->ni", assignment.rotation, move)
    second = half == 1
    return assignment._replace(
        rotation=torch.where(second[:, None, None], rotation, assignment.rotation),
        shift=torch.where(second[:, None], shift, assignment.shift),
    )


def _next_limit(fsc: Tensor, data: Coefficients, schedule: Schedule) -> float:
    """Go a little beyond the best resolution of any class, never back below the search's."""
    reached = (int(resolution_shell(fsc).max()) + BEYOND) / data.box
    highest = min(schedule.refine_limit, float(data.radius[-1]))
    return min(highest, max(reached, schedule.limits[1]))
