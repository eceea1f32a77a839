"""Merging two classes of one structure, and splitting off the worst-fitting volumes.

From a random start, a frequent structure may take two classes while two others share one.  Then no
single volume gains by moving.  So the two most similar averages are merged, the worst-fitting
volumes of a class start another one, and a few rounds show whether this explains the set better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients
from modpose.fourier.reference import make_references
from modpose.search.alike import compare
from modpose.search.classify import (
    Assignment,
    Schedule,
    State,
    average_classes,
    generator_of,
    search_round,
)
from modpose.search.shared import row_by_row
from modpose.search.so3_climb import climb

GRID_LIMIT, LIMIT = 0.15, 0.2
"""Highest frequencies for the start of the optimisation and for comparing averages."""
TRIED = 4
"""Optimised poses of each pair."""
ALIKE = 0.95
"""Smallest correlation of two averages that may be one structure."""
WORST, LEAST = 0.2, 10
"""Share of the volumes of a class that start another, and the smallest class that is split."""
ROUNDS = 4
"""Rounds until the groups are compared."""


class Pair(NamedTuple):
    """Two averages: the second is the first, rotated and shifted.

    Attributes
    ----------
    first, second
        Numbers of the classes.
    correlation
        Of the averages at this pose.
    rotation, shift
        (3, 3) g and (3,) s, voxels: second(x) is about first(g^T (x - s)).
    """

    first: int
    second: int
    correlation: float
    rotation: Tensor
    shift: Tensor


def most_alike(volumes: Tensor) -> Pair:
    """Find the two most similar of C >= 2 averages (C, D, D, D), after the best alignment."""
    classes = len(volumes)
    found = compare(volumes, grid_limit=GRID_LIMIT, limit=LIMIT, tried=TRIED)
    correlation = found.power.clamp(0, 1).sqrt()
    correlation[torch.triu_indices(classes, classes).unbind()] = -1.0  # second below first
    second, first = divmod(int(correlation.argmax()), classes)
    best = float(correlation[second, first])
    return Pair(first, second, best, found.rotation[second, first], found.shift[second, first])


def regrouped(
    data: Coefficients,
    state: State,
    *,
    mask: Tensor,
    reach: float,
    schedule: Schedule | None = None,
    seed: int = 0,
    report: Callable[[State], None] | None = None,
) -> State:
    """Merge and split while this explains the volumes better.

    Parameters
    ----------
    data
        N volumes.
    state
        The state at the end of the search; its round number does not change.
    mask, reach, schedule, seed
        As in :func:`modpose.search.classify.classify`.
    report
        Called after every trial round.
    """
    schedule = schedule or Schedule()
    generator = generator_of(seed, -1)
    for _ in range(len(state.volumes) - 1):
        pair = most_alike(state.volumes)
        if pair.correlation < ALIKE:
            return state
        trial = replace(state, volumes=_split(data, state, pair, mask, generator))
        for _ in range(ROUNDS):
            trial = search_round(data, trial, mask, reach, schedule, seed)
            if report is not None:
                report(trial)
        if trial.assignment.score.mean() <= state.assignment.score.mean():
            return state
        state = replace(trial, round=state.round)
    return state


def _split(
    data: Coefficients, state: State, pair: Pair, mask: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the averages (C, D, D, D) after one merger and one split."""
    classes, seen = len(state.volumes), data.within(LIMIT)
    here = _merged(state.assignment, pair)
    volumes, _ = average_classes(seen, here, classes, mask, generator)
    references = make_references(volumes, LIMIT, slopes=True)

    def compute(rows: Tensor, part: Coefficients) -> tuple[Tensor, ...]:
        at = (here.class_index[rows], here.rotation[rows], here.shift[rows])
        own = torch.arange(len(rows), device=part.value.device)
        posed = climb(part, references, own, *at, steps=2)
        return posed.rotation, posed.shift, part.value.abs().square().sum(1) - posed.score

    rotation, shift, left = row_by_row(seen, compute)  # nats; noise alone leaves about K
    worst = _worst(left, here.class_index, classes)
    class_index = here.class_index.clone()
    class_index[worst] = pair.second
    apart = here._replace(rotation=rotation, shift=shift, class_index=class_index)
    volumes, _ = average_classes(seen, apart, classes, mask, generator)
    return volumes


def _merged(here: Assignment, pair: Pair) -> Assignment:
    """Move the volumes of the second class into the first, with poses in its frame."""
    moved = here.class_index == pair.second
    return here._replace(
        rotation=torch.where(moved[:, None, None], here.rotation @ pair.rotation, here.rotation),
        shift=torch.where(moved[:, None], here.shift + here.rotation @ pair.shift, here.shift),
        class_index=torch.where(moved, pair.first, here.class_index),
    )


def _worst(left: Tensor, class_index: Tensor, classes: int) -> Tensor:
    """Return the volumes with the largest residuals, of the class with the longest tail of them."""
    found, furthest = class_index[:0], -math.inf
    for number in range(classes):
        members = (class_index == number).nonzero().squeeze(1)
        if len(members) < LEAST:
            continue
        low, middle, high = left[members].quantile(left.new_tensor([WORST / 2, 0.5, 1 - WORST / 2]))
        trail = float((high - middle) / (middle - low).clamp(min=1e-9))
        if trail > furthest:
            furthest = trail
            count = math.ceil(WORST * len(members))
            found = members[left[members].argsort(descending=True)[:count]]
    return found
