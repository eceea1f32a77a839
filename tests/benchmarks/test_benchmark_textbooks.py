"""The textbooks of the benchmarks against the formulas, pixel by pixel and cell by cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.signal import correlate2d
from scipy.special import expit, log_softmax, softmax
from scipy.stats import norm

ROOT = Path(__file__).parents[2]
Floats = NDArray[np.float64]


@pytest.fixture(scope="module", autouse=True)
def repository_on_path() -> Iterator[None]:
    """The benchmarks are beside the package and not in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


def kl_on_a_grid(mean: float, std: float, prior_mean: float, prior_std: float) -> float:
    """KL of two Gaussians by the trapezoidal rule."""
    x = np.linspace(-12, 12, 2001) * std + mean
    q = norm.logpdf(x, mean, std)
    return float(np.trapezoid(np.exp(q) * (q - norm.logpdf(x, prior_mean, prior_std)), x))


def test_spatial_vae_computes_what_the_paper_says() -> None:
    """Pixel by pixel in float64, with scipy's densities for the terms that have closed forms."""
    from benchmarks.systems import make_spatial

    plain = make_spatial(hidden=6)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(2)
    image = torch.rand(1, 28, 28, generator=generator)
    noise = plain.noise(1, generator)
    terms = plain.terms(image, noise)

    def layers(name: str, x: np.ndarray) -> np.ndarray:
        weights = [p.detach().double().numpy() for p in getattr(plain, name).parameters()]
        for k in (0, 2):
            x = np.tanh(weights[k] @ x + weights[k + 1])
        return weights[4] @ x + weights[5]

    raw = layers("encoder", image.double().numpy().ravel())
    mean, std = raw[:5], np.exp(raw[5:])
    sample = mean + std * noise[0].double().numpy()
    angle, shift = sample[2], 1.4 / 14 * sample[3:]
    recon = 0.0
    for row in range(28):
        for column in range(28):
            x = np.array([column - 14, row - 14]) / 14 - shift
            turned = (
                math.cos(angle) * x[0] + math.sin(angle) * x[1],
                -math.sin(angle) * x[0] + math.cos(angle) * x[1],
            )
            p = expit(layers("decoder", np.array([*turned, *sample[:2]])))[0]
            y = float(image[0, row, column])
            recon += y * math.log(p) + (1 - y) * math.log1p(-p)
    assert terms.recon.item() == pytest.approx(recon, rel=1e-5)

    def kl(k: int) -> float:
        return kl_on_a_grid(mean[k], std[k], 0.0, 1.0)

    assert terms.kl_content.item() == pytest.approx(kl(0) + kl(1), rel=1e-4)
    assert terms.kl_shift.item() == pytest.approx(kl(3) + kl(4), rel=1e-4)
    wide = math.log(math.pi / std[2]) + std[2] ** 2 / (2 * math.pi**2) - 0.5
    assert terms.kl_angle.item() == pytest.approx(wide, rel=1e-5)


class TinyTargetVae:
    """TARGET-VAE on one image in numpy: 8x8 pixels, three angles, 4x4 kernels, 9x9 places."""

    box, rotations, kernel, padding, places = 8, 3, 4, 2, 9
    shift_std = 0.4

    def __init__(self) -> None:
        from benchmarks.textbook.target_vae import Sizes, TargetVae

        torch.manual_seed(4)
        sizes = Sizes(self.rotations, self.kernel, self.padding, channels=3, features=6, hidden=5)
        self.model = TargetVae(self.box, self.shift_std, z_dim=2, sizes=sizes)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.mul_(3)  # so that cells differ
        numbers = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        self.w = {name: value.detach().double().numpy() for name, value in numbers.items()}

    def turned(self, kernel: Floats, angle: float) -> Floats:
        """Read k(R^T x) at every pixel x of the kernel, about its middle."""
        middle = (self.kernel - 1) / 2
        rows, columns = np.mgrid[: self.kernel, : self.kernel] - middle
        x = math.cos(angle) * columns + math.sin(angle) * rows
        y = -math.sin(angle) * columns + math.cos(angle) * rows
        read: Floats = map_coordinates(
            kernel, [y + middle, x + middle], order=1, mode="grid-constant"
        )
        return read

    def encode(self, image: Floats) -> Floats:
        """(cells, 7): logit, angle mean and log s.d., content means and log s.d."""
        padded = np.pad(image, self.padding)
        rows = []
        for r in range(self.rotations):
            angle = 2 * math.pi * r / self.rotations
            maps = [
                correlate2d(padded, self.turned(kernel, angle), mode="valid") + bias
                for kernel, bias in zip(self.w["weight"], self.w["bias"], strict=True)
            ]
            for i in range(self.places):
                for j in range(self.places):
                    h = np.array([part[i, j] for part in maps])
                    for layer in (1, 3, 5):
                        weight = self.w[f"pointwise.{layer}.weight"][..., 0, 0, 0]
                        h = weight @ leaky(h) + self.w[f"pointwise.{layer}.bias"]
                    h[1] += angle
                    rows.append(h)
        return np.array(rows)

    def cells(self) -> list[tuple[float, float, float]]:
        """Angle and shift (x, y) of every cell, in the unit of the coordinates."""
        middle = [(k - 2 + 1.5 - 4) / 4 for k in range(self.places)]
        angles = [2 * math.pi * r / 3 for r in range(3)]
        return [(angle, x, y) for angle in angles for y in middle for x in middle]

    def recon(self, image: Floats, z: Floats, angle: float, shift: Floats) -> float:
        total = 0.0
        for row in range(self.box):
            for column in range(self.box):
                x, y = np.array([column - 4, row - 4]) / 4 - shift
                turned = np.array(
                    [
                        math.cos(angle) * x + math.sin(angle) * y,
                        -math.sin(angle) * x + math.cos(angle) * y,
                    ]
                )
                phase = 2 * math.pi * turned @ self.w["frequencies"]
                features = np.concatenate([np.cos(phase), np.sin(phase)])
                h = self.w["from_coordinates.weight"] @ features + self.w["from_coordinates.bias"]
                h = h + self.w["from_content.weight"] @ z + self.w["from_content.bias"]
                for layer in (1, 3):
                    h = self.w[f"decoder.{layer}.weight"] @ leaky(h)
                    h = h + self.w[f"decoder.{layer}.bias"]
                p = float(expit(h[0]))
                pixel = image[row, column]
                total += pixel * math.log(p) + (1 - pixel) * math.log1p(-p)
        return total


