"""From the coarse grid to the top of a mode: Fisher scoring of the pose on the full image.

One upright prediction is decoded for each content hypothesis, at every pixel; the prediction of a
pose and its derivatives are read from it (bicubic and bilinear interpolation).  A step is taken
only where it raises the log posterior, else its damping grows (Levenberg and Marquardt).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from modpose.geometry.rotations import rotation_2d, wrap
from modpose.likelihoods import Bernoulli, Prediction
from modpose.observe.ctf import apply_ctf
from modpose.posterior.gaussian import LOG_2PI
from modpose.posterior.grid import decode_upright, log_prior

if TYPE_CHECKING:
    from modpose.data.batches import Batch
    from modpose.vae import Vae

LARGEST_STEP = (math.radians(6.0), 1.5)
"""Radians and pixels of one step."""
POSES_AT_ONCE = 1 << 22
"""Numbers of the predictions and derivatives that are held at once."""
UNIFORM_PRECISION = 3 / math.pi**2
"""Of the uniform distribution on the circle: no posterior of an angle is wider."""


class Tops(NamedTuple):
    """Where climbs ended, (B, K, ...).

    Attributes
    ----------
    angle, shift
        Radians (B, K) and pixels (B, K, 2).
    value
        (B, K) log p(image | content, pose) + log p(pose), nats.
    log_volume
        (B, K) log of the volume of the Gaussian with the curvature there.
    angle_std, shift_std
        Conditional standard deviations, (B, K) and (B, K, 2).
    """

    angle: Tensor
    shift: Tensor
    value: Tensor
    log_volume: Tensor
    angle_std: Tensor
    shift_std: Tensor


class Slope(NamedTuple):
    """Log posterior (P,), its gradient (P, 3) and Fisher information (P, 3, 3)."""

    value: Tensor
    gradient: Tensor
    information: Tensor


class Climber:
    """The log posterior of poses of a batch, from predictions decoded once.

    Parameters
    ----------
    vae
        The model.
    batch
        B images.
    z
        (B, H, z_dim), or (1, H, z_dim) shared content hypotheses.
    reach
        Largest shift expected, pixels; the prediction is decoded so far beyond the box.
    """

    def __init__(self, vae: Vae, batch: Batch, z: Tensor, *, reach: float) -> None:
        self.vae, self.batch = vae, batch
        self.shared, self.hypotheses = len(z) == 1, z.shape[1]
        half = max(vae.shape) // 2 + math.ceil(reach)
        with torch.no_grad():
            self.upright = decode_upright(vae, z.flatten(0, 1), half, 1.0)
        maps = self.upright.maps
        self.slopes = torch.cat([_difference(maps, -1), _difference(maps, -2)], dim=1)
        prior = vae.layout
        self.free = torch.tensor(
            [prior.rotation.prior != "none"] + 2 * [prior.shift_std is not None],
            device=maps.device,
        )

    @torch.no_grad()
    def climb(self, angle: Tensor, shift: Tensor, hypothesis: Tensor, steps: int) -> Tops:
        """Climb from poses (B, K) with content ``hypothesis`` (B, K)."""
        images, count = angle.shape
        owner = torch.arange(images, device=angle.device).repeat_interleave(count)
        which = hypothesis.flatten()
        if not self.shared:
            which = which + owner * self.hypotheses
        numbers = math.prod(self.vae.shape) * 3 * self.upright.maps.shape[1]
        few = max(1, POSES_AT_ONCE // numbers)
        parts = [
            self._climb(a, t, h, o, steps)
            for a, t, h, o in zip(
                torch.split(angle.flatten(), few),
                torch.split(shift.flatten(0, 1), few),
                torch.split(which, few),
                torch.split(owner, few),
                strict=True,
            )
        ]
        joined = (torch.cat(part) for part in zip(*parts, strict=True))
        return Tops(*(part.reshape(images, count, *part.shape[1:]) for part in joined))

    def _climb(
        self, angle: Tensor, shift: Tensor, which: Tensor, owner: Tensor, steps: int
    ) -> Tops:
        here = self.slope(angle, shift, which, owner)
        damping = torch.full_like(angle, 1e-2)
        for _ in range(steps):
            turn, move = self._step(here, damping)
            new_angle, new_shift = angle + turn, shift + move
            there = self.slope(new_angle, new_shift, which, owner)
            better = there.value > here.value
            angle = torch.where(better, new_angle, angle)
            shift = torch.where(better[:, None], new_shift, shift)
            here = Slope(
                torch.where(better, there.value, here.value),
                torch.where(better[:, None], there.gradient, here.gradient),
                torch.where(better[:, None, None], there.information, here.information),
            )
            damping = torch.where(better, 0.2 * damping, 20 * damping).clamp(1e-6, 1e6)
        information = here.information.clone()
        information[:, 0, 0] = information[:, 0, 0].clamp(min=UNIFORM_PRECISION)
        diagonal = information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-12)
        std = torch.where(self.free, diagonal.rsqrt(), 0.0)
        dimensions = float(self.free.sum())
        volume = 0.5 * (dimensions * LOG_2PI - torch.linalg.slogdet(information)[1])
        return Tops(wrap(angle), shift, here.value, volume, std[:, 0], std[:, 1:])

    def _step(self, here: Slope, damping: Tensor) -> tuple[Tensor, Tensor]:
        diagonal = here.information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-6)
        damped = here.information + torch.diag_embed(diagonal * damping[:, None] + 1e-6)
        step = torch.linalg.solve(damped, here.gradient)
        turn = step[:, 0].clamp(-LARGEST_STEP[0], LARGEST_STEP[0])
        return turn, step[:, 1:].clamp(-LARGEST_STEP[1], LARGEST_STEP[1])

    def slope(self, angle: Tensor, shift: Tensor, which: Tensor, owner: Tensor) -> Slope:
        """Log posterior and its derivatives in (angle, x, y) at poses (P,), (P, 2)."""
        vae = self.vae
        rotation = rotation_2d(angle)
        u = (vae.coordinates - shift[:, None]) @ rotation  # (P, pixels, 2)
        values = _read(self.upright.maps[which], u, "bicubic")
        slopes = _read(self.slopes[which], u, "bilinear")
        slopes = slopes.reshape(len(u), 2, -1, u.shape[1])
        by_angle = (slopes * torch.stack([u[..., 1], -u[..., 0]], 1)[:, :, None]).sum(1)
        by_shift = -torch.einsum("pij,pjcx->picx", rotation, slopes)
        jacobian = torch.cat([by_angle[:, None], by_shift], dim=1)  # (P, 3, C or 2C, pixels)
        channels = self.upright.signal.shape[1]
        signal, jacobian = values[:, :channels], jacobian[:, :, :channels]
        if self.batch.ctf is not None:
            joined = torch.cat([signal[:, None], jacobian], dim=1)
            pictures = joined.reshape(len(u), -1, *vae.shape)
            joined = apply_ctf(pictures, self.batch.ctf[owner]).reshape(joined.shape)
            signal, jacobian = joined[:, 0], joined[:, 1:]
        log_std = self.upright.log_std
        if values.shape[1] > channels:
            log_std = values[:, channels:][:, :, vae.pixels]
        return self._score(
            signal[:, :, vae.pixels], jacobian[..., vae.pixels], log_std, angle, shift, owner
        )

    def _score(
        self,
        signal: Tensor,
        jacobian: Tensor,
        log_std: Tensor | None,
        angle: Tensor,
        shift: Tensor,
        owner: Tensor,
    ) -> Slope:
        vae = self.vae
        target = self.batch.image[owner].flatten(2)[:, :, vae.pixels]
        value = vae.likelihood.log_prob(Prediction(signal, log_std), target).sum((1, 2))
        if isinstance(vae.likelihood, Bernoulli):
            mean = signal.sigmoid()
            score, weight = target - mean, mean * (1 - mean)
        else:
            assert log_std is not None
            weight = (-2 * log_std).exp().expand_as(signal)
            score = weight * (target - signal)
        gradient = (jacobian * score[:, None]).sum((2, 3))
        flat = jacobian.flatten(2)
        information = (flat * weight.flatten(1)[:, None]) @ flat.transpose(1, 2)
        precision, mean_pull = self._prior(angle, shift)
        gradient = gradient + mean_pull
        information = information + torch.diag_embed(precision.expand_as(gradient))
        bound = torch.where(self.free, 0.0, 1.0)
        free = self.free.float()
        information = information * free * free[:, None] + torch.diag_embed(bound)
        return Slope(value + log_prior(vae, angle, shift), gradient * free, information)

    def _prior(self, angle: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Precision (3,) of the prior and gradient (P, 3) of its log density."""
        layout, precision = self.vae.layout, torch.zeros(3, device=angle.device)
        if layout.rotation.prior == "gaussian":
            precision[0] = math.radians(layout.rotation.std_deg) ** -2
        if layout.shift_std is not None:
            precision[1:] = layout.shift_std**-2
        return precision, -precision * torch.cat([angle[:, None], shift], dim=1)


def _difference(maps: Tensor, axis: int) -> Tensor:
    """Differences a pixel, of fourth order, along the last (x) or the last but one (y) axis."""
    maps = maps if axis == -1 else maps.transpose(-1, -2)
    p = functional.pad(maps, (2, 2, 0, 0), mode="replicate")
    slope = (8 * (p[..., 3:-1] - p[..., 1:-3]) - (p[..., 4:] - p[..., :-4])) / 12
    return slope if axis == -1 else slope.transpose(-1, -2)


def _read(maps: Tensor, u: Tensor, mode: str) -> Tensor:
    """Read maps (P, C, N, N) at pixels u (P, X, 2) about their centre: (P, C, X)."""
    unit = u / (maps.shape[-1] // 2)
    return functional.grid_sample(
        maps, unit[:, None], mode=mode, padding_mode="border", align_corners=True
    )[:, :, 0]
