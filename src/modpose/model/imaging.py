"""How images show the object: in real space, or as projections of a volume.

An imaging model compares latents with images, draws noise-free images, and draws objects upright.
The rest of the program does not depend on which one a model has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor

from modpose.data.batches import Batch
from modpose.fourier.amplitudes import AmplitudeSums
from modpose.fourier.projection import Projection
from modpose.geometry.pose import Pose
from modpose.model.fields.principal import PrincipalField
from modpose.model.latents import Latents
from modpose.nn.kept import Kept

if TYPE_CHECKING:
    from modpose.model.generative import GenerativeModel


class Imaging(Protocol):
    """What an imaging model does for a generative model.

    Attributes
    ----------
    poses_given
        Whether poses come with the images, so that only content is inferred.
    shown_in
        Dimensions in which an object is drawn upright.
    sums_suffice
        Whether all that the model learns from images is in a few sums of each (``Batch.sums``).
    """

    @property
    def sums_suffice(self) -> bool:
        """Whether all that the model learns from images is in a few sums of each."""

    @property
    def poses_given(self) -> bool:
        """Whether poses come with the images."""

    @property
    def shown_in(self) -> int:
        """Dimensions in which an object is drawn upright."""

    def whole_batch(self, model: GenerativeModel) -> int:
        """Objects that are drawn upright at once."""

    def log_likelihood(
        self,
        model: GenerativeModel,
        batch: Batch,
        latents: Latents,
        generator: torch.Generator | None,
        pixels: int | None,
    ) -> Tensor:
        """Return log p(image | latents) in nats, (B, K)."""

    def pose(self, model: GenerativeModel, batch: Batch, latents: Latents) -> Pose:
        """Poses (B,) of the images, those of the first latents or those that came with them."""

    def draw(self, model: GenerativeModel, batch: Batch, latents: Latents) -> Tensor:
        """Draw the noise-free image, (B, *shape, C), for the first latents of each image."""

    def decode(self, model: GenerativeModel, z: Tensor, channel: Tensor | None) -> Tensor:
        """Draw objects of content z (N, z_dim) upright and centred, (N, ..., C)."""

    def contrast(
        self, model: GenerativeModel, batch: Batch, latents: Latents
    ) -> tuple[Tensor, Tensor] | None:
        """Contrast (B,) of the images for the first latents and its s.d., where it is inferred."""


class RealSpace:
    """Pictures or volumes: the field at posed coordinates, filtered, compared pixel by pixel."""

    poses_given = sums_suffice = False

    def __init__(self, dims: int) -> None:
        self.shown_in = dims

    def whole_batch(self, model: GenerativeModel) -> int:
        """As many as fit into the memory at every pixel."""
        return model.whole_batch

    def log_likelihood(
        self,
        model: GenerativeModel,
        batch: Batch,
        latents: Latents,
        generator: torch.Generator | None,
        pixels: int | None,
    ) -> Tensor:
        """Sum over pixels and channels; some of the pixels estimate the sum without bias."""
        whole = batch.observation is not None or model.whole_field
        chosen = model.pixels if whole else model.some_pixels(pixels, generator)
        target = batch.image.flatten(2)
        every = len(chosen) == target.shape[-1]  # then there is nothing to pick
        prediction = model.predict(latents, batch.observation, None if every else chosen)
        target = (target if every else target[:, :, chosen]).transpose(1, 2).unsqueeze(1)
        log_prob = model.likelihood.log_prob(prediction, target)
        return log_prob.sum((-2, -1)) * (len(model.pixels) / len(chosen))

    def pose(self, model: GenerativeModel, batch: Batch, latents: Latents) -> Pose:
        """Take the pose that was inferred."""
        return Pose(*(part[:, 0] for part in latents.pose()))

    def draw(self, model: GenerativeModel, batch: Batch, latents: Latents) -> Tensor:
        """Predict every pixel."""
        return model.pictures(model.predict(latents, batch.observation))

    def decode(self, model: GenerativeModel, z: Tensor, channel: Tensor | None) -> Tensor:
        """Predict every pixel at the pose zero."""
        still = z.new_zeros(len(z), 1, len(model.shape))
        cell = torch.zeros(len(z), 1, dtype=torch.int64, device=z.device)
        angle = still[..., 0] if len(model.shape) == 2 else still
        beside = None if channel is None else channel.unsqueeze(1)
        latents = Latents(z.unsqueeze(1), angle, still, cell, channel=beside)
        return model.pictures(model.predict(latents))

    def contrast(self, model: GenerativeModel, batch: Batch, latents: Latents) -> None:
        """Infer no contrast."""


class CentralSlices:
    """Projections of a volume with given poses, compared in Fourier space.

    Parameters
    ----------
    projection
        The slices, their phases and CTF, and the noise.
    """

    poses_given = True
    sums_suffice = False
    shown_in = 3

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self._kept = Kept()

    def whole_batch(self, model: GenerativeModel) -> int:
        """One volume at a time."""
        return 1

    def log_likelihood(
        self,
        model: GenerativeModel,
        batch: Batch,
        latents: Latents,
        generator: torch.Generator | None,
        pixels: int | None,
    ) -> Tensor:
        """Sum over the coefficients of the image; in training the noise follows the residual."""
        pose, learn = model.given_pose(batch), model.training
        return self.projection.log_likelihood(model.field, batch, latents.z, pose, learn=learn)

    def pose(self, model: GenerativeModel, batch: Batch, latents: Latents) -> Pose:
        """Take the pose that came with the image, corrected where poses are refined."""
        return model.given_pose(batch)

    def draw(self, model: GenerativeModel, batch: Batch, latents: Latents) -> Tensor:
        """Draw the slice as a picture."""
        pose = model.given_pose(batch)
        seen = self.projection.predict(model.field, latents.z, pose, batch.ctf)
        return self.projection.picture(seen[:, 0]).unsqueeze(-1)

    def decode(self, model: GenerativeModel, z: Tensor, channel: Tensor | None) -> Tensor:
        """Draw the volumes (N, n, n, n, 1) behind the projections."""
        return torch.stack([self.projection.volume(model.field, one) for one in z])[..., None]

    def show(self, model: GenerativeModel, batch: Batch, sees: str) -> Tensor:
        """Prepare images with given poses for an encoder, (B, numbers)."""
        posed = replace(batch, pose=model.given_pose(batch))
        return self.projection.show(posed, sees, model.coordinates)

    @torch.no_grad()
    def contrast(
        self, model: GenerativeModel, batch: Batch, latents: Latents
    ) -> tuple[Tensor, Tensor] | None:
        """Contrast (B,) of the images for the first latents and its s.d., where it is inferred."""
        if not self.projection.contrast_std:
            return None
        pose, z = model.given_pose(batch), latents.z[:, :1]
        mean, std = self.projection.contrast(model.field, batch, z, pose)
        return mean[:, 0], std[:, 0]

    @torch.no_grad()
    def amplitude_sums(self, model: GenerativeModel, batch: Batch) -> AmplitudeSums:
        """Return what images tell of the amounts of mean and motions."""
        field = cast(PrincipalField, model.field)
        if batch.sums is not None:
            return AmplitudeSums.unpacked(batch.sums, len(field.volumes))
        pose, noise = model.given_pose(batch), self.projection.log_variance

        def make() -> Tensor:
            posed, radius = replace(batch, pose=pose), field.box / 2
            return self.projection.amplitude_sums(field.components, posed, radius).packed()

        given = (batch.image, *pose, noise, field.volumes)
        return AmplitudeSums.unpacked(self._kept("sums", given, make), len(field.volumes))

    @torch.no_grad()
    def amplitude_likelihood(self, model: GenerativeModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Precision (B, J, J) and linear term (B, J) of the log-likelihood of J amplitudes."""
        return self.amplitude_sums(model, batch).of_motions(self.projection.contrast_std)