def leaky(x: Floats) -> Floats:
    return np.where(x > 0, x, 0.01 * x)


@pytest.fixture(scope="module")
def tiny(repository_on_path: None) -> TinyTargetVae:
    return TinyTargetVae()


def test_target_vae_is_what_the_paper_says(tiny: TinyTargetVae) -> None:
    """Equation 5 summed over all cells, each KL integrated on a grid; both kinds of sample."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 8, 8, generator=generator)
    normal = torch.randn(1, 3, generator=generator)
    gumbel = -torch.empty(1, 243).exponential_(generator=generator).log()
    y, noise = image[0].double().numpy(), normal[0].double().numpy()
    raw, cells = tiny.encode(y), tiny.cells()
    log_q = log_softmax(raw[:, 0])
    assert 0.01 < np.exp(log_q).max() < 0.9  # neither flat nor certain

    prior = [norm.logpdf([x, y], 0, tiny.shift_std).sum() for _, x, y in cells]
    log_prior = np.array(prior) - math.log(np.exp(prior).sum())
    kl_cell = kl_angle = kl_content = 0.0
    for c, (angle, _, _) in enumerate(cells):
        q, std = math.exp(log_q[c]), np.exp(raw[c, [2, 5, 6]])
        kl_cell += q * (log_q[c] - log_prior[c])
        kl_angle += q * kl_on_a_grid(raw[c, 1], std[0], angle, math.pi / 3)
        kl_content += q * sum(kl_on_a_grid(raw[c, 3 + k], std[1 + k], 0, 1) for k in (0, 1))

    hard_cell = 100
    _, *place = cells[hard_cell]
    _, angle, angle_log_std, *content = raw[hard_cell]
    hard_recon = tiny.recon(
        y,
        np.array(content[:2]) + np.exp(content[2:]) * noise[:2],
        angle + math.exp(angle_log_std) * noise[2],
        np.array(place),
    )
    weight = softmax(log_q + gumbel[0].double().numpy())
    std = weight @ np.exp(raw[:, [2, 5, 6]])
    soft_recon = tiny.recon(
        y,
        weight @ raw[:, 3:5] + std[1:] * noise[:2],
        weight @ raw[:, 1] + std[0] * noise[2],
        weight @ np.array([[x, y] for _, x, y in cells]),
    )

    with torch.no_grad():
        hard = tiny.model.hard_terms(image, torch.tensor([hard_cell]), normal)
        soft = tiny.model.soft_terms(image, gumbel, normal)
    assert hard.recon.item() == pytest.approx(hard_recon, rel=1e-4)
    assert soft.recon.item() == pytest.approx(soft_recon, rel=1e-4)
    for terms in (hard, soft):
        assert terms.kl_cell.item() == pytest.approx(kl_cell, rel=1e-4)
        assert terms.kl_angle.item() == pytest.approx(kl_angle, rel=1e-4)
        assert terms.kl_content.item() == pytest.approx(kl_content, rel=1e-4)
    elbo = hard_recon - kl_cell - kl_angle - kl_content
    assert hard.elbo().item() == pytest.approx(elbo, rel=1e-4)


def test_the_bound_draws_cells_by_their_probability(tiny: TinyTargetVae) -> None:
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        q = tiny.model.encode(image).log_q[0].exp()
        still = torch.zeros(len(q), 3)
        each = tiny.model.hard_terms(image.expand(len(q), -1, -1), torch.arange(len(q)), still)
        expected = (q * each.elbo()).sum().item()
        many = image.expand(4000, -1, -1)
        tiny.model._normal = lambda count, generator: torch.zeros(count, 3)  # type: ignore[method-assign]
        found = tiny.model.bound(many, torch.Generator().manual_seed(0))
        del tiny.model._normal
    error = found.std().item() / math.sqrt(len(found))
    assert error > 0
    assert found.mean().item() == pytest.approx(expected, abs=4 * error)


def test_a_quarter_turn_of_the_image_moves_the_cells_by_two_of_eight_angles() -> None:
    from benchmarks.systems import make_target

    model = make_target(hidden=4)
    image = torch.rand(1, 50, 50, generator=torch.Generator().manual_seed(0))
    turned = image.rot90(-1, (1, 2))  # from x to y: a positive angle
    with torch.no_grad():
        upright, after = (model.encode(x).log_q.view(8, 39, 39) for x in (image, turned))
    assert upright.std() > 1e-3
    torch.testing.assert_close(after.roll(-2, 0), upright.rot90(-1, (1, 2)), atol=1e-5, rtol=0)


def test_the_published_sizes() -> None:
    from benchmarks.systems import make_target

    model = make_target()
    assert model.kernels().shape == (128, 8, 28, 28)
    assert model.log_prior.shape == (8 * 39 * 39,)
    assert model.log_prior.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert model.from_coordinates.weight.shape == (512, 1024)


@pytest.mark.parametrize("name", ["spatial-vae", "target-vae"])
def test_a_textbook_learns(name: str) -> None:
    from benchmarks import digits, textbook
    from benchmarks.systems import SYSTEMS

    system = SYSTEMS[name]
    model = system.make_textbook(16)
    optimizer = textbook.adam(model, lr=1e-2)
    images = torch.from_numpy(digits.posed_digits(None, 3, 1, posing=system.posing)[0])
    generator = torch.Generator().manual_seed(0)
    elbos = [textbook.train_step(model, optimizer, images, generator) for _ in range(10)]
    assert elbos[-1] > elbos[0] + 100


def test_the_textbook_of_cryodrgn_is_the_field_with_the_same_weights() -> None:
    from benchmarks.textbook.cryodrgn import CryoDrgn, Posed
    from modpose.config import FourierFieldConfig, SpectralConfig
    from modpose.data.batches import Batch
    from modpose.fourier.projection import Projection
    from modpose.geometry.pose import Pose
    from modpose.geometry.rotations import haar_rotations
    from modpose.model.fields.slices import SliceField

    generator = torch.Generator().manual_seed(0)
    book, field = CryoDrgn(12), SliceField(FourierFieldConfig(), 8, 12)
    first, *hidden = (book.decoder[i] for i in (0, 2, 3, 4))
    waves = len(book.waves)
    with torch.no_grad():
        field.positions.copy_(book.waves.T / 2)  # per Nyquist, not per cycle per pixel
        field.first.weight.copy_(first.weight[:, : 2 * waves])
        field.first.bias.copy_(first.bias)
        field.content.weight.copy_(first.weight[:, 2 * waves :])
        for ours, theirs in zip(field.hidden, hidden, strict=True):
            ours.linear.load_state_dict(theirs.layer.state_dict())
        field.output.load_state_dict(book.decoder[-1].state_dict())
        rotation, z = haar_rotations(3, generator=generator), torch.randn(3, 8)
        images, shift = torch.randn(3, 12, 12), torch.randn(3, 2)
        projection = Projection(SpectralConfig(), 12)
        still = Pose(rotation, shift)
        seen = projection.predict(field, z[:, None], still, None)[:, 0]
        move = book.kx * shift[:, :1] + book.ky * shift[:, 1:]
        expected = book.decode(rotation, z) * torch.exp(-2j * math.pi * move)
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)
        batch = Batch(torch.arange(3), images[:, None], pose=still)
        shown = projection.show(batch, "transform", torch.zeros(1, 2))
        ahead = torch.view_as_real(book.transform(images) * torch.exp(2j * math.pi * move))
        torch.testing.assert_close(shown, ahead.flatten(1), atol=1e-5, rtol=1e-4)
    posed = Posed(images, rotation, shift, torch.ones(3, 12, 7))
    assert torch.isfinite(book.loss(posed, generator))
