"""Scale as a pose variable: its convention, its log-normal posterior, and that it is found."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from modpose import PoseModel
from modpose.config import ModelConfig, parse_config
from modpose.config.facts import Facts, check_config
from modpose.errors import InputError
from modpose.evaluate.recovery import recover
from modpose.geometry.rotations import rotation_2d
from modpose.model.cells import Cells
from modpose.model.latents import Latents
from modpose.model.posterior import LatentLayout, Posterior
from modpose.options import configure
from modpose.recipes import recipe_config
from modpose.simulate.molecules import axis_rotations, hinged_molecule, project
from modpose.simulate.particles import BEAM

STD = 0.2


def make_posterior(cells: int, tells: bool, scale: str = "log-normal") -> Posterior:
    """Two images; cells that tell angle and shift, or the parts of a mixture."""
    model = {"z_dim": 1, "scale": {"prior": scale, "std": STD}}
    if tells:
        model |= {"encoder": {"kind": "orbit", "rotations": cells, "subpixel": True}}
    layout = LatentLayout(ModelConfig.model_validate(model), 2)
    draw = torch.Generator().manual_seed(2)
    params = 0.5 * torch.randn(2, cells, layout.n_params, generator=draw)
    told = None
    if tells:
        prior = torch.randn(cells, generator=draw).log_softmax(0)
        places, turns = torch.randn(cells, 2, generator=draw), torch.arange(cells) * 2.0
        told = Cells(turns, places, prior, angle_std=0.5, shift_std=0.8)
    return layout.posterior(params, torch.randn(2, cells, generator=draw), told)


def test_an_object_of_scale_s_is_read_at_its_place_over_s() -> None:
    """signal(x) = f(R^T (x - t) / s)."""
    angle, shift = torch.tensor([[0.7]]), torch.tensor([[[1.0, -2.0]]])
    cell, s = torch.zeros(1, 1, dtype=torch.int64), 1.3
    log_scale = torch.full((1, 1), math.log(s))
    latents = Latents(torch.zeros(1, 1, 0), angle, shift, cell, log_scale=log_scale)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    expected = (x - shift[0, 0]) @ rotation_2d(angle[0, 0]) / s
    torch.testing.assert_close(latents.to_object(x)[0, 0], expected)


def test_the_slope_of_the_scale_is_that_of_finite_differences() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nothing = torch.zeros(1, 1, 0, dtype=torch.float64)
    cell = torch.zeros(1, 1, dtype=torch.int64)
    angle, shift = torch.tensor([[0.7]]).double(), torch.tensor([[[1.0, -2.0]]]).double()

    def places(log_scale: torch.Tensor) -> torch.Tensor:
        return Latents(nothing, angle, shift, cell, log_scale=log_scale).to_object(x)

    assert torch.autograd.gradcheck(places, torch.tensor([[0.3]]).double().requires_grad_())


def test_the_kl_of_the_scale_is_that_of_log_normal_distributions() -> None:
    posterior = make_posterior(1, tells=False)
    without = posterior._replace(scale=None)
    found = posterior.kl(exact=True).pose - without.kl(exact=True).pose
    assert posterior.scale is not None
    mean, log_std = (part[:, 0, 0] for part in posterior.scale)
    q = torch.distributions.LogNormal(mean, log_std.exp())
    p = torch.distributions.LogNormal(torch.tensor(0.0), torch.tensor(STD))
    torch.testing.assert_close(found, torch.distributions.kl_divergence(q, p), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("cells", "tells"), [(1, False), (3, True), (3, False)])
def test_the_kl_is_that_of_many_samples(cells: int, tells: bool) -> None:
    posterior, count = make_posterior(cells, tells), 40_000
    latents = posterior.sample(count, torch.Generator().manual_seed(1))
    ratio = -posterior.log_prior_over_posterior(latents)
    kl, error = sum(posterior.kl(exact=True)), ratio.std(1) / math.sqrt(count)
    if cells == 1 or tells:
        assert ((ratio.mean(1) - kl).abs() < 4 * error).all()
    else:  # the overlap of a mixture is bounded
        assert (ratio.mean(1) < kl + 4 * error).all()


def test_no_scale_is_no_number() -> None:
    with_scale, without = make_posterior(1, False), make_posterior(1, False, "none")
    assert with_scale.layout.n_params == without.layout.n_params + 2
    assert without.scale is None and without.best().log_scale is None
    assert ModelConfig().scale.prior == "none"


@pytest.mark.parametrize(
    ("recipe", "shape", "says"),
    [("vae-3d", (8, 8, 8), "none for volumes"), ("cryodrgn", (16, 16), "none, because poses are")],
)
def test_scale_is_refused_where_there_are_no_pictures_to_pose(
    recipe: str, shape: tuple[int, ...], says: str
) -> None:
    values = recipe_config(recipe)
    model = {**values.get("model", {}), "scale": {"prior": "log-normal"}}
    config = parse_config({**values, "recipe": recipe, "model": model}, "test")
    with pytest.raises(InputError, match=says):
        check_config(Facts(config, shape, 1))


def scaled_blobs(count: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Three blobs, not in a row, larger or smaller by a log-normal factor; some noise."""
    rng = np.random.default_rng(0)
    scale = np.exp(STD * rng.standard_normal(count))
    x, y = (part / scale[:, None, None] for part in np.meshgrid(*[np.arange(16.0) - 8] * 2))
    blobs = [(-3, -2), (2, -1), (0, 3)]
    shapes = sum(np.exp(-((x - i) ** 2 + (y - j) ** 2) / 2) for i, j in blobs)
    return shapes + 0.1 * rng.standard_normal(x.shape), pd.DataFrame({"scale": scale})


