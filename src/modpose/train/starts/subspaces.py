"""Start from aligned subspaces: classes of rotated pictures and their angles, by exact search.

Each class is a linear subspace of pictures sampled on rings about their centre of mass.  The score
of a picture for a class is the squared length of its projection, at the best of all angles (an FFT
along the rings).  Classes are drawn from the scores at a temperature that falls to zero, pictures
are rotated to their best angle, and subspaces are fitted again, later with more dimensions.  Then
the model learns the result: the field draws each class upright from its position in content space,
and the encoder learns centres and positions.  Related: Frey & Jojic 2003; Monnier et al. 2020.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import mse_loss, one_hot

from modpose.config import Config, SubspacesStartConfig
from modpose.data.batches import Batch
from modpose.data.dataset import Dataset
from modpose.geometry.grids import centre_of_mass
from modpose.model.encoders.polar import PolarEncoder
from modpose.model.latents import Latents
from modpose.model.vae import Vae
from modpose.progress import Progress

ROUNDS, FIRST, EVERY = 44, 20, 4
"""Total rounds; after the first ones, subspaces grow by one dimension every few rounds."""
WARMEST = 0.02
"""Temperature of the first round, for scores of at most 1."""
CHUNK = 1000
SETTLING = 100
"""Steps over which the learning rate rises while the model learns the result."""
WIDTH = 0.2
"""S.d. of the content of a class while the model learns the result."""


def start_subspaces(
    vae: Vae, dataset: Dataset, config: Config, start: SubspacesStartConfig, quiet: bool = False
) -> None:
    """Find classes and angles of some pictures, and train the model on them.

    Parameters
    ----------
    vae
        A new model with a polar encoder, on the CPU; changed in place.
    dataset
        Its training part is used.
    config
        The run's configuration.
    start
        Settings of the start.
    quiet
        No progress bar.
    """
    count = min(start.images, len(dataset.train))
    random = np.random.default_rng(config.seed)
    rows = np.sort(random.choice(dataset.train, count, replace=False))
    with Progress("aligned subspaces", ROUNDS + start.steps, quiet=quiet, unit="step") as progress:
        found = _found(vae, dataset, rows, start.classes, config.seed, progress)
        optimizer = torch.optim.Adam(vae.parameters())
        generator = torch.Generator().manual_seed(config.seed)
        size = min(config.train.batch_size, count)
        for step in range(start.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.train.lr * min(1.0, (step + 1) / SETTLING)
            few = random.choice(count, size, replace=False)
            loss = _taught(vae, dataset.batch(rows[few]), found.rows(few), config, generator)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress.advance(1, 0.0)


# --- what the model is taught --------------------------------------------------------------------


class Found(NamedTuple):
    """Content (N, z_dim), angles (N,) radians and centres (N, 2) pixels of N pictures."""

    content: Tensor
    angle: Tensor
    centre: Tensor

    def rows(self, index: NDArray[np.int64]) -> Found:
        """Take some pictures."""
        return Found(*(part[index] for part in self))


def _found(
    vae: Vae,
    dataset: Dataset,
    rows: NDArray[np.int64],
    classes: int,
    seed: int,
    progress: Progress,
) -> Found:
    encoder, spectra, centres = cast(PolarEncoder, vae.encoder), [], []
    for batch in dataset.batches(rows, CHUNK):
        image = encoder.seen(batch)
        centres.append(bright_centre(image))
        spectra.append(transformed(encoder.rings.read(image, centres[-1]), encoder.rings.area))
    subspaces = cluster(torch.cat(spectra), classes, seed, progress)
    angle = subspaces.step * (2 * math.pi / len(encoder.rings.angles))
    if vae.layout.rotation.precision:  # classes are drawn at the prior's mean angle
        angle = angle - mean_angles(angle, subspaces.chosen, classes)[subspaces.chosen]
    places = spread(subspaces.mean, vae.layout.z_dim)
    return Found(places[subspaces.chosen], angle, torch.cat(centres))


def _taught(
    vae: Vae, batch: Batch, found: Found, config: Config, generator: torch.Generator
) -> Tensor:
    """Loss of field, centre and content (without shared weights) against the result."""
    encoder, count = cast(PolarEncoder, vae.encoder), len(batch)
    image, z_dim = encoder.seen(batch), vae.layout.z_dim
    z = found.content + WIDTH * torch.randn(count, z_dim, generator=generator)
    cell = torch.zeros(count, 1, dtype=torch.int64)
    latents = Latents(z[:, None], found.angle[:, None], found.centre[:, None], cell)
    drawn = vae.log_likelihood(batch, latents, generator, config.train.pixels)
    contents = encoder.contents(image, found.centre, found.angle)
    aside = sum(mse_loss(content[:, :z_dim], found.content) for content in contents)
    return mse_loss(encoder.centre(image), found.centre) + aside - drawn.mean()


def spread(mean: Tensor, z_dim: int) -> Tensor:
    """Place classes in content space by their distances, (K, z_dim), mean zero, variance one.

    Classical scaling of the distances between the classes' means, each pair at its best angle.
    Axes that these do not span stay zero.

    Parameters
    ----------
    mean
        (K, rings, F) transforms of the classes' means along the rings.
    z_dim
        Number of axes.
    """
    mean = mean.to(torch.complex128)
    product = correlation(mean, mean[:, None])[:, :, 0].amax(-1)
    power = product.diagonal()
    squared = (power[:, None] + power - product - product.T).clamp(min=0)
    inward = torch.eye(len(mean), dtype=power.dtype) - 1 / len(mean)
    value, vector = torch.linalg.eigh(-0.5 * inward @ squared @ inward)
    axes = (vector * value.clamp(min=0).sqrt()).flip(1)[:, :z_dim]
    places = torch.cat([axes, axes.new_zeros(len(mean), z_dim - axes.shape[1])], 1)
    return (places / places.square().mean().sqrt().clamp(min=1e-6)).float()


def mean_angles(angle: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """Circular mean (K,) of the angles (N,) of each class."""
    members = one_hot(chosen, classes).to(angle.dtype)
    return torch.atan2(angle.sin() @ members, angle.cos() @ members)


# --- aligned subspaces ---------------------------------------------------------------------------


class Subspaces(NamedTuple):
    """Classes of N pictures, each rotated to the frame of its class; similar classes share frames.

    Attributes
    ----------
    chosen, step
        (N,) int64: the class of each picture, and its angle in steps of the rings.
    mean
        (K, rings, F) mean of each class in its frame, transformed along the rings.
    """

    chosen: Tensor
    step: Tensor
    mean: Tensor


def bright_centre(image: Tensor) -> Tensor:
    """Centre (N, 2) of mass of the pixels above the median of each image (N, C, H, W), pixels."""
    grey = image.sum(1)
    return centre_of_mass(grey, grey.flatten(1).median(1).values)


def transformed(rings: Tensor, area: Tensor) -> Tensor:
    """Transform rings (N, C, A, R) with areas (R,) per point along the angle: (N, C R, A / 2 + 1).

    An image has length one in the plane.
    """
    values = (rings * area.sqrt()).permute(0, 1, 3, 2).flatten(1, 2)
    values = values / values.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None]
    spectrum: Tensor = torch.fft.rfft(values, norm="ortho")
    return spectrum


def correlation(spectrum: Tensor, basis: Tensor) -> Tensor:
    """Correlate images (N, R, F) and bases (K, c, R, F) at every angle, (N, K, c, A)."""
    product = torch.einsum("nrf,kcrf->nkcf", spectrum, basis.conj())
    score: Tensor = torch.fft.irfft(product, n=2 * (spectrum.shape[-1] - 1), norm="forward")
    return score


def scores(spectrum: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Score (N, K) of images for subspaces at the best of all angles, and that, (N, K)."""
    best = correlation(spectrum, basis).square().sum(2).max(-1)
    return best.values, best.indices


