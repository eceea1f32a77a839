"""The exact log-likelihood on a grid of poses, by correlation with the model's prediction.

Every likelihood here is an exponential family in each pixel, log p(y | s) = T(y) . eta(s) + const,
with s the predicted signal: T = (y, 1), or (y², y, 1) if the field also predicts the noise. For a
picture with pose (R, t) the signal at x is s(x - t), with s the rotated prediction, so

    log p(image | R, t) = sum over x of T(y(x)) . eta(s(x - t)) + const,

which for all t at once is a cross-correlation of T(y), zero where pixels do not count, with eta
(Barnett et al. 2017, doi:10.1137/16M1097171, treat the Gaussian case).  The constant statistic 1
is the indicator of the box: parts that leave the box at a large shift have no effect.

On a lattice coarser than the pixels the prediction is linear between its nodes; T(y) is then
spread over the nodes with the same weights, and the sum is still the log-likelihood of that
prediction, at every shift that is a multiple of the spacing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from modpose.geometry.grids import half_box, lattice
from modpose.geometry.pose import sample_images
from modpose.geometry.rotations import rotation_2d
from modpose.observe.ctf import apply_ctf
from modpose.observe.noise import Prediction

if TYPE_CHECKING:
    from modpose.data.batches import Batch
    from modpose.model.vae import Vae

FIELD_POINTS = 1 << 16
"""Coordinates at which a field is evaluated at once."""


class PoseGrid(NamedTuple):
    """Log-likelihoods on a grid of poses.

    Attributes
    ----------
    log_likelihood
        (B, H, A, Sy, Sx) nats, for B images and H hypotheses of the content.
    angle
        (A,) radians.
    shift_x, shift_y
        (Sx,), (Sy,) pixels.
    """

    log_likelihood: Tensor
    angle: Tensor
    shift_x: Tensor
    shift_y: Tensor


class Upright(NamedTuple):
    """Predictions decoded once on a square lattice about the object's centre, before any pose.

    Attributes
    ----------
    signal
        (Z, C, N, N) with N = 2 half + 1 nodes.
    log_std
        (Z, C, N, N) if the field predicts the noise, otherwise a number or None.
    spacing
        Pixels between nodes.
    """

    signal: Tensor
    log_std: Tensor | None
    spacing: float

    @property
    def half(self) -> int:
        """Nodes on either side of the centre."""
        return self.signal.shape[-1] // 2

    @property
    def maps(self) -> Tensor:
        """Everything that varies in space, (Z, C or 2C, N, N)."""
        if self.log_std is None or not self.log_std.dim():
            return self.signal
        return torch.cat([self.signal, self.log_std], dim=1)

    def split(self, maps: Tensor) -> Prediction:
        """Read values of :attr:`maps`, channels second (..., C or 2C, rows, columns)."""
        channels = self.signal.shape[1]
        if maps.shape[-3] == channels:
            return Prediction(maps, self.log_std)
        return Prediction(maps[..., :channels, :, :], maps[..., channels:, :, :])


def decode_upright(vae: Vae, z: Tensor, half: int, spacing: float) -> Upright:
    """Decode content (Z, z_dim) upright and centred, ``half`` nodes to each side."""
    nodes = lattice((2 * half + 1,) * 2).to(z.device) * spacing / half_box(vae.shape)
    few = max(1, FIELD_POINTS // len(nodes))
    outputs = torch.cat(
        [vae.field(nodes.expand(len(part), -1, -1), part) for part in torch.split(z, few)]
    ).float()
    signal, log_std = vae.likelihood.read(outputs)

    def picture(values: Tensor) -> Tensor:
        return values.transpose(1, 2).reshape(len(z), -1, 2 * half + 1, 2 * half + 1)

    varies = log_std is not None and log_std.dim() > 0
    return Upright(
        picture(signal), picture(log_std) if varies and log_std is not None else log_std, spacing
    )


def log_likelihood_grid(
    vae: Vae, batch: Batch, z: Tensor, *, angles: int, reach: float, spacing: float = 1.0
) -> PoseGrid:
    """Evaluate log p(image | content, pose) for every angle and shift of a grid.

    Parameters
    ----------
    vae
        A model of 2-D images.
    batch
        B images.
    z
        (B, H, z_dim) hypotheses of the content, or (1, H, z_dim) where all images share them.
    angles
        Number of angles, 1 or a multiple of 4; evenly over the circle from 0.
    reach
        Largest shift along each axis, pixels; shifts are multiples of ``spacing``.
    spacing
        Pixels between nodes of the lattice.  With 1 the result is exact but for the interpolation
        of the rotated prediction.  A CTF is applied to the prediction in a larger box, from which
        every shift can be cut.  With a spacing over 1, the oscillations of the CTF beyond the
        coarser Nyquist frequency are lost.

    Returns
    -------
    PoseGrid
        Nats; angles from 0, shifts ascending.
    """
    reached = math.floor(reach / spacing + 1e-6)
    below = [math.ceil(n // 2 / spacing - 1e-6) for n in vae.shape]
    half = max(below) + reached
    statistic, constant = sufficient_statistics(vae, batch)
    spread = [_hat(n, count, spacing).to(z) for n, count in zip(vae.shape, below, strict=True)]
    nodes = spread[0] @ statistic @ spread[1].T
    size = fast_length(2 * half + 1)
    spectrum = torch.fft.rfft2(nodes, s=(size, size)).conj()
    upright = decode_upright(vae, z.flatten(0, 1), half, spacing)
    turned = _turned_copies(upright, angles)
    turned = turned.reshape(*z.shape[:2], *turned.shape[1:])
    product = _products(_natural(vae, batch, upright, turned), spectrum, half)
    score = torch.fft.irfft2(product, s=(size, size))
    steps = 2 * reached + 1
    top, left = (half - reached - count for count in below)
    score = score[..., top : top + steps, left : left + steps].flip((-2, -1))
    axis = spacing * torch.arange(-reached, reached + 1, device=z.device)
    return PoseGrid(
        log_likelihood=score + constant[:, None, None, None, None],
        angle=2 * math.pi * torch.arange(angles, device=z.device) / angles,
        shift_x=axis,
        shift_y=axis,
    )


def log_prior(vae: Vae, angle: Tensor, shift: Tensor) -> Tensor:
    """Log prior density of poses, nats; ``angle`` (...), ``shift`` (..., 2)."""
    layout = vae.layout
    return layout.rotation.log_prob(angle[..., None]) + layout.shift.log_prob(shift)


def sufficient_statistics(vae: Vae, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return T(y), (B, Q, H, W), zero where pixels do not count, and a constant (B,) in nats."""
    counted = torch.zeros(math.prod(vae.shape), device=batch.image.device)
    counted[vae.pixels] = 1
    return vae.likelihood.statistics(batch.image, counted.reshape(vae.shape))


