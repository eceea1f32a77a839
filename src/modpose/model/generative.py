"""The generative half: from content and pose to the recorded image.

field at posed coordinates -> observation -> likelihood; for projections, slices of the field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from modpose.config import Config
from modpose.data.batches import Batch
from modpose.geometry.grids import half_box, lattice
from modpose.geometry.pose import Pose
from modpose.geometry.windows import disc
from modpose.model.fields import build_field
from modpose.model.image_rows import KeptPoses, PoseCorrections
from modpose.model.imaging import CentralSlices, Imaging
from modpose.model.latents import Latents
from modpose.model.posterior import LatentLayout
from modpose.observe.noise import Prediction, build_likelihood
from modpose.observe.observation import Observation

WHOLE_PIXELS, DRAWN_PIXELS = 1 << 17, 1 << 18
"""Pixels at once of a network that sees each of them, and of one that draws pictures."""


class GenerativeModel(nn.Module):
    """A field, posed and observed, and how probable it makes the recorded images.

    Parameters
    ----------
    config
        The run's configuration (``model``, and the mask of ``data``).
    shape, channels
        Of the preprocessed images.
    n_images
        Size of the stack (its given poses may be refined).
    layout
        Which latent variables there are.
    imaging
        How images show the object.
    """

    coordinates: Tensor
    pixels: Tensor

    def __init__(
        self,
        config: Config,
        *,
        shape: Sequence[int],
        channels: int,
        n_images: int,
        layout: LatentLayout,
        imaging: Imaging,
    ) -> None:
        super().__init__()
        model = config.model
        self.shape, self.channels = tuple(shape), channels
        self.layout, self.imaging = layout, imaging
        self.projection = getattr(imaging, "projection", None)  # its noise is learned
        self.corrections = None
        if model.refine_poses is not None:
            self.corrections = PoseCorrections(model.refine_poses, n_images)
        self.kept = KeptPoses(n_images, model.kept_poses) if model.kept_poses else None
        self.likelihood = build_likelihood(model.likelihood)
        self.field = build_field(
            model.field,
            z_dim=model.z_dim + model.pose_channel,
            n_outputs=channels * self.likelihood.outputs_per_channel,
            shape=shape,
        )
        mask = config.data.mask
        counted = torch.arange(math.prod(shape))
        if mask is not None:
            counted = counted[torch.from_numpy(disc(shape, mask)).flatten()]
        self.register_buffer("coordinates", lattice(shape), persistent=False)
        self.register_buffer("pixels", counted, persistent=False)

    @property
    def whole_field(self) -> bool:
        """Whether the field can only be evaluated at every pixel of the box at once."""
        return bool(getattr(self.field, "whole_box", False))

    @property
    def whole_batch(self) -> int:
        """Images that are decoded at every pixel at once without filling the memory."""
        pixels = DRAWN_PIXELS if getattr(self.field, "gridded", False) else WHOLE_PIXELS
        return max(1, pixels // math.prod(self.shape))

    def log_likelihood(
        self,
        batch: Batch,
        latents: Latents,
        generator: torch.Generator | None = None,
        pixels: int | None = None,
    ) -> Tensor:
        """Return log p(image | latents) in nats, (B, K), summed over pixels and channels."""
        return self.imaging.log_likelihood(self, batch, latents, generator, pixels)

    def given_pose(self, batch: Batch) -> Pose:
        """Poses (B,) that came with the images, or those taken of several; corrected if refined."""
        assert batch.pose is not None, "the model needs given poses"
        pose = batch.pose
        if not batch.fitted:
            return pose
        if self.kept is not None:
            pose = self.kept.at(batch.index, pose)
        return pose if self.corrections is None else self.corrections(batch.index, pose)

    def pose_penalty(self, batch: Batch) -> Tensor | float:
        """Minus the log prior of the corrections to the given poses, (B,) nats."""
        if self.corrections is None or not batch.fitted:
            return 0.0
        return self.corrections.penalty(batch.index)

    @torch.no_grad()
    def upright_natural(self, u: Tensor, z: Tensor) -> Tensor:
        """Natural parameter (B, P, C) of the likelihood at pixels u (P, 2) of the upright frame.

        Without gradients.
        """
        read = getattr(self.field, "read", None)
        if read is None:
            outputs = self.field((u / half_box(self.shape)).expand(len(z), -1, -1), z)
        else:
            outputs = read(u, z)
        return self.likelihood.natural(self.likelihood.read(outputs))

    def show(self, batch: Batch, sees: str) -> Tensor:
        """Prepare images with given poses for an encoder, (B, numbers)."""
        return cast(CentralSlices, self.imaging).show(self, batch, sees)

    def amplitude_likelihood(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Precision (B, J, J) and linear term (B, J) of the log-likelihood of J amplitudes."""
        return cast(CentralSlices, self.imaging).amplitude_likelihood(self, batch)

    @torch.no_grad()
    def draw(self, batch: Batch, latents: Latents) -> Tensor:
        """Draw the noise-free image, (B, *shape, C), for the first latents of each image."""
        return self.imaging.draw(self, batch, latents)

    @torch.no_grad()
    def decode(self, z: Tensor, channel: Tensor | None = None) -> Tensor:
        """Draw objects of content z (N, z_dim) upright and centred, without noise.

        Parameters
        ----------
        z
            Content.
        channel
            (N, p) pose channel, where the model has one.

        Returns
        -------
        Tensor
            (N, *shape, C); from projections, the volumes (N, n, n, n, 1) behind them.
        """
        return self.imaging.decode(self, z, channel)

    def pictures(self, prediction: Prediction) -> Tensor:
        """Lay out the expected pixels of the first latents, (B, *shape, C)."""
        pixels = self.likelihood.mean(prediction)[:, 0]
        return pixels.reshape(-1, *self.shape, self.channels)

    def predict(
        self,
        latents: Latents,
        observation: Observation | None = None,
        pixels: Tensor | None = None,
    ) -> Prediction:
        """Posed prediction at ``pixels`` (all when None), after the observation; (B, K, P, C).

        With an observation the field is evaluated on the whole box and filtered there.
        """
        whole = pixels is None or observation is not None or self.whole_field
        outputs = self._decode(latents, None if whole else pixels)
        prediction = self.likelihood.read(outputs)
        if not whole or (pixels is None and observation is None):
            return prediction
        chosen = slice(None) if pixels is None else pixels
        signal, log_std = prediction
        if observation is not None:
            signal = self._observe(signal, observation)
        signal = signal[:, :, chosen]
        if log_std is not None and log_std.dim():
            log_std = log_std[:, :, chosen]
        return Prediction(signal, log_std)

    def _decode(self, latents: Latents, pixels: Tensor | None) -> Tensor:
        """Outputs of the field (B, K, P, n_outputs) at pixels of the posed image."""
        z = latents.decoded
        if self.upright:
            picture: Tensor = self.field.picture(z.flatten(0, 1))  # type: ignore[operator]
            values = picture.flatten(2).transpose(1, 2)
            values = values.reshape(*z.shape[:2], *values.shape[1:])
            return values if pixels is None else values[:, :, pixels]
        x = self.coordinates if pixels is None else self.coordinates[pixels]
        u = latents.to_object(x) / half_box(self.shape)
        if self.layout.shared_content:  # one picture for all poses of an image
            return cast(Tensor, self.field(u.flatten(1, 2), z[:, 0])).reshape(*u.shape[:3], -1)
        return cast(Tensor, self.field(u.flatten(0, 1), z.flatten(0, 1))).reshape(*u.shape[:3], -1)

    @property
    def upright(self) -> bool:
        """Whether the field's picture is the image's, pixel by pixel: no pose is inferred."""
        gridded = getattr(self.field, "gridded", False) and self.field.shape == self.shape
        return gridded and not self.layout.infers_pose

    def _observe(self, signal: Tensor, observation: Observation) -> Tensor:
        """Filter each image's K signals (B, K, P, C) as the instrument did."""
        pictures = signal.transpose(-1, -2).reshape(len(signal), -1, *self.shape)
        return (
            observation.apply(pictures)
            .reshape(*signal.shape[:2], self.channels, -1)
            .transpose(-1, -2)
        )

    def some_pixels(self, count: int | None, generator: torch.Generator | None) -> Tensor:
        """Draw the given number of counted pixels, the same for the whole batch."""
        if count is None or count >= len(self.pixels):
            return self.pixels
        order = torch.rand(len(self.pixels), generator=generator, device=self.pixels.device)
        return self.pixels[order.topk(count, sorted=False).indices]
