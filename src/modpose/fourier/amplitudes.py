"""What posed images tell of the amounts of maps, in a few sums that stand in for the images.

An image is c (m_0 + a_1 m_1 + ... + a_J m_J) + noise: a mean map and J others, as its pose and CTF
show them, times its contrast c.  With white noise of variance 1, its log-likelihood is quadratic in
the amounts, so three sums over its coefficients are all that it tells: products of the maps, of the
maps with the image, and of the image with itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEAST_CONTRAST = 0.1
"""Smallest contrast that amounts are divided by: an image without a particle has about none."""


class AmplitudeSums(NamedTuple):
    """Sums over the coefficients of B images.

    Attributes
    ----------
    products
        (B, J + 1, J + 1) of two maps each, the mean first.
    seen
        (B, J + 1) of each map and the image.
    power
        (B,) of the image with itself, plus what depends on the noise alone: minus twice the
        log-likelihood of an image that shows nothing.
    """

    products: Tensor
    seen: Tensor
    power: Tensor

    @classmethod
    def of(cls, models: Tensor, target: Tensor, constant: Tensor) -> AmplitudeSums:
        """Sum up.

        Parameters
        ----------
        models
            (B, J + 1, P) real numbers of the maps as each image shows them, whitened.
        target
            (B, P') those of the images; the maps show nothing beyond the first P.
        constant
            () log-variances of these numbers and logarithms of 2 pi, summed.
        """
        seen = (models * target[:, None, : models.shape[2]]).sum(-1)
        power = target.square().sum(-1) + constant
        return cls(models @ models.transpose(1, 2), seen, power)

    @staticmethod
    def width(maps: int) -> int:
        """Return how many numbers, Q, an image has with so many maps, J + 1."""
        return maps * (maps + 1) // 2 + maps + 1

    def packed(self) -> Tensor:
        """(B, Q), each product once."""
        i, j = torch.triu_indices(*self.products.shape[1:], device=self.seen.device)
        return torch.cat([self.products[:, i, j], self.seen, self.power[:, None]], 1)

    @classmethod
    def unpacked(cls, packed: Tensor, maps: int) -> AmplitudeSums:
        """Return the sums of so many maps, J + 1, from :meth:`packed`."""
        i, j = torch.triu_indices(maps, maps, device=packed.device)
        products = packed.new_empty(len(packed), maps, maps)
        products[:, i, j] = products[:, j, i] = packed[:, : len(i)]
        return cls(products, packed[:, len(i) : -1], packed[:, -1])

    def log_likelihood(self, amount: Tensor, spread: float) -> Tensor:
        """Log p(image | amounts), (B, K) nats, constants included.

        Parameters
        ----------
        amount
            (B, K, J + 1), that of the mean is 1.
        spread
            Prior standard deviation of the contrast, which is integrated out; 0: it is 1.
        """
        square, along = self._along(amount)
        gain: Tensor | float = 0.0
        if spread:
            more, variance = _contrast(square, along, spread)
            gain = 0.5 * more.square() / variance + 0.5 * torch.log(variance / spread**2)
        return gain - 0.5 * (self.power.unsqueeze(1) - 2 * along + square)

    def contrast(self, amount: Tensor, spread: float) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation (B, K) of the contrast, for given amounts."""
        more, variance = _contrast(*self._along(amount), spread)
        return 1 + more, variance.sqrt()

    def _along(self, amount: Tensor) -> tuple[Tensor, Tensor]:
        """Products (B, K) of the maps' sum with itself, and with the image."""
        square = ((amount @ self.products) * amount).sum(-1)
        return square, (amount @ self.seen.unsqueeze(-1)).squeeze(-1)

    def shown(self, spread: float) -> Tensor:
        """Posterior mean (B, J + 1) of contrast times amounts: a is N(0, I) before."""
        if spread:
            return self._jointly(spread)
        found = torch.linalg.solve(
            self.products[:, 1:, 1:] + torch.eye(self.seen.shape[1] - 1).to(self.seen),
            (self.seen - self.products[:, 0])[:, 1:, None],
        )
        return torch.cat([torch.ones_like(self.seen[:, :1]), found.squeeze(-1)], 1)

    def _jointly(self, spread: float) -> Tensor:
        prior = torch.ones_like(self.seen)
        prior[:, 0] = spread**-2
        start = self.seen.clone()
        start[:, 0] += spread**-2
        precision = self.products + torch.diag_embed(prior)
        found: Tensor = torch.linalg.solve(precision, start.unsqueeze(-1))
        return found.squeeze(-1)

    def of_motions(self, spread: float) -> tuple[Tensor, Tensor]:
        """Precision and linear term of the log-likelihood of the J amounts beside the mean.

        log p(image | a) = slope.a - a.precision a / 2 + constant.  The contrast is estimated with
        a ~ N(0, I), and integrated out in the linear approximation there.

        Returns
        -------
        precision, slope
            (B, J, J) and (B, J).
        """
        crossed, mean = self.products[:, 1:, 0], self.products[:, 0, 0]
        if not spread:
            return self.products[:, 1:, 1:], self.seen[:, 1:] - crossed
        contrast = self._jointly(spread)[:, :1].clamp(min=LEAST_CONTRAST)
        variance = 1 / (mean + spread**-2)
        left = self.seen - contrast * self.products[:, :, 0]
        pull = variance.unsqueeze(-1) * (left[:, :1] + (1 - contrast) * spread**-2)
        precision = self.products[:, 1:, 1:] - variance[:, None, None] * (
            crossed[:, :, None] * crossed[:, None]
        )
        return contrast.unsqueeze(-1).square() * precision, contrast * (
            left[:, 1:] - crossed * pull
        )


def _contrast(square: Tensor, along: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """Posterior mean, less 1, and variance of the contrast, which is N(1, spread²) before."""
    variance = 1 / (square + spread**-2)
    return (along - square) * variance, variance