def _products(eta: list[Tensor], spectrum: Tensor, half: int) -> Tensor:
    """Multiply spectra: eta, Q times (B, H, A / 2, N, N), with that of the images (B, Q, F, F').

    With several angles, the second half of the circle follows from the first: after 180 degrees,
    the spectrum of a real picture about the centre is the complex conjugate.
    """
    size = spectrum.shape[-2]
    about = _about(half, size).to(spectrum.device)
    halves: list[Tensor] = []
    for statistic, values in zip(spectrum.unbind(1), eta, strict=True):
        seen, transformed = statistic[:, None, None], torch.fft.rfft2(values, s=(size, size))
        parts = [transformed * seen]
        if eta[0].shape[2] > 1:
            parts.append(transformed.conj() * (seen * about))
        halves = [a + b for a, b in zip(halves, parts, strict=True)] if halves else parts
    return torch.cat(halves, dim=2) if len(halves) > 1 else halves[0]


def _natural(vae: Vae, batch: Batch, upright: Upright, turned: Tensor) -> list[Tensor]:
    """Return eta of rotated predictions (B, H, A, C or 2C, N, N), one tensor per statistic."""
    prediction = upright.split(turned)
    signal = prediction.signal
    if batch.ctf is not None:
        ctf = batch.ctf.clone()
        ctf[:, 0] *= upright.spacing
        signal = signal.expand(len(ctf), *signal.shape[1:])
        signal = apply_ctf(signal.flatten(1, 3), ctf).reshape(signal.shape)
    return vae.likelihood.eta(Prediction(signal, prediction.log_std))


def _turned_copies(upright: Upright, angles: int) -> Tensor:
    """Rotate predictions in even steps over half of the circle: (Z, angles / 2, C or 2C, N, N).

    The first quadrant is interpolated; the second is its exact quarter turn (the lattice is odd
    and so symmetric about its centre).  One angle stays as it is.
    """
    maps = upright.maps
    if angles == 1:
        return maps.unsqueeze(1)
    quarter, n = angles // 4, maps.shape[-1]
    copies = maps.unsqueeze(1)
    if quarter > 1:
        angle = 2 * math.pi * torch.arange(1, quarter, device=maps.device) / angles
        u = lattice((n, n)).to(maps) @ rotation_2d(angle)  # (quarter - 1, N², 2), u = R^T x
        everywhere = u.flatten(0, 1).expand(len(maps), -1, -1)
        turned = sample_images(maps, everywhere, padding="border").transpose(1, 2)
        turned = turned.reshape(len(maps), -1, quarter - 1, n, n).transpose(1, 2)
        copies = torch.cat([copies, turned], dim=1)
    return torch.cat([copies, torch.rot90(copies, -1, (-2, -1))], dim=1)


def _about(half: int, size: int) -> Tensor:
    """Phases (size, size // 2 + 1) of a spectrum after reflection about node ``half``."""
    rows, columns = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    return torch.polar(
        torch.ones(size, size // 2 + 1), -4 * math.pi * half * (rows[:, None] + columns)
    )


def _hat(n: int, below: int, spacing: float) -> Tensor:
    """Weights (2 below + 1, n) that spread n pixels over nodes as linear interpolation reads."""
    nodes = spacing * torch.arange(-below, below + 1, dtype=torch.float32)
    pixels = torch.arange(n, dtype=torch.float32) - n // 2
    return (1 - (pixels - nodes[:, None]).abs() / spacing).clamp(min=0)


def fast_length(n: int) -> int:
    """Return the next even length with no prime factor over 5, for which an FFT is fast."""
    length = n + n % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2
