"""The affinity term: latent cosines against known affinities (Mirecka et al., equation 3)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from modpose.affinity.known import KnownAffinity
from modpose.config import Schedule
from modpose.data.batches import Batch
from modpose.model.posterior import Posterior
from modpose.model.terms import Read, Term

Form = Literal["ordered-pairs", "pair-mean"]


class Gaps(NamedTuple):
    """|affinity - cosine| of every two images, (B, B), zero where the affinity is not known."""

    value: Tensor
    known: Tensor


class AffinityTerm(Term):
    """S(z), per image: its mean over a batch is the term.

    With c_ij the cosine between the posterior means of the contents of images i and j, and A_ij
    their affinity, ``ordered-pairs`` is ``sum_ij |A_ij - c_ij| / N`` over all ordered pairs
    (Mirecka et al., equation 3), and ``pair-mean`` the mean of ``|A_ij - c_ij|`` over pairs.
    Images without known affinities are left out; N counts the others.

    Parameters
    ----------
    known
        Affinities of the images that are trained on.
    form
        See above.
    schedule
        Its weight during training.
    """

    name = "affinity"

    classes: Tensor | None
    samples: Tensor | None

    def __init__(
        self,
        known: KnownAffinity,
        form: Form = "ordered-pairs",
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.form, self.schedule = form, schedule or Schedule()
        classes = None if known.classes is None else torch.as_tensor(known.classes.values).float()
        samples = None if known.samples is None else torch.as_tensor(known.samples).float()
        self.register_buffer("classes", classes, persistent=False)
        self.register_buffer("samples", samples, persistent=False)

    def weight(self, step: int) -> float:
        """Follow the schedule."""
        return self.schedule.at(step)

    def loss(
        self, batch: Batch, posterior: Posterior, read: Read, generator: torch.Generator | None
    ) -> Tensor:
        """Compare the means of contents with the known affinities, (B,)."""
        gaps: Tensor = self(posterior.content_mean(), batch)
        return gaps

    def forward(self, content: Tensor, batch: Batch) -> Tensor:
        """Return the term by image, (B,), for contents (B, z_dim) of a batch."""
        gap, known = self.gaps(content, batch)
        if self.form == "ordered-pairs":
            taking_part = known.any(1).sum().clamp(min=1)
            return gap.sum(1) * (len(gap) / taking_part)
        others = 1 - torch.eye(len(gap), device=gap.device)
        pairs = (known * others).sum().clamp(min=1)
        return (gap * others).sum(1) * (len(gap) / pairs)

    def expected(self, content: Tensor, batch: Batch, batch_size: int) -> Tensor:
        """Value of the term that batches of ``batch_size`` drawn from these images would have.

        Parameters
        ----------
        content
            (B, z_dim).
        batch
            The images; their pixels are not used.
        batch_size
            Images in a batch.
        """
        gap, known = self.gaps(content, batch)
        others = 1 - torch.eye(len(gap), device=gap.device)
        mean = (gap * others).sum() / (known * others).sum().clamp(min=1)
        if self.form == "pair-mean":
            return mean
        partners = (known * others).sum(1)
        return (
            mean
            * (batch_size - 1)
            * partners.sum()
            / (partners > 0).sum().clamp(min=1)
            / max(1, len(gap) - 1)
        )

    def gaps(self, content: Tensor, batch: Batch) -> Gaps:
        """Compare all pairs of contents (B, z_dim) with the known affinities."""
        unit = functional.normalize(content.float(), dim=-1)
        target, known = self._targets(batch)
        return Gaps((target - unit @ unit.T).abs() * known, known)

    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Affinities (B, B), those of classes before those of samples, and which are known."""
        size, device = len(batch), batch.index.device
        target, known = (
            torch.zeros(size, size, device=device),
            torch.zeros(size, size, dtype=torch.bool, device=device),
        )
        if self.classes is not None and batch.label is not None:
            row = batch.label.clamp(min=0)
            target = self.classes[row][:, row]
            has = batch.label >= 0
            known = has[:, None] & has
        if self.samples is not None:
            alike = self.samples[batch.index][:, batch.index]
            target = torch.where(known, target, alike)
            known = torch.ones_like(known)
        return target, known.float()
