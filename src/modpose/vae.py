"""The composition: a batch goes in, its evidence lower bound comes out.

encoder -> posterior -> pose on coordinates -> field -> observation -> likelihood -> Elbo
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from modpose.affinity.term import AffinityTerm
from modpose.config import (
    Config,
    MlpEncoderConfig,
    SoftCellsConfig,
    SpectralConfig,
    TopCellsConfig,
)
from modpose.config.checks import check_model
from modpose.contrast import contrastive_loss, deformed
from modpose.data.batches import Batch
from modpose.encoders import build_encoder
from modpose.encoders.octahedral import OctahedralEncoder
from modpose.encoders.polar import PolarEncoder
from modpose.encoders.principal import PrincipalEncoder
from modpose.fields.basis import BasisField
from modpose.fields.principal import PrincipalField
from modpose.frozen import frozen
from modpose.generative import GenerativeModel
from modpose.geometry.pose import Pose, rotate_images
from modpose.observe.projection import Projection
from modpose.posterior.cells import Proposal
from modpose.posterior.latents import Latents
from modpose.posterior.posterior import LatentLayout, Posterior
from modpose.posterior.searched import SearchedPoses
from modpose.posterior.settings import SpaceSearch

FIRST_LOOKED = 0.5
"""Fraction of a batch whose first look is decoded in training."""
POSED_AT_ONCE = 32
"""Volumes whose poses are compared with the model's in one product of matrices."""


class Elbo(NamedTuple):
    """The parts of the bound, nats an image, (B,) each; and what else is trained on.

    Attributes
    ----------
    recon, kl_pose, kl_content
        The bound is the first less the others.
    extra
        (B,) the affinity term, a loss and no part of the bound; None where there is none.
    contrast
        (B,) the contrastive term, another such loss.
    taught
        (B,) log density of known poses under the encoder, which learns from them, and no part of
        the bound; None where none are known.
    first
        The parts of the bound that the first look of a polar encoder gives, times its weight, on
        which the encoder is trained as well; None where there is none.
    """

    recon: Tensor
    kl_pose: Tensor
    kl_content: Tensor
    extra: Tensor | None = None
    contrast: Tensor | None = None
    taught: Tensor | None = None
    first: Elbo | None = None

    def value(self, beta: float = 1.0, gamma: float = 0.0, contrast: float = 0.0) -> Tensor:
        """Return recon - kl_pose - beta kl_content, the bound by default, and what is trained too.

        That is - gamma extra - contrast contrast + taught + first (with the same beta), of those
        that there are.
        """
        value = self.recon - self.kl_pose - beta * self.kl_content
        if self.first is not None:
            value = value + self.first.value(beta)
        if self.taught is not None:
            value = value + self.taught
        if self.contrast is not None:
            value = value - contrast * self.contrast
        return value if self.extra is None else value - gamma * self.extra


