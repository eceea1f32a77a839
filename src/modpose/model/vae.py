"""The whole model: from a batch of images to its evidence lower bound.

encoder -> posterior -> pose on coordinates -> field -> observation -> likelihood -> Elbo
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import Config
from modpose.data.batches import Batch
from modpose.geometry.pose import rotate_images
from modpose.model.draws import one_sample, training_draw
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.generative import GenerativeModel
from modpose.model.image_rows import KnownPoses, SearchedPoses
from modpose.model.imaging import Imaging
from modpose.model.objective import WHOLE, Elbo, Estimate, Objective
from modpose.model.posterior import LatentLayout, Posterior
from modpose.model.settings import SpaceSearch
from modpose.model.terms import Term
from modpose.nn.frozen import frozen

FIRST_PASSED = 0.5
"""Fraction of a batch whose first pass is decoded in training."""


class Vae(GenerativeModel):
    """A generative model and an encoder.

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
        Size of the stack (rows of tables with one row per image).
    terms
        Terms that are trained in addition to the bound.
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
        self.training_draw, self.beside = training_draw(config.train.cells), nn.ModuleList(terms)
        self.searched = SearchedPoses(n_images) if encoder.poses_in_space else None

    @property
    def terms(self) -> list[Term]:
        """Terms that are trained in addition to the bound."""
        return [cast(Term, term) for term in self.beside]

    @property
    def whole_batch(self) -> int:
        """Images that are encoded and decoded at once without filling the memory."""
        return max(self.encoder.least_batch, super().whole_batch)

    def forward(
        self, batch: Batch, *, generator: torch.Generator | None = None, how: Estimate = WHOLE
    ) -> Objective:
        """Single-sample estimate of the evidence lower bound (Bepler et al. 2019, equation 4).

        Parameters
        ----------
        batch
            B images.
        generator
            Source of all randomness.
        how
            How a training step estimates the bound and augments the images.
        """
        turn, known = None, self.known_poses(batch) if self.training else None
        if how.augment:
            size, device = len(batch), batch.image.device
            turn = 2 * math.pi * torch.rand(size, generator=generator, device=device)
        posterior = self.posterior(
            batch, turn, angle_prior=how.angle_prior, known=known, generator=generator
        )
        elbo, first_pass, terms = self.elbo(batch, posterior, generator, how), None, {}
        if posterior.first is not None:
            few = math.ceil(FIRST_PASSED * (how.decoded_images or len(batch)))
            with frozen(self.field, self.likelihood):  # these learn from the second pass
                parts = self.elbo(
                    batch, posterior.first, generator, replace(how, decoded_images=few)
                )
            first_pass = Elbo(*(self.encoder.first_pass_weight * part for part in parts))
        if self.training:
            for term in self.terms:
                terms[term.name] = term.loss(batch, posterior, self.posterior, generator)
        return Objective(elbo, first_pass, terms)

    def elbo(
        self,
        batch: Batch,
        posterior: Posterior,
        generator: torch.Generator | None,
        how: Estimate = WHOLE,
    ) -> Elbo:
        """E[log p(image | latents)] - KL(q || p); arguments as in :meth:`forward`."""
        draw = self.training_draw if self.training else one_sample
        latents, log_weight = draw(posterior, generator)
        kl = posterior.kl(exact=not self.training)
        kl = kl._replace(pose=kl.pose + self.pose_penalty(batch))
        if how.hold_content:
            latents = latents._replace(z=torch.zeros_like(latents.z))
            kl = kl._replace(content=torch.zeros_like(kl.content))
        few = min(how.decoded_images or len(batch), len(batch))
        rest = len(batch) - few
        if rest:
            latents, log_weight = latents.at(slice(few)), log_weight[:few]
            batch = batch.rows(slice(few))
        nats = self.log_likelihood(batch, latents, generator, how.pixels)
        recon = (log_weight.exp() * nats).sum(1) * (1 + rest / few)
        return Elbo(functional.pad(recon, (0, rest)), kl.pose, kl.content)

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
        """q(content, pose | image); with ``turn`` (B,) radians, encoded from copies rotated by it.

        Copies are rotated about the middle, or about ``centre`` (B, 2) pixels; the inferred poses
        are rotated back.  Other parameters: :class:`modpose.model.encoders.encoder.Context`.
        """
        context = Context(self, turn, angle_prior, known, search, generator)
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

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Draw the model's noise-free reconstruction of each image, (B, *shape, C)."""
        return self.draw(batch, self.posterior(batch, known=self.known_poses(batch)).best())
