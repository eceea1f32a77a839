"""Rounds of a random start: poses drawn from the posterior, and sums with a short memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients
from modpose.fourier.insertion import OVERSAMPLING, FourierSums, half_averages, insert_slices
from modpose.geometry.grids import bright_centre, soft_sphere
from modpose.geometry.groups import cyclic, so3_grid
from modpose.geometry.rotations import haar_rotations, rotation_of_vector
from modpose.progress import Progress
from modpose.search.abinitio.finer import at_finer_shifts
from modpose.search.abinitio.images import SearchImages, disc
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.scores import (
    Poses,
    best_poses,
    draw_poses,
    likely_maps,
    scores_by_map,
)
from modpose.search.abinitio.settings import AbInitioSettings, StartPlan
from modpose.search.abinitio.symmetry import symmetrised
from modpose.search.solvent import without_solvent

FINENESS = 0.33
"""Step of the shifts over the resolution of a round."""
COARSE = 2 / 3
"""Frequency, over that of a search, at which unlikely maps are found."""
TRIED = 2
"""Poses that are drawn for each one that is drawn again at finer shifts."""
DIVIDED = 7.5
"""Cycles a box from which on an image is compared with likely maps only."""


class Now(NamedTuple):
    """How far a random start has come.

    Attributes
    ----------
    round
        Rounds that are done.
    sums
        Of 2 C slots: even and odd images of each class.
    maps
        (C, D, D, D).
    """

    round: int
    sums: FourierSums
    maps: Tensor

    def values(self) -> dict[str, Tensor]:
        """Return what :meth:`of_values` needs."""
        value = torch.view_as_real(self.sums.value)
        number = torch.tensor(self.round)
        return {"round": number, "value": value, "weight": self.sums.weight, "maps": self.maps}

    @classmethod
    def of_values(cls, values: dict[str, Tensor]) -> Now:
        """Return what was saved."""
        maps = values["maps"]
        value = torch.view_as_complex(values["value"])
        sums = FourierSums(value, values["weight"], OVERSAMPLING * maps.shape[-1])
        return cls(int(values["round"]), sums, maps)


class Rounds:
    """The rounds of random starts on some images.

    Parameters
    ----------
    images
        N images.
    settings
        What is asked for.
    group
        (G, 3, 3) rotations of the symmetry.
    plan
        Rounds.
    """

    def __init__(
        self, images: SearchImages, settings: AbInitioSettings, group: Tensor, plan: StartPlan
    ) -> None:
        self.images, self.settings, self.group, self.plan = images, settings, group, plan
        self._mask = soft_sphere(plan.box, settings.diameter * plan.box)

    def of_some(self, rows: Tensor) -> Rounds:
        """Return the rounds on some of the images."""
        return Rounds(self.images.some(rows), self.settings, self.group, self.plan)

    def begun(self, count: int, generator: torch.Generator) -> Now:
        """Average some images at random poses."""
        sums = _random_sums(self.images, self.plan, count, generator)
        return Now(0, sums, _maps(sums, self.plan.box, self._mask, self.group))

    def until(
        self,
        now: Now,
        last: int,
        generator: torch.Generator,
        progress: Progress | None = None,
        saved: Saved | None = None,
    ) -> Now:
        """Do rounds until so many are done."""
        while now.round < last:
            now = self._next(now, generator)
            if progress is not None:
                progress.advance(1, 0.0)
            if saved is not None and saved.due:
                saved.write(now.values() | {"generator": generator.get_state()})
        return now

    def _next(self, now: Now, generator: torch.Generator) -> Now:
        plan, count = self.plan, len(now.maps)
        rows = _batch(self.images, plan, generator)
        radius = plan.radius(now.round)
        data = self.images.coefficients(rows, radius, plan.box)
        grid = _grid(plan, plan.grid(now.round), generator)
        shifts = self._shifts(radius, generator)
        likely = None
        if radius >= DIVIDED and count > 1:
            low = COARSE * radius
            coarse = _grid(plan, plan.grid(now.round) // 2, generator)
            likely = likely_maps(data.within(low / plan.box), now.maps, coarse, self._shifts(low))
        finer = now.round >= plan.compared
        tried = TRIED * plan.draws if finer else plan.draws
        drawn = draw_poses(data, now.maps, grid, shifts, tried, generator, likely)
        if finer:
            step = FINENESS * plan.box / radius
            drawn = at_finer_shifts(data, now.maps, drawn, step, plan.draws, generator)
        new = _inserted(data, rows, drawn, count)
        sums = _with_memory(now.sums, new, plan.memory)
        maps = _maps(sums, plan.box, self._mask, self.group)
        if len(self.group) == 1:
            sums, maps = _centred(sums, maps, plan.box, self._mask)
        if finer:
            maps = without_solvent(maps, self._mask)
        return Now(now.round + 1, sums, maps)

    def _shifts(self, radius: float, generator: torch.Generator | None = None) -> Tensor:
        """Shifts (S, 2) in pixels of the maps, their lattice moved at random or not."""
        side = self.images.side
        step = FINENESS * side / radius
        shifts = disc(self.settings.max_shift * side, step)
        if generator is not None:
            shifts = shifts + (torch.rand(2, generator=generator) - 0.5) * step
        return shifts * (self.plan.box / side)

    def best(self, rows: Tensor | slice, now: Now, generator: torch.Generator) -> Poses:
        """Best pose of each of some images, and its score."""
        data, grid, shifts = self._compared(rows, now.round, generator)
        return best_poses(data, now.maps, grid, shifts, 1)

    def scores(self, rows: Tensor, now: Now, generator: torch.Generator) -> Tensor:
        """Log-likelihood (B, C) of some images at the best pose with each map."""
        data, grid, shifts = self._compared(rows, now.round, generator)
        return scores_by_map(data, now.maps, grid, shifts)

    def _compared(
        self, rows: Tensor | slice, done: int, generator: torch.Generator
    ) -> tuple[Coefficients, Tensor, Tensor]:
        """Some images, and the grid of rotations and shifts, after so many rounds."""
        radius = self.plan.radius(done - 1) - 1.0
        data = self.images.coefficients(rows, radius, self.plan.box)
        grid = _grid(self.plan, self.plan.grid(done - 1), generator)
        return data, grid, self._shifts(radius)


def _random_sums(
    images: SearchImages, plan: StartPlan, count: int, generator: torch.Generator
) -> FourierSums:
    """Insert some images at random poses."""
    rows = _batch(images, plan, generator)
    data = images.coefficients(rows, plan.radii[0], plan.box)
    slot = torch.randint(0, 2 * count, (len(rows),), generator=generator)
    turns = _random(plan, len(rows), generator)
    return insert_slices(data, slot, 2 * count, turns, torch.zeros(len(rows), 3))


def _grid(plan: StartPlan, rotations: int, generator: torch.Generator) -> Tensor:
    """Half of a grid of rotations, the other half being turned by 180 degrees in the plane."""
    half = rotations // 2
    grid = cyclic(rotations)[:half] if plan.in_plane else so3_grid(half)
    return _random(plan, 1, generator) @ grid.float()


def _random(plan: StartPlan, count: int, generator: torch.Generator) -> Tensor:
    """Draw rotations (count, 3, 3)."""
    if not plan.in_plane:
        return haar_rotations(count, generator)
    angle = 2 * torch.pi * torch.rand(count, 1, generator=generator)
    return rotation_of_vector(angle * torch.tensor([0.0, 0.0, 1.0]))


def _batch(images: SearchImages, plan: StartPlan, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(images), generator=generator)[: plan.images]


def _inserted(data: Coefficients, rows: Tensor, drawn: Poses, count: int) -> FourierSums:
    """Insert each image at the poses drawn for it, with equal shares; even and odd ones apart."""
    rotation, shift, class_index, _ = drawn
    draws = rotation.shape[1]
    owner = torch.arange(len(data)).repeat_interleave(draws)
    slot = 2 * class_index.flatten() + (rows % 2)[owner]
    flat = torch.cat([shift.flatten(0, 1), torch.zeros(len(owner), 1)], 1)
    weight = torch.full((len(owner),), 1 / draws)
    return insert_slices(
        data.rows(owner), slot, 2 * count, rotation.flatten(0, 1), flat, weight=weight
    )


def _with_memory(before: FourierSums, new: FourierSums, memory: float) -> FourierSums:
    """Add new sums to a part of those before, whose lattice may be smaller."""
    margin = (new.value.shape[-1] - before.value.shape[-1]) // 2
    value, weight = torch.view_as_real(before.value), before.weight
    if margin > 0:
        wider = (margin,) * 6
        value = torch.nn.functional.pad(value, (0, 0, *wider))
        weight = torch.nn.functional.pad(weight, wider)
    whole = torch.view_as_complex(value.contiguous())
    return FourierSums(memory * whole + new.value, memory * weight + new.weight, new.padded)


def _maps(sums: FourierSums, box: int, mask: Tensor, group: Tensor) -> Tensor:
    even = torch.arange(0, len(sums.value), 2)
    found = half_averages(sums.slots(even), sums.slots(even + 1), box, mask)[0]
    return symmetrised(found, group)


def _centred(sums: FourierSums, maps: Tensor, box: int, mask: Tensor) -> tuple[FourierSums, Tensor]:
    """Move maps whose centre of mass has wandered off back to the middle."""
    centre = bright_centre(maps)
    if float(centre.norm(dim=1).amax()) < 0.4:
        return sums, maps
    side = sums.value.shape[-1]
    axis = (torch.arange(side) - side // 2).float() / sums.padded
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    angle = 2 * torch.pi * torch.einsum("zyxc,nc->nzyx", torch.stack([x, y, z], -1), centre)
    phase = torch.polar(torch.ones_like(angle), angle).repeat_interleave(2, 0)
    moved = FourierSums(sums.value * phase, sums.weight, sums.padded)
    return moved, _maps(moved, box, mask, torch.eye(3)[None])
