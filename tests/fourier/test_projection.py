"""Projections in Fourier space, against pixels, brute force and other programs' images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from torch import Tensor, nn

from modpose.config import SpectralConfig
from modpose.data.batches import Batch
from modpose.data.source import open_source
from modpose.data.tables import read_particles
from modpose.fourier.projection import Projection, half_plane
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import haar_rotations


class Blobs(nn.Module):
    """The transform of Gaussian blobs in closed form, orthonormal slices of a box of n."""

    def __init__(self, centres: Tensor, sigma: float, n: int) -> None:
        super().__init__()
        self.centres, self.sigma, self.n = centres, sigma, n

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        k = u * 0.5  # cycles per pixel
        phase = -2 * math.pi * (k @ self.centres.T)
        envelope = (-2 * (math.pi * self.sigma) ** 2 * k.square().sum(-1, keepdim=True)).exp()
        value = (torch.polar(torch.ones_like(phase), phase) * envelope).sum(-1) / self.n
        return torch.view_as_real(value)


def blob_picture(centres: Tensor, sigma: float, n: int, pose: Pose) -> Tensor:
    """Projection of the same blobs in pixels, by brute force."""
    axis = torch.arange(n) - n // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    seen = centres @ pose.rotation.T
    picture = torch.zeros(n, n)
    for cx, cy, _ in seen:
        r2 = (x - cx - pose.shift[0]) ** 2 + (y - cy - pose.shift[1]) ** 2
        picture += torch.exp(-r2 / (2 * sigma**2)) / (2 * math.pi * sigma**2)
    return picture


def make(box: int, **options: object) -> Projection:
    return Projection(SpectralConfig.model_validate(options), box)


def whole(box: int, std: float) -> Projection:
    """A projection that leaves no coefficient out."""
    made = make(box, std=std)
    for name, value in half_plane(box)._asdict().items():
        setattr(made, name, value)
    made.log_variance = torch.full((int(made.shell.max()) + 1,), 2 * math.log(std))
    return made


BLOBS = torch.tensor([[3.0, 0.0, 1.0], [-2.0, 4.0, 0.0], [0.0, -3.0, 5.0], [1.0, 1.0, -4.0]])


# --- coefficients -----------------------------------------------------------------------------


@settings(deadline=None)
@given(n=st.integers(2, 17))
def test_independent_coefficients_hold_as_many_numbers_as_there_are_pixels(n: int) -> None:
    assert half_plane(n).weight.sum() == n * n


@settings(deadline=None)
@given(n=st.integers(4, 17), seed=st.integers(0, 100))
def test_a_picture_comes_back_from_its_coefficients(n: int, seed: int) -> None:
    image = torch.randn(2, 1, n, n, generator=torch.Generator().manual_seed(seed))
    projection = whole(n, 1.0)
    again = projection.picture(projection.transform(image))
    # there and back through 2 log2(n²) = 16 additions of numbers up to 5 in single precision
    torch.testing.assert_close(again, image[:, 0], atol=1e-5, rtol=0)
    power = projection._product(*[projection.transform(image)] * 2).sum(1)
    expected = image.square().sum((1, 2, 3))
    torch.testing.assert_close(power, expected, atol=0, rtol=1e-5)  # Parseval


@pytest.mark.parametrize("n", [8, 9, 16])
def test_the_likelihood_without_a_mask_is_that_of_the_pixels(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 1, n, n, generator=generator)
    rotation = haar_rotations(3, generator=generator)
    pose = Pose(rotation, torch.randn(3, 2, generator=generator))
    projection, field = whole(n, 0.7), Blobs(0.3 * BLOBS, 1.2, n)
    batch = Batch(torch.arange(3), image, pose=pose)
    nats = projection.log_likelihood(field, batch, torch.zeros(3, 1, 0), pose)
    predicted = projection.predict(field, torch.zeros(3, 1, 0), pose, None)[:, 0]
    pixels = projection.picture(predicted).numpy()
    expected = stats.norm(pixels, 0.7).logpdf(image[:, 0].numpy()).sum((1, 2))
    np.testing.assert_allclose(nats[:, 0], expected, rtol=1e-5)


def test_contrast_is_integrated_out_of_the_likelihood() -> None:
    """The closed form is the integral over contrasts, and its mean and s.d. those of the ratio."""
    generator = torch.Generator().manual_seed(0)
    n, spread = 9, 0.3
    image = torch.randn(3, 1, n, n, generator=generator)
    pose = Pose(haar_rotations(3, generator=generator), torch.randn(3, 2, generator=generator))
    projection, field = whole(n, 0.7), Blobs(0.3 * BLOBS, 1.2, n)
    batch = Batch(torch.arange(3), image, pose=pose)
    nothing = torch.zeros(3, 1, 0)
    predicted = projection.predict(field, nothing, pose, None)[:, 0]
    pixels = projection.picture(predicted).double().numpy()[:, None]
    factor = np.linspace(1 - 8 * spread, 1 + 8 * spread, 2001)
    error = image.numpy() - factor[:, None, None] * pixels
    log = stats.norm(0, 0.7).logpdf(error).sum((2, 3)) + stats.norm(1, spread).logpdf(factor)
    weight = np.exp(log - log.max(1, keepdims=True))
    integral = np.log(weight.sum(1) * (factor[1] - factor[0])) + log.max(1)
    projection.contrast_std = spread
    nats = projection.log_likelihood(field, batch, nothing, pose)
    np.testing.assert_allclose(nats[:, 0], integral, rtol=1e-5)
    mean, std = projection.contrast(field, batch, nothing, pose)
    weight /= weight.sum(1, keepdims=True)
    expected = (weight * factor).sum(1)
    np.testing.assert_allclose(mean[:, 0], expected, rtol=1e-4)
    variance = (weight * (factor - expected[:, None]) ** 2).sum(1)
    np.testing.assert_allclose(std[:, 0], np.sqrt(variance), rtol=1e-3)


def test_noise_is_learned_from_what_is_left_at_the_right_contrast() -> None:
    generator = torch.Generator().manual_seed(0)
    n, count = 16, 400
    pose = Pose(haar_rotations(count, generator=generator), torch.zeros(count, 2))
    field, nothing = Blobs(0.3 * BLOBS, 1.2, n), torch.zeros(count, 1, 0)
    projection = Projection(SpectralConfig(contrast=0.3), n)
    clean = projection.picture(projection.predict(field, nothing, pose, None)[:, 0])
    std = float(clean.std() / 3)
    factor = 1 + 0.3 * torch.randn(count, 1, 1, generator=generator)
    image = factor * clean + std * torch.randn(count, n, n, generator=generator)
    batch = Batch(torch.arange(count), image[:, None], pose=pose)
    projection.log_variance.fill_(2 * math.log(std))
    for _ in range(10):
        projection.log_likelihood(field, batch, nothing, pose, learn=True)
    # a shell has at least 400 x 8 numbers: a standard error of 2.5 %
    assert np.allclose(projection.log_variance[1:].exp(), std**2, rtol=0.1)


# --- slices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [32, 33])
def test_a_slice_is_the_projection_of_the_turned_and_shifted_volume(n: int) -> None:
    rotation = haar_rotations(4, generator=torch.Generator().manual_seed(1))
    shift = torch.tensor([[0.0, 0.0], [2.5, -1.0], [-0.3, 3.0], [1.0, 0.0]])
    pose = Pose(rotation, shift)
    projection = make(n)
    seen = projection.predict(Blobs(BLOBS, 1.5, n), torch.zeros(4, 1, 0), pose, None)
    for i, picture in enumerate(projection.picture(seen[:, 0])):
        expected = blob_picture(BLOBS, 1.5, n, Pose(rotation[i], shift[i]))
        torch.testing.assert_close(picture, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("n", [24, 25])
def test_the_volume_projects_to_the_slice(n: int) -> None:
    projection, field = make(n), Blobs(BLOBS * 0.7, 1.4, n)
    volume = projection.volume(field, torch.zeros(0))
    still = Pose(torch.eye(3)[None], torch.zeros(1, 2))
    slice_ = projection.picture(projection.predict(field, torch.zeros(1, 1, 0), still, None)[:, 0])
    torch.testing.assert_close(volume.sum(0), slice_[0], atol=1e-5, rtol=0)
    # and the blobs are where they should be, to a fraction of a voxel
    axis = np.arange(n) - n // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    weight = volume.numpy() / volume.sum().item()
    centre = [(weight * a).sum() for a in (x, y, z)]
    np.testing.assert_allclose(centre, (0.7 * BLOBS).mean(0), atol=0.02)


def test_the_phase_of_a_shift_is_that_of_scipy() -> None:
    projection = make(20)
    image = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([[1.7, -2.4]])
    known = projection.transform(image)
    moved = projection.picture(known * projection.shift_phase(shift))[0]
    within = projection.picture(known)[0].numpy()
    spectrum = ndimage.fourier_shift(np.fft.fft2(within), (-2.4, 1.7))  # (rows, columns)
    np.testing.assert_allclose(moved, np.fft.ifft2(spectrum).real, atol=1e-5)


def test_a_whole_pixel_of_shift_rolls_the_picture() -> None:
    projection = whole(12, 1.0)
    image = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    phase = projection.shift_phase(torch.tensor([[2.0, -3.0]]))
    moved = projection.picture(projection.transform(image) * phase)
    torch.testing.assert_close(moved, image[:, 0].roll((-3, 2), (1, 2)), atol=1e-5, rtol=0)


# --- noise ------------------------------------------------------------------------------------


def test_the_noise_spectrum_follows_what_is_left() -> None:
    generator = torch.Generator().manual_seed(0)
    projection = make(24)
    amplitude = 1 + 2 * torch.arange(13) / 12
    still = Pose(torch.eye(3).repeat(64, 1, 1), torch.zeros(64, 2))

    class Nothing(nn.Module):
        def forward(self, u: Tensor, z: Tensor) -> Tensor:
            return torch.zeros(*u.shape[:2], 2)

    for _ in range(30):
        white = projection.transform(torch.randn(64, 1, 24, 24, generator=generator))
        image = projection.picture(white * amplitude[projection.shell]).unsqueeze(1)
        batch = Batch(torch.arange(64), image, pose=still)
        projection.log_likelihood(Nothing(), batch, torch.zeros(64, 1, 0), still, learn=True)
    found = (0.5 * projection.log_variance).exp()
    torch.testing.assert_close(found, amplitude[: len(found)], rtol=0.04, atol=0)


def test_flat_noise_stays_as_it_is() -> None:
    projection = make(12, noise="flat", std=0.5)
    batch = Batch(torch.arange(1), torch.ones(1, 1, 12, 12))
    still = Pose(torch.eye(3)[None], torch.zeros(1, 2))
    projection.log_likelihood(Blobs(BLOBS, 1.0, 12), batch, torch.zeros(1, 1, 0), still, learn=True)
    torch.testing.assert_close(
        projection.log_variance.exp(), torch.full_like(projection.log_variance, 0.25)
    )


# --- another program's images -----------------------------------------------------------------


class Voxels(nn.Module):
    """The transform of a volume on a grid, exactly (a sum over its voxels that are not zero)."""

    def __init__(self, volume: Tensor) -> None:
        super().__init__()
        place = torch.nonzero(volume)
        self.value = volume[volume != 0]
        self.r = (place.flip(-1) - volume.shape[0] // 2).float()
        self.n = volume.shape[0]

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        phase = -math.pi * (u[0] @ self.r.T)
        return torch.stack([phase.cos() @ self.value, phase.sin() @ self.value], -1)[None] / self.n


@pytest.mark.shared
def test_a_point_mass_is_where_relion_projects_it_with_its_ctf(shared_data: Path) -> None:
    folder = shared_data / "spa_sim"
    volume = torch.from_numpy(open_source(folder / "pointmass.mrc").stack.read(np.arange(1)))
    recorded = open_source(folder / "relion_proj_star.mrcs").stack.read(np.arange(1))[:, 0]
    particles = read_particles(folder / "pyem_onerow.star")
    rotation, shift = particles.poses(3.54)
    ctf = torch.from_numpy(particles.ctf(3.54))
    pose = Pose(*(torch.from_numpy(part).float() for part in (rotation, shift)))
    projection = make(64)
    seen = projection.predict(Voxels(volume[0, 0]), torch.zeros(1, 1, 0), pose, ctf)[:, 0]
    known = projection.transform(torch.from_numpy(recorded)[:, None].float())
    assert correlation(seen, known) > 0.98  # it interpolates, which blurs a point


@pytest.mark.shared
def test_a_ribosome_looks_as_relion_projects_it(shared_data: Path) -> None:
    folder = shared_data / "spa_sim"
    volume = open_source(folder / "clean70SRibosome_vol_65p.mrc").stack.read(np.arange(1))
    source = open_source(folder / "rln_proj_65.star")
    rotation, _ = source.particles.poses()
    # its odd boxes have their centre one pixel further along x and y than n // 2
    pose = Pose(torch.from_numpy(rotation).float(), torch.ones(source.n, 2))
    projection = make(65, radius=0.4)
    field = Voxels(torch.from_numpy(volume[0, 0]))
    known = projection.transform(torch.from_numpy(source.stack.read(np.arange(source.n))))
    for i in range(source.n):
        one = Pose(pose.rotation[i : i + 1], pose.shift[i : i + 1])
        seen = projection.predict(field, torch.zeros(1, 1, 0), one, None)[:, 0]
        assert correlation(seen, known[i : i + 1]) > 0.98


def correlation(a: Tensor, b: Tensor) -> float:
    product = (a[:, 1:] * b[:, 1:].conj()).real.sum()
    return float(product / (a[:, 1:].abs().square().sum() * b[:, 1:].abs().square().sum()).sqrt())
