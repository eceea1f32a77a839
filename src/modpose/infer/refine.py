"""From modes to a posterior: infer z again in each mode, refine by gradient, form a mixture.

The posterior of an image is a mixture over its modes with one Gaussian each over content, angle
and shift.  With weights q_c and the parts of each component's own bound, the evidence lower bound
of the mixture is

    sum over c of q_c (recon_c - KL_c - log q_c - overlap_c),

where overlap_c, the mean over component c of log q(latents) - log q_c q_c(latents), is zero where
modes are apart and never negative; with it the bound is exact, whatever the modes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from modpose.distributions.normal import LOG_STD_RANGE, DiagonalNormal, wrapped_entropy
from modpose.distributions.priors import kl, log_density
from modpose.geometry.pose import sample_images
from modpose.geometry.rotations import wrap
from modpose.infer.search import PoseModes, infers_angle, infers_shift
from modpose.model.latents import Latents
from modpose.model.settings import SearchSettings
from modpose.nn.frozen import frozen

if TYPE_CHECKING:
    from modpose.data.batches import Batch
    from modpose.model.vae import Vae

NEGLIGIBLE = 10.0
"""Modes that are this many nats below the best are not refined."""
STREAMS = {"choose": 1, "report": 2, "climb": 3}
"""Independent noise for choosing, for reporting, and for the gradient."""


class Components(NamedTuple):
    """One Gaussian per row over all latent variables: (P, D), D = z_dim + 1 + 2 with all inferred.

    Columns are content, then the angle (radians), then the shift (pixels), as far as the model
    has them; ``owner`` (P,) is the image of each row and ``slot`` (P,) its number within it.
    """

    mean: Tensor
    log_std: Tensor
    owner: Tensor
    slot: Tensor


class Bound(NamedTuple):
    """Parts of a bound, nats: recon (S, P) by sample, the KLs (P,)."""

    recon: Tensor
    kl_pose: Tensor
    kl_content: Tensor

    def value(self) -> Tensor:
        """Mean over samples of the evidence lower bound, (P,)."""
        return self.recon.mean(0) - self.kl_pose - self.kl_content


class Mixture(NamedTuple):
    """The refined posterior of B images.

    Attributes
    ----------
    best
        The mean of the most probable component, K = 1.
    spread
        Its standard deviations, named as the latents are.
    modes
        All components, most probable first.
    recon
        (S, B) reconstruction term by sample.
    kl_pose, kl_content
        (B,) nats; the pose's carries the entropy of the component and the overlap.
    pose_entropy
        (B,) nats: of the component, plus the mean within one.
    chosen_by
        (B,) the same bound from other samples, those that chose between components.
    """

    best: Latents
    spread: Latents
    modes: PoseModes
    recon: Tensor
    kl_pose: Tensor
    kl_content: Tensor
    pose_entropy: Tensor
    chosen_by: Tensor

    def elbo(self) -> Tensor:
        """Return the evidence lower bound by sample, (S, B)."""
        return self.recon - self.kl_pose - self.kl_content


def refine(
    vae: Vae,
    batch: Batch,
    modes: PoseModes,
    content: DiagonalNormal,
    settings: SearchSettings,
    *,
    encode: bool,
    seed: int,
) -> Mixture:
    """Refine modes to a posterior by gradient, the model's weights untouched.

    Parameters
    ----------
    vae
        The model.
    batch
        B images.
    modes
        Where to start, (B, K).
    content
        (B, H, z_dim) hypotheses that ``modes.hypothesis`` counts.
    settings
        Of the search.
    encode
        Rotate each image upright with each mode, encode it again, and start from this content or
        from the hypothesis, whichever is better.
    seed
        Noise for each image depends on this and on its position in the stack, not on the batch.
    """
    work = Refiner(vae, batch, settings, seed)
    start = work.start(modes, content)
    if encode:
        start = work.encoded_again(start)
    with frozen(vae):
        refined = work.climb(start)
    before, after = (work.bound(parts, "choose") for parts in (start, refined))
    better = after.value() > before.value()
    parts = refined._replace(
        mean=torch.where(better[:, None], refined.mean, start.mean),
        log_std=torch.where(better[:, None], refined.log_std, start.log_std),
    )
    chosen = torch.where(better, after.value(), before.value())
    return work.mixture(parts, chosen)


class Refiner:
    """A batch, its noise, and the arithmetic of components over it."""

    def __init__(self, vae: Vae, batch: Batch, settings: SearchSettings, seed: int) -> None:
        self.vae, self.batch, self.settings, self.seed = vae, batch, settings, seed
        self.z_dim = vae.layout.z_dim
        self.sizes = [self.z_dim, int(infers_angle(vae)), 2 * int(infers_shift(vae))]

    # --- where to start -----------------------------------------------------------------------

    def start(self, modes: PoseModes, content: DiagonalNormal) -> Components:
        """Make components of the modes that count, with content from their hypothesis."""
        counted = modes.log_weight > modes.log_weight[:, :1] - NEGLIGIBLE
        owner, slot = torch.nonzero(counted, as_tuple=True)
        which = modes.hypothesis[owner, slot]
        means, log_stds = [content.mean[owner, which]], [content.log_std[owner, which]]
        if self.sizes[1]:
            means.append(modes.angle[owner, slot, None])
            log_stds.append(modes.angle_std[owner, slot, None].log())
        if self.sizes[2]:
            means.append(modes.shift[owner, slot])
            log_stds.append(modes.shift_std[owner, slot].log())
        return Components(
            torch.cat(means, -1), torch.cat(log_stds, -1).clamp(*LOG_STD_RANGE), owner, slot
        )

    @torch.no_grad()
    def encoded_again(self, parts: Components) -> Components:
        """Encode each image rotated upright; keep that content if its bound is higher."""
        pose = self.latents(parts.mean[:, None]).pose()
        seen = self.batch.rows(parts.owner)
        x = pose.to_image(self.vae.coordinates)[:, 0]
        upright = sample_images(seen.image, x).transpose(1, 2).reshape(seen.image.shape)
        posterior = self.vae.posterior(seen.with_image(upright))
        best = posterior.best()
        z, spread = best.z[:, 0], posterior.spread(best.cell).z[:, 0]
        again = parts._replace(
            mean=torch.cat([z, parts.mean[:, self.z_dim :]], -1),
            log_std=torch.cat([spread.log(), parts.log_std[:, self.z_dim :]], -1),
        )
        old, new = (self.bound(p, "choose", samples=2).value() for p in (parts, again))
        better = (new > old)[:, None]
        return parts._replace(
            mean=torch.where(better, again.mean, parts.mean),
            log_std=torch.where(better, again.log_std, parts.log_std),
        )

    # --- gradient -----------------------------------------------------------------------------

    def climb(self, start: Components) -> Components:
        """Raise each component's bound with Adam, in units of its initial standard deviations.

        Each step draws new noise, and new pixels if not all are used.
        """
        steps = self.settings.refine_steps
        if not steps:
            return start
        scale = start.log_std.exp()
        moved = torch.zeros_like(scale, requires_grad=True)
        grown = torch.zeros_like(scale, requires_grad=True)
        optimizer = torch.optim.Adam([moved, grown], lr=0.0, betas=(0.8, 0.95))
        noise = self.noise("climb", (steps, scale.shape[-1]))[start.owner]
        generator = torch.Generator(scale.device).manual_seed(self.seed)
        seen = self.batch.rows(start.owner)
        for step in range(steps):
            parts = self._at(start, moved, grown)
            sample = parts.mean + parts.log_std.exp() * noise[:, step]
            recon = self.vae.log_likelihood(
                seen, self.latents(sample[:, None]), generator, self.settings.refine_pixels
            )[:, 0]
            loss = -(recon - sum(self.kl(parts))).sum()
            gradients = torch.autograd.grad(loss, [moved, grown])
            moved.grad, grown.grad = gradients
            rate = 0.3 * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        with torch.no_grad():
            return self._at(start, moved, grown)

    def _at(self, start: Components, moved: Tensor, grown: Tensor) -> Components:
        return start._replace(
            mean=start.mean + start.log_std.exp() * moved,
            log_std=(start.log_std + grown).clamp(*LOG_STD_RANGE),
        )

    # --- bounds -------------------------------------------------------------------------------

    @torch.no_grad()
    def bound(self, parts: Components, stream: str, samples: int | None = None) -> Bound:
        """Bound of each component alone, from the noise of ``stream``."""
        samples = self.settings.samples if samples is None else samples
        drawn = self.draw(parts, stream, samples)
        seen = self.batch.rows(parts.owner)
        few, recon = self.vae.whole_batch, []
        for rows in torch.split(torch.arange(len(drawn), device=drawn.device), few):
            some = seen.rows(rows)
            values = (self.latents(drawn[rows, k : k + 1]) for k in range(samples))
            recon.append(torch.cat([self.vae.log_likelihood(some, one) for one in values], dim=1))
        return Bound(torch.cat(recon).T, *self.kl(parts))

    def kl(self, parts: Components) -> tuple[Tensor, Tensor]:
        """Return KL of each component to the prior, pose and content, (P,) each."""
        z, angle, shift = self.split(parts)
        layout, pose = self.vae.layout, torch.zeros_like(parts.mean[:, 0])
        if self.sizes[1]:
            pose = pose + kl(angle, layout.rotation)
        if self.sizes[2]:
            pose = pose + kl(shift, layout.shift)
        return pose, kl(z, layout.content)

    def draw(self, parts: Components, stream: str, samples: int) -> Tensor:
        """Draw antithetic samples of components, (P, S, D), with the same noise per image."""
        noise = self.noise(stream, (samples - samples // 2, parts.mean.shape[-1]))
        noise = torch.cat([noise, -noise], dim=1)[:, :samples]
        return parts.mean[:, None] + parts.log_std.exp()[:, None] * noise[parts.owner]

    def noise(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers (B, *shape), by the image's position in the stack."""
        generator = torch.Generator()
        rows = []
        for index in self.batch.index.cpu().tolist():
            mixed = (self.seed * 4 + STREAMS[stream]) * 0x9E3779B1 + index
            generator.manual_seed(mixed % 2**63)
            rows.append(torch.randn(shape, generator=generator))
        return torch.stack(rows).to(self.batch.image.device)

    def split(self, parts: Components) -> tuple[DiagonalNormal, DiagonalNormal, DiagonalNormal]:
        """Content, angle and shift of components."""
        means = torch.split(parts.mean, self.sizes, -1)
        log_stds = torch.split(parts.log_std, self.sizes, -1)
        z, angle, shift = (DiagonalNormal(*pair) for pair in zip(means, log_stds, strict=True))
        return z, angle, shift

    def latents(self, values: Tensor) -> Latents:
        """Name the columns of values (P, K, D)."""
        z, angle, shift = torch.split(values, self.sizes, -1)
        zero = values.new_zeros(*values.shape[:2], 2)
        cell = torch.zeros(values.shape[:2], dtype=torch.int64, device=values.device)
        return Latents(
            z=z,
            angle=angle[..., 0] if self.sizes[1] else zero[..., 0],
            shift=shift if self.sizes[2] else zero,
            cell=cell,
        )

    # --- the mixture --------------------------------------------------------------------------

    @torch.no_grad()
    def mixture(self, parts: Components, chosen: Tensor) -> Mixture:
        """Weight the components of each image by their bounds; bound the mixture."""
        images, count = len(self.batch), int(parts.slot.max()) + 1

        def table(values: Tensor, missing: float = 0.0) -> Tensor:
            full = values.new_full((images, count, *values.shape[1:]), missing)
            full[parts.owner, parts.slot] = values
            return full

        log_q = table(chosen, -math.inf).log_softmax(-1)
        q = log_q.exp()
        reported = self.bound(parts, "report")
        mean, log_std = table(parts.mean), table(parts.log_std)
        entropy = torch.where(q > 0, -log_q, 0.0)
        overlap = {
            stream: self._overlap(
                mean, log_std, table(self.draw(parts, stream, self.settings.samples)), log_q
            )
            for stream in ("choose", "report")
        }
        kl_content = (q * table(reported.kl_content)).sum(-1)
        recon = (q[..., None] * table(reported.recon.T)).sum(1).T
        within = self._pose_entropy(log_std)
        order = log_q.argsort(dim=-1, descending=True, stable=True)
        place = order.unsqueeze(-1).expand_as(mean)
        mean, log_std = mean.gather(1, place), log_std.gather(1, place)
        log_q = log_q.gather(1, order)
        missing = torch.isinf(log_q)[..., None]
        means = torch.where(missing, mean[:, :1], mean)
        stds = torch.where(missing, log_std[:, :1], log_std).exp()
        named, spread = self.latents(means), self.latents(stds)
        modes = PoseModes(
            wrap(named.angle),
            named.shift,
            log_q,
            spread.angle,
            spread.shift,
            torch.zeros_like(order),
        )
        return Mixture(
            best=Latents(named.z[:, :1], modes.angle[:, :1], named.shift[:, :1], order[:, :1]),
            spread=spread.at(slice(None), slice(1)),
            modes=modes,
            recon=recon,
            kl_pose=(q * (table(reported.kl_pose) - entropy + overlap["report"])).sum(-1),
            kl_content=kl_content,
            pose_entropy=(q * (within + entropy)).sum(-1),
            chosen_by=(q * (table(chosen) + entropy - overlap["choose"])).sum(-1),
        )

    def _overlap(self, mean: Tensor, log_std: Tensor, drawn: Tensor, log_q: Tensor) -> Tensor:
        """Mean over samples (B, C, S, D) of log q(latents) - log q_c q_c(latents), (B, C)."""
        sizes = self.sizes
        value = drawn[:, :, :, None]
        centre, width = mean[:, None, None], log_std[:, None, None]
        parts = [list(torch.split(t, sizes, -1)) for t in (value, centre, width)]
        density = DiagonalNormal(parts[1][0], parts[2][0]).log_prob(parts[0][0])
        if sizes[1]:
            angle, around, wide = (part[1] for part in parts)
            prior = self.vae.layout.rotation
            density = density + log_density(DiagonalNormal(around, wide), angle, prior)
        if sizes[2]:
            density = density + DiagonalNormal(parts[1][2], parts[2][2]).log_prob(parts[0][2])
        joint_density = density + log_q[:, None, None]  # (B, C, S, C)
        own = torch.diagonal(joint_density, dim1=1, dim2=3).transpose(1, 2)
        excess = joint_density.logsumexp(-1) - own
        return torch.where(torch.isfinite(own), excess, 0.0).mean(-1)

    def _pose_entropy(self, log_std: Tensor) -> Tensor:
        _, angle, shift = torch.split(log_std, self.sizes, -1)
        entropy = torch.zeros_like(log_std[..., 0])
        if self.sizes[1]:
            entropy = entropy + wrapped_entropy(angle[..., 0])
        if self.sizes[2]:
            entropy = entropy + DiagonalNormal(shift, shift).entropy()
        return entropy
