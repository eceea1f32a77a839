"""2-D classes from a random start: rounds of drawn poses, then all images, then exact poses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from modpose.devices import near
from modpose.fourier.coefficients import Coefficients, phases, smallest_box
from modpose.geometry.grids import bright_centre
from modpose.geometry.rotations import rotation_2d
from modpose.progress import Progress
from modpose.search.abinitio.images import SearchImages, disc
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.scores import Cells, draw_from_scores, search_slices
from modpose.search.classes2d.neighbours import without_neighbours
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
    images: SearchImages,
    settings: Classes2dSettings,
    plan: Plan,
    quiet: bool = False,
    saved: Saved | None = None,
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
    saved
        Where the search is saved, to go on with it.
    """
    saved = saved or Saved()
    work = _Work(images, settings, plan)
    rounds, total = settings.rounds, settings.rounds + settings.refine_rounds
    steps = rounds * work.few + settings.refine_rounds * len(images)
    done, sums = work.restored(saved.read())
    with Progress("2-D classes", steps, quiet=quiet) as progress:
        progress.advance(min(done, rounds) * work.few + max(0, done - rounds) * len(images), 0.0)
        for number in range(done, rounds):
            if saved.due:
                saved.write(work.state(number, sums))
            sums = work.search_round(sums, number / max(1, rounds - 1), progress)
        for number in range(max(done, rounds), total):
            if saved.due:
                saved.write(work.state(number, sums))
            sums, cells = work.whole_round(sums, number == total - 1, progress)
        return work.finished(sums, cells)


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

    def state(self, done: int, sums: ClassSums) -> dict[str, Tensor]:
        """Return all that is needed to go on after some rounds."""
        return {
            "done": torch.tensor(done),
            "value": torch.view_as_real(sums.value),
            "weight": sums.weight,
            "generator": self.generator.get_state(),
        }

    def restored(self, state: dict[str, Tensor]) -> tuple[int, ClassSums]:
        """Return the rounds that are done, and the sums; without a state, start."""
        if not state:
            return 0, self.start()
        self.generator.set_state(state["generator"])
        value = torch.view_as_complex(state["value"])
        return int(state["done"]), ClassSums(value, state["weight"])

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
        cells = self._cells(sums, rows, radius, shifts, self._draw, progress)
        cells, refilled = self._refilled(cells, len(rows))
        sums.value[:, refilled], sums.weight[:, refilled] = 0, 0
        return self._added(rows, radius, cells).plus(sums, self.plan.memory)

    def _refilled(self, cells: Cells, images: int) -> tuple[Cells, Tensor]:
        """Give each class with few images the worse half of the class with most.

        Returns
        -------
        cells, refilled
            The cells, and the numbers of the classes that were empty or poor.
        """
        kind, row = cells.row // self.plan.angles, cells.row.clone()
        refilled = []
        for _ in range(self.classes):
            count = torch.bincount(kind.flatten(), minlength=self.classes)
            poorest, largest = int(count.argmin()), int(count.argmax())
            if count[poorest] >= self.plan.sparse * kind.numel() / self.classes:
                break
            own = kind == largest
            worse = own & (cells.score < cells.score[own].median())
            row[worse] += (poorest - largest) * self.plan.angles
            kind = row // self.plan.angles
            refilled.append(poorest)
        return cells._replace(row=row), torch.tensor(refilled, dtype=torch.int64)

    def whole_round(
        self, sums: ClassSums, last: bool, progress: Progress
    ) -> tuple[ClassSums, Cells]:
        """Draw poses of all images; in the last round, take the best."""
        radius = min(self.plan.last_radius, self.limit)
        shifts = disc(self.reach, FINENESS * self.side / radius)
        rows = torch.arange(len(self.images))
        take = _best if last else self._draw
        cells = self._cells(sums, rows, radius, shifts, take, progress)
        return self._added(rows, radius, cells), cells

    def _cells(
        self,
        sums: ClassSums,
        rows: Tensor,
        radius: float,
        shifts: Tensor,
        take: Callable[[Tensor], Tensor],
        progress: Progress,
    ) -> Cells:
        """Compare images with all averages."""
        slices = self._turning(radius).read(self._pictures(sums)).flatten(0, 1)
        scaled, parts = shifts * self.box / self.side, []
        for some in torch.split(rows, AT_ONCE):
            data = self._seen(some, radius)
            parts.append(search_slices(data, slices, scaled, take, normalised=False))
            progress.advance(len(some), 0.0)
        return Cells(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _added(self, rows: Tensor, radius: float, cells: Cells) -> ClassSums:
        """Add images up at their cells."""
        made = ClassSums.empty(self.classes, self.plan.angles, self._seen(rows[:1], radius).shell)
        for part in torch.split(torch.arange(len(rows)), AT_ONCE):
            made.add(self._seen(rows[part], radius), rows[part], cells.rows(part))
        return made

    def finished(self, sums: ClassSums, cells: Cells) -> FoundClasses:
        """Optimise the best pose of each image, and average at the size of the images."""
        radius = min(self.plan.last_radius, self.limit)
        pictures, grid = self._pictures(sums), self.plan.angles
        table = self._turning(radius, grid * self.plan.fine).read(pictures)
        step = FINENESS * self.side / radius * self.box / self.side
        parts = []
        for some in torch.split(torch.arange(len(self.images)), AT_ONCE):
            data = self._seen(some, radius)
            own = cells.rows(some)
            parts.append(_optimised(data, table, own, grid, step))
        posed = Posed(*(torch.cat(part) for part in zip(*parts, strict=True)))
        scale = self.side / self.box
        posed = posed._replace(shift=posed.shift * scale)
        posed = recentred(posed, without_neighbours(pictures, self.diameter / scale), scale)
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
            made.add(data, some, cells.rows(some))
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


def recentred(posed: Posed, pictures: Tensor, scale: float) -> Posed:
    """Change shifts so that the averages have their centres of mass in the middle.

    Parameters
    ----------
    posed
        N images.
    pictures
        (C, D, D) averages at their present shifts.
    scale
        Pixels of the images over those of the averages.
    """
    centre = scale * bright_centre(pictures)
    turned = torch.einsum("nij,nj->ni", rotation_2d(posed.angle), centre[posed.class_index])
    return posed._replace(shift=posed.shift + turned)


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
    home, device = data.value.device, near(data.value)
    data, table, cells = data.to(device), table.to(device), cells.to(device)
    fine = table.shape[1] // grid
    row, over = cells.row[:, 0], cells.half_turn[:, 0]
    kind, at = row // grid, (row % grid) * fine
    reach = torch.arange(-NEAR, NEAR + 1, device=device)
    turn, move = fine // (2 * NEAR), step / (2 * NEAR)
    beside = torch.cartesian_prod(reach, reach) * move
    moving = phases(data.frequency, -pad(beside, (0, 1)))  # (S, K)
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
    number = torch.arange(len(own), device=device)
    norm = 2 * (own[number, index[0]].abs() * data.transfer).square().sum(1)
    highest = score.flatten(1).amax(1).clamp(min=0)
    gain = highest.square() / (2 * norm).clamp(min=1e-12)
    found = kind, angle % (2 * math.pi), shift, gain
    return Posed(*(part.to(home) for part in found))


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
