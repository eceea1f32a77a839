r"""Images as projections of a volume, compared in Fourier space.

The transform of a projection along z is the central slice of the volume's transform F.  An image
of n x n pixels, of pose (R, t), is therefore, at frequency k = (kx, ky) (cycles per pixel),

.. math:: Y(k) = CTF(k)\, e^{-2\pi i k \cdot t}\, F(R^\top (k_x, k_y, 0)) + noise.

**What the data are.**  The n² pixels of a real image have n² independent numbers in Fourier space:
with the orthonormal transform (each coefficient 1/n times the sum over pixels), √2 Re Y and √2 Im Y
of one of k and -k, and Y itself where k = -k (the mean, and at Nyquist's frequency), which is real.
That change of coordinates is orthogonal, so white noise of s.d. σ a pixel has s.d. σ in each of
them, and densities are those of the pixels.  With coefficients left out (``radius``) the
likelihood is that of the numbers that are kept, summed, constants included.

Noise is independent from one number to the next, which is true of stationary noise in the whole
box.  A window (``data.window``) makes neighbouring numbers similar; the likelihood then counts
about one over the fraction of the box that is left too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from modpose.config import SpectralConfig
from modpose.data.batches import Batch
from modpose.distributions.normal import LOG_2PI
from modpose.fourier.amplitudes import AmplitudeSums
from modpose.geometry.pose import Pose, sample_images
from modpose.geometry.rotations import rotation_2d
from modpose.nn.kept import Kept
from modpose.observe.ctf import ctf_2d

SETTLED = 200
"""Number of latest steps over which the noise spectrum is averaged."""


class HalfPlane(NamedTuple):
    """One of k and -k for every coefficient of a real n x n picture within a radius.

    Attributes
    ----------
    place
        (M,) where each stands in the flattened ``rfft2``, (n, n // 2 + 1).
    mirror
        (M,) where its conjugate stands in it, too; itself where it does not.
    k
        (M, 2) cycles per box, (x, y).
    weight
        (M,) real numbers that each holds: 2, or 1 where k = -k.
    shell
        (M,) int64, the length of k to the nearest cycle.
    """

    place: Tensor
    mirror: Tensor
    k: Tensor
    weight: Tensor
    shell: Tensor


def half_plane(n: int, radius: float | None = None) -> HalfPlane:
    """List the independent coefficients of an n x n picture with |k| < radius cycles per box.

    Without a radius, all of them: their weights add up to n².
    """
    half = n // 2 + 1
    ky, kx = torch.meshgrid(torch.fft.fftfreq(n) * n, torch.fft.rfftfreq(n) * n, indexing="ij")
    kx, ky = kx.round().flatten(), ky.round().flatten()
    own_column = (kx == 0) | (2 * kx == n)  # holds k and -k both
    own_row = (ky == 0) | (2 * ky.abs() == n)
    keep = ~(own_column & (ky < 0) & ~own_row)
    if radius is not None:
        keep &= torch.hypot(kx, ky) < radius
    index = torch.nonzero(keep).squeeze(-1)
    row, column = index // half, index % half
    twice = own_column[index]
    mirror = torch.where(twice, (-row % n) * half + column, index)
    k = torch.stack([kx, ky], dim=-1)[index]
    weight = torch.where(own_column & own_row, 1.0, 2.0)[index]
    return HalfPlane(index, mirror, k, weight, k.norm(dim=-1).round().long())


class Projection(nn.Module):
    """From a field of Fourier coefficients to recorded images, and their likelihood.

    Parameters
    ----------
    config
        Of the noise.
    box
        Side of the images, pixels.
    """

    place: Tensor
    mirror: Tensor
    k: Tensor
    weight: Tensor
    shell: Tensor
    log_variance: Tensor
    seen: Tensor
    _by_radius: Tensor

    def __init__(self, config: SpectralConfig, box: int) -> None:
        super().__init__()
        self.box, self.follows = box, config.noise == "shells"
        self.contrast_std = config.contrast
        self._kept = Kept()
        for name, value in half_plane(box, config.radius * box / 2)._asdict().items():
            self.register_buffer(name, value, persistent=False)
        radius, order = self.k.norm(dim=-1).sort(stable=True)
        self._radius = radius.numpy()
        self.register_buffer("_by_radius", order, persistent=False)
        shells = int(self.shell.max()) + 1
        self.register_buffer("log_variance", torch.full((shells,), 2 * math.log(config.std)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    # --- data ---------------------------------------------------------------------------------

    def transform(self, image: Tensor) -> Tensor:
        """Coefficients (B, M), complex, of pictures (B, 1, n, n) about their centre n // 2."""

        def make() -> Tensor:
            centred = torch.fft.ifftshift(image[:, 0].float(), dim=(-2, -1))
            coefficients: Tensor = torch.fft.rfft2(centred, norm="ortho").flatten(1)
            return coefficients[:, self.place]

        return self._kept("coefficients", (image,), make)

    def picture(self, coefficients: Tensor) -> Tensor:
        """Pictures (B, n, n) of coefficients (B, M), the others zero."""
        n = self.box
        plane = coefficients.new_zeros(len(coefficients), n * (n // 2 + 1))
        plane[:, self.mirror] = coefficients.conj()
        plane[:, self.place] = coefficients
        plane = plane.reshape(len(plane), n, -1)
        picture: Tensor = torch.fft.irfft2(plane, s=(n, n), norm="ortho")
        centred: Tensor = torch.fft.fftshift(picture, dim=(-2, -1))
        return centred

    def transfer(self, ctf: Tensor) -> Tensor:
        """CTF (B, M) of parameters (B, 9)."""

        def make() -> Tensor:
            return ctf_2d(ctf.float(), (self.box, self.box)).flatten(1)[:, self.place]

        return self._kept("transfer", (ctf,), make)

    def shift_phase(self, shift: Tensor) -> Tensor:
        """Phase factor (B, M) that moves a picture by shifts (B, 2), pixels."""

        def make() -> Tensor:
            with torch.autocast(shift.device.type, enabled=False):
                angle = (-2 * math.pi / self.box) * (shift.float() @ self.k.T)
                return torch.polar(torch.ones_like(angle), angle)

        return self._kept("phase", (shift,), make)

    # --- prediction ---------------------------------------------------------------------------

    def slices(self, field: nn.Module, z: Tensor, rotation: Tensor) -> Tensor:
        """Central slices (B, M) of the field for content z (B, z_dim) at rotations (B, 3, 3)."""
        return torch.view_as_complex(field(self.upright(rotation), z).float())

    def upright(self, rotation: Tensor) -> Tensor:
        """Frequencies (B, M, 3) of objects at rotations (B, 3, 3), as fractions of Nyquist's."""

        def make() -> Tensor:
            with torch.autocast(rotation.device.type, enabled=False):
                return (self.k * (2 / self.box)) @ rotation.float()[:, :2]

        return self._kept("upright", (rotation,), make)

    def predict(self, field: nn.Module, z: Tensor, pose: Pose, ctf: Tensor | None) -> Tensor:
        """Predicted coefficients (B, K, M) for content z (B, K, z_dim) at poses (B,)."""
        count = z.shape[1]
        rotation = pose.rotation if count == 1 else pose.rotation.repeat_interleave(count, dim=0)
        predicted = self.slices(field, z.flatten(0, 1), rotation)
        predicted = predicted.reshape(-1, count, len(self.k))
        predicted = predicted * self.shift_phase(pose.shift).unsqueeze(1)
        return predicted if ctf is None else predicted * self.transfer(ctf).unsqueeze(1)

    @torch.no_grad()
    def volume(self, field: nn.Module, z: Tensor) -> Tensor:
        """The volume (n, n, n) of content z (z_dim,): projected along z it gives pixel values."""
        n, half = self.box, self.box // 2 + 1
        axes = (torch.fft.fftfreq(n), torch.fft.fftfreq(n), torch.fft.rfftfreq(n))
        kz, ky, kx = torch.meshgrid(*axes, indexing="ij")
        k = 2 * torch.stack([kx, ky, kz], dim=-1).reshape(-1, 3).to(self.k.device)
        limit = 2 * (self.k.norm(dim=-1).max() / n)
        inside = torch.nonzero(k.norm(dim=-1) <= limit).squeeze(-1)
        values = torch.zeros(len(k), dtype=torch.complex64, device=k.device)
        for rows in torch.split(inside, 1 << 15):
            values[rows] = torch.view_as_complex(field(k[rows][None], z[None])[0].contiguous())
        spectrum = values.reshape(n, n, half) * n  # from orthonormal slices to plain sums
        volume: Tensor = torch.fft.fftshift(torch.fft.irfftn(spectrum, s=(n, n, n)))
        return volume

    # --- likelihood ---------------------------------------------------------------------------

    def log_likelihood(
        self, field: nn.Module, batch: Batch, z: Tensor, pose: Pose, *, learn: bool = False
    ) -> Tensor:
        """Return log p(image | z, pose) in nats, (B, K), constants included.

        With ``learn`` the noise spectrum is first updated from the residual.
        """
        predicted = self.predict(field, z, pose, batch.ctf)
        error = self.transform(batch.image).unsqueeze(1) - predicted
        gain: Tensor | float = 0.0
        if self.contrast_std:
            more, variance = self._contrast(error, predicted)
            gain = 0.5 * more.square() / variance + 0.5 * torch.log(variance / self.contrast_std**2)
        power = self._product(error, error)
        if learn and self.follows:
            left = power.detach()
            if self.contrast_std:
                error = (error - more.unsqueeze(-1) * predicted).detach()
                spread = variance.unsqueeze(-1) * self._product(predicted, predicted)
                left = self._product(error, error) + spread.detach()
            self._follow(left)
        log_variance = self.log_variance[self.shell]
        nats = power * torch.exp(-log_variance) + self.weight * (log_variance + LOG_2PI)
        return gain - 0.5 * nats.sum(-1)

    def _contrast(self, error: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean, less 1, and variance (B, K) of the contrast of images.

        The contrast multiplies the prediction; before, it is normal with mean 1.
        """
        white = torch.exp(-self.log_variance[self.shell])
        slope = (self._product(error, predicted) * white).sum(-1)
        precision = (self._product(predicted, predicted) * white).sum(-1)
        variance = 1 / (precision + self.contrast_std**-2)
        return slope * variance, variance

    @torch.no_grad()
    def contrast(
        self, field: nn.Module, batch: Batch, z: Tensor, pose: Pose
    ) -> tuple[Tensor, Tensor]:
        """Posterior mean and s.d. (B, K) of the contrast of images of content z (B, K, z_dim)."""
        predicted = self.predict(field, z, pose, batch.ctf)
        more, variance = self._contrast(self.transform(batch.image)[:, None] - predicted, predicted)
        return 1 + more, variance.sqrt()

    def amplitude_sums(
        self, components: Callable[[Tensor], Tensor], batch: Batch, radius: float
    ) -> AmplitudeSums:
        """Sum up what images tell of the amounts of some maps.

        Parameters
        ----------
        components
            From frequencies (B, M, 3) to coefficients (B, M, 2, J + 1) of the maps, the mean first.
        batch
            B images with poses.
        radius
            Of the highest frequency that the maps have, cycles per box.
        """
        with torch.autocast(batch.image.device.type, enabled=False):
            models, target = self._whitened(components, batch, radius)
            constant = (self.weight * (self.log_variance[self.shell] + LOG_2PI)).sum()
            return AmplitudeSums.of(models, target, constant)

    def power_left(
        self, components: Callable[[Tensor], Tensor], batch: Batch, radius: float
    ) -> Tensor:
        """Power (shells,) that mean and motions leave, in units of the noise, per number.

        Parameters as of :meth:`amplitude_sums`; the mean over the images.
        """
        models, target = self._whitened(components, batch, radius)
        sums = AmplitudeSums.of(models, target, target.new_zeros(()))
        shown = sums.shown(self.contrast_std)
        target[:, : models.shape[2]] -= (shown[:, None] @ models)[:, 0]
        shell = self.shell[self._by_radius].repeat_interleave(2)
        total = self.log_variance.new_zeros(self.log_variance.shape)
        total.index_add_(0, shell, target.square().mean(0))
        return total / torch.zeros_like(total).index_add_(0, self.shell, self.weight)

    def _whitened(
        self, components: Callable[[Tensor], Tensor], batch: Batch, radius: float
    ) -> tuple[Tensor, Tensor]:
        """Numbers (B, J + 1, 2 M') of the maps, as images show them, and (B, 2 M) of the images.

        Each coefficient is two numbers, the second 0 where the coefficient is real.  Those within
        the radius come first.
        """
        assert batch.pose is not None
        order = self._by_radius
        real = (self.weight == 2).float()
        held = torch.stack([torch.ones_like(real), real], dim=-1)[order]
        scale = torch.exp(-0.5 * self.log_variance[self.shell]) * self.weight.sqrt()
        seen = self.transform(batch.image) * self.shift_phase(batch.pose.shift).conj() * scale
        target = torch.view_as_real(seen[:, order]) * held
        count = int(np.searchsorted(self._radius, radius, side="right"))
        passed = scale if batch.ctf is None else scale * self.transfer(batch.ctf)
        passed_on = held[:count] * passed[..., order[:count], None]
        k = self.k[order[:count]] * (2 / self.box)
        read = components(k @ batch.pose.rotation.float()[:, :2])
        models = (read * passed_on.unsqueeze(-1)).flatten(1, 2).transpose(1, 2)
        return models, target.flatten(1)

    def _product(self, first: Tensor, second: Tensor) -> Tensor:
        """Sum of products of the real numbers that coefficients (..., M) hold."""
        imaginary = first.imag * second.imag * (self.weight == 2)
        return self.weight * (first.real * second.real + imaginary)

    @torch.no_grad()
    def _follow(self, power: Tensor) -> None:
        """Move each shell's variance to the mean residual ``power`` (B, K, M) in it.

        For a sample from the posterior this is the spectrum of greatest likelihood; it is averaged
        over the last few hundred steps.
        """
        total = self.log_variance.new_zeros(self.log_variance.shape)
        total.index_add_(0, self.shell, power.float().mean((0, 1)))
        count = torch.zeros_like(total).index_add_(0, self.shell, self.weight)
        found = total / count
        rate = 1 / (1 + self.seen.clamp(max=SETTLED))
        variance = torch.lerp(self.log_variance.exp(), found, rate)
        self.log_variance.copy_(variance.clamp(min=1e-8).log())
        self.seen += 1

    # --- what an encoder is shown -------------------------------------------------------------

    def n_shown(self, sees: str) -> int:
        """How many numbers per image :meth:`show` gives."""
        return 2 * len(self.place) if sees == "transform" else self.box**2 + 9

    def show(self, batch: Batch, sees: str, coordinates: Tensor) -> Tensor:
        """Prepare images with given poses for an encoder, (B, n_shown)."""
        assert batch.pose is not None
        centred = self.transform(batch.image) * self.shift_phase(batch.pose.shift).conj()
        transfer = None if batch.ctf is None else self.transfer(batch.ctf)
        if sees == "transform":
            flipped = centred if transfer is None else centred * torch.sign(transfer)
            return torch.view_as_real(flipped).flatten(1)
        weighted = centred * torch.exp(-0.5 * self.log_variance[self.shell])
        weighted = weighted if transfer is None else weighted * transfer
        return self._aligned(weighted, batch.pose.rotation, coordinates)

    def _aligned(self, coefficients: Tensor, rotation: Tensor, coordinates: Tensor) -> Tensor:
        """Rotate pictures until the object's z axis lies along x; append the remaining rotation.

        That rotation depends only on the viewing direction; its nine numbers give the encoder this
        direction.
        """
        angle = torch.atan2(rotation[:, 1, 2], rotation[:, 0, 2])
        x = coordinates @ rotation_2d(angle).transpose(1, 2)
        upright = sample_images(self.picture(coefficients).unsqueeze(1), x).flatten(1)
        turn = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
        turn[:, :2, :2] = rotation_2d(-angle)
        return torch.cat([upright, (turn @ rotation).flatten(1)], dim=1)