class PrincipalSlices(CentralSlices):
    """Projections of given pose of a mean and motions that stay, in noise that stays.

    All that an image tells is in the sums of it and these maps, so training needs no image.
    """

    sums_suffice = True

    def log_likelihood(
        self,
        model: GenerativeModel,
        batch: Batch,
        latents: Latents,
        generator: torch.Generator | None,
        pixels: int | None,
    ) -> Tensor:
        """Sum over the coefficients of the image."""
        sums, amount = self.amplitude_sums(model, batch), _amounts(model, latents.z)
        with torch.autocast(amount.device.type, enabled=False):
            return sums.log_likelihood(amount, self.projection.contrast_std)

    @torch.no_grad()
    def contrast(
        self, model: GenerativeModel, batch: Batch, latents: Latents
    ) -> tuple[Tensor, Tensor] | None:
        """Contrast (B,) of the images for the first latents and its s.d., where it is inferred."""
        if not self.projection.contrast_std:
            return None
        sums, amount = self.amplitude_sums(model, batch), _amounts(model, latents.z[:, :1])
        mean, std = sums.contrast(amount, self.projection.contrast_std)
        return mean[:, 0], std[:, 0]


def _amounts(model: GenerativeModel, z: Tensor) -> Tensor:
    """Amounts (B, K, J + 1) of the maps for content z (B, K, z_dim)."""
    found = cast(PrincipalField, model.field).amounts(z.flatten(0, 1))
    return found.reshape(*z.shape[:2], -1)
