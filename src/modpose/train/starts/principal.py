"""Mean volume and principal motions of posed particle images, before any training.

Probabilistic principal components in volume space (Tipping & Bishop 1999; Tagare et al. 2015): an
image is a projection of mean + z_1 W_1 + ... + z_J W_J through its pose and CTF, z ~ N(0, I), times
its contrast where that is inferred.
Motions are found from low frequencies, first from very low ones.  Then one pass over all images,
with z known, computes the maps at all frequencies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose import ranks
from modpose.config import Config, PrincipalFieldConfig
from modpose.data.dataset import Dataset, cut
from modpose.data.preprocess import fourier_crop
from modpose.fourier.insertion import half_averages
from modpose.fourier.projection import SETTLED
from modpose.geometry.grids import soft_sphere
from modpose.geometry.groups import point_group, symmetric
from modpose.model.fields.principal import PrincipalField
from modpose.model.imaging import CentralSlices
from modpose.model.vae import Vae
from modpose.progress import Progress
from modpose.search.motion import (
    Motions,
    agreed_variance,
    expected,
    moments,
    power_of,
    principal_motions,
    prior_variance,
)
from modpose.search.placed import (
    Halves,
    NormalEquations,
    PlacedBlocks,
    SliceOperator,
    halved,
    sums_of_halves,
    table_of,
)
from modpose.search.projections import (
    IMAGES_AT_ONCE,
    ImageReader,
    PosedImages,
    joined_images,
    power_spectrum,
)
from modpose.search.solvent import RINGING, check_fit, mask_of_images, molecule_mask

MOST_POINTS = 1 << 23
"""Largest number of coefficients for finding motions; with more, a random subset is used."""
MARGIN = 4.0
"""Pixels between the mask's sphere and the box."""
ITERATIONS = 12
"""Iterations of each round; later ones would find only negligible motions."""
MEASURED = 1000
"""Images from which the noise that the maps leave is measured."""


def start_motions(vae: Vae, dataset: Dataset, config: Config, quiet: bool = False) -> None:
    """Set the mean, the motions and the noise of a model with a principal field.

    Parameters
    ----------
    vae
        A new model, on the CPU; changed in place.
    dataset
        Images with poses; its training part is used.
    config
        The run's configuration.
    quiet
        No progress bar.
    """
    field, projection = vae.field, cast(CentralSlices, vae.imaging).projection
    assert isinstance(field, PrincipalField)
    assert isinstance(config.model.field, PrincipalFieldConfig)
    count = config.model.field.count(config.model.z_dim)
    last = projection.box / 2 - 0.5
    low, every, drawn = (
        ImageReader(projection, min(cycles, last))
        for cycles in (config.model.field.cycles, last, config.model.field.drawn)
    )
    region = _Region.of(config, dataset)
    group = torch.from_numpy(point_group(config.model.field.symmetry)).float()
    dataset.source.particles.has_ctf(dataset.source.pixel_size)
    rows = _some(dataset.train, len(low.frequency) * len(group), config.seed)
    steps = 3 * len(rows) + len(dataset.train)
    with Progress("principal motions", steps, quiet=quiet) as progress:
        variance = power_spectrum(dataset, rows, every, progress)
        images = joined_images(
            low.images(b, variance).repeated(group) for b in dataset.batches(rows, IMAGES_AT_ONCE)
        )
        still = _still(images)
        region.check(still.mean)
        left = _left(images, still, low.shell, len(variance))
        images, variance = images.over(left[low.shell]), variance * left
        contrast = projection.contrast_std
        motions = _motions(images, count, config.seed, contrast, region, progress)
        variance = variance * _left(images, motions, low.shell, len(variance))
        maps = _drawn(dataset, low, drawn, motions, variance, contrast, region, group, progress)
    if region.given is None and config.model.field.solvent == "flatten":
        maps = maps * molecule_mask(maps, drawn.box - MARGIN)
    field.set_volumes(maps)
    projection.log_variance.copy_(variance.log())
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), MEASURED)).astype(np.int64)]
    left = torch.zeros_like(projection.log_variance)
    for batch in dataset.batches(some, vae.whole_batch):
        power = projection.power_left(field.components, batch, field.box / 2)
        left += power * (len(batch) / len(some))
    projection.log_variance.add_(left.log())
    projection.seen.fill_(SETTLED)


