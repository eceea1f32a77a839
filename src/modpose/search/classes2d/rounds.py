"""2-D classes from a random start: rounds of drawn poses, then all images, then exact poses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from modpose.fourier.coefficients import Coefficients, phases, smallest_box
from modpose.progress import Progress
from modpose.search.abinitio.images import SearchImages, disc
from modpose.search.abinitio.scores import Cells, draw_from_scores, search_slices
from modpose.search.classes2d.settings import Classes2dSettings, Plan
from modpose.search.classes2d.sums import ClassSums, averages
from modpose.search.classes2d.turning import Turning

FINENESS = 0.33
"""Step of the shifts over the resolution of a round."""
AT_ONCE = 2048
"""Images whose coefficients are whitened at a time."""
NOISE_IMAGES = 256
"""Images of pure noise that show how well noise fits."""
NEAR = 2
"""Steps of a fine grid to each side of a pose."""


class Posed(NamedTuple):
    """Classes and poses of N images.

    Attributes
    ----------
    class_index
        (N,) int64.
    angle
        (N,) radians.
    shift
        (N, 2) pixels of the images.
    gain
        (N,) nats that the class explains, with its best amplitude.
    """

    class_index: Tensor
    angle: Tensor
    shift: Tensor
    gain: Tensor


@dataclass(frozen=True)
class FoundClasses:
    """Averages, and what belongs to them.

    Attributes
    ----------
    posed
        N images.
    pictures
        (C, D, D) averages at the size of the images.
    frc
        (C, shells) correlation of halves that are not independent.
    noise_gain
        Mean and s.d. of the gain of images of pure noise.
    """

    posed: Posed
    pictures: Tensor
    frc: Tensor
    noise_gain: tuple[float, float]


def find_classes(
    images: SearchImages, settings: Classes2dSettings, plan: Plan, quiet: bool = False
) -> FoundClasses:
    """Find classes and poses.

    Parameters
    ----------
    images
        N images.
    settings
        What is asked for.
    plan
        The rounds.
    quiet
        No progress bar.
    """
    work = _Work(images, settings, plan)
    total = settings.rounds * work.few + settings.refine_rounds * len(images)
    with Progress("2-D classes", total, quiet=quiet) as progress:
        sums = work.start()
        for number in range(settings.rounds):
            part = number / max(1, settings.rounds - 1)
            sums = work.search_round(sums, part, progress)
        for number in range(settings.refine_rounds):
            last = number == settings.refine_rounds - 1
            found = work.whole_round(sums, last, progress)
            sums = found[0]
        return work.finished(sums, found[1])


class _Work:
    """What all rounds share."""

    def __init__(self, images: SearchImages, settings: Classes2dSettings, plan: Plan) -> None:
        self.images, self.plan, self.classes = images, plan, settings.classes
        self.side = images.side
        self.diameter, self.reach = settings.for_side(self.side)
        self.limit = self.side / 2 - 2
        self.box = smallest_box(min(plan.last_radius, self.limit), self.side)
        self.generator = torch.Generator().manual_seed(settings.seed)
        wanted = max(plan.images, plan.images_per_class * self.classes)
        self.few = min(wanted, len(images))

    def start(self) -> ClassSums:
        """Put random images into random classes at random angles."""
        rows = self._drawn_rows()
        data = self._seen(rows, self.plan.radii[0])
        row = torch.randint(
            0, self.classes * self.plan.angles, (len(rows), 1), generator=self.generator
        )
        over = torch.rand(len(rows), 1, generator=self.generator) < 0.5
        still = torch.zeros(len(rows), 1, 2)
        made = ClassSums.empty(self.classes, self.plan.angles, data.shell)
        made.add(data, rows, Cells(row, over, still, still[..., 0]))
        return made

    def search_round(self, sums: ClassSums, part: float, progress: Progress) -> ClassSums:
        """Draw poses of some images; a part of the former sums is kept."""
        low, high = self.plan.radii
        radius = low + (high - low) * part
        rows = self._drawn_rows()
        step = FINENESS * self.side / min(radius, self.limit)
        moved = (torch.rand(2, generator=self.generator) - 0.5) * step
        shifts = disc(self.reach, step) + moved
        made, _ = self._round(sums, rows, radius, shifts, self._draw, progress)
        return made.plus(sums, self.plan.memory)

    def whole_round(
        self, sums: ClassSums, last: bool, progress: Progress
    ) -> tuple[ClassSums, Cells]:
        """Draw poses of all images; in the last round, take the best."""
        radius = min(self.plan.last_radius, self.limit)
        shifts = disc(self.reach, FINENESS * self.side / radius)
        rows = torch.arange(len(self.images))
        take = _best if last else self._draw
        return self._round(sums, rows, radius, shifts, take, progress)

    def _round(
        self,
        sums: ClassSums,
        rows: Tensor,
        radius: float,
        shifts: Tensor,
        take: Callable[[Tensor], Tensor],
        progress: Progress,
    ) -> tuple[ClassSums, Cells]:
        slices = self._turning(radius).read(self._pictures(sums)).flatten(0, 1)
        data = self._seen(rows[:1], radius)
        made = ClassSums.empty(self.classes, self.plan.angles, data.shell)
        scaled, parts = shifts * self.box / self.side, []
        for some in torch.split(rows, AT_ONCE):
            data = self._seen(some, radius)
            cells = search_slices(data, slices, scaled, take, normalised=False)
            made.add(data, some, cells)
            parts.append(cells)
            progress.advance(len(some), 0.0)
        return made, Cells(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def finished(self, sums: ClassSums, cells: Cells) -> FoundClasses:
        """Optimise the best pose of each image, and average at the size of the images."""
        radius = min(self.plan.last_radius, self.limit)
        pictures, grid = self._pictures(sums), self.plan.angles
        table = self._turning(radius, grid * self.plan.fine).read(pictures)
        step = FINENESS * self.side / radius * self.box / self.side
        parts = []
        for some in torch.split(torch.arange(len(self.images)), AT_ONCE):
            data = self._seen(some, radius)
            own = Cells(*(part[some] for part in cells))
            parts.append(_optimised(data, table, own, grid, step))
        posed = Posed(*(torch.cat(part) for part in zip(*parts, strict=True)))
        posed = posed._replace(shift=posed.shift * self.side / self.box)
        whole, frc = self._final_averages(posed)
        return FoundClasses(posed, whole, frc, self._noise_gain(pictures, table, radius, step))

    def _final_averages(self, posed: Posed) -> tuple[Tensor, Tensor]:
        """Average all images up to nearly Nyquist's frequency."""
        angles = self.plan.last_angles
        place = (posed.angle * (angles / math.pi)).round().long() % (2 * angles)
        row = posed.class_index * angles + place % angles
        cells = Cells(row[:, None], (place >= angles)[:, None], posed.shift[:, None], row[:, None])
        data = self.images.coefficients(slice(0, 1), self.side / 2, self.side)
        made = ClassSums.empty(self.classes, angles, data.shell)
        for some in torch.split(torch.arange(len(self.images)), AT_ONCE):
            data = self.images.coefficients(some, self.side / 2, self.side)
            made.add(data, some, Cells(*(part[some] for part in cells)))
        turning = Turning(data.frequency[:, :2], angles, self.side)
        return averages(made, turning, self.diameter)

    def _noise_gain(
        self, pictures: Tensor, table: Tensor, radius: float, step: float
    ) -> tuple[float, float]:
        """Gain of images that hold only noise, with the CTF of some images."""
        rows = torch.arange(min(NOISE_IMAGES, len(self.images)))
        data = self._seen(rows, radius)
        noise = torch.randn(*data.value.shape, 2, generator=self.generator) / math.sqrt(2)
        data = Coefficients(data.frequency, torch.view_as_complex(noise), data.transfer, data.box)
        shifts = disc(self.reach, FINENESS * self.side / radius) * self.box / self.side
        slices = self._turning(radius).read(pictures).flatten(0, 1)
        cells = search_slices(data, slices, shifts, _best, normalised=False)
        gain = _optimised(data, table, cells, self.plan.angles, step).gain
        return float(gain.mean()), float(gain.std())

    def _drawn_rows(self) -> Tensor:
        return torch.randperm(len(self.images), generator=self.generator)[: self.few]

    def _draw(self, score: Tensor) -> Tensor:
        return draw_from_scores(score, self.plan.draws, self.generator)

    def _seen(self, rows: Tensor, radius: float) -> Coefficients:
        return self.images.coefficients(rows, min(radius, self.limit), self.box)

    def _turning(self, radius: float, angles: int | None = None) -> Turning:
        frequency = self._seen(torch.arange(1), radius).frequency[:, :2]
        return Turning(frequency, angles or self.plan.angles, self.box)

    def _pictures(self, sums: ClassSums) -> Tensor:
        count = sums.value.shape[-1]
        turning = Turning(self.images.k[:count] / self.box, self.plan.angles, self.box)
        return averages(sums, turning, self.diameter * self.box / self.side)[0]


