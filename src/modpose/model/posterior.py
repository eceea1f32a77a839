"""q(content, pose | image): a mixture over cells, Gaussian in each, and its prior.

A cell is one discrete hypothesis of the pose; an encoder that proposes only one has one cell. If
cells give an angle or a shift (:class:`modpose.model.cells.Cells`), the Gaussians here describe
the whole angle and shift: that of the cell plus a residual. All tensors have the image first and
the cell second, (B, C, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.config import ModelConfig
from modpose.distributions.normal import DiagonalNormal
from modpose.distributions.priors import (
    Fixed,
    Normal,
    Prior,
    bhattacharyya,
    circle_entropy,
    kl,
    log_ratio,
    rotation_prior,
    scale_prior,
    shift_prior,
)
from modpose.distributions.so3 import SO3Normal
from modpose.geometry.rotations import rotation_2d, wrap
from modpose.model.cells import Cells
from modpose.model.latents import Kl, Latents


class LatentLayout:
    """The latent variables of a model, and where an encoder's output holds their numbers."""

    def __init__(self, config: ModelConfig, dim: int, side: int = 1) -> None:
        self.z_dim = config.z_dim
        self.dim = dim
        self.content = Normal(1.0, config.z_dim)
        self.rotation = rotation_prior(config.rotation, dim)
        self.shift = shift_prior(config.shift, dim, side)
        self.scale = scale_prior(config.scale)
        self.reflects = config.reflection.inferred
        self.role = config.encoder.cell_role(config)
        self.shared_content = config.encoder.shared_content
        angle = 2 if self.role.angle else self.rotation.numbers
        told = self.role.shift and not self.role.shift_residual
        shift = 0 if told else self.shift.numbers
        scale = self.scale.numbers
        self.sizes = [self.content.numbers, angle, shift, scale, config.pose_channel]

    @property
    def infers_pose(self) -> bool:
        """Whether any part of the pose is a latent variable."""
        variables = (self.rotation, self.shift, self.scale)
        return self.reflects or any(variable.inferred for variable in variables)

    @property
    def n_params(self) -> int:
        """Numbers that an encoder gives for each cell."""
        return sum(self.sizes)

    def posterior(
        self, params: Tensor, cell_logits: Tensor, cells: Cells | None = None
    ) -> Posterior:
        """Read a network's output.

        Parameters
        ----------
        params
            (B, C, n_params), as the priors of content, rotation, shift and scale read them
            (:meth:`modpose.distributions.priors.Prior.read`); then the pose channel.  If cells
            give the angle or the shift, mean and s.d. are of the residual, in units of its prior.
        cell_logits
            (B, C) unnormalised log q(cell).
        cells
            The poses of the cells.
        """
        told = self.role.angle or self.role.shift
        assert told == (cells is not None), "the encoder's cells are not those of its configuration"
        parts = torch.split(params.float(), self.sizes, dim=-1)
        content, rotation, shift, scale, channel = parts
        priors = self.priors_in(cells)
        moved = priors.shift.read(shift)
        if cells is not None and cells.shift is not None and cells.shift_std is None:
            place = cells.shift.expand(*params.shape[:2], self.dim)
            moved = DiagonalNormal(place, place.new_tensor(-math.inf).expand(place.shape))
        return self.made_of(
            cell_logits,
            self.content.read(content),
            priors.rotation.read(rotation),
            moved,
            scale=self.scale.read(scale),
            cells=cells,
            channel=channel if channel.shape[-1] else None,
        )

    def made_of(
        self,
        cell_logits: Tensor,
        content: DiagonalNormal,
        rotation: DiagonalNormal | SO3Normal | None,
        shift: DiagonalNormal | None,
        *,
        scale: DiagonalNormal | None = None,
        cells: Cells | None = None,
        channel: Tensor | None = None,
        first: Posterior | None = None,
    ) -> Posterior:
        """Put a posterior together from its parts, (B, C, ...); None for what is not inferred."""
        return Posterior(
            layout=self,
            cell_log_q=cell_logits.float().log_softmax(-1),
            content=content,
            angle=rotation if isinstance(rotation, DiagonalNormal) else None,
            turn=rotation if isinstance(rotation, SO3Normal) else None,
            shift=shift,
            scale=scale,
            cells=cells,
            channel=channel,
            first=first,
        )

    def one_cell(self, params: Tensor) -> Posterior:
        """Read a network's output (B, n_params) as one cell."""
        return self.posterior(params.unsqueeze(1), params.new_zeros(len(params), 1))

    def priors_in(self, cells: Cells | None) -> PosePriors:
        """Return the priors of rotation and shift in each cell."""
        rotation: Prior = self.rotation
        shift = self.shift
        if cells is not None and cells.angle is not None:
            centre, std = cells.angle.unsqueeze(-1), cells.angle_std
            rotation = Normal(std, 1, centre, unit=std)
        if cells is not None and cells.shift is not None:
            shift = Fixed()
            if cells.shift_std is not None:
                shift = Normal(cells.shift_std, self.dim, cells.shift, unit=cells.shift_std)
        return PosePriors(rotation, shift)


