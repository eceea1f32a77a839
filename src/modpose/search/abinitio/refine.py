"""Refinement of maps in two halves that never see each other's images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modpose.fourier.coefficients import phases, smallest_box
from modpose.fourier.fsc import fsc_of_classes, resolution_shell, ssnr_of
from modpose.fourier.insertion import FourierSums, averages, half_averages, insert_slices
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.grids import soft_sphere
from modpose.geometry.groups import so3_grid
from modpose.geometry.rotations import haar_rotations
from modpose.progress import Progress
from modpose.search.abinitio.images import SearchImages, disc, residual_noise
from modpose.search.abinitio.rounds import COARSE, FINENESS
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.scores import SeveralPoses, best_poses, likely_maps
from modpose.search.abinitio.settings import AbInitioSettings, RefinePlan
from modpose.search.abinitio.state import Found, Refining
from modpose.search.abinitio.symmetry import symmetrised
from modpose.search.so3_climb import climb
from modpose.search.solvent import without_solvent

MARGIN = 1.5
"""Cycles that a box must hold beyond the highest frequency of its maps."""
AT_ONCE = 2000
"""Images of one half whose poses are found together."""
NEAR = 1.5
"""Later rounds search the shifts within so many steps of the one that an image has."""
JUDGED = 2000
"""Images from whose residuals the noise is measured."""

SETTLED = 10.0
"""Nats by which the pose of an image beats all others far from it, so that no search is needed."""

Divide = Callable[[SearchImages, Tensor, Tensor, Tensor], Tensor]
"""From images, rotations, shifts and classes to new classes."""
Starts = tuple[Tensor, Tensor, Tensor]
"""Rotations (B, M, 3, 3), shifts (B, M, 2) and classes (B, M) of M poses of B images."""


@dataclass
class Refined:
    """Poses and half maps.

    Attributes
    ----------
    rotation, shift
        (N, 3, 3), and (N, 2) pixels of the images.
    class_index
        (N,) int64.
    score
        (N,) log-likelihood of each image at its pose with the best amplitude, nats.
    halves
        (2, C, D, D, D) half maps without a prior.
    maps
        (C, D, D, D) of both halves, each frequency weighted by what it is worth.
    fsc
        (C, shells) of the half maps.
    start_radius
        Cycles a box up to which both halves began alike.
    noise
        (shells,) variance of the noise of a coefficient; None where it was not measured anew.
    several
        Poses that are about as probable, where they were sought.
    """

    rotation: Tensor
    shift: Tensor
    class_index: Tensor
    score: Tensor
    halves: Tensor
    maps: Tensor
    fsc: Tensor
    start_radius: float
    noise: Tensor | None = None
    several: SeveralPoses | None = None


def refine(
    images: SearchImages,
    maps: Tensor,
    half: Tensor,
    settings: AbInitioSettings,
    group: Tensor,
    plan: RefinePlan,
    quiet: bool = False,
    saved: Saved | None = None,
    poses: tuple[Tensor, Tensor, Tensor] | None = None,
    divide: Divide | None = None,
) -> Refined:
    """Refine maps and poses.

    Parameters
    ----------
    images
        N images.
    maps
        (C, D, D, D) to start from; both halves begin with these.
    half
        (N,) int64 0 or 1.
    settings
        What is asked for.
    group
        (G, 3, 3) rotations of the symmetry.
    plan
        Rounds.
    quiet
        No progress bar.
    saved
        Where to save each round, and to go on from.
    poses
        Rotation, shift and class of each image to begin with; None searches all.
    divide
        Gives images new classes at the poses of each round.
    """
    generator = torch.Generator().manual_seed(7919 + settings.seed)
    radii = [min(high, images.side / 2 - 1) for _, high in plan.radii]
    box = min(settings.box, smallest_box(max(radii), images.side))
    work = _Work(images, half, settings, group, plan, box, generator)
    start_radius = min(plan.radii[0][0], maps.shape[-1] / 2 - MARGIN)
    none = torch.zeros(len(images))
    before = None if poses is None else Found(*poses, none, none.bool())
    now = Refining(0, start_radius, [maps, maps], before, Found.empty(len(images)), 0)
    now = work.go_on(now, saved or Saved())
    with Progress("refine in halves", len(plan.radii) * len(images), quiet=quiet) as progress:
        progress.advance(now.round * len(images), 0.0)
        for number in range(now.round, len(plan.radii)):
            found = work.round(now, plan.radii[number][0], number in plan.searches, progress)
            if divide is not None:
                now_in = divide(work.images, found.rotation, found.shift, found.class_index)
                found = found._replace(class_index=now_in)
            limit = min(radii[number], box / 2 - MARGIN)
            halves, both, fsc, state = work.maps(found, limit)
            agreed = float(resolution_shell(fsc).float().amax())
            after = radii[min(number + 1, len(radii) - 1)]
            radius = min(max(agreed + 1, start_radius), after, box / 2 - MARGIN)
            work.measure_noise(found, state, radius)
            now = Refining(number + 1, radius, state, found, Found.empty(len(images)), 0)
    return Refined(
        found.rotation,
        found.shift,
        found.class_index,
        found.score,
        halves,
        both,
        fsc,
        start_radius,
        work.images.noise,
    )


def at_poses(
    images: SearchImages,
    before: Refined,
    rotation: Tensor,
    shift: Tensor,
    half: Tensor,
    settings: AbInitioSettings,
    plan: RefinePlan,
) -> Refined:
    """Average half maps of one structure anew, at other poses of the images.

    Parameters
    ----------
    images, half, settings, plan
        As of :func:`refine`; no symmetry is imposed.
    before
        What was found.
    rotation, shift
        (N, 3, 3), and (N, 2) pixels of the images.
    """
    box = min(settings.box, smallest_box(plan.last_radius, images.side))
    limit = min(plan.last_radius, images.side / 2 - 1, box / 2 - MARGIN)
    none = torch.eye(3)[None]
    work = _Work(images, half, settings, none, plan, box, torch.Generator())
    known = torch.ones(len(images), dtype=torch.bool)
    found = Found(rotation, shift, before.class_index, before.score, known)
    halves, maps, fsc, _ = work.maps(found, limit)
    return replace(before, rotation=rotation, shift=shift, halves=halves, maps=maps, fsc=fsc)


class _Work:
    """One refinement: what does not change between its rounds."""

    def __init__(
        self,
        images: SearchImages,
        half: Tensor,
        settings: AbInitioSettings,
        group: Tensor,
        plan: RefinePlan,
        box: int,
        generator: torch.Generator,
    ) -> None:
        self.images, self.half, self.settings, self.group = images, half, settings, group
        self.plan, self.box, self.generator = plan, box, generator
        self.mask = soft_sphere(box, settings.diameter * box)
        self.saved = Saved()

    def go_on(self, first: Refining, saved: Saved) -> Refining:
        """Return what was saved, or the beginning of the first round; save there from now on."""
        self.saved, values = saved, saved.read()
        if not values:
            return first
        self.images = self.images.with_noise(values["noise"])
        self.generator.set_state(values["generator"])
        return Refining.of_values(values)

    def save(self, now: Refining) -> None:
        """Save how far the round has come."""
        more = {"noise": self.images.noise, "generator": self.generator.get_state()}
        self.saved.write(now.values() | more)

    def round(self, now: Refining, search_radius: float, search: bool, progress: Progress) -> Found:
        """Find poses anew where asked, and climb from them and from those before."""
        before, made = now.before, now.made
        owns = [(self.half == number).nonzero().squeeze(1) for number in range(2)]
        parts = [(n, rows) for n, own in enumerate(owns) for rows in torch.split(own, AT_ONCE)]
        progress.advance(sum(len(rows) for _, rows in parts[: now.parts]), 0.0)
        for number, rows in parts[now.parts :]:
            maps, limit = now.state[number], min(search_radius, now.radius)
            if before is None:
                self._climbed(made, maps, rows, self._searched(maps, rows, limit), now.radius)
            else:
                settled = before.settled[rows] | (not search)
                known, unsure = rows[settled], rows[~settled]
                if len(known):
                    self._climbed(made, maps, known, self._of_before(before, known), now.radius)
                    made.settled[known] = before.settled[known]
                if len(unsure):
                    found = self._searched(maps, unsure, limit, before)
                    starts = _joined(found, self._of_before(before, unsure))
                    again = self._climbed(made, maps, unsure, starts, now.radius)
                    made.settled[unsure] = again
            progress.advance(len(rows), 0.0)
            now.parts += 1
            if self.saved.due or now.parts == len(parts):
                self.save(now)
        return made

    def _of_before(self, before: Found, rows: Tensor) -> Starts:
        """Take the poses that images have, (B, 1)."""
        rotation, shift, which = (part[rows][:, None] for part in before[:3])
        return rotation, shift, which

    def _searched(
        self, maps: Tensor, rows: Tensor, radius: float, before: Found | None = None
    ) -> Starts:
        """Search all rotations, at all shifts or near those before; (B, M) poses far apart."""
        box, side = maps.shape[-1], self.images.side
        data = self.images.coefficients(rows, radius, box)
        grid = so3_grid(self.plan.rotations // 2).float()
        grid = haar_rotations(1, self.generator) @ grid
        step = FINENESS * side / radius
        reach = self.settings.max_shift * side * 1.2 if before is None else NEAR * step
        about = torch.zeros(len(rows), 2) if before is None else before.shift[rows]
        flat = torch.cat([about * (box / side), torch.zeros(len(rows), 1)], 1)
        data = replace(data, value=data.value * phases(data.frequency, -flat))
        shifts, plan = disc(reach, step) * (box / side), self.plan
        low = data.within(COARSE * radius / box)
        coarse = disc(reach, step / COARSE) * (box / side)
        likely = likely_maps(low, maps, so3_grid(plan.rotations // 4).float(), coarse)
        asked = plan.hypotheses, plan.apart_deg
        found = best_poses(data, maps, grid, shifts, *asked, likely=likely)
        return found.rotation, found.shift * (side / box) + about[:, None], found.class_index

    def _climbed(
        self, made: Found, maps: Tensor, rows: Tensor, starts: Starts, radius: float
    ) -> Tensor:
        """Climb from all starts of some images, and keep the best of each.

        Returns
        -------
        Tensor
            (B,) whether that is the last start, and none far from it is nearly as likely.
        """
        rotation, shift, which = starts
        box, side = maps.shape[-1], self.images.side
        radius = min(radius, box / 2 - MARGIN)
        data = self.images.coefficients(rows, radius, box)
        references = make_references(maps, float(data.radius[-1]), slopes=True)
        tried = rotation.shape[1]
        order = torch.arange(len(rows))
        owner = order.repeat_interleave(tried)
        flat = torch.cat([shift.flatten(0, 1) * (box / side), torch.zeros(len(owner), 1)], 1)
        top = climb(
            data,
            references,
            owner,
            which.flatten(),
            rotation.flatten(0, 1),
            flat,
            steps=self.plan.steps,
        )
        score, turned_to = top.score.view(-1, tried), top.rotation.view(-1, tried, 3, 3)
        highest, best = score.max(1)
        made.rotation[rows] = turned_to[order, best]
        made.shift[rows] = top.shift.view(-1, tried, 3)[order, best, :2] * (side / box)
        made.class_index[rows] = which[order, best]
        made.score[rows] = highest
        trace = torch.einsum("bij,bmij->bm", turned_to[order, best], turned_to)
        close = trace > 1 + 2 * math.cos(math.radians(self.plan.apart_deg))
        close &= which == which[order, best][:, None]
        others = score.masked_fill(close, -torch.inf).amax(1)
        return close[:, -1] & (highest - others > SETTLED)

    def maps(self, found: Found, radius: float) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Average each half.

        Returns
        -------
        halves, both, fsc, state
            (2, C, D, D, D) without a prior; (C, D, D, D) of both; (C, shells); and for each half
            the maps that its images are compared with: with a prior from how far both agree, and
            without the noise around the molecule.
        """
        count, box = self.settings.classes, self.box
        slot = found.class_index + count * self.half
        sums: FourierSums | None = None
        for rows in torch.split(torch.arange(len(self.images)), 5000):
            data = self.images.coefficients(rows, radius, box)
            shift = found.shift[rows] * (box / self.images.side)
            flat = torch.cat([shift, torch.zeros(len(rows), 1)], 1)
            part = insert_slices(data, slot[rows], 2 * count, found.rotation[rows], flat)
            sums = part if sums is None else sums + part
        assert sums is not None
        first, second = sums.slots(torch.arange(count)), sums.slots(torch.arange(count, 2 * count))
        both, fsc = half_averages(first, second, box, self.mask)
        plain = torch.stack([averages(part, box, self.mask) for part in (first, second)])
        if len(self.group) > 1:
            plain = symmetrised(plain.flatten(0, 1), self.group).view(plain.shape)
            fsc = fsc_of_classes(*plain)
            fsc[:, first.highest_shell + 1 :] = 0.0
            both = averages(first + second, box, self.mask, ssnr_of(fsc, halved=True))
        ratio = ssnr_of(fsc, halved=False)
        filtered = [averages(part, box, self.mask, ratio) for part in (first, second)]
        alike = symmetrised(torch.cat([both, *filtered]), self.group)
        both, *state = torch.split(alike, count)
        return plain, both, fsc, [without_solvent(part, self.mask) for part in state]

    def measure_noise(self, found: Found, state: list[Tensor], radius: float) -> None:
        """Measure the noise by shell again, from what the maps leave of some images."""
        images, box = self.images, self.box
        rows = torch.randperm(len(images), generator=self.generator)[:JUDGED]
        radius = min(radius, box / 2 - MARGIN)
        residuals = []
        for number, maps in enumerate(state):
            own = rows[self.half[rows] == number]
            if not len(own):
                continue
            data = images.coefficients(own, radius, box)
            references = make_references(maps, float(data.radius[-1]))
            frequency = turned(data.frequency, found.rotation[own])
            shift = found.shift[own] * (box / images.side)
            flat = torch.cat([shift, torch.zeros(len(own), 1)], 1)
            model = sample(references, found.class_index[own], frequency)
            model = model * data.transfer * phases(data.frequency, flat)
            inner = (model.conj() * data.value).real.sum(1)
            amplitude = inner.clamp(min=0) / model.abs().square().sum(1).clamp(min=1e-12)
            residuals.append(data.value - amplitude[:, None] * model)
        count = residuals[0].shape[1]
        noise = residual_noise(images, torch.cat(residuals), images.radius[:count], images.noise)
        self.images = images.with_noise(noise)


def _joined(first: Starts, second: Starts) -> Starts:
    rotation, shift, which = (torch.cat(pair, 1) for pair in zip(first, second, strict=True))
    return rotation, shift, which