def test_images_are_normalised_as_one_set_where_scale_is_inferred(tmp_path: Path) -> None:
    """One by one, a larger object is fainter, and the model then draws it smaller."""
    images, _ = scaled_blobs(20)
    np.save(tmp_path / "images.npy", images.astype(np.float32))
    source, scaled = str(tmp_path / "images.npy"), ["model.scale.prior=log-normal"]
    for recipe in ("spatial-vae", None):
        assert configure(source, recipe=recipe)[1].data.normalize == "image"
        assert configure(source, recipe=recipe, assignments=scaled)[1].data.normalize == "set"
        one_by_one = [*scaled, "data.normalize=image"]
        chosen = configure(source, recipe=recipe, assignments=one_by_one)[1]
        assert chosen.data.normalize == "image"
    options = {"model": {"scale": {"prior": "log-normal"}}, "train": {"epochs": 1}}
    model = PoseModel("spatial-vae", z_dim=1, options=options, quiet=True).fit(images)
    assert model.config.data.normalize == "set"


def hinges(scale: np.ndarray) -> np.ndarray:
    """Noise-free pictures (N, 1024) of the built-in molecule at one pose, larger by each factor."""
    molecule, n = hinged_molecule(), len(scale)
    turns, shift = axis_rotations(BEAM, np.full(n, 30.0)), np.zeros((n, 2))
    parts = molecule.conformations(np.zeros(n)), molecule.sigmas, molecule.masses
    return project(*parts, turns, shift, 32, 5.5 / scale).reshape(n, -1)


def best_scale_slope(images: np.ndarray, truth: np.ndarray) -> float:
    """Slope of the best log scale against the truth, with the true template at the true pose."""
    steps = np.linspace(-0.5, 0.5, 101)
    templates, best = hinges(np.exp(steps)), np.full(len(images), 50)
    for _ in range(8):  # one strength and one background for all images, then the scale of each
        strength, background = np.polyfit(templates[best].ravel(), images.ravel(), 1)
        drawn = strength * templates + background
        best = ((drawn**2).sum(1) - 2 * images @ drawn.T).argmin(1)
    return float(np.polyfit(truth, steps[best], 1)[0])


def test_normalising_images_one_by_one_compresses_the_scale() -> None:
    rng = np.random.default_rng(0)
    truth = 0.1 * rng.standard_normal(600)
    images = hinges(np.exp(truth))
    images = images / images.std() + rng.standard_normal(images.shape)
    one_by_one = (images - images.mean(1, keepdims=True)) / images.std(1, keepdims=True)
    assert abs(best_scale_slope(images, truth) - 1) < 0.03
    assert best_scale_slope(one_by_one, truth) < 0.92


@pytest.mark.parametrize("recipe", ["spatial-vae", "modpose", "target-vae"])
def test_the_scale_is_found(recipe: str) -> None:
    images, truth = scaled_blobs(400)
    small = {
        "mlp": {"hidden": 64},
        "polar": {"hidden": 64, "channels": 8},
        "orbit": {"channels": 8},
    }
    encoder = recipe_config(recipe)["model"].get("encoder", {"kind": "mlp"})
    options = {
        "model": {
            "z_dim": 1,
            "rotation": {"prior": "none"},
            "shift": {"prior": "none"},
            "scale": {"prior": "log-normal", "std": STD},
            "encoder": {**encoder, **small[encoder["kind"]]},
            "field": {"hidden": 32},
        },
        "train": {"epochs": 15, "lr": 5e-3, "batch_size": 20, "warmup_steps": 0},
    }
    model = PoseModel(recipe, options=options, quiet=True).fit(images)
    found = model.latents()
    error = recover(found, truth).scale_median_error
    assert error is not None and error < 0.04  # the prior's median is 0.135
    encoded = model.encode(images[:5])
    assert encoded.scale is not None and encoded.scale_std is not None
    np.testing.assert_allclose(encoded.scale, found["scale"][:5], rtol=1e-4)
    with pytest.raises(InputError, match=r"model.scale.prior"):
        model.encode(images[:5], search=True)


def test_the_spread_of_the_scale_is_that_of_a_log_normal_variable() -> None:
    images, _ = scaled_blobs(20)
    options = {
        "model": {"scale": {"prior": "log-normal", "std": STD}, "field": {"hidden": 8}},
        "train": {"epochs": 1},
    }
    model = PoseModel("spatial-vae", z_dim=1, options=options, quiet=True).fit(images)
    encoded = model.encode(images)
    batch = model.dataset(images).batch(np.arange(20))
    with torch.no_grad():
        posterior = model.vae.posterior(batch)
    assert posterior.scale is not None
    mean, log_std = (part[:, 0, 0].double().numpy() for part in posterior.scale)
    law = stats.lognorm(s=np.exp(log_std), scale=np.exp(mean))
    np.testing.assert_allclose(encoded.scale, law.median(), rtol=1e-5)
    np.testing.assert_allclose(encoded.scale_std, law.std(), rtol=1e-4)