def _best(score: Tensor) -> Tensor:
    return score.argmax(0)[:, None]


def _optimised(data: Coefficients, table: Tensor, cells: Cells, grid: int, step: float) -> Posed:
    """Search about the best cell of each image on a fine grid, and fit parabolas to its top.

    Parameters
    ----------
    data
        B images.
    table
        (C, F, K) averages at F angles of half a turn.
    cells
        The best cell of each image.
    grid
        Angles of half a turn of the cells.
    step
        Of their shifts, pixels of the box.
    """
    fine = table.shape[1] // grid
    row, over = cells.row[:, 0], cells.half_turn[:, 0]
    kind, at = row // grid, (row % grid) * fine
    reach = torch.arange(-NEAR, NEAR + 1)
    turn, move = fine // (2 * NEAR), step / (2 * NEAR)
    near = torch.cartesian_prod(reach, reach) * move
    moving = phases(data.frequency, -pad(near, (0, 1)))  # (S, K)
    place = at[:, None] + turn * reach
    own = table[kind[:, None], place % table.shape[1]]  # (B, T, K)
    flipped = (place < 0) | (place >= table.shape[1])
    own = torch.where((flipped ^ over[:, None])[..., None], own.conj(), own)
    value = data.value * data.transfer * phases(data.frequency, -pad(cells.shift[:, 0], (0, 1)))
    inner = 2 * torch.einsum("btk,bk,sk->bts", own.conj(), value, moving).real
    size = len(reach)
    score = inner.reshape(len(inner), size, size, size)  # angle, x, y
    best = score.flatten(1).argmax(1)
    index = [best // size**2, best // size % size, best % size]
    offset = [_top(score, index, axis) for axis in range(3)]
    angle = (at + turn * offset[0]) * (math.pi / table.shape[1]) + over * math.pi
    shift = cells.shift[:, 0] + torch.stack(offset[1:], 1) * move
    norm = 2 * (own[torch.arange(len(own)), index[0]].abs() * data.transfer).square().sum(1)
    highest = score.flatten(1).amax(1).clamp(min=0)
    gain = highest.square() / (2 * norm).clamp(min=1e-12)
    return Posed(kind, angle % (2 * math.pi), shift, gain)


def _top(score: Tensor, index: list[Tensor], axis: int) -> Tensor:
    """Place of the maximum along an axis, in steps from its middle: the top of a parabola."""
    rows, size = torch.arange(len(score)), score.shape[1]
    line = score.movedim(axis + 1, 1)
    others = [part for number, part in enumerate(index) if number != axis]
    line = line[rows, :, others[0], others[1]]  # (B, size)
    here = index[axis].clamp(1, size - 2)
    low, middle, high = (line[rows, here + shift] for shift in (-1, 0, 1))
    curve = (2 * middle - low - high).clamp(min=1e-12)
    return here - size // 2 + ((high - low) / (2 * curve)).clamp(-1, 1)
