"""Likelihoods: from the field's outputs and the recorded pixels to nats, with all constants."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import BernoulliConfig, GaussianConfig, LikelihoodConfig, SpectralConfig
from modpose.distributions.normal import LOG_2PI


class Prediction(NamedTuple):
    """The meaning of a field's outputs: the signal and, if predicted, the log s.d. of the noise."""

    signal: Tensor
    log_std: Tensor | None


class Score(NamedTuple):
    """Slope of the log-likelihood in each pixel's signal, and its Fisher information."""

    slope: Tensor
    information: Tensor


class Bernoulli(nn.Module):
    """Cross-entropy -H(y, p) per output, for y in [0, 1]; the signal is the logit.

    For binary pixels it is the Bernoulli log-probability.  For grey pixels it is the expectation
    over binary pixels with that mean, as in the published programs.
    """

    outputs_per_channel = 1

    def read(self, outputs: Tensor) -> Prediction:
        """Interpret field outputs (..., C)."""
        return Prediction(outputs.float(), None)

    def log_prob(self, prediction: Prediction, target: Tensor) -> Tensor:
        """Log-probability of ``target``, pixel by pixel, nats."""
        return -functional.binary_cross_entropy_with_logits(
            prediction.signal, target.expand_as(prediction.signal), reduction="none"
        )

    def natural(self, prediction: Prediction) -> Tensor:
        """Natural parameter: log p(y) is y times this, plus terms that do not couple the two."""
        return prediction.signal

    def score(self, prediction: Prediction, target: Tensor) -> Score:
        """Slope and information in the signal, pixel by pixel."""
        mean = prediction.signal.sigmoid()
        return Score(target - mean, mean * (1 - mean))

    def statistics(self, image: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sufficient statistics T(y): y, and 1 where pixels count.

        log p(y | s) is the sum of T(y) . eta(s), plus a constant.

        Parameters
        ----------
        image, counted
            (B, C, H, W), and (H, W) ones and zeros.

        Returns
        -------
        tuple of Tensor
            (B, Q, H, W), and the constant (B,), nats.
        """
        return _with_ones(image * counted, counted), image.new_zeros(len(image))

    def eta(self, prediction: Prediction) -> list[Tensor]:
        """Return the natural parameters of the Q statistics, for pictures (..., C, H, W)."""
        signal = prediction.signal
        return [*signal.unbind(-3), -functional.softplus(signal).sum(-3)]

    def mean(self, prediction: Prediction) -> Tensor:
        """Expected pixel values."""
        return prediction.signal.sigmoid()


class GaussianNoise(nn.Module):
    """Normal noise: fixed, one learned s.d. for the set, or one that the field predicts."""

    def __init__(self, config: GaussianConfig) -> None:
        super().__init__()
        self.noise = config.noise
        self.softplus = config.softplus
        self.outputs_per_channel = 2 if config.noise == "per-pixel" else 1
        log_std = torch.tensor(math.log(config.std))
        self.log_std = nn.Parameter(log_std, requires_grad=config.noise == "learned")

    def read(self, outputs: Tensor) -> Prediction:
        """Interpret field outputs (..., C), or (..., 2C) as C means, then C log s.d."""
        outputs = outputs.float()
        log_std: Tensor = self.log_std
        if self.noise == "per-pixel":
            outputs, spread = outputs.chunk(2, dim=-1)
            log_std = log_std + spread.clamp(-7, 7)
        return Prediction(functional.softplus(outputs) if self.softplus else outputs, log_std)

    def log_prob(self, prediction: Prediction, target: Tensor) -> Tensor:
        """Log density of ``target``, pixel by pixel, nats."""
        assert prediction.log_std is not None
        error = (target - prediction.signal) / prediction.log_std.exp()
        return -0.5 * error.square() - prediction.log_std - 0.5 * LOG_2PI

    def natural(self, prediction: Prediction) -> Tensor:
        """Natural parameter: log p(y) is y times it, and terms that do not couple the two.

        If the noise varies between pixels, y² is coupled too; this is left out.
        """
        assert prediction.log_std is not None
        return prediction.signal * (-2 * prediction.log_std).exp()

    def score(self, prediction: Prediction, target: Tensor) -> Score:
        """Slope and information in the signal, pixel by pixel."""
        signal, log_std = prediction
        assert log_std is not None
        precision = (-2 * log_std).exp().expand_as(signal)
        return Score(precision * (target - signal), precision)

    def statistics(self, image: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Return T(y) as for :class:`Bernoulli`, with y² if the noise varies between pixels."""
        masked = image * counted
        seen = _with_ones(masked, counted)
        if self.noise == "per-pixel":
            return torch.cat([seen, image * masked], dim=1), image.new_zeros(len(image))
        log_std, pixels = self.log_std.detach(), float(counted.sum()) * image.shape[1]
        energy = (image * masked).sum((1, 2, 3)) / (2 * (2 * log_std).exp())
        return seen, -energy - pixels * (log_std + 0.5 * LOG_2PI)

    def eta(self, prediction: Prediction) -> list[Tensor]:
        """Return the natural parameters of the Q statistics, for pictures (..., C, H, W)."""
        signal, log_std = prediction
        assert log_std is not None
        precision = (-2 * log_std).exp()
        linear = precision * signal
        energy = -0.5 * linear * signal
        if self.noise != "per-pixel":
            return [*linear.unbind(-3), energy.sum(-3)]
        normaliser = (energy - log_std - 0.5 * LOG_2PI).sum(-3)
        return [*linear.unbind(-3), normaliser, *(-0.5 * precision).expand_as(signal).unbind(-3)]

    def mean(self, prediction: Prediction) -> Tensor:
        """Expected pixel values."""
        return prediction.signal


def _with_ones(masked: Tensor, counted: Tensor) -> Tensor:
    return torch.cat([masked, counted.expand(len(masked), 1, *counted.shape)], dim=1)


Likelihood = Bernoulli | GaussianNoise


def build_likelihood(config: LikelihoodConfig) -> Likelihood:
    """Make the likelihood of pixels that ``config`` names.

    For coefficients (:class:`modpose.fourier.projection.Projection`) it is white noise, used only
    to interpret a picture made of them.
    """
    if isinstance(config, SpectralConfig):
        return GaussianNoise(GaussianConfig(noise="fixed", std=config.std))
    return Bernoulli() if isinstance(config, BernoulliConfig) else GaussianNoise(config)
