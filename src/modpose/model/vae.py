"""The composition: a batch goes in, its evidence lower bound comes out.

encoder -> posterior -> pose on coordinates -> field -> observation -> likelihood -> Elbo
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import Config, SoftCellsConfig, TopCellsConfig
from modpose.data.batches import Batch
from modpose.geometry.pose import rotate_images
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.generative import GenerativeModel
from modpose.model.image_rows import KnownPoses, SearchedPoses
from modpose.model.imaging import Imaging
from modpose.model.latents import Latents, joined
from modpose.model.objective import Elbo, Objective
from modpose.model.posterior import LatentLayout, Posterior
from modpose.model.settings import SpaceSearch
from modpose.model.terms import Term
from modpose.nn.frozen import frozen

FIRST_PASSED = 0.5
"""Fraction of a batch whose first pass is decoded in training."""


class Vae(GenerativeModel):
    """One generative story and one proposer of its posterior.

    Parameters
    ----------
    config
        The run's configuration (``model``, ``train.cells``, and the mask of ``data``).
    encoder
        Proposes q(content, pose | image).
    layout
        Which latent variables there are.
    imaging
        How images show the object.
    shape, channels
        Of the preprocessed images.
    n_images
        Size of the stack (rows of tables with a row an image).
    terms
        What is trained beside the bound.
    """

    def __init__(
        self,
        config: Config,
        *,
        encoder: Encoder,
        layout: LatentLayout,
        imaging: Imaging,
        shape: Sequence[int],
        channels: int,
        n_images: int,
        terms: Sequence[Term] = (),
    ) -> None:
        super().__init__(
            config,
            shape=shape,
            channels=channels,
            n_images=n_images,
            layout=layout,
            imaging=imaging,
        )
        self.encoder: Encoder = encoder
        self.cells, self.beside = config.train.cells, nn.ModuleList(terms)
        self.searched = SearchedPoses(n_images) if encoder.poses_in_space else None

    @property
    def terms(self) -> list[Term]:
        """What is trained beside the bound."""
        return [cast(Term, term) for term in self.beside]

    @property
    def whole_batch(self) -> int:
        """Images that are encoded and decoded at once without filling the memory."""
        return max(self.encoder.least_batch, super().whole_batch)

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
    ) -> Objective:
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
            How many times the prior of the angle counts where an encoder searches for it.
        hold_content
            Decode with z = 0 and leave its KL out.
        """
        bound = partial(
            self.elbo, batch, generator=generator, pixels=pixels, hold_content=hold_content
        )
        turn = None
        if augment:
            size, device = len(batch), batch.image.device
            turn = 2 * math.pi * torch.rand(size, generator=generator, device=device)
        known = self.known_poses(batch) if self.training else None
        posterior = self.posterior(
            batch, turn, angle_prior=angle_prior, known=known, generator=generator
        )
        elbo, first_pass = bound(posterior, decoded_images=decoded_images), None
        if posterior.first is not None:
            few = math.ceil(FIRST_PASSED * (decoded_images or len(batch)))
            with frozen(self.field, self.likelihood):  # these learn from the second pass
                parts = bound(posterior.first, decoded_images=few)
            first_pass = Elbo(*(self.encoder.first_pass_weight * part for part in parts))
        return Objective(elbo, first_pass, self._losses(batch, posterior, generator))

    def _losses(
        self, batch: Batch, posterior: Posterior, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Terms of a training step, by name."""
        if not self.training:
            return {}
        return {
            term.name: term.loss(batch, posterior, self.posterior, generator) for term in self.terms
        }

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
        kl = kl._replace(pose=kl.pose + self.pose_penalty(batch))
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

    def posterior(
        self,
        batch: Batch,
        turn: Tensor | None = None,
        centre: Tensor | None = None,
        *,
        angle_prior: float = 1.0,
        known: KnownPoses | None = None,
        search: SpaceSearch | None = None,
        generator: torch.Generator | None = None,
    ) -> Posterior:
        """q(content, pose | image); with ``turn`` (B,), as read from copies turned by that angle.

        Radians; about the middle, or about ``centre`` (B, 2) pixels.  What is inferred of the
        copies is turned back.  Other parameters as in
        :class:`modpose.model.encoders.encoder.Context`.
        """
        context = Context(
            self,
            turn=turn,
            angle_prior=angle_prior,
            known=known,
            search=search,
            generator=generator,
        )
        if turn is not None:
            batch = batch.with_image(rotate_images(batch.image, turn, self.coordinates, centre))
        if batch.twin is not None:  # an evil twin, which the encoder sees in place of the image
            batch = batch.with_image(batch.twin)
        posterior = cast(Posterior, self.encoder(batch, context))
        told = posterior.cells is not None and posterior.cells.mirrored is not None
        assert told == self.layout.reflects, "the encoder's cells do not tell what they have to"
        return posterior if turn is None else posterior.turned_back(turn, centre)

    def known_poses(self, batch: Batch) -> KnownPoses | None:
        """Poses that a search found before training, if the model is fitted to these images."""
        if self.searched is None or not batch.fitted:
            return None
        return self.searched.at(batch.index)

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
            temperature, reflection = self.cells.temperature, posterior.log_reflection()
            if reflection is not None:  # both are decoded, with their probabilities
                each = [posterior.soft_sample(temperature, generator, m) for m in (False, True)]
                return joined(each), reflection
            latents = posterior.soft_sample(temperature, generator)
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
        posterior = self.posterior(batch, known=self.known_poses(batch))
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

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Draw what the model believes is under the noise, in each image's own pose.

        Returns
        -------
        Tensor
            (B, *shape, C) expected pixel values.
        """
        return self.draw(batch, self.posterior(batch, known=self.known_poses(batch)).best())
