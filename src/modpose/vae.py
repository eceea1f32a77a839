"""The composition: a batch goes in, its evidence lower bound comes out.

encoder -> posterior -> pose on coordinates -> field -> observation -> likelihood -> Elbo
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from modpose.affinity.term import AffinityTerm
from modpose.config import (
    Config,
    MlpEncoderConfig,
    SoftCellsConfig,
    SpectralConfig,
    TopCellsConfig,
)
from modpose.config.checks import check_model
from modpose.data.batches import Batch
from modpose.encoders import build_encoder
from modpose.encoders.polar import PolarEncoder
from modpose.fields import build_field
from modpose.fields.conv import ConvField
from modpose.fields.dense import DenseField
from modpose.fields.fronted import FrontedField
from modpose.geometry.grids import disc, half_box, lattice
from modpose.geometry.pose import Pose, rotate_images
from modpose.likelihoods import Prediction, build_likelihood
from modpose.observe.observation import Observation
from modpose.observe.projection import Projection
from modpose.posterior.cells import Proposal
from modpose.posterior.corrections import PoseCorrections
from modpose.posterior.latents import Latents
from modpose.posterior.posterior import LatentLayout, Posterior

WHOLE_PIXELS = 1 << 17


class Elbo(NamedTuple):
    """The parts of the bound, nats an image, (B,) each; and what else is trained on.

    Attributes
    ----------
    recon, kl_pose, kl_content
        The bound is the first less the others.
    extra
        (B,) the affinity term, a loss and no part of the bound; None where there is none.
    """

    recon: Tensor
    kl_pose: Tensor
    kl_content: Tensor
    extra: Tensor | None = None

    def value(self, beta: float = 1.0, gamma: float = 0.0) -> Tensor:
        """Return recon - kl_pose - beta kl_content - gamma extra; by default the bound."""
        value = self.recon - self.kl_pose - beta * self.kl_content
        return value if self.extra is None else value - gamma * self.extra


class Vae(nn.Module):
    """One generative story and one proposer of its posterior.

    Parameters
    ----------
    config
        The run's configuration (``model``, and the mask of ``data``).
    shape, channels
        Of the preprocessed images.
    n_images
        Size of the stack (rows of a lookup table).
    affinity
        How alike the images that it is trained on are, where that is known and trained on.
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
        affinity: AffinityTerm | None = None,
    ) -> None:
        super().__init__()
        model = config.model
        self.shape, self.channels = tuple(shape), channels
        self.layout = LatentLayout(model, len(shape), max(shape))
        self.projection = None
        if isinstance(model.likelihood, SpectralConfig):
            self.projection = Projection(model.likelihood, max(shape))
        self.sees = model.encoder.sees if isinstance(model.encoder, MlpEncoderConfig) else "image"
        in_space = self.projection is None or self.sees == "image"
        self.encoder = build_encoder(
            model,
            n_params=self.layout.n_params,
            channels=channels,
            shape=shape,
            n_images=n_images,
            n_shown=None if in_space else cast(Projection, self.projection).n_shown(self.sees),
        )
        self.corrections = None
        if model.refine_poses is not None:
            self.corrections = PoseCorrections(model.refine_poses, n_images)
        self.cells = config.train.cells
        self.affinity = affinity
        self.likelihood = build_likelihood(model.likelihood)
        self.field = build_field(
            model.field,
            z_dim=model.z_dim + model.pose_channel,
            n_outputs=channels * self.likelihood.outputs_per_channel,
            shape=shape,
        )
        mask = config.data.mask
        counted = (
            torch.arange(math.prod(shape)) if mask is None else disc(shape, mask * min(shape) / 2)
        )
        self.register_buffer("coordinates", lattice(shape), persistent=False)
        self.register_buffer("pixels", counted, persistent=False)

    @property
    def whole_field(self) -> bool:
        """Whether the field can only be evaluated at every pixel of the box at once."""
        return isinstance(self.field, FrontedField)

    @property
    def whole_batch(self) -> int:
        """Images that are decoded at every pixel at once without filling the memory."""
        return max(1, WHOLE_PIXELS // math.prod(self.shape))

    def forward(
        self,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        pixels: int | None = None,
        augment: bool = False,
        hold_content: bool = False,
    ) -> Elbo:
        """Single-sample estimate of the evidence lower bound (Bepler et al. 2019, equation 4).

        Parameters
        ----------
        batch
            B images.
        generator
            Source of all randomness.
        pixels
            Number of pixels that estimate the reconstruction term without bias; None: all.
        augment
            Turn the encoder's input by a random angle and take it off the inferred one.
        hold_content
            Decode with z = 0 and leave its KL out.
        """
        posterior = self.posterior(batch, generator if augment else None)
        elbo = self.elbo(batch, posterior, generator, pixels=pixels, hold_content=hold_content)
        if self.affinity is None or not self.training:
            return elbo
        return elbo._replace(extra=self.affinity(posterior.content_mean(), batch))

    def elbo(
        self,
        batch: Batch,
        posterior: Posterior,
        generator: torch.Generator | None,
        *,
        pixels: int | None = None,
        hold_content: bool = False,
    ) -> Elbo:
        """Return the bound that ``posterior`` gives; parameters as in :meth:`forward`."""
        latents, log_weight = self._hypotheses(posterior, generator)
        kl = posterior.kl(exact=not self.training)
        if self.corrections is not None:
            kl = kl._replace(pose=kl.pose + self.corrections.penalty(batch.index))
        if hold_content:
            latents = latents._replace(z=torch.zeros_like(latents.z))
            kl = kl._replace(content=torch.zeros_like(kl.content))
        recon = self.log_likelihood(batch, latents, generator, pixels)
        return Elbo((log_weight.exp() * recon).sum(1), kl.pose, kl.content)

    def _hypotheses(
        self, posterior: Posterior, generator: torch.Generator | None
    ) -> tuple[Latents, Tensor]:
        """Latents to decode, and the log weight of each, (B, K).

        In training, many cells are mixed or enumerated, as configured; otherwise one is drawn.
        """
        many = posterior.cell_log_q.shape[-1] > 1
        if self.training and many and isinstance(self.cells, TopCellsConfig):
            top = posterior.top(self.cells.count)
            return posterior.sample_in(top.cell, generator), top.log_weight
        if self.training and many and isinstance(self.cells, SoftCellsConfig):
            latents = posterior.soft_sample(self.cells.temperature, generator)
        else:
            latents = posterior.sample(1, generator)
        return latents, torch.zeros_like(latents.cell, dtype=torch.float32)

    def importance_bound(
        self, batch: Batch, samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Importance-weighted bound (Burda et al. 2016), (B,) nats, at least the ELBO on average.

        Parameters
        ----------
        batch
            B images.
        samples
            K, importance samples an image.
        generator
            Source of all randomness.
        """
        posterior = self.posterior(batch)
        latents = posterior.sample(samples, generator)
        recon = torch.cat(
            [
                self.log_likelihood(batch, latents.at(slice(None), slice(k, k + 1)))
                for k in range(samples)
            ],
            dim=1,
        )
        weight = recon + posterior.log_prior_over_posterior(latents)
        return weight.logsumexp(-1) - math.log(samples)

    def posterior(self, batch: Batch, augment: torch.Generator | None = None) -> Posterior:
        """q(content, pose | image); ``augment`` gives the angles of the encoder's input."""
        if augment is None:
            return self.layout.posterior(*self._propose(batch))
        angle = torch.rand(len(batch), generator=augment, device=batch.image.device)
        angle = 2 * math.pi * angle
        turned = rotate_images(batch.image, angle, self.coordinates)
        posterior = self.layout.posterior(*self._propose(batch.with_image(turned)))
        return posterior.turned_back(angle)

    def _propose(self, batch: Batch) -> Proposal:
        if batch.twin is not None:
            batch = batch.with_image(batch.twin)
        if self.projection is not None and self.sees != "image":
            posed = replace(batch, pose=self.given_pose(batch))
            batch = batch.with_image(self.projection.show(posed, self.sees, self.coordinates))
        if isinstance(self.encoder, PolarEncoder):
            return cast(Proposal, self.encoder(batch, self._upright))
        return cast(Proposal, self.encoder(batch))

    def _upright(self, u: Tensor, z: Tensor) -> Tensor:
        """Natural parameter (B, P, C) of the likelihood at pixels u (P, 2) of the upright frame."""
        outputs = self.field((u / half_box(self.shape)).expand(len(z), -1, -1), z)
        return self.likelihood.natural(self.likelihood.read(outputs))

    def log_likelihood(
        self,
        batch: Batch,
        latents: Latents,
        generator: torch.Generator | None = None,
        pixels: int | None = None,
    ) -> Tensor:
        """Return log p(image | latents) in nats, (B, K), summed over pixels and channels."""
        if self.projection is not None:
            pose, learn = self.given_pose(batch), self.training
            return self.projection.log_likelihood(self.field, batch, latents.z, pose, learn=learn)
        whole = batch.observation is not None or self.whole_field
        chosen = self.pixels if whole else self._subset(pixels, generator)
        target = batch.image.flatten(2)
        every = len(chosen) == target.shape[-1]  # then there is nothing to pick
        prediction = self.predict(latents, batch.observation, None if every else chosen)
        target = (target if every else target[:, :, chosen]).transpose(1, 2).unsqueeze(1)
        log_prob = self.likelihood.log_prob(prediction, target)
        return log_prob.sum((-2, -1)) * (len(self.pixels) / len(chosen))

    def given_pose(self, batch: Batch) -> Pose:
        """Poses (B,) that came with the images, corrected where they are being refined."""
        assert batch.pose is not None, "the model needs given poses"
        return batch.pose if self.corrections is None else self.corrections(batch.index, batch.pose)

    @contextmanager
    def uncorrected(self) -> Iterator[None]:
        """Take given poses as they are for a while: corrections belong to the images fitted to."""
        corrections, self.corrections = self.corrections, None
        try:
            yield
        finally:
            self.corrections = corrections

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Draw what the model believes is under the noise, in each image's own pose.

        Returns
        -------
        Tensor
            (B, *shape, C) expected pixel values.
        """
        best = self.posterior(batch).best()
        if self.projection is not None:
            pose = self.given_pose(batch)
            seen = self.projection.predict(self.field, best.z, pose, batch.ctf)
            return self.projection.picture(seen[:, 0]).unsqueeze(-1)
        return self._picture(self.predict(best, batch.observation))

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
        if self.projection is not None:
            return torch.stack([self.projection.volume(self.field, one) for one in z])[..., None]
        still = z.new_zeros(len(z), 1, len(self.shape))
        cell = torch.zeros(len(z), 1, dtype=torch.int64, device=z.device)
        angle = still[..., 0] if len(self.shape) == 2 else still
        beside = None if channel is None else channel.unsqueeze(1)
        latents = Latents(z.unsqueeze(1), angle, still, cell, channel=beside)
        return self._picture(self.predict(latents))

    def _picture(self, prediction: Prediction) -> Tensor:
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
            gridded = cast(DenseField | ConvField, self.field)
            values = gridded.picture(z.flatten(0, 1)).flatten(2).transpose(1, 2)
            values = values.reshape(*z.shape[:2], *values.shape[1:])
            return values if pixels is None else values[:, :, pixels]
        x = self.coordinates if pixels is None else self.coordinates[pixels]
        u = latents.pose().to_object(x) / half_box(self.shape)
        if self.layout.shared_content:  # one picture for all poses of an image
            return cast(Tensor, self.field(u.flatten(1, 2), z[:, 0])).reshape(*u.shape[:3], -1)
        return cast(Tensor, self.field(u.flatten(0, 1), z.flatten(0, 1))).reshape(*u.shape[:3], -1)

    @property
    def upright(self) -> bool:
        """Whether the field's picture is the image's, pixel by pixel: no pose is inferred."""
        posed = self.layout.rotation.prior != "none" or self.layout.shift_std is not None
        gridded = isinstance(self.field, DenseField | ConvField) and self.field.shape == self.shape
        return gridded and not posed

    def _observe(self, signal: Tensor, observation: Observation) -> Tensor:
        """Filter each image's K signals (B, K, P, C) as the instrument did."""
        pictures = signal.transpose(-1, -2).reshape(len(signal), -1, *self.shape)
        return (
            observation.apply(pictures)
            .reshape(*signal.shape[:2], self.channels, -1)
            .transpose(-1, -2)
        )

    def _subset(self, count: int | None, generator: torch.Generator | None) -> Tensor:
        """Draw so many of the counted pixels, the same for the whole batch."""
        if count is None or count >= len(self.pixels):
            return self.pixels
        order = torch.rand(len(self.pixels), generator=generator, device=self.pixels.device)
        return self.pixels[order.topk(count, sorted=False).indices]


def build_vae(
    config: Config,
    *,
    shape: Sequence[int],
    channels: int,
    n_images: int,
    affinity: AffinityTerm | None = None,
) -> Vae:
    """Make a model, seeded by ``config.seed``, after checking that its parts agree."""
    check_model(config, shape, channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Vae(config, shape=shape, channels=channels, n_images=n_images, affinity=affinity)
