"""q(content, pose | image): a mixture over cells, Gaussian in each, and its prior.

A cell is one discrete hypothesis of the pose; an encoder that proposes only one has one cell.
All tensors carry the image first and the cell second, (B, C, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.config import ModelConfig, RotationConfig
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import rotation_2d, wrap
from modpose.posterior.gaussian import LOG_2PI, Gaussian, wrapped_entropy, wrapped_log_prob

LOG_STD_RANGE = (-8.0, 4.0)


class Latents(NamedTuple):
    """Samples from the posterior, K an image.

    Attributes
    ----------
    z
        (B, K, z_dim) content.
    angle
        (B, K) radians (zero where rotation is not inferred).
    shift
        (B, K, d) pixels (zero where shift is not inferred).
    cell
        (B, K) int64, the cell that each sample came from.
    """

    z: Tensor
    angle: Tensor
    shift: Tensor
    cell: Tensor

    def pose(self) -> Pose:
        """Poses (B, K) as rotation matrices and shifts."""
        dim = self.shift.shape[-1]
        if dim == 2:
            return Pose(rotation_2d(self.angle), self.shift)
        identity = torch.eye(dim, device=self.shift.device)
        return Pose(identity.expand(*self.shift.shape, dim), self.shift)


class Kl(NamedTuple):
    """KL of the posterior to the prior, nats an image: (B,) each."""

    pose: Tensor
    content: Tensor


class LatentLayout:
    """Which latent variables a model has, and where an encoder's numbers for them stand."""

    def __init__(self, config: ModelConfig, dim: int) -> None:
        self.z_dim = config.z_dim
        self.dim = dim
        self.rotation = config.rotation
        self.shift_std = config.shift.std_px if config.shift.prior == "gaussian" else None
        angle = {"none": 0, "gaussian": 2, "wide": 2, "uniform": 3}[config.rotation.prior]
        shift = 0 if self.shift_std is None else 2 * dim
        self.sizes = [2 * self.z_dim, angle, shift]

    @property
    def n_params(self) -> int:
        """Numbers that an encoder gives for each cell."""
        return sum(self.sizes)

    def posterior(self, params: Tensor, cell_logits: Tensor) -> Posterior:
        """Read an encoder's output.

        Parameters
        ----------
        params
            (B, C, n_params): content mean and log s.d., angle (a mean in radians, or a direction
            (cos, sin) on the circle; then log s.d.), shift mean (in units of its prior) and log
            s.d.
        cell_logits
            (B, C) unnormalised log q(cell).
        """
        content, angle, shift = torch.split(params.float(), self.sizes, dim=-1)
        mean, log_std = content.chunk(2, dim=-1)
        return Posterior(
            layout=self,
            cell_log_q=cell_logits.float().log_softmax(-1),
            content=Gaussian(mean, log_std.clamp(*LOG_STD_RANGE)),
            angle=self._angle(angle),
            shift=self._shift(shift),
        )

    def _angle(self, params: Tensor) -> Gaussian | None:
        if self.rotation.prior == "none":
            return None
        log_std = params[..., -1:].clamp(*LOG_STD_RANGE)
        if self.rotation.prior == "uniform":
            mean = torch.atan2(params[..., 1:2], params[..., 0:1])
        else:
            mean = params[..., :1]
        return Gaussian(mean, log_std)

    def _shift(self, params: Tensor) -> Gaussian | None:
        if self.shift_std is None:
            return None
        mean, log_std = params.chunk(2, dim=-1)
        log_std = (log_std + math.log(self.shift_std)).clamp(*LOG_STD_RANGE)
        return Gaussian(mean * self.shift_std, log_std)


