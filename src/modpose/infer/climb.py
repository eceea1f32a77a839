"""Optimise poses from the coarse grid to the maximum of a mode: Fisher scoring on the full image.

One upright prediction is decoded for each content hypothesis, at every pixel; the prediction of a
pose and its derivatives are read from it (bicubic and bilinear interpolation).  A step is accepted
only if it raises the log posterior; otherwise its damping grows (Levenberg and Marquardt).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from modpose.distributions.normal import LOG_2PI
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import rotation_2d, wrap
from modpose.infer.grid import decode_upright, log_prior
from modpose.observe.ctf import apply_ctf
from modpose.observe.noise import Prediction

if TYPE_CHECKING:
    from modpose.data.batches import Batch
    from modpose.model.vae import Vae

LARGEST_STEP = (math.radians(6.0), 1.5)
"""Largest step, radians and pixels."""
NUMBERS_AT_ONCE = 1 << 22
"""Numbers of the predictions and their derivatives that are held in memory at once."""
PRUNE_NATS = 20.0
"""Poses that are this many nats below the image's best pose are dropped."""
UNIFORM_PRECISION = 3 / math.pi**2
"""S.d. of the uniform distribution on the circle: no posterior of an angle is wider."""


class LocalMaxima(NamedTuple):
    """Poses after optimisation, (B, K, ...).

    Attributes
    ----------
    angle, shift
        Radians (B, K) and pixels (B, K, 2).
    value
        (B, K) log p(image | content, pose) + log p(pose), nats.
    log_volume
        (B, K) log of the volume of the Gaussian with the same curvature.
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


class Seen(NamedTuple):
    """Data to compare P poses: the counted pixels of the image and the prediction for the content.

    Attributes
    ----------
    maps
        (P, C or 2C, N, N) upright predictions.
    slopes
        (P, 2C, N, N) of the signal: a pixel along x, then along y.
    target
        (P, C, counted pixels).
    ctf
        (P, 9) or None.
    """

    maps: Tensor
    slopes: Tensor
    target: Tensor
    ctf: Tensor | None

    def at(self, rows: Tensor) -> Seen:
        """Select some poses."""
        ctf = None if self.ctf is None else self.ctf[rows]
        return Seen(self.maps[rows], self.slopes[rows], self.target[rows], ctf)


class PoseOptimizer:
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
        Largest expected shift, pixels; the prediction is decoded this far beyond the box.
    """

    def __init__(self, vae: Vae, batch: Batch, z: Tensor, *, reach: float) -> None:
        self.vae, self.batch = vae, batch
        self.shared, self.hypotheses = len(z) == 1, z.shape[1]
        half = max(vae.shape) // 2 + math.ceil(reach)
        with torch.no_grad():
            self.upright = decode_upright(vae, z.flatten(0, 1), half, 1.0)
        signal = self.upright.signal
        self.slopes = torch.cat([_difference(signal, -1), _difference(signal, -2)], dim=1)
        layout = vae.layout
        self.free = torch.tensor(
            [layout.rotation.inferred] + 2 * [layout.shift.inferred],
            device=signal.device,
        )

    @torch.no_grad()
    def climb(self, angle: Tensor, shift: Tensor, hypothesis: Tensor, steps: int) -> LocalMaxima:
        """Optimise poses (B, K) with content ``hypothesis`` (B, K)."""
        numbers = angle.shape[1] * self.slopes[0].numel() * 2
        parts = [
            self._climb(rows, angle[rows], shift[rows], hypothesis[rows], steps)
            for rows in torch.split(
                torch.arange(len(angle), device=angle.device), max(1, NUMBERS_AT_ONCE // numbers)
            )
        ]
        return LocalMaxima(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def seen(self, owner: Tensor, hypothesis: Tensor) -> Seen:
        """Collect the data for poses (P,) of images ``owner`` with content ``hypothesis``."""
        which = hypothesis if self.shared else hypothesis + owner * self.hypotheses
        image, ctf = self.batch.image.flatten(2)[:, :, self.vae.pixels], self.batch.ctf
        return Seen(
            self.upright.maps[which],
            self.slopes[which],
            image[owner],
            None if ctf is None else ctf[owner],
        )

    def _climb(
        self, rows: Tensor, angle: Tensor, shift: Tensor, hypothesis: Tensor, steps: int
    ) -> LocalMaxima:
        images, count = angle.shape
        seen = self.seen(rows.repeat_interleave(count), hypothesis.flatten())
        angle, shift = angle.flatten(), shift.flatten(0, 1)
        here = self.slope(seen, angle, shift)
        damping = torch.full_like(angle, 1e-2)
        for step in range(steps):
            if step == 2:  # by now it shows which of an image's poses are out of the question
                value = here.value.reshape(images, count)
                hopeless = value < value.amax(1, keepdim=True) - PRUNE_NATS
                active = torch.nonzero(~hopeless.flatten()).squeeze(1)
                seen = seen.at(active)
            some = active if step >= 2 else slice(None)
            turn, move = _newton(Slope(*(part[some] for part in here)), damping[some])
            tried = angle[some] + turn, shift[some] + move
            there = self.slope(seen, *tried)
            better = there.value > here.value[some]
            moved = [(angle, tried[0]), (shift, tried[1]), *zip(here, there, strict=True)]
            for old, new in moved:
                wide = better.reshape(-1, *([1] * (new.dim() - 1)))
                old[some] = torch.where(wide, new, old[some])
            eased = torch.where(better, 0.2 * damping[some], 20 * damping[some])
            damping[some] = eased.clamp(1e-6, 1e6)
        return self._tops(here, angle, shift, (images, count))

    def _tops(
        self, here: Slope, angle: Tensor, shift: Tensor, shape: tuple[int, int]
    ) -> LocalMaxima:
        information = here.information.clone()
        information[:, 0, 0] = information[:, 0, 0].clamp(min=UNIFORM_PRECISION)
        diagonal = information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-12)
        std = torch.where(self.free, diagonal.rsqrt(), 0.0)
        dimensions = float(self.free.sum())
        volume = 0.5 * (dimensions * LOG_2PI - torch.linalg.slogdet(information)[1])
        flat = LocalMaxima(wrap(angle), shift, here.value, volume, std[:, 0], std[:, 1:])
        return LocalMaxima(*(part.reshape(*shape, *part.shape[1:]) for part in flat))

    def slope(self, seen: Seen, angle: Tensor, shift: Tensor) -> Slope:
        """Log posterior and its derivatives in (angle, x, y) at poses (P,), (P, 2)."""
        vae = self.vae
        x = vae.coordinates if seen.ctf is not None else vae.coordinates[vae.pixels]
        rotation = rotation_2d(angle)
        u = Pose(rotation, shift).to_object(x)  # (P, pixels, 2)
        unit = u / (seen.maps.shape[-1] // 2)
        values = _read(seen.maps, unit, "bicubic")
        slopes = _read(seen.slopes, unit, "bilinear").reshape(len(u), 2, -1, u.shape[1])
        by_angle = slopes[:, 0] * u[:, None, :, 1] - slopes[:, 1] * u[:, None, :, 0]
        jacobian = torch.cat([by_angle[:, None], slopes], dim=1)  # (P, 3, C, pixels)
        channels = jacobian.shape[2]
        signal, log_std = values[:, :channels], self.upright.log_std
        if values.shape[1] > channels:
            log_std = values[:, channels:]
        if seen.ctf is not None:
            joined = torch.cat([signal[:, None], jacobian], dim=1)
            pictures = joined.reshape(len(u), -1, *vae.shape)
            joined = apply_ctf(pictures, seen.ctf).reshape(joined.shape)[..., vae.pixels]
            signal, jacobian = joined[:, 0], joined[:, 1:]
            if log_std is not None and log_std.dim():
                log_std = log_std[..., vae.pixels]
        axes = functional.pad(-rotation, (1, 0, 1, 0))  # to those of the image, for few numbers
        axes[:, 0, 0] = 1
        here = self._score(Prediction(signal, log_std), jacobian, seen.target)
        gradient = (axes @ here.gradient.unsqueeze(-1)).squeeze(-1)
        information = axes @ here.information @ axes.transpose(1, 2)
        return self._with_prior(Slope(here.value, gradient, information), angle, shift)

    def _score(self, prediction: Prediction, jacobian: Tensor, target: Tensor) -> Slope:
        """Chain rule from the pixels' scores and Fisher information to the pose's."""
        likelihood = self.vae.likelihood
        value = likelihood.log_prob(prediction, target).sum((1, 2))
        score, weight = likelihood.score(prediction, target)
        flat = jacobian.flatten(2)
        weighed = torch.cat([flat * weight.flatten(1)[:, None], score.flatten(1)[:, None]], 1)
        products = flat @ weighed.transpose(1, 2)
        return Slope(value, products[..., -1], products[..., :-1])

    def _with_prior(self, here: Slope, angle: Tensor, shift: Tensor) -> Slope:
        """Add the prior; what is not inferred has no slope."""
        precision, pull = self._prior(angle, shift)
        information = here.information + torch.diag_embed(precision.expand_as(pull))
        free = self.free.float()
        information = information * free * free[:, None] + torch.diag_embed(1 - free)
        value = here.value + log_prior(self.vae, angle, shift)
        return Slope(value, (here.gradient + pull) * free, information)

    def _prior(self, angle: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Precision (3,) of the prior and gradient (P, 3) of its log density."""
        layout = self.vae.layout
        parts = [layout.rotation.precision] + 2 * [layout.shift.precision]
        precision = torch.tensor(parts, device=angle.device)
        return precision, -precision * torch.cat([angle[:, None], shift], dim=1)


def _newton(here: Slope, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Return the damped step of Fisher scoring, (P,) radians and (P, 2) pixels."""
    diagonal = here.information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-6)
    damped = here.information + torch.diag_embed(diagonal * damping[:, None] + 1e-6)
    step = torch.linalg.solve(damped, here.gradient)
    turn = step[:, 0].clamp(-LARGEST_STEP[0], LARGEST_STEP[0])
    return turn, step[:, 1:].clamp(-LARGEST_STEP[1], LARGEST_STEP[1])


def _difference(maps: Tensor, axis: int) -> Tensor:
    """Differences a pixel, of fourth order, along the last (x) or the last but one (y) axis."""
    maps = maps if axis == -1 else maps.transpose(-1, -2)
    p = functional.pad(maps, (2, 2, 0, 0), mode="replicate")
    slope = (8 * (p[..., 3:-1] - p[..., 1:-3]) - (p[..., 4:] - p[..., :-4])) / 12
    return slope if axis == -1 else slope.transpose(-1, -2)


def _read(maps: Tensor, unit: Tensor, mode: str) -> Tensor:
    """Read maps (P, C, N, N) at points (P, X, 2) from -1 to 1: (P, C, X)."""
    return functional.grid_sample(
        maps, unit[:, None], mode=mode, padding_mode="border", align_corners=True
    )[:, :, 0]
