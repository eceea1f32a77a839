"""Start from an alignment: poses, classes and motions of subtomograms, found by search.

Averages and motions of the classes become the field's volumes, classes and positions along motions
become content, and the poses are kept for training the encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from modpose.config import AlignmentStartConfig
from modpose.data.dataset import Dataset
from modpose.data.poses import given_poses
from modpose.data.posing import CLASS
from modpose.data.preprocess import geometry
from modpose.distributions.normal import DiagonalNormal
from modpose.errors import InputError
from modpose.fourier.coefficients import Coefficients
from modpose.fourier.reference import make_references
from modpose.model.codebook import centres_of
from modpose.model.encoders.octahedral import OctahedralEncoder, widths
from modpose.model.fields.basis import BasisField
from modpose.model.vae import Vae
from modpose.observe.ctf import ctf_3d
from modpose.search.alignment import Alignment, AlignSettings
from modpose.search.classify import Assignment, generator_of
from modpose.search.pipeline import (
    CHUNK,
    Block,
    Rows,
    align,
    check_alignable,
    read_coefficients,
)
from modpose.search.shared import information_of

SEPARATION = 6.0
"""Distance between classes in content space, in standard deviations of one class."""
STEPS = 600
"""Settings for fitting the small networks between content and weights of volumes."""


def start_aligned(
    vae: Vae, dataset: Dataset, start: AlignmentStartConfig, *, seed: int, quiet: bool
) -> None:
    """Align the volumes, or those of the training, and write the result into the model.

    Parameters
    ----------
    vae
        A model with an octahedral encoder and a ``basis`` field.
    dataset
        Its volumes; held-out ones are aligned too, since this needs no labels, unless there are
        more than ``start.volumes``.
    start
        Settings of the alignment.
    seed
        Seed of all random numbers.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        If there are too few volumes for the classes.
    """
    encoder, field = cast(OctahedralEncoder, vae.encoder), cast(BasisField, vae.field)
    rows, name, side = np.arange(dataset.n), dataset.source.stack.name, dataset.shape[0]
    if start.volumes is not None and start.volumes < dataset.n:
        rows = dataset.train
    check_alignable(name, "the prepared box", side, len(rows), start.classes)
    data, noise = read_coefficients(len(rows), side, lambda some: _block(dataset, rows[some]))
    settings = AlignSettings(
        classes=start.classes,
        mask_diameter_px=start.mask_diameter_px,
        max_shift_px=encoder.config.max_shift_px,
        rounds=start.rounds,
        refine_rounds=start.refine_rounds,
        rotations=start.rotations,
        motions=start.motions,
        seed=seed,
    )
    given = _given(dataset, start.classes, rows) if start.poses == "given" else None
    aligned = align(data, settings, start=given, quiet=quiet)
    here = aligned.assignment
    pictures, motion = _pictures_of(aligned, start.motions)
    with torch.no_grad():
        encoder.noise.copy_(noise.amplitude)
        field.set_pictures((pictures - pictures.mean((1, 2, 3), True))[:, None])
        assert vae.searched is not None
        where = torch.from_numpy(rows)
        vae.searched.set(where, here.rotation, here.shift, _widths(data, aligned))
    generator = generator_of(seed, -1 - start.classes)  # the earlier axes are those of motions
    layout = ContentLayout.spread(start.classes, start.motions, vae.layout.z_dim, generator)
    z = layout.place(here.class_index, motion)
    centres, _ = centres_of(z, encoder.config.codebook)
    encoder.codebook[: len(centres)] = centres
    encoder.codebook[len(centres) :] = centres[0]
    _fit_amounts(field, layout, generator)
    _fit_content(vae, dataset, rows, z, generator)


def _given(dataset: Dataset, classes: int, rows: Rows) -> Assignment:
    """Return the poses and classes of the table, in voxels of the prepared box."""
    source = dataset.source
    rotation, shift = given_poses(source)
    factor = geometry(source.stack.shape, dataset.config, source.stack.name).pixel_size_factor
    class_index = np.zeros(dataset.n, np.int64)
    if source.particles.has(CLASS):
        class_index = np.unique(source.particles.column(CLASS), return_inverse=True)[1].reshape(-1)
    found = int(class_index.max()) + 1
    if found != classes:
        raise InputError.of(
            source.particles.name,
            f"the number of classes in {CLASS}",
            found,
            f"{classes} (--classes), or --set train.start.poses=search to find others",
        )
    nothing = torch.zeros(len(rows))
    return Assignment(
        torch.from_numpy(rotation[rows]).float(),
        torch.from_numpy(shift[rows] / factor).float(),
        torch.from_numpy(class_index[rows]),
        nothing,
        nothing + 1,
    )


# --- content ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ContentLayout:
    """Layout of classes and motions in content space.

    Attributes
    ----------
    anchors
        (C, z_dim) one point per class, together of mean zero and unit variance.
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
        """Place classes as far from each other as possible."""
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
        """Content (N, z_dim) of classes (N,) and positions along motions (N, J)."""
        z = self.anchors[class_index].clone()
        z[:, : self.motions] += self.width * motion
        return z

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw contents (count, z_dim), and the weights of the volumes (count, C (1 + J))."""
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
    """Fit the field's network from content to weights of volumes."""

    def loss() -> Tensor:
        z, amounts = layout.draw(256, generator)
        empty = amounts.new_zeros(len(z), len(field.pictures) - amounts.shape[1])
        return mse_loss(field.amounts(z), torch.cat([amounts, empty], 1))

    _minimise(field.amounts, loss)