def _some(train: NDArray[np.int64], points: int, seed: int) -> NDArray[np.int64]:
    """Choose as many images, with this many coefficients each, as fit into memory."""
    count = min(len(train), max(2, MOST_POINTS // points))
    return np.sort(np.random.default_rng(seed).choice(train, count, replace=False))


def _motions(
    images: PosedImages,
    count: int,
    seed: int,
    contrast: float,
    region: _Region,
    progress: Progress,
) -> Motions:
    """Find motions from the lower half of the frequencies, then from all of them."""
    mask = region.mask(images.data.box)
    z: Tensor | None = None
    for part in (images.within(0.5 * float(images.data.radius[-1])), images):
        motions = principal_motions(
            part.data,
            part.rotation,
            part.shift,
            _mean(part, mask),
            mask,
            count=count,
            generator=torch.Generator().manual_seed(seed),
            start=z,
            iterations=ITERATIONS,
            contrast=contrast,
        )
        z = motions.z
        progress.advance(len(images.data), 0.0)
    return motions


@dataclass(frozen=True)
class _Region:
    """Where the molecule may be: a mask that was given (n, n, n), or a sphere."""

    given: Tensor | None
    name: str

    @classmethod
    def of(cls, config: Config, dataset: Dataset) -> _Region:
        """Read the mask of a configuration, in the box that the model sees."""
        assert isinstance(config.model.field, PrincipalFieldConfig)
        name = config.model.field.mask
        if name is None:
            return cls(None, "")
        group = torch.from_numpy(point_group(config.model.field.symmetry))
        return cls(symmetric(mask_of_images(Path(name), dataset), group), name)

    def mask(self, box: int) -> Tensor:
        """(box, box, box) at another sampling."""
        if self.given is None:
            return _sphere(box)
        small = torch.from_numpy(fourier_crop(self.given.numpy()[None, None], box)[0, 0])
        return torch.where(small < RINGING, 0.0, small).clamp(max=1)

    def check(self, mean: Tensor) -> None:
        """Refuse a mask that does not lie on the molecule."""
        if self.given is not None:
            check_fit(self.mask(mean.shape[-1]), mean, self.name)


def _sphere(box: int) -> Tensor:
    return soft_sphere(box, box - MARGIN)


def _still(images: PosedImages) -> Motions:
    """Return the mean alone, without motions."""
    mean, none = _mean(images, _sphere(images.data.box)), torch.zeros(len(images.data), 0)
    return Motions(mean, mean.new_zeros(0, *mean.shape), none, none, torch.ones(len(none)))


def _mean(images: PosedImages, mask: Tensor) -> Tensor:
    """Average, each frequency weighted according to the agreement of two halves."""
    blocks = PlacedBlocks(images.data, images.rotation, images.shift)
    count = len(images.data)
    halves = halved(blocks, torch.ones(count, 1), torch.ones(count, 1, 1))
    return _average(halves, images.data.box, mask)


def _average(halves: tuple[NormalEquations, NormalEquations], box: int, mask: Tensor) -> Tensor:
    volumes, _ = half_averages(halves[0].first(), halves[1].first(), box, mask)
    return volumes[0]


def _left(images: PosedImages, motions: Motions, shell: Tensor, shells: int) -> Tensor:
    """Power (shells,) of whitened images without mean and motions, which is noise."""
    total = torch.zeros(shells)
    blocks = PlacedBlocks(images.data, images.rotation, images.shift)
    table = _table(motions, blocks.limit)
    for _, rows, placed in blocks:
        held = torch.cat([motions.contrast[rows, None], motions.z[rows]], 1)
        amount = held.to(placed.value)
        predicted = torch.einsum("nj,njk->nk", amount, placed.predictions(table))
        left = (placed.value - predicted).abs().square().sum(0)
        total.index_add_(0, shell, left.to(placed.home))
    ranks.sum(total)
    number = torch.bincount(shell, minlength=shells) * len(images.data)
    left = torch.where(number > 0, total / number.clamp(min=1), 1.0)
    left[0] = left[1]
    return left


def _table(motions: Motions, limit: float) -> Tensor:
    return table_of(torch.cat([motions.mean[None], motions.directions]), limit)


def _drawn(
    dataset: Dataset,
    low: ImageReader,
    drawn: ImageReader,
    motions: Motions,
    variance: Tensor,
    contrast: float,
    region: _Region,
    group: Tensor,
    progress: Progress,
) -> Tensor:
    """Mean and motions (J + 1, b, b, b) with all details, from one pass over the images."""
    count, mask = len(motions.directions), region.mask(drawn.box)
    table = _table(motions, low.limit)
    most = max(1, IMAGES_AT_ONCE // len(group))
    at_once = min(most, math.ceil(len(dataset.train) / 2))

    def own() -> Halves:
        found = NormalEquations(count + 1), NormalEquations(count + 1)
        numbered = ranks.share(list(enumerate(cut(dataset.train, at_once))))
        batches = dataset.each([rows for _, rows in numbered])
        for (number, _), batch in zip(numbered, batches, strict=True):
            seen = low.images(batch, variance)
            seen_slices = SliceOperator(seen.data, seen.rotation, seen.shift)
            held = moments(*expected(seen_slices, table, contrast))
            whole = drawn.images(batch, variance).repeated(group)
            placed = SliceOperator(whole.data, whole.rotation, whole.shift)
            amount, second = (each.repeat_interleave(len(group), 0) for each in held)
            found[number % 2].add(placed, amount, second)
            progress.advance(len(batch), 0.0)
        return found

    halves = sums_of_halves(own, count + 1, drawn.limit, drawn.box)
    power = power_of(_average(halves, drawn.box, mask)[None])[0]
    agreed = agreed_variance(halves, mask, prior_variance(power, count))
    halves[0].join(halves[1])
    return halves[0].solve(mask, agreed)