def turned(spectrum: Tensor, step: Tensor) -> Tensor:
    """Images rotated back by ``step`` (N,) angles of the rings."""
    wave = torch.arange(spectrum.shape[-1])
    phase = math.pi / (spectrum.shape[-1] - 1) * step[:, None] * wave
    return spectrum * torch.polar(torch.ones_like(phase), phase)[:, None]


def subspace(spectrum: Tensor, dimensions: int) -> Tensor:
    """Best subspace (dimensions, R, F) of aligned images (n, R, F), not centred."""
    angles = 2 * (spectrum.shape[-1] - 1)
    rows = torch.fft.irfft(spectrum, n=angles, norm="ortho").flatten(1)
    vectors = torch.svd_lowrank(rows, q=min(dimensions + 4, len(rows)))[2][:, :dimensions]
    basis: Tensor = torch.fft.rfft(vectors.T.reshape(-1, spectrum.shape[1], angles), norm="ortho")
    return basis


def cluster(
    spectrum: Tensor, classes: int, seed: int, progress: Progress | None = None
) -> Subspaces:
    """Find classes of images by their rings.

    Parameters
    ----------
    spectrum
        (N, R, F), as :func:`transformed` gives them.
    classes
        K.
    seed
        Of everything random.
    progress
        Told of each round.

    Returns
    -------
    Subspaces
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(len(spectrum), generator=generator)[:classes]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the randomised decompositions
        bases = torch.stack([subspace(spectrum[k, None], 1) for k in first])
        for number in range(ROUNDS):
            dimensions = 1 + max(0, (number - FIRST) // EVERY + 1)
            parts = [scores(part, bases) for part in torch.split(spectrum, CHUNK)]
            score, steps = (torch.cat(part) for part in zip(*parts, strict=True))
            temperature = WARMEST * max(0.0, 1 - number / (2 * ROUNDS / 3))
            noise = -torch.empty_like(score).exponential_(generator=generator).log()
            chosen = (score + temperature * noise).argmax(1)
            step = steps.gather(1, chosen[:, None]).squeeze(1)
            aligned = turned(spectrum, step)
            bases = _fitted(aligned, chosen, classes, dimensions, generator)
            if progress is not None:
                progress.advance(1, 0.0)
    members = one_hot(chosen, classes).to(spectrum.dtype)
    total = torch.einsum("nk,nrf->krf", members, aligned)
    back = agreeing(total)
    mean = turned(total, back) / members.real.sum(0).clamp(min=1)[:, None, None]
    return Subspaces(chosen, step + back[chosen], mean)


def agreeing(total: Tensor) -> Tensor:
    """Angles (K,) by which to rotate classes back, in steps of the rings, to align similar ones.

    The two most similar classes, each at its best angle, are merged repeatedly.  The rotationally
    symmetric part of the sums (K, rings, F) has no angle and is left out.
    """
    total = total.to(torch.complex128, copy=True)
    total[..., 0] = 0
    back = torch.zeros(len(total), dtype=torch.int64)
    groups = torch.eye(len(total), dtype=torch.bool)
    while len(groups) > 1:
        best = correlation(total, total[:, None])[:, :, 0].max(-1)
        length = best.values.diagonal().clamp(min=1e-9).sqrt()
        alike = (best.values / (length[:, None] * length)).fill_diagonal_(-math.inf)
        one, other = divmod(int(alike.argmax()), len(groups))
        step = best.indices[one, other]
        back[groups[one]] += step
        total[other] += turned(total[one, None], step[None])[0]
        groups[other] |= groups[one]
        rest = torch.arange(len(groups)) != one
        total, groups = total[rest], groups[rest]
    return back


def _fitted(
    aligned: Tensor, chosen: Tensor, classes: int, dimensions: int, generator: torch.Generator
) -> Tensor:
    """Subspaces (K, c, R, F) of the classes of aligned images, of at most so many dimensions."""
    bases = []
    for k in range(classes):
        mine = torch.nonzero(chosen == k).squeeze(1)
        if len(mine) <= dimensions:  # an empty class starts again with random images
            mine = torch.randint(len(aligned), (2 * dimensions,), generator=generator)
        bases.append(subspace(aligned[mine], min(dimensions, len(mine))))
    least = min(len(basis) for basis in bases)
    return torch.stack([basis[:least] for basis in bases])