class PosePriors(NamedTuple):
    """Priors of the rotation and the shift."""

    rotation: Prior
    shift: Normal | Fixed


class Posterior(NamedTuple):
    """q(cell) and, in each cell, independent content, rotation, shift and scale; (B, C, ...).

    The rotation is an ``angle`` (three in space), or a ``turn``: a posterior over all of SO(3).  A
    shift that a cell fixes has a log s.d. of minus infinity.  The Gaussian of the ``scale`` is
    that of its logarithm.  The pose channel (B, C, p), where there is one, is a number without a
    distribution.  ``first`` is the posterior of the encoder's first pass, if that is trained as
    well.  ``known_pose_log_prob`` (B,) is the log density, in nats, that the encoder gives to
    poses which a search found, if it learns from them.
    """

    layout: LatentLayout
    cell_log_q: Tensor
    content: DiagonalNormal
    angle: DiagonalNormal | None
    shift: DiagonalNormal | None
    cells: Cells | None = None
    turn: SO3Normal | None = None
    channel: Tensor | None = None
    first: Posterior | None = None
    known_pose_log_prob: Tensor | None = None
    scale: DiagonalNormal | None = None

    @property
    def rotation(self) -> DiagonalNormal | SO3Normal | None:
        """The posterior of the rotation: ``angle`` or ``turn``."""
        return self.angle if self.turn is None else self.turn

    @property
    def shift_is_fixed(self) -> bool:
        """Whether each cell has one shift, without a residual."""
        return (
            self.cells is not None and self.cells.shift is not None and self.cells.shift_std is None
        )

    def turned_back(self, angle: Tensor, centre: Tensor | None = None) -> Posterior:
        """Return the posterior of an image from that of its copy, rotated by ``angle`` (B,).

        With ``centre`` (B, 2), the copy was rotated about this point, which became its middle.
        """
        spin, shift = self.angle, self.shift
        told = self.cells is not None and self.cells.shift is not None
        assert centre is None or not told, "the prior of a cell is that of its place"
        cells = None if self.cells is None else self.cells.turned_back(angle)
        if spin is not None:
            mean = spin.mean - angle[:, None, None]
            told = cells is not None and cells.angle is not None  # then a residual is on the line
            spin = DiagonalNormal(mean if told else wrap(mean), spin.log_std)
        if shift is not None:
            mean = shift.mean @ rotation_2d(angle)
            shift = DiagonalNormal(
                mean if centre is None else mean + centre[:, None], shift.log_std
            )
        first = None if self.first is None else self.first.turned_back(angle, centre)
        return self._replace(angle=spin, shift=shift, cells=cells, first=first)

    def log_reflection(self) -> Tensor | None:
        """Log q(not mirrored) and log q(mirrored), (B, 2); None without reflection."""
        if self.cells is None or self.cells.mirrored is None:
            return None
        of_each = [~self.cells.mirrored, self.cells.mirrored]
        parts = [self.cell_log_q.masked_fill(~mine, -math.inf).logsumexp(-1) for mine in of_each]
        return torch.stack(parts, -1)

    def sample(self, count: int, generator: torch.Generator | None) -> Latents:
        """Draw ``count`` independent samples per image, reparametrised within each cell."""
        cell = torch.multinomial(self.cell_log_q.exp(), count, True, generator=generator)
        return self.sample_in(cell, generator)

    def sample_in(self, cell: Tensor, generator: torch.Generator | None) -> Latents:
        """Draw one reparametrised sample in each of the cells (B, K)."""
        return self._read(cell, lambda gaussian: gaussian.rsample(generator))

    def best(self) -> Latents:
        """Return the mean of the most probable cell (of the more probable reflection), K = 1."""
        log_q, reflection = self.cell_log_q, self.log_reflection()
        if reflection is not None and self.cells is not None and self.cells.mirrored is not None:
            more = reflection[:, 1:] > reflection[:, :1]
            log_q = log_q.masked_fill(self.cells.mirrored ^ more, -math.inf)
        return self.mean_in(log_q.argmax(-1, keepdim=True))

    def mean_in(self, cell: Tensor) -> Latents:
        """Return the means of cells (B, K)."""
        means = self._read(cell, lambda gaussian: gaussian.mean)
        return means._replace(angle=wrap(means.angle))

    def spread(self, cell: Tensor) -> Latents:
        """Posterior standard deviations within cells (B, K), named as the latents are."""
        return self._read(cell, lambda gaussian: gaussian.log_std.exp())

    def _read(self, cell: Tensor, number: Callable[[DiagonalNormal], Tensor]) -> Latents:
        """Collect one ``number`` of each Gaussian at ``cell`` (B, K); zero where there is none."""
        zero = self.content.mean.new_zeros(*cell.shape, self.layout.dim)
        first = cell[:, :1] if self.layout.shared_content else cell
        z = number(_at(self.content, first))
        angle, centre = zero, None
        if self.angle is not None:
            angle = number(_at(self.angle, cell))
        elif self.turn is not None:
            turn = self.turn.at(cell)
            centre = turn.centre
            angle = number(DiagonalNormal(zero, turn.log_std.expand_as(zero)))
        return Latents(
            z=z.expand(-1, cell.shape[1], -1),
            angle=angle[..., 0] if self.layout.dim == 2 else angle,
            shift=zero if self.shift is None else number(_at(self.shift, cell)),
            cell=cell,
            centre=centre,
            channel=None if self.channel is None else _pick(self.channel, cell),
            mirrored=None if self.cells is None else self.cells.mirrored_at(cell),
            log_scale=None if self.scale is None else number(_at(self.scale, cell))[..., 0],
        )

    def content_mean(self) -> Tensor:
        """Posterior mean of content, over all cells: (B, z_dim)."""
        return (self.cell_log_q.exp().unsqueeze(-1) * self.content.mean).sum(1)

    def kl(self, *, exact: bool) -> Kl:
        """KL to the prior: over cells, N(0, I) on content, the configured priors of the pose.

        For cells that give the pose, equation 5 of Nasiri & Bepler 2022: KL_{t,r} over all cells,
        plus KL_theta to N(offset_r, (pi/n)²) and KL_z weighted by q(t, r).  Otherwise cells are
        the components of a mixture and do not appear in the prior; see :meth:`log_overlap`.  If
        cells include reflection, its prior is 1/2.

        Parameters
        ----------
        exact
            Use the KL that makes the ELBO a bound.  Otherwise the ``wide`` rotation prior takes
            equation 3 of Bepler et al. 2019, which does not penalise the mean and bounds only
            where the prior is wide.
        """
        weight, cells = self.cell_log_q.exp(), self.cells
        pose = self.log_weight() if cells is None else self.log_weight() - cells.log_prior
        priors = self.layout.priors_in(cells)
        if self.rotation is not None:
            pose = pose + kl(self.rotation, priors.rotation, exact=exact)
        if self.shift is not None and priors.shift.inferred:
            pose = pose + kl(self.shift, priors.shift)
        if self.scale is not None:
            pose = pose + kl(self.scale, self.layout.scale)
        content = kl(self.content, self.layout.content)
        return Kl(pose=(weight * pose).sum(-1), content=(weight * content).sum(-1))

    def log_weight(self) -> Tensor:
        """Log of the weight of q at cell k, (B, C), for its entropy."""
        told = self.cells is not None and self.cells.tell_place
        return self.cell_log_q if told else self.log_overlap()

    def log_overlap(self) -> Tensor:
        """Log of the weight of a mixture at cell k, (B, C), for its entropy.

        log sum_j q(j) exp(-D_kj) with the Bhattacharyya distances D of the cells' poses, which is
        log q(k) where cells lie apart: minus its mean plus the mean entropy of the cells is a
        lower bound on the entropy of the mixture (Kolchinsky & Tracey 2017, equation 10), so the
        ELBO stays a bound.
        """
        if self.cell_log_q.shape[-1] == 1:
            return self.cell_log_q
        distance = torch.zeros_like(self.cell_log_q).unsqueeze(-1)
        if self.angle is not None:
            distance = distance + bhattacharyya(self.angle, on_circle=True)
        if self.turn is not None:
            distance = distance + self.turn.bhattacharyya()
        if self.shift is not None:
            distance = distance + bhattacharyya(self.shift, on_circle=False)
        if self.scale is not None:
            distance = distance + bhattacharyya(self.scale, on_circle=False)
        if self.cells is not None and self.cells.mirrored is not None:
            mirrored = self.cells.mirrored  # an object and its mirror image do not overlap
            distance = distance.masked_fill(mirrored[:, None] ^ mirrored, math.inf)
        return (self.cell_log_q.unsqueeze(-2) - distance).logsumexp(-1)

    def log_prior_over_posterior(self, latents: Latents) -> Tensor:
        """Return log p(latents) - log q(latents | image), (B, K), for importance weights."""
        cells, mirrored = self.cells, latents.mirrored
        if (cells is None or not cells.tell_place) and self.cell_log_q.shape[-1] > 1:
            every = []
            for k in range(self.cell_log_q.shape[-1]):
                of_cell = self._log_ratio(latents._replace(cell=torch.full_like(latents.cell, k)))
                if cells is not None and cells.mirrored is not None and mirrored is not None:
                    of_cell = of_cell.masked_fill(cells.mirrored[k] ^ mirrored, math.inf)
                every.append(of_cell)
            return -(-torch.stack(every, -1)).logsumexp(-1)
        return self._log_ratio(latents)

    def _log_ratio(self, latents: Latents) -> Tensor:
        """Log p(latents) - log q(latents, cell | image), with p(cell) if cells give the pose."""
        cell, prior = latents.cell, self.layout.content
        cells = None if self.cells is None else self.cells.at(cell)
        priors = self.layout.priors_in(cells)
        content, log_q = _at(self.content, cell), self.cell_log_q.gather(-1, cell)
        ratio = -log_q if cells is None else cells.log_prior - log_q
        ratio = ratio + prior.log_prob(latents.z) - content.log_prob(latents.z)
        if self.angle is not None:
            angle = _at(self.angle, cell)
            value = latents.angle.reshape(angle.mean.shape)
            ratio = ratio + log_ratio(priors.rotation, angle, value)
        if self.turn is not None:
            ratio = ratio + log_ratio(priors.rotation, self.turn.at(cell), latents.rotation)
        if self.shift is not None and priors.shift.inferred:
            ratio = ratio + log_ratio(priors.shift, _at(self.shift, cell), latents.shift)
        if self.scale is not None and latents.log_scale is not None:
            scale, value = _at(self.scale, cell), latents.log_scale.unsqueeze(-1)
            ratio = ratio + log_ratio(self.layout.scale, scale, value)
        return ratio

    def pose_entropy(self) -> Tensor:
        """Entropy of q(pose | image), (B,) nats: of the cells plus the mean within a cell.

        A shift that a cell fixes counts as uniform over a pixel; the scale by its logarithm.
        """
        inside = -self.log_weight()
        if self.angle is not None:
            inside = inside + circle_entropy(self.angle)
        if self.turn is not None:
            inside = inside + self.turn.entropy()
        if self.shift is not None and not self.shift_is_fixed:
            inside = inside + self.shift.entropy()
        if self.scale is not None:
            inside = inside + self.scale.entropy()
        return (self.cell_log_q.exp() * inside).sum(-1)


def _at(gaussian: DiagonalNormal, cell: Tensor) -> DiagonalNormal:
    """Pick cells (B, K) of a (B, C, k) Gaussian: (B, K, k)."""
    return DiagonalNormal(_pick(gaussian.mean, cell), _pick(gaussian.log_std, cell))


def _pick(values: Tensor, cell: Tensor) -> Tensor:
    """Pick cells (B, K) of (B, C, k): (B, K, k)."""
    return values.gather(1, cell.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