class Vae(GenerativeModel):
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

    def __init__(
        self,
        config: Config,
        *,
        shape: Sequence[int],
        channels: int,
        n_images: int,
        affinity: AffinityTerm | None = None,
    ) -> None:
        model = config.model
        layout, projection = LatentLayout(model, len(shape), max(shape)), None
        if isinstance(model.likelihood, SpectralConfig):
            projection = Projection(model.likelihood, max(shape))
        sees = model.encoder.sees if isinstance(model.encoder, MlpEncoderConfig) else "image"
        in_space = projection is None or sees == "image"
        encoder = build_encoder(
            model,
            n_params=layout.n_params,
            channels=channels,
            shape=shape,
            n_images=n_images,
            n_shown=None if projection is None or in_space else projection.n_shown(sees),
        )
        super().__init__(
            config,
            shape=shape,
            channels=channels,
            n_images=n_images,
            layout=layout,
            projection=projection,
        )
        self.encoder, self.sees = encoder, sees
        self.cells, self.affinity = config.train.cells, affinity
        self.contrast = config.train.contrast
        self.searched, self.knows = None, False
        if isinstance(encoder, OctahedralEncoder):
            self.searched = SearchedPoses(n_images)

    @property
    def whole_batch(self) -> int:
        """Images that are encoded and decoded at once; many volumes, whose poses are compared."""
        least = POSED_AT_ONCE if isinstance(self.encoder, OctahedralEncoder) else 1
        return max(least, super().whole_batch)

    def forward(
        self,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        pixels: int | None = None,
        decoded_images: int | None = None,
        augment: bool = False,
        angle_prior: float = 1.0,
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
        decoded_images
            Number of images that do, the first ones; of the others it is zero.
        augment
            Turn the encoder's input by a random angle and take it off the inferred one.
        angle_prior
            How many times the prior of the angle counts where the polar encoder searches for it.
        hold_content
            Decode with z = 0 and leave its KL out.
        """
        if self.searched is not None and self.training:
            elbo, posterior = self._taught(batch, self.searched, generator)
        else:
            turn = None
            if augment:
                size, device = len(batch), batch.image.device
                turn = 2 * math.pi * torch.rand(size, generator=generator, device=device)
            posterior = self.posterior(batch, turn, angle_prior=angle_prior)
            bound = partial(
                self.elbo, batch, generator=generator, pixels=pixels, hold_content=hold_content
            )
            elbo = bound(posterior, decoded_images=decoded_images)
            if posterior.first is not None:
                few = math.ceil(FIRST_LOOKED * (decoded_images or len(batch)))
                with frozen(self.field, self.likelihood):  # these learn from the second look
                    recon, kl_pose, kl_content, *_ = bound(posterior.first, decoded_images=few)
                w = cast(PolarEncoder, self.encoder).first_look
                elbo = elbo._replace(first=Elbo(w * recon, w * kl_pose, w * kl_content))
        if not self.training:
            return elbo
        if self.affinity is not None:
            elbo = elbo._replace(extra=self.affinity(posterior.content_mean(), batch))
        if self.contrast is not None:
            elbo = elbo._replace(contrast=self._contrast(batch, posterior, generator))
        return elbo

    def elbo(
        self,
        batch: Batch,
        posterior: Posterior,
        generator: torch.Generator | None,
        *,
        pixels: int | None = None,
        decoded_images: int | None = None,
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
        few = min(decoded_images or len(batch), len(batch))
        if few < len(batch):
            latents, log_weight = latents.at(slice(few)), log_weight[:few]
            batch = batch.rows(torch.arange(few))
        recon = (log_weight.exp() * self.log_likelihood(batch, latents, generator, pixels)).sum(1)
        rest = len(kl.content) - few
        recon = functional.pad(recon * (1 + rest / few), (0, rest))
        return Elbo(recon, kl.pose, kl.content)

    def _contrast(
        self, batch: Batch, posterior: Posterior, generator: torch.Generator | None
    ) -> Tensor:
        """How far contents are from telling images by deformed copies of them, (B,) nats."""
        assert self.contrast is not None
        copies = batch.with_image(deformed(batch.image, self.contrast, generator))
        other = self.layout.posterior(*self._propose(copies)).content_mean()
        return contrastive_loss(posterior.content_mean(), other, self.contrast.similarity)

    def _taught(
        self, batch: Batch, searched: SearchedPoses, generator: torch.Generator | None
    ) -> tuple[Elbo, Posterior]:
        """Bound and posterior at the poses that a search found; how well the encoder knows them."""
        encoder, field = self._octahedral()
        seen = encoder.coefficients(batch)
        pose, width = searched.at(batch.index)
        content = encoder.contents(seen, pose, field)
        params = encoder.lay_out(content, pose, width).unsqueeze(1)
        posterior = self.layout.posterior(params, torch.zeros_like(params[..., 0]))
        with torch.no_grad():
            z = posterior.sample(1, generator).z[:, 0]
        taught = encoder.learn_poses(seen, pose, z, field, generator)
        return self.elbo(batch, posterior, generator)._replace(taught=taught), posterior

    def _octahedral(self) -> tuple[OctahedralEncoder, BasisField]:
        return cast(OctahedralEncoder, self.encoder), cast(BasisField, self.field)

    def searched_posterior(self, batch: Batch, thorough: SpaceSearch) -> Posterior:
        """q(content, pose | volume) by a search of all poses in place of the encoder's few."""
        encoder, field = self._octahedral()
        return self.layout.posterior(*encoder(batch, field, thorough, self._known(batch)))

    def _known(self, batch: Batch) -> Pose | None:
        """Return the poses searched for a batch of the images fitted to, if they may be used."""
        if self.searched is None or not self.knows:
            return None
        return self.searched.at(batch.index)[0]

    @contextmanager
    def knowing(self) -> Iterator[None]:
        """Consider, for a while, the poses that were searched: for the images fitted to alone."""
        before, self.knows = self.knows, True
        try:
            yield
        finally:
            self.knows = before

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

    def posterior(
        self,
        batch: Batch,
        turn: Tensor | None = None,
        centre: Tensor | None = None,
        *,
        angle_prior: float = 1.0,
    ) -> Posterior:
        """q(content, pose | image); with ``turn`` (B,), as read from copies turned by that angle.

        Radians; about the middle, or about ``centre`` (B, 2) pixels.  What is inferred of the
        copies is turned back.  ``angle_prior`` as in :meth:`forward`.
        """
        if turn is None:
            return self.layout.posterior(*self._propose(batch, angle_prior=angle_prior))
        turned = batch.with_image(rotate_images(batch.image, turn, self.coordinates, centre))
        posterior = self.layout.posterior(*self._propose(turned, turn, angle_prior))
        return posterior.turned_back(turn, centre)

    def _propose(
        self, batch: Batch, turn: Tensor | None = None, angle_prior: float = 1.0
    ) -> Proposal:
        if batch.twin is not None:
            batch = batch.with_image(batch.twin)
        if self.projection is not None and self.sees != "image":
            posed = replace(batch, pose=self.given_pose(batch))
            batch = batch.with_image(self.projection.show(posed, self.sees, self.coordinates))
        if isinstance(self.encoder, PrincipalEncoder):
            return cast(Proposal, self.encoder(*self._said_of_motions(batch)))
        if isinstance(self.encoder, PolarEncoder):
            return cast(Proposal, self.encoder(batch, self.upright_natural, turn, angle_prior))
        if isinstance(self.encoder, OctahedralEncoder):
            return cast(Proposal, self.encoder(batch, self.field, known=self._known(batch)))
        return cast(Proposal, self.encoder(batch))

    @torch.no_grad()
    def _said_of_motions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Precision (B, J, J) and slope (B, J) of the motions' amplitudes, given each pose."""
        assert self.projection is not None and isinstance(self.field, PrincipalField)
        posed = replace(batch, pose=self.given_pose(batch))
        return self.projection.said_of(self.field.components, posed)

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