def _fit_content(
    vae: Vae, dataset: Dataset, rows: Rows, z: Tensor, generator: torch.Generator
) -> None:
    """Fit the encoder's network from weights of volumes to content."""
    encoder, field = cast(OctahedralEncoder, vae.encoder), cast(BasisField, vae.field)
    assert vae.searched is not None
    amounts = torch.cat(
        [
            encoder.amounts(encoder.coefficients(batch), vae.searched.at(batch.index).pose, field)
            for batch in dataset.batches(rows, CHUNK)
        ]
    )
    jitter = 0.1 * amounts.std(0)

    def loss() -> Tensor:
        few = torch.randint(len(z), (256,), generator=generator)
        noise = torch.randn(256, amounts.shape[1], generator=generator)
        mean, log_std = encoder.content(amounts[few] + jitter * noise).chunk(2, dim=-1)
        return -DiagonalNormal(mean, log_std.clamp(-3, 1)).log_prob(z[few]).mean()

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


def _pictures_of(aligned: Alignment, count: int) -> tuple[Tensor, Tensor]:
    """Averages, each before its motions, (C (1 + J), D, D, D); positions (N, J) along these."""
    means, class_index = aligned.maps.combined, aligned.assignment.class_index
    place = means.new_zeros(len(class_index), count)
    if not aligned.motions:
        return means, place
    pictures = []
    for number, (mean, motions) in enumerate(zip(means, aligned.motions, strict=True)):
        place[class_index == number] = motions.z
        pictures += [mean[None], motions.directions]
    return torch.cat(pictures), place


def _widths(data: Coefficients, aligned: Alignment) -> Tensor:
    """S.d. (N, 2) of rotation, radians, and shift, voxels."""
    here = aligned.assignment
    references = make_references(aligned.maps.combined, float(data.radius[-1]), slopes=True)
    return widths(information_of(data, references, here.class_index, here.rotation, here.shift))


def _block(dataset: Dataset, rows: Rows) -> Block:
    """Read prepared volumes with their measured frequencies."""
    batch, box = dataset.batch(rows), dataset.shape[0]
    measured = torch.ones(1, box, box, box // 2 + 1)
    if batch.wedge is not None:
        alike = bool((batch.wedge == batch.wedge[:1]).all())
        measured = batch.wedge[:1] if alike else batch.wedge
    ctf = None if batch.ctf is None else ctf_3d(batch.ctf, (box,) * 3)
    return Block(batch.image[:, 0], measured, ctf)
