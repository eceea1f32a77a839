"""Start from an alignment: poses, classes and motions of subtomograms, found by search.

Averages and motions of the classes become the field's pictures, classes and places along motions
become content, and the poses are kept for the encoder to learn from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from modpose.config import AlignmentStartConfig
from modpose.data.batches import Batch
from modpose.data.dataset import Dataset
from modpose.distributions.normal import DiagonalNormal
from modpose.errors import InputError
from modpose.fourier.coefficients import (
    Coefficients,
    NoiseSpectrum,
    coefficients_of,
    joined,
    measure_noise,
)
from modpose.fourier.reference import make_references
from modpose.model.codebook import centres_of
from modpose.model.encoders.octahedral import OctahedralEncoder, widths
from modpose.model.fields.basis import BasisField
from modpose.model.vae import Vae
from modpose.observe.ctf import ctf_3d
from modpose.progress import Progress
from modpose.search.alignment import LEAST_BOX
from modpose.search.average import resolution_shell, soft_sphere
from modpose.search.classify import Assignment, Schedule, State, classify, generator_of
from modpose.search.motion import principal_motions
from modpose.search.refine import HalfMaps, refine
from modpose.search.regroup import regrouped
from modpose.search.so3_climb import climb

CHUNK, NOISE_FROM = 64, 512
"""Volumes that are read at a time, and that the noise is measured on."""
LEAST_SHELLS = 3
"""Motions are sought in so many shells at least."""
SEPARATION = 6.0
"""Distance between classes in content space, in standard deviations of one."""
STEPS = 600
"""Of fitting the small networks between content and amounts of pictures."""


@dataclass(frozen=True)
class Found:
    """What the alignment of N volumes found.

    Attributes
    ----------
    assignment
        Poses and classes.
    pictures
        (C (1 + J), D, D, D): the average of each class, each followed by its motions.
    motion
        (N, J) place along the motions of its class, s.d. 1.
    width
        (N, 2) s.d. of rotation, radians, and shift, voxels.
    """

    assignment: Assignment
    pictures: Tensor
    motion: Tensor
    width: Tensor


def start_aligned(
    vae: Vae, dataset: Dataset, start: AlignmentStartConfig, *, seed: int, quiet: bool
) -> None:
    """Align the volumes, and put what is found into the model.

    Parameters
    ----------
    vae
        With an octahedral encoder and a field of pictures that are added up.
    dataset
        Its volumes; those held out are aligned, too, which takes no labels.
    start
        How to align.
    seed
        Of everything random.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        Where there are too few volumes, or pictures of the field, for the classes.
    """
    encoder, field = cast(OctahedralEncoder, vae.encoder), cast(BasisField, vae.field)
    per_class = 1 + start.motions
    if start.classes * per_class > len(field.pictures):
        raise InputError.of(
            "train.start",
            "classes with their motions",
            start.classes * per_class,
            f"at most {len(field.pictures)}, the pictures of model.field.count",
        )
    name = dataset.source.stack.name
    if dataset.shape[0] < LEAST_BOX:
        expected = f"at least {LEAST_BOX} voxels"
        raise InputError.of(name, "the side of the prepared box", dataset.shape[0], expected)
    if dataset.n < 8 * start.classes:
        expected = f"at least {8 * start.classes}, eight for each of {start.classes} classes"
        raise InputError.of(name, "the number of volumes", dataset.n, expected)
    noise = _noise(dataset)
    data = _coefficients(dataset, noise)
    found = _aligned(data, start, encoder.config.max_shift_px, seed, quiet)
    with torch.no_grad():
        encoder.noise.copy_(noise.amplitude)
        field.set_pictures((found.pictures - found.pictures.mean((1, 2, 3), True))[:, None])
        assert vae.searched is not None
        vae.searched.set(found.assignment.rotation, found.assignment.shift, found.width)
    generator = generator_of(seed, -1)
    layout = ContentLayout.spread(start.classes, start.motions, vae.layout.z_dim, generator)
    z = layout.place(found.assignment.class_index, found.motion)
    centres, _ = centres_of(z, encoder.config.codebook)
    encoder.codebook[: len(centres)] = centres
    encoder.codebook[len(centres) :] = centres[0]
    _fit_amounts(field, layout, generator)
    _fit_content(vae, dataset, z, generator)


# --- content ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ContentLayout:
    """Where classes and motions lie in the space of content.

    Attributes
    ----------
    anchors
        (C, z_dim) one point a class, together of mean zero and unit variance.
    width
        S.d. of a class about its point.
    motions
        Motions of each class, J, along the first axes.
    """

    anchors: Tensor
    width: float
    motions: int

    @classmethod
    def spread(
        cls, classes: int, motions: int, z_dim: int, generator: torch.Generator
    ) -> ContentLayout:
        """Lay classes as far from one another as they go."""
        if classes == 1:
            return cls(torch.zeros(1, z_dim), 1.0, motions)
        points = torch.randn(classes, z_dim, generator=generator)
        for _ in range(300):
            apart = points[:, None] - points
            near = apart.square().sum(-1, keepdim=True) + 1e-3
            points = points + 0.1 * (apart / near**2).sum(1)
            points = points - points.mean(0)
            points = points / points.square().mean().sqrt()
        closest = torch.pdist(points).min()
        return cls(points, float(closest) / SEPARATION, motions)

    def place(self, class_index: Tensor, motion: Tensor) -> Tensor:
        """Content (N, z_dim) of classes (N,) and places along motions (N, J)."""
        z = self.anchors[class_index].clone()
        z[:, : self.motions] += self.width * motion
        return z

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw contents (count, z_dim), and the amounts of the pictures (count, C (1 + J))."""
        classes, z_dim = self.anchors.shape
        class_index = torch.randint(classes, (count,), generator=generator)
        away = 1.3 * torch.randn(count, z_dim, generator=generator)
        z = self.anchors[class_index] + self.width * away
        amounts = torch.zeros(count, classes, 1 + self.motions)
        rows = torch.arange(count)
        amounts[rows, class_index, 0] = 1.0
        amounts[rows, class_index, 1:] = away[:, : self.motions]
        return z, amounts.flatten(1)


