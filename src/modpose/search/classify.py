"""Classes and poses of volumes without labels and templates, from a random start.

Each round finds the best pose of every volume with every class, and then averages at these poses.
Three things decide success: the frequency limit rises slowly; the score is that of the best
amplitude, so that a strong class does not attract every volume; and classes are drawn at a
temperature that falls to zero, with empty ones filled again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.gridded import gridded
from modpose.fourier.insertion import FourierSums, half_averages
from modpose.fourier.reference import make_references
from modpose.geometry.grids import bright_centre
from modpose.geometry.groups import grid_spacing, so3_grid
from modpose.geometry.rotations import haar_rotations
from modpose.search.settings import Schedule as Schedule
from modpose.search.shared import row_by_row, sums_of_all
from modpose.search.so3_climb import PosedVolumes, climb
from modpose.search.so3_search import PoseHypotheses, search, shift_grid

ANNEALED = 2 / 3
"""Share of the rounds over which the temperature falls to zero."""
SPARSE = 0.2
"""A class with less than this fraction of the mean number of volumes is filled again."""
SHIFT_STEP = 0.33
"""Step of the shifts in periods of the highest frequency."""
NEAR = 3.0
"""Later rounds search shifts within this distance of the last ones on each axis, voxels."""
EVERYWHERE = 6
"""Number of first rounds that search all shifts."""


class Assignment(NamedTuple):
    """Current poses and classes of N volumes.

    Attributes
    ----------
    rotation, shift
        (N, 3, 3) and (N, 3) voxels.
    class_index
        (N,) int64 class, from 0.
    score
        (N,) nats, of the best amplitude.
    amplitude
        (N,) amplitude of the class's average in the volume.
    """

    rotation: Tensor
    shift: Tensor
    class_index: Tensor
    score: Tensor
    amplitude: Tensor

    def to(self, device: torch.device) -> Assignment:
        """Move to a device."""
        return Assignment(*(part.to(device) for part in self))


@dataclass(frozen=True)
class State:
    """State between rounds: everything needed to continue.

    Attributes
    ----------
    round
        Rounds done.
    assignment
        Of the volumes.
    volumes
        (C, D, D, D) averages.
    fsc
        (C, shells) FSC of two halves with the same references (search) or independent ones.
    """

    round: int
    assignment: Assignment
    volumes: Tensor
    fsc: Tensor


def classify(
    data: Coefficients,
    classes: int,
    *,
    mask: Tensor,
    reach: float,
    schedule: Schedule | None = None,
    seed: int = 0,
    start: State | None = None,
    report: Callable[[State], None] | None = None,
) -> State:
    """Find classes and poses from a random start.

    Parameters
    ----------
    data
        N volumes.
    classes
        C.
    mask
        (D, D, D) mask of the averages.
    reach
        Largest shift along an axis, voxels.
    schedule
        Settings of the rounds.
    seed
        Seed of all random numbers; the same seed repeats the run.
    start
        State after earlier rounds.
    report
        Called after every round.
    """
    schedule = schedule or Schedule()
    state = start or random_start(data, classes, mask, schedule, seed)
    while state.round < schedule.rounds:
        state = search_round(data, state, mask, reach, schedule, seed)
        if report is not None:
            report(state)
    return state


def random_start(
    data: Coefficients, classes: int, mask: Tensor, schedule: Schedule, seed: int
) -> State:
    """Average random classes at random rotations."""
    generator = generator_of(seed, 0)
    n = len(data)
    class_index = torch.randperm(n, generator=generator) % classes
    start = (haar_rotations(n, generator), torch.zeros(n, 3), class_index)
    assignment = Assignment(*start, torch.zeros(n), torch.ones(n)).to(data.value.device)
    volumes, fsc = average_classes(
        data.within(schedule.limits[0]), assignment, classes, mask, generator
    )
    return State(0, assignment, volumes, fsc)


def search_round(
    data: Coefficients, state: State, mask: Tensor, reach: float, schedule: Schedule, seed: int
) -> State:
    """Search every pose again, draw classes, average."""
    done, last = state.round, max(1, schedule.rounds - 1)
    generator = generator_of(seed, done + 1)
    low, high = schedule.limits
    limit = low + (high - low) * min(1.0, done / last)
    seen = data.within(limit)
    about = None if done < EVERYWHERE else state.assignment.shift
    turn = haar_rotations(1, generator)

    def searched(rows: Tensor, here: Coefficients) -> tuple[Tensor, ...]:
        near = None if about is None else about[rows]
        found = grid_poses(here, state.volumes, reach, schedule, turn, near)
        posed, which = climb_poses(
            here, state.volumes, found, reach, schedule, schedule.climb_steps
        )
        columns = (posed.rotation, posed.shift, posed.score, posed.amplitude, which)
        return tuple(column.reshape(len(rows), -1, *column.shape[1:]) for column in columns)

    tried = Tried(*row_by_row(seen, searched))
    temperature = max(0.0, 1 - done / (ANNEALED * last))
    assignment = _drawn(tried, len(state.volumes), temperature, generator)
    assignment = _fill(assignment, len(state.volumes), generator)
    volumes, fsc = average_classes(seen, assignment, len(state.volumes), mask, generator)
    volumes, assignment = _centred(volumes, assignment, seen, mask, generator)
    return State(done + 1, assignment, volumes, fsc)


def grid_poses(
    seen: Coefficients,
    volumes: Tensor,
    reach: float,
    schedule: Schedule,
    turn: Tensor,
    about: Tensor | None = None,
) -> PoseHypotheses:
    """Search a grid, rotated by ``turn`` (1, 3, 3), at low frequencies.

    Shifts are searched everywhere, or near some, (N, 3).
    """
    coarse = gridded(seen.within(schedule.grid_limit))
    limit = float(coarse.radius[-1])
    grid = turn @ so3_grid(schedule.rotations).float()
    near = about is not None and reach > NEAR
    if about is not None and near:
        coarse = replace(coarse, value=coarse.value * phases(coarse.frequency, -about))
    references = make_references(volumes, limit)
    shifts = shift_grid(NEAR if near else reach, SHIFT_STEP / limit)
    top = max(2, -(-schedule.hypotheses // len(volumes)))
    apart = 1.5 * grid_spacing(schedule.rotations)
    found = search(coarse, references, grid, shifts, top=top, apart=apart)
    if about is None or not near:
        return found
    return found._replace(shift=(found.shift + about[:, None, None]).clamp(-reach, reach))


def climb_poses(
    seen: Coefficients,
    volumes: Tensor,
    found: PoseHypotheses,
    reach: float,
    schedule: Schedule,
    steps: int,
) -> tuple[PosedVolumes, Tensor]:
    """Optimise the H best poses of each volume; (N H) poses and their classes."""
    n, _, top = found.score.shape
    flat = found.score.flatten(1)
    place = flat.topk(min(schedule.hypotheses, flat.shape[1]), dim=1).indices
    number = torch.arange(n, device=place.device)
    owner = number.repeat_interleave(place.shape[1])
    which = (place // top).flatten()
    rows = number[:, None]
    rotation = found.rotation.flatten(1, 2)[rows, place].flatten(0, 1)
    shift = found.shift.flatten(1, 2)[rows, place].flatten(0, 1)
    references = make_references(volumes, float(seen.radius[-1]), slopes=True)
    start = (owner, which, rotation, shift)
    return climb(seen, references, *start, steps=steps, reach=reach), which


def best_of(first: Assignment, others: PosedVolumes, which: Tensor) -> Assignment:
    """Return the best of the present poses of N volumes and H others, (N H), of some classes."""
    class_index = first.class_index
    n = len(class_index)
    per = len(which) // n
    score = torch.cat([first.score[:, None], others.score.reshape(n, per)], 1)
    chosen = score.argmax(1)
    kept = chosen == 0
    rows = torch.arange(n, device=chosen.device) * per + (chosen - 1).clamp(min=0)
    other, klasses = others.rows(rows), which[rows]
    return Assignment(
        torch.where(kept[:, None, None], first.rotation, other.rotation),
        torch.where(kept[:, None], first.shift, other.shift),
        torch.where(kept, class_index, klasses),
        torch.where(kept, first.score, other.score),
        torch.where(kept, first.amplitude, other.amplitude),
    )


class Tried(NamedTuple):
    """Optimised poses of N volumes, H of each: (N, H, ...); ``which`` is their class."""

    rotation: Tensor
    shift: Tensor
    score: Tensor
    amplitude: Tensor
    which: Tensor


def _drawn(
    tried: Tried, classes: int, temperature: float, generator: torch.Generator
) -> Assignment:
    """Draw a class for each of N volumes, and take its best pose there.

    Adding Gumbel noise, one number per class, and taking the largest draws from exp(score /
    scale); the scale is the temperature times the spread of a volume's scores.
    """
    score, which = tried.score, tried.which
    if temperature > 0 and classes > 1:
        scale = temperature * score.std(1).mean()
        gumbel = -torch.empty(len(score), classes).exponential_(generator=generator).log()
        score = score + scale * gumbel.to(score).gather(1, which)
    chosen = score.argmax(1)
    rows = torch.arange(len(chosen), device=chosen.device)
    best = Tried(*(part[rows, chosen] for part in tried))
    return Assignment(best.rotation, best.shift, best.which, best.score, best.amplitude)


def _fill(assignment: Assignment, classes: int, generator: torch.Generator) -> Assignment:
    """Fill an empty class with the worse half of the largest one."""
    class_index = assignment.class_index.clone()
    for _ in range(classes):
        count = torch.bincount(class_index, minlength=classes)
        poorest, largest = int(count.argmin()), int(count.argmax())
        if count[poorest] >= SPARSE * len(class_index) / classes:
            break
        members = (class_index == largest).nonzero().squeeze(1)
        worse = members[assignment.score[members].argsort()[: len(members) // 2]]
        class_index[worse] = poorest
    return assignment._replace(class_index=class_index)


def average_classes(
    seen: Coefficients,
    assignment: Assignment,
    classes: int,
    mask: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Average each class, filtered by the FSC of two random halves: volumes and (C, shells)."""
    half = (torch.randperm(len(seen), generator=generator) % 2).to(seen.value.device)
    sums = sums_of_all(
        seen, 2 * assignment.class_index + half, 2 * classes, assignment.rotation, assignment.shift
    )
    return half_averages(*_halves(sums), seen.box, mask)


def _halves(sums: FourierSums) -> tuple[FourierSums, FourierSums]:
    even = torch.arange(0, len(sums.value), 2)
    return sums.slots(even), sums.slots(even + 1)


def _centred(
    volumes: Tensor,
    assignment: Assignment,
    seen: Coefficients,
    mask: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Assignment]:
    """Move averages that lie more than half a voxel off centre, and their volumes' shifts."""
    offset = bright_centre(volumes)
    if float(offset.norm(dim=1).amax()) < 0.5:
        return volumes, assignment
    moved = torch.einsum("nij,nj->ni", assignment.rotation, offset[assignment.class_index])
    assignment = assignment._replace(shift=assignment.shift + moved)
    volumes, _ = average_classes(seen, assignment, len(volumes), mask, generator)
    return volumes, assignment


def generator_of(seed: int, stream: int) -> torch.Generator:
    """Return the random number generator of one round."""
    return torch.Generator().manual_seed(1_000_003 * (seed + 1) + stream)