class Posterior(NamedTuple):
    """q(cell) and, in each cell, independent content, angle and shift; (B, C, ...)."""

    layout: LatentLayout
    cell_log_q: Tensor
    content: Gaussian
    angle: Gaussian | None
    shift: Gaussian | None

    def turned_back(self, angle: Tensor) -> Posterior:
        """Return the posterior of an image whose turned copy, by ``angle`` (B,), had this one."""
        spin, shift = self.angle, self.shift
        if spin is not None:
            spin = Gaussian(wrap(spin.mean - angle[:, None, None]), spin.log_std)
        if shift is not None:
            back = rotation_2d(-angle)[:, None]
            shift = Gaussian((back @ shift.mean.unsqueeze(-1)).squeeze(-1), shift.log_std)
        return self._replace(angle=spin, shift=shift)

    def sample(self, count: int, generator: torch.Generator | None) -> Latents:
        """Draw ``count`` independent samples an image, reparametrised within each cell."""
        cell = torch.multinomial(self.cell_log_q.exp(), count, True, generator=generator)
        return self._read(cell, lambda gaussian: gaussian.rsample(generator))

    def best(self) -> Latents:
        """Return the mean of the most probable cell, K = 1."""
        cell = self.cell_log_q.argmax(-1, keepdim=True)
        means = self._read(cell, lambda gaussian: gaussian.mean)
        return means._replace(angle=wrap(means.angle))

    def spread(self, cell: Tensor) -> Latents:
        """Posterior standard deviations within cells (B, K), named as the latents are."""
        return self._read(cell, lambda gaussian: gaussian.log_std.exp())

    def _read(self, cell: Tensor, number: Callable[[Gaussian], Tensor]) -> Latents:
        """Collect one ``number`` of each Gaussian at ``cell`` (B, K); zero where there is none."""
        zero = self.content.mean.new_zeros(*cell.shape, self.layout.dim)
        return Latents(
            z=number(_at(self.content, cell)),
            angle=zero[..., 0] if self.angle is None else number(_at(self.angle, cell))[..., 0],
            shift=zero if self.shift is None else number(_at(self.shift, cell)),
            cell=cell,
        )

    def kl(self, *, exact: bool) -> Kl:
        """KL to the prior: uniform over cells, N(0, I) on content, the configured pose priors.

        Parameters
        ----------
        exact
            Use the KL that makes the ELBO a bound.  Otherwise the ``wide`` rotation prior takes
            equation 3 of Bepler et al. 2019, which does not penalise the mean and bounds only
            where the prior is wide.
        """
        weight = self.cell_log_q.exp()
        cells = self.cell_log_q.shape[-1]
        pose = self.cell_log_q + math.log(cells)
        if self.angle is not None:
            pose = pose + angle_kl(self.angle, self.layout.rotation, exact=exact)
        if self.shift is not None and self.layout.shift_std is not None:
            pose = pose + self.shift.kl_to_prior(self.layout.shift_std)
        content = self.content.kl_to_prior(1.0)
        return Kl(pose=(weight * pose).sum(-1), content=(weight * content).sum(-1))

    def log_prior_over_posterior(self, latents: Latents) -> Tensor:
        """Return log p(latents) - log q(latents | image), (B, K), for importance weights."""
        content = _at(self.content, latents.cell)
        standard = Gaussian(torch.zeros_like(content.mean), torch.zeros_like(content.mean))
        cells = self.cell_log_q.shape[-1]
        ratio = -math.log(cells) - self.cell_log_q.gather(-1, latents.cell)
        ratio = ratio + standard.log_prob(latents.z) - content.log_prob(latents.z)
        if self.angle is not None:
            angle = _at(self.angle, latents.cell)
            ratio = ratio + _angle_log_ratio(angle, latents.angle, self.layout.rotation)
        if self.shift is not None and self.layout.shift_std is not None:
            shift = _at(self.shift, latents.cell)
            spread = torch.full_like(shift.mean, math.log(self.layout.shift_std))
            prior = Gaussian(torch.zeros_like(shift.mean), spread)
            ratio = ratio + prior.log_prob(latents.shift) - shift.log_prob(latents.shift)
        return ratio

    def pose_entropy(self) -> Tensor:
        """Entropy of q(pose | image), (B,) nats: of the cells plus the mean within a cell."""
        inside = -self.cell_log_q
        if self.angle is not None:
            inside = inside + wrapped_entropy(self.angle.log_std.squeeze(-1))
        if self.shift is not None:
            inside = inside + self.shift.entropy()
        return (self.cell_log_q.exp() * inside).sum(-1)


def angle_kl(angle: Gaussian, prior: RotationConfig, *, exact: bool) -> Tensor:
    """KL of the angle's posterior to its prior, nats; ``angle`` is (..., 1), the result (...)."""
    std = math.radians(prior.std_deg)
    if prior.prior == "gaussian":
        return angle.kl_to_prior(std)
    if prior.prior == "wide" and not exact:
        return Gaussian(torch.zeros_like(angle.mean), angle.log_std).kl_to_prior(std)
    return LOG_2PI - wrapped_entropy(angle.log_std.squeeze(-1))


def _angle_log_ratio(angle: Gaussian, value: Tensor, prior: RotationConfig) -> Tensor:
    if prior.prior == "gaussian":
        spread = torch.full_like(angle.mean, math.log(math.radians(prior.std_deg)))
        line = Gaussian(torch.zeros_like(angle.mean), spread)
        return line.log_prob(value.unsqueeze(-1)) - angle.log_prob(value.unsqueeze(-1))
    mean, log_std = angle.mean.squeeze(-1), angle.log_std.squeeze(-1)
    return -LOG_2PI - wrapped_log_prob(value, mean, log_std)


def _at(gaussian: Gaussian, cell: Tensor) -> Gaussian:
    """Pick cells (B, K) of a (B, C, k) Gaussian: (B, K, k)."""
    index = cell.unsqueeze(-1).expand(-1, -1, gaussian.mean.shape[-1])
    return Gaussian(gaussian.mean.gather(1, index), gaussian.log_std.gather(1, index))
