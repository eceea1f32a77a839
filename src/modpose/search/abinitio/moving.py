"""Poses of images of a structure that moves, from its mean map and its principal motions.

One map of all conformations fits none of them, so its poses are poor.  Here each half of the images
gets its own mean and principal motions; each image is compared with several conformations at all
rotations, and climbs from the best of these poses with the amounts of all motions integrated out.
Several poses of an image are kept.  Mean and motions of the next round come from poses that are
drawn in proportion to their likelihood; in the end the most probable pose stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from modpose.content.clustering import cluster
from modpose.fourier.coefficients import phases, smallest_box
from modpose.fourier.insertion import averages, insert_slices
from modpose.fourier.reference import make_references
from modpose.geometry.grids import soft_sphere
from modpose.geometry.groups import so3_grid
from modpose.geometry.rotations import haar_rotations
from modpose.progress import Progress
from modpose.search.abinitio.images import SearchImages, disc
from modpose.search.abinitio.refine import NEAR, Refined
from modpose.search.abinitio.rounds import FINENESS
from modpose.search.abinitio.saved import NOT_SAVED, Unfinished
from modpose.search.abinitio.scores import SeveralPoses, best_poses, draw_from_scores
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.motion import Motions, principal_motions
from modpose.search.so3_climb import PosedVolumes, climb_with_motions

CONTRAST = 0.2
"""Prior standard deviation of the contrast of an image."""


KEPT, NEARLY = 4, 3.0
"""At most so many poses of an image are kept, each at most so many nats below the best."""
SAME_DEG = 5.0
"""Poses that are nearer to each other are one."""


@dataclass(frozen=True)
class MotionPlan:
    """Rounds; frequencies are cycles in the box of the images."""

    rounds: int = 3
    radius: float = 13.0
    """Highest frequency of mean and motions."""
    search_radius: float = 9.0
    """Highest frequency of the search of all rotations."""
    rotations: int = 6000
    conformations: int = 5
    """Clusters of content; images are compared with the map of the centre of each."""
    hypotheses: int = 3
    """Poses of an image that are climbed, apart from the one that it has."""
    apart_deg: float = 15.0
    """Least angle between these."""
    steps: int = 2
    """Steps of Gauss-Newton."""
    iterations: tuple[int, int] = (12, 4)
    """Of the principal motions, in the first round and in later ones."""


def with_motions(
    images: SearchImages,
    found: Refined,
    half: Tensor,
    settings: AbInitioSettings,
    plan: MotionPlan,
    quiet: bool = False,
    unfinished: Unfinished = NOT_SAVED,
) -> tuple[Tensor, Tensor, SeveralPoses]:
    """Find poses of images of one structure that moves.

    Parameters
    ----------
    images
        N images.
    found
        One map of all of them, and poses to begin with.
    half
        (N,) int64 0 or 1; halves never see each other.
    settings
        What is asked for; ``motions`` is how many.
    plan
        Rounds.
    quiet
        No progress bar.
    unfinished
        Where to save the poses of each half, and to take them from.

    Returns
    -------
    rotation, shift, several
        (N, 3, 3), and (N, 2) pixels of the images; and all poses that are about as probable.
    """
    if found.noise is not None:
        images = images.with_noise(found.noise)
    rotation, shift = found.rotation.clone(), found.shift.clone()
    several = SeveralPoses.empty(len(images), KEPT)
    total = plan.rounds * len(images)
    with Progress("poses with motions", total, quiet=quiet) as progress:
        for number in range(2):
            rows = (half == number).nonzero().squeeze(1)
            saved = unfinished.step(f"motions{number + 1}")
            done = saved.read()
            if "number" not in done:
                work = _Half(images, rows, settings, plan, 2 * settings.seed + number)
                done = work.run(rotation[rows], shift[rows], progress)
                saved.write(done)
            rotation[rows], shift[rows] = done["rotation"], done["shift"]
            several.rotation[rows], several.shift[rows] = done["rotations"], done["shifts"]
            several.number[rows] = done["number"]
    return rotation, shift, several


class _Half:
    """The images of one half."""

    def __init__(
        self,
        images: SearchImages,
        rows: Tensor,
        settings: AbInitioSettings,
        plan: MotionPlan,
        seed: int,
    ) -> None:
        self.box = smallest_box(plan.radius, images.side)
        self.scale = self.box / images.side
        self.data = images.coefficients(rows, plan.radius, self.box)
        self.low = images.coefficients(rows, plan.search_radius, self.box)
        self.mask = soft_sphere(self.box, settings.diameter * self.box)
        step = FINENESS * images.side / plan.search_radius
        self.near = disc(NEAR * step, step) * self.scale
        self.count, self.plan, self.seed = settings.motions, plan, settings.seed
        self.generator = torch.Generator().manual_seed(7927 + seed)

    def run(self, rotation: Tensor, shift: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return the "rotation" (M, 3, 3) and the "shift" (M, 2) pixels of the images."""
        shift = pad(shift * self.scale, (0, 1))
        best, z = (rotation, shift), None
        for number in range(self.plan.rounds):
            motions = self._motions(rotation, shift, z, self.plan.iterations[number > 0])
            starts = self._starts(motions, *best)
            tried = starts[0].shape[1]
            owner = torch.arange(len(self.data)).repeat_interleave(tried)
            maps = torch.cat([motions.mean[None], motions.directions])
            top = climb_with_motions(
                self.data,
                make_references(maps, float(self.data.radius[-1]), slopes=True),
                owner,
                *(start.flatten(0, 1) for start in starts),
                contrast=CONTRAST,
                steps=self.plan.steps,
            )
            score = top.score.view(-1, tried)
            first = torch.arange(len(score)) * tried
            chosen = top.rows(first + score.argmax(1))
            best = chosen.rotation, chosen.shift
            drawn = top.rows(first + draw_from_scores(score.T, 1, self.generator)[:, 0])
            rotation, shift, z = drawn.rotation, drawn.shift, drawn.amplitude[:, 1:]
            progress.advance(len(self.data), 0.0)
        several = nearly_as_probable(top, tried)
        return {
            "rotation": best[0],
            "shift": best[1][:, :2] / self.scale,
            "rotations": several.rotation,
            "shifts": several.shift / self.scale,
            "number": several.number,
        }

    def _motions(
        self, rotation: Tensor, shift: Tensor, z: Tensor | None, iterations: int
    ) -> Motions:
        zero = torch.zeros(len(rotation), dtype=torch.int64)
        sums = insert_slices(self.data, zero, 1, rotation, shift)
        return principal_motions(
            self.data,
            rotation,
            shift,
            averages(sums, self.box, self.mask)[0],
            self.mask,
            count=self.count,
            generator=self.generator,
            start=z,
            iterations=iterations,
            contrast=CONTRAST,
        )

    def _starts(self, motions: Motions, rotation: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Poses (M, H, 3, 3) and (M, H, 3) to climb from: the one before, and others far apart."""
        plan, count = self.plan, self.plan.conformations
        index = torch.from_numpy(cluster(motions.z.numpy(), count, "kmeans", self.seed))
        centres = torch.stack([motions.z[index == number].mean(0) for number in range(count)])
        grid = haar_rotations(1, self.generator) @ so3_grid(plan.rotations // 2).float()
        value = self.low.value * phases(self.low.frequency, -shift)
        low, maps = replace(self.low, value=value), motions.volumes(centres)
        asked = plan.hypotheses, plan.apart_deg
        found = best_poses(low, maps, grid, self.near, *asked, any_map=True)
        moved = shift[:, None] + pad(found.shift, (0, 1))
        turned = torch.cat([rotation[:, None], found.rotation], 1)
        return turned, torch.cat([shift[:, None], moved], 1)


def nearly_as_probable(top: PosedVolumes, tried: int) -> SeveralPoses:
    """Keep the best pose of each image and others that are nearly as probable, the best first.

    Parameters
    ----------
    top
        ``tried`` poses of each image in turn; the score is the log-likelihood.
    tried
        How many.
    """
    score, order = top.score.view(-1, tried).sort(1, descending=True)
    image = torch.arange(len(score))[:, None]
    rotation = top.rotation.view(-1, tried, 3, 3)[image, order]
    shift = top.shift.view(-1, tried, 3)[image, order][..., :2]
    trace = torch.einsum("nhij,nkij->nhk", rotation, rotation)
    same = trace > 1 + 2 * math.cos(math.radians(SAME_DEG))
    kept = score > score[:, :1] - NEARLY
    for number in range(1, tried):
        kept[:, number] &= ~(same[:, number, :number] & kept[:, :number]).any(1)
    first = (~kept).int().argsort(dim=1, stable=True)[:, :KEPT]
    found, few = SeveralPoses.empty(len(score), KEPT), first.shape[1]
    found.rotation[:, :few], found.shift[:, :few] = rotation[image, first], shift[image, first]
    return found._replace(number=kept.sum(1).clamp(max=KEPT))
