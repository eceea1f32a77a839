"""A map from nothing: averages at random poses, then rounds of drawn poses and short memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients
from modpose.fourier.insertion import OVERSAMPLING, FourierSums, half_averages, insert_slices
from modpose.geometry.grids import centre_of_mass, soft_sphere
from modpose.geometry.groups import cyclic, so3_grid
from modpose.geometry.rotations import haar_rotations, rotation_of_vector
from modpose.progress import Progress
from modpose.search.abinitio.checks import covered_directions
from modpose.search.abinitio.images import SearchImages, disc
from modpose.search.abinitio.saved import NOT_SAVED, Saved, Unfinished
from modpose.search.abinitio.scores import Poses, best_poses, draw_poses
from modpose.search.abinitio.settings import AbInitioSettings, StartPlan
from modpose.search.abinitio.symmetry import symmetrised

FINENESS = 0.33
"""Step of the shifts over the resolution of a round."""
JUDGED = 1000
"""Images that a start is judged by."""


@dataclass(frozen=True)
class Start:
    """Maps found from a random start.

    Attributes
    ----------
    maps
        (C, D, D, D).
    score
        Mean over some images of the log-likelihood at their best pose, nats.
    covered
        Share of the directions from which these images come.
    """

    maps: Tensor
    score: float
    covered: float


def best_start(
    images: SearchImages,
    settings: AbInitioSettings,
    group: Tensor,
    plan: StartPlan,
    quiet: bool,
    unfinished: Unfinished = NOT_SAVED,
) -> tuple[Start, list[float]]:
    """Try random starts; keep the one with the highest likelihood.

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
    quiet
        No progress bar.
    unfinished
        Where to save each start, and to go on from.

    Returns
    -------
    start, scores
        The best, and the score of each.
    """
    found: list[Start] = []
    total = settings.starts * plan.rounds
    with Progress("random starts", total, quiet=quiet, unit="round") as progress:
        for number in range(settings.starts):
            generator = torch.Generator().manual_seed(1000 * settings.seed + number)
            saved = unfinished.step(f"start{number + 1}")
            found.append(_start(images, settings, group, plan, generator, progress, saved))
    scores = [start.score for start in found]
    return found[max(range(len(found)), key=scores.__getitem__)], scores


def _start(
    images: SearchImages,
    settings: AbInitioSettings,
    group: Tensor,
    plan: StartPlan,
    generator: torch.Generator,
    progress: Progress,
    saved: Saved,
) -> Start:
    before = saved.read()
    if "score" in before:
        progress.advance(plan.rounds, 0.0)
        covered = float(before.get("covered", 1.0))
        return Start(before["maps"], float(before["score"]), covered)
    box, count = plan.box, settings.classes
    mask = soft_sphere(box, settings.diameter * box)
    reach = settings.max_shift * images.side
    if before:
        value = torch.view_as_complex(before["value"])
        sums, maps = FourierSums(value, before["weight"], OVERSAMPLING * box), before["maps"]
        generator.set_state(before["generator"])
    else:
        sums = _random_sums(images, plan, count, generator)
        maps = _maps(sums, box, mask, group)
    begun = int(before.get("rounds", 0))
    progress.advance(begun, 0.0)
    for number in range(begun, plan.rounds):
        part = number / max(1, plan.rounds - 1)
        radius = plan.radii[0] + (plan.radii[1] - plan.radii[0]) * part
        rotations = plan.rotations[0] + (plan.rotations[1] - plan.rotations[0]) * part
        rows = _batch(images, plan, generator)
        data = images.coefficients(rows, radius, box)
        grid = _grid(plan, int(rotations), generator)
        step = FINENESS * images.side / radius
        moved = (torch.rand(2, generator=generator) - 0.5) * step
        shifts = (disc(reach, step) + moved) * (box / images.side)
        drawn = draw_poses(data, maps, grid, shifts, plan.draws, generator)
        new = _inserted(data, rows, drawn, count)
        sums = _with_memory(sums, new, plan.memory)
        maps = _maps(sums, box, mask, group)
        if len(group) == 1:
            sums, maps = _centred(sums, maps, box, mask)
        progress.advance(1, 0.0)
        if saved.due:
            saved.write(
                {
                    "rounds": torch.tensor(number + 1),
                    "value": torch.view_as_real(sums.value),
                    "weight": sums.weight,
                    "maps": maps,
                    "generator": generator.get_state(),
                }
            )
    start = _judged(images, maps, group, plan, reach, generator)
    score, covered = torch.tensor([start.score, start.covered], dtype=torch.float64)
    saved.write({"maps": start.maps, "score": score, "covered": covered})
    return start


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
    centre = centre_of_mass(maps, 0.2 * maps.flatten(1).amax(1))
    if float(centre.norm(dim=1).amax()) < 0.4:
        return sums, maps
    side = sums.value.shape[-1]
    axis = (torch.arange(side) - side // 2).float() / sums.padded
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    angle = 2 * torch.pi * torch.einsum("zyxc,nc->nzyx", torch.stack([x, y, z], -1), centre)
    phase = torch.polar(torch.ones_like(angle), angle).repeat_interleave(2, 0)
    moved = FourierSums(sums.value * phase, sums.weight, sums.padded)
    return moved, _maps(moved, box, mask, torch.eye(3)[None])


def _judged(
    images: SearchImages,
    maps: Tensor,
    group: Tensor,
    plan: StartPlan,
    reach: float,
    generator: torch.Generator,
) -> Start:
    """Score a start by images that all starts share."""
    radius = plan.radii[1] - 1.0
    data = images.coefficients(slice(0, JUDGED), radius, plan.box)
    grid = _grid(plan, plan.rotations[1], generator)
    shifts = disc(reach, FINENESS * images.side / radius) * (plan.box / images.side)
    found = best_poses(data, maps, grid, shifts, 1)
    covered = covered_directions(found.rotation[:, 0], group)
    return Start(maps, float(found.score.mean()), covered)