def _fit_amounts(field: BasisField, layout: ContentLayout, generator: torch.Generator) -> None:
    """Teach the field which amounts of pictures content means."""

    def loss() -> Tensor:
        z, amounts = layout.draw(256, generator)
        empty = amounts.new_zeros(len(z), len(field.pictures) - amounts.shape[1])
        return mse_loss(field.amounts(z), torch.cat([amounts, empty], 1))

    _minimise(field.amounts, loss)


def _fit_content(vae: Vae, dataset: Dataset, z: Tensor, generator: torch.Generator) -> None:
    """Teach the encoder which content the amounts of pictures in the volumes mean."""
    encoder, field = cast(OctahedralEncoder, vae.encoder), cast(BasisField, vae.field)
    assert vae.searched is not None
    amounts = torch.cat(
        [
            encoder.amounts(encoder.coefficients(batch), vae.searched.at(batch.index)[0], field)
            for batch in _batches(dataset)
        ]
    )
    jitter = 0.1 * amounts.std(0)

    def loss() -> Tensor:
        rows = torch.randint(len(z), (256,), generator=generator)
        noise = torch.randn(256, amounts.shape[1], generator=generator)
        mean, log_std = encoder.content(amounts[rows] + jitter * noise).chunk(2, dim=-1)
        return -DiagonalNormal(mean, log_std.clamp(-3, 1)).log_prob(z[rows]).mean()

    _minimise(encoder.content, loss)


def _minimise(network: nn.Module, loss: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


# --- the alignment ------------------------------------------------------------------------------


def _aligned(
    data: Coefficients, start: AlignmentStartConfig, reach: float, seed: int, quiet: bool
) -> Found:
    schedule = Schedule(
        rounds=start.rounds, rotations=start.rotations, refine_rounds=start.refine_rounds
    )
    mask = soft_sphere(data.box, start.mask_diameter_px or data.box - 4.0)
    total = (schedule.rounds + schedule.refine_rounds) * len(data)
    began = time.perf_counter()
    with Progress("aligning", total, quiet=quiet) as progress:

        def report(state: State) -> None:
            progress.show(round=state.round, score=float(state.assignment.score.mean()))
            progress.advance(len(data), time.perf_counter() - began)

        def regrouping(state: State) -> None:
            progress.show(round=state.round, score=float(state.assignment.score.mean()))
            progress.advance(0, time.perf_counter() - began)

        state = classify(
            data, start.classes, mask=mask, reach=reach, schedule=schedule, seed=seed, report=report
        )
        state = regrouped(
            data, state, mask=mask, reach=reach, schedule=schedule, seed=seed, report=regrouping
        )
        state, maps, _ = refine(
            data, state, mask=mask, reach=reach, schedule=schedule, seed=seed, report=report
        )
    here = state.assignment
    pictures, motion = _with_motions(data, here, maps, mask, start.motions, seed)
    references = make_references(maps.combined, float(data.radius[-1]), slopes=True)
    owner = torch.arange(len(data))
    top = climb(data, references, owner, here.class_index, here.rotation, here.shift, steps=0)
    return Found(here, pictures, motion, widths(top.information))


def _with_motions(
    data: Coefficients, here: Assignment, maps: HalfMaps, mask: Tensor, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Put the motions of each class behind its average; and places (N, J) along them."""
    resolved = resolution_shell(maps.fsc).clamp(min=LEAST_SHELLS)
    pictures, place = [], torch.zeros(len(data), count)
    for number, mean in enumerate(maps.combined):
        rows = (here.class_index == number).nonzero().squeeze(1)
        directions = mean.new_zeros(count, *mean.shape)
        if count and len(rows) > 2 * count:
            found = principal_motions(
                data.rows(rows).within(float(resolved[number]) / data.box),
                here.rotation[rows],
                here.shift[rows],
                mean,
                mask,
                count=count,
                generator=generator_of(seed, -2 - number),
            )
            directions, place[rows] = found.directions, found.z
        pictures += [mean[None], directions]
    return torch.cat(pictures), place


def _batches(dataset: Dataset, rows: NDArray[np.int64] | None = None) -> Iterator[Batch]:
    return dataset.batches(np.arange(dataset.n) if rows is None else rows, CHUNK)


def _mask_of(batch: Batch, box: int) -> Tensor:
    if batch.wedge is None:
        return torch.ones(1, box, box, box // 2 + 1)
    alike = bool((batch.wedge == batch.wedge[:1]).all())
    return batch.wedge[:1] if alike else batch.wedge


def _noise(dataset: Dataset) -> NoiseSpectrum:
    few = np.unique(np.linspace(0, dataset.n - 1, min(NOISE_FROM, dataset.n)).astype(np.int64))
    box = dataset.shape[0]
    return measure_noise(
        ((batch.image[:, 0], _mask_of(batch, box)) for batch in _batches(dataset, few)), box
    )


def _coefficients(dataset: Dataset, noise: NoiseSpectrum) -> Coefficients:
    box, parts = dataset.shape[0], []
    for batch in _batches(dataset):
        ctf = None if batch.ctf is None else ctf_3d(batch.ctf, (box,) * 3)
        mask = _mask_of(batch, box)
        limit = Schedule().refine_limit
        parts.append(coefficients_of(batch.image[:, 0], mask, noise, limit, ctf))
    return joined(parts)
