"""The evidence lower bound, and the training objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """How a training step estimates the bound.

    Attributes
    ----------
    pixels
        Number of pixels that estimate the reconstruction term without bias; None: all.
    decoded_images
        Number of images, the first ones, that estimate it; for the others it is zero.
    augment
        Rotate the encoder's input by a random angle and subtract it from the inferred angle.
    angle_prior
        Weight of the prior of the angle if an encoder searches for the angle.
    hold_content
        Decode with z = 0 and leave its KL out.
    """

    pixels: int | None = None
    decoded_images: int | None = None
    augment: bool = False
    angle_prior: float = 1.0
    hold_content: bool = False


WHOLE = Estimate()
"""Use every pixel of every image, without augmentation."""


class Elbo(NamedTuple):
    """The evidence lower bound is ``recon`` minus the others; nats per image, (B,) each."""

    recon: Tensor
    kl_pose: Tensor
    kl_content: Tensor

    def value(self, beta: float = 1.0) -> Tensor:
        """Return recon - kl_pose - beta kl_content; with ``beta`` 1 it is the bound."""
        return self.recon - self.kl_pose - beta * self.kl_content


class Objective(NamedTuple):
    """The training objective: the bound and the additional terms.

    Attributes
    ----------
    elbo
        The bound.
    first_pass
        The bound of the encoder's first pass, times its weight; it trains only the encoder.  None
        if there is no first pass.
    terms
        Losses by name, (B,) each (:class:`modpose.model.terms.Term`).  ``pose_supervision`` is the
        negative log density of known poses under the encoder.
    """

    elbo: Elbo
    first_pass: Elbo | None
    terms: Mapping[str, Tensor]

    def value(self, beta: float = 1.0, weights: Mapping[str, float] | None = None) -> Tensor:
        """Return bound + first pass - sum of weight x term, (B,); a weight is 1 if not given."""
        value = self.elbo.value(beta)
        if self.first_pass is not None:
            value = value + self.first_pass.value(beta)
        for name, term in self.terms.items():
            value = value - (weights or {}).get(name, 1.0) * term
        return value

    def float(self) -> Objective:
        """Return the same in single precision."""
        first = self.first_pass
        return Objective(
            Elbo(*(part.float() for part in self.elbo)),
            None if first is None else Elbo(*(part.float() for part in first)),
            {name: term.float() for name, term in self.terms.items()},
        )
