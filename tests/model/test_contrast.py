"""The contrastive term: its value, its gradient, the deformations, and what it does to content."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from modpose import InputError, PoseModel
from modpose.config import (
    CauchyConfig,
    ContrastConfig,
    CosineConfig,
    SimilarityConfig,
    merge,
    parse_config,
)
from modpose.evaluate.metrics import knn_accuracy
from modpose.geometry.grids import lattice
from modpose.model.build import build_vae
from modpose.model.objective import Elbo, Objective
from modpose.model.terms.contrast import contrastive_loss, deformed, raised
from modpose.recipes import recipe_config


def by_hand(content: Tensor, other: Tensor, similarity: SimilarityConfig) -> list[float]:
    """Add it up pair by pair."""
    n = len(content)

    def alike(a: Tensor, b: Tensor) -> float:
        if isinstance(similarity, CosineConfig):
            return float(a @ b / (a.norm() * b.norm())) / similarity.temperature
        return math.log(1 / (1 + float((a - b).square().sum()) / similarity.width**2))

    score = [[alike(a, b) for b in other.double()] for a in content.double()]
    loss = []
    for i in range(n):
        there = math.log(sum(math.exp(score[i][j]) for j in range(n))) - score[i][i]
        back = math.log(sum(math.exp(score[j][i]) for j in range(n))) - score[i][i]
        loss.append((there + back) / 2)
    return loss


SIMILARITIES = st.floats(0.05, 2).map(lambda t: CosineConfig(temperature=t)) | st.floats(
    0.05, 2
).map(lambda w: CauchyConfig(width=w))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 7), k=st.integers(2, 5), how=SIMILARITIES, scale=st.floats(0.1, 10))
def test_the_term_is_what_its_formula_says(
    n: int, k: int, how: SimilarityConfig, scale: float
) -> None:
    content, other = torch.randn(2, n, k)
    found = contrastive_loss(scale * content, other, how)
    expected = torch.tensor(by_hand(scale * content, other, how))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found > -1e-5).all()


@pytest.mark.parametrize("how", [CosineConfig(), CauchyConfig()])
def test_content_that_is_the_same_for_all_tells_nothing(how: SimilarityConfig) -> None:
    same = torch.ones(12, 3)
    torch.testing.assert_close(contrastive_loss(same, same, how), torch.full((12,), math.log(12)))


def test_cosines_leave_lengths_alone_and_distances_do_not() -> None:
    content, other = torch.randn(2, 6, 2)
    for how, same in ((CosineConfig(), True), (CauchyConfig(), False)):
        losses = [contrastive_loss(c * content, c * other, how) for c in (1.0, 4.0)]
        assert torch.allclose(*losses, atol=1e-5) == same


@pytest.mark.parametrize("how", [CosineConfig(temperature=0.5), CauchyConfig(width=0.5)])
def test_its_gradient_is_that_of_finite_differences(how: SimilarityConfig) -> None:
    content = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    other = torch.randn(5, 3, dtype=torch.float64)

    assert torch.autograd.gradcheck(lambda c: contrastive_loss(c, other, how), content)


# --- deformations -----------------------------------------------------------------------------


def test_no_deformation_leaves_pictures_as_they_are() -> None:
    images = torch.rand(3, 2, 9, 12)
    same = deformed(images, ContrastConfig(stretch=0.0, bend=0.0, grey=0.0), None)
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)


def test_deformations_are_of_the_size_that_is_asked_for() -> None:
    """Read coordinates themselves as pictures: what they become says how far pixels moved."""
    side, count = 64, 400
    at = lattice((side, side)).T.reshape(1, 2, side, side) + 0.5  # from the middle of the box
    pictures = at.expand(count, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    middle = slice(16, 48)  # far enough from the border that nothing comes from outside

    bent = deformed(pictures, ContrastConfig(stretch=0.0, bend=0.02, grey=0.0), generator)
    moved = (bent - pictures)[..., middle, middle]
    assert float(moved.std()) == pytest.approx(0.02 * side, rel=0.35)  # less between the knots
    assert float(moved.mean()) == pytest.approx(0, abs=0.1)

    config = ContrastConfig(stretch=0.25, bend=0.0, grey=0.0)
    read = deformed(pictures, config, generator)[..., middle, middle].flatten(2)
    where = at[0][:, middle, middle].flatten(1)
    linear = read @ torch.linalg.pinv(where)  # (count, 2, 2): pictures are read at linear @ x
    change = linear - torch.eye(2)
    assert float(change.abs().max()) <= 0.25 + 1e-3
    assert float(change.std()) == pytest.approx(0.25 / math.sqrt(3), rel=0.1)


def test_grey_values_are_raised_between_the_darkest_and_the_brightest() -> None:
    images = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3).repeat(3, 1, 1, 1)
    images[2] = 4 * images[2] - 3  # from -3 to 1
    found = raised(images, torch.tensor([0.5, 2.0, 0.5]))[:, 0, 0]
    expected = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0625, 1.0], [-3.0, -1.0, 1.0]])
    torch.testing.assert_close(found, expected)
    flat = torch.full((1, 1, 4, 4), 0.7)
    torch.testing.assert_close(raised(flat, torch.tensor([3.0])), flat)


def test_deformations_follow_the_generator_and_differ_from_image_to_image() -> None:
    images = torch.rand(1, 1, 16, 16).expand(4, -1, -1, -1)
    one, again = (
        deformed(images, ContrastConfig(), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    torch.testing.assert_close(one, again)
    assert float((one[0] - one[1]).abs().max()) > 0.05


# --- in a model -------------------------------------------------------------------------------


def shapes(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw rings, bars and crosses, each turned and bent its own way."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:20, :20] - 9.5
    images, classes = np.zeros((n, 20, 20), np.float32), draw.integers(0, 3, n)
    for i, kind in enumerate(classes):
        a, s = draw.uniform(0, 2 * np.pi), draw.uniform(0.8, 1.25)
        u = (np.cos(a) * x + np.sin(a) * y) * s
        v = (-np.sin(a) * x + np.cos(a) * y) / s + 0.03 * draw.normal() * u**2
        bar = np.exp(-((v / 1.2) ** 2) - (u / 6) ** 4)
        post = np.exp(-((u / 1.2) ** 2) - (v / 6) ** 4)
        ring = np.exp(-(((np.hypot(u, v) - 5) / 1.2) ** 2))
        images[i] = (ring, bar, np.maximum(bar, post))[kind]
    return images, classes


SMALL: dict[str, Any] = {
    "data": {"val_fraction": 0.1},
    "model": {
        "z_dim": 4,
        "encoder": {"angles": 16, "channels": 8, "hidden": 32},
        "field": {"hidden": 32},
        "shift": {"std_px": 1.0},
    },
    "train": {"epochs": 4, "batch_size": 25, "warmup_steps": 5, "beta": {"steps": 20}},
}


def fitted(images: NDArray[np.float32], contrast: dict[str, float] | None) -> PoseModel:
    options = merge(SMALL, {"train": {"contrast": contrast}})
    return PoseModel("modpose", z_dim=4, options=options, quiet=True).fit(images)


def told_apart(model: PoseModel, images: NDArray[np.float32]) -> float:
    """Return the term on images and deformed copies of them."""
    generator = torch.Generator().manual_seed(0)
    copies = deformed(torch.from_numpy(images)[:, None], ContrastConfig(), generator)[:, 0]
    contents = [torch.from_numpy(model.encode(part).z) for part in (images, copies.numpy())]
    return float(contrastive_loss(contents[0], contents[1], CosineConfig()).mean())


def test_content_learns_to_forget_deformations_and_keeps_classes() -> None:
    images, _ = shapes(300, 0)
    new, classes = shapes(150, 1)
    plain, contrasted = fitted(images, None), fitted(images, {"weight": 40.0})
    assert told_apart(contrasted, new) < told_apart(plain, new) - 0.2
    assert knn_accuracy(contrasted.encode(new).z, classes) > 0.9
    assert contrasted.metrics()["contrast"].iloc[-1] < contrasted.metrics()["contrast"].iloc[0]
    assert "contrast" not in plain.metrics()


def test_the_bound_is_left_alone() -> None:
    """The term trains; what is reported as the bound does not contain it."""
    images, _ = shapes(40, 0)
    model = fitted(images, {"weight": 1e6})
    last = model.metrics().iloc[-1]
    assert last["elbo"] == pytest.approx(last["recon"] - last["kl_pose"] - last["kl_content"])


def test_the_term_is_weighted_in_training_and_absent_from_the_bound() -> None:
    recon, pose, content, term = torch.randn(4, 5)
    objective = Objective(Elbo(recon, pose, content), None, {"contrast": term})
    torch.testing.assert_close(objective.elbo.value(), recon - pose - content)
    climbed = objective.value(weights={"contrast": 40.0})
    torch.testing.assert_close(climbed, recon - pose - content - 40 * term)


@pytest.mark.parametrize(
    ("sections", "shape", "says"),
    [
        ({"model": {"z_dim": 1}}, (16, 16), "model.z_dim is 1, expected 2 or more"),
        ({"data": {"twin": "noise"}}, (16, 16), "data.twin is noise, expected none"),
        ({"model": {"encoder": {"kind": "table"}}}, (16, 16), "table, expected a network"),
        ({"train": {"augment": {"rotate": "none"}}}, (8, 8, 8), "the data is volumes"),
    ],
)
def test_models_without_pictures_to_deform_are_refused(
    sections: dict[str, Any], shape: tuple[int, ...], says: str
) -> None:
    values = merge(recipe_config("spatial-vae"), {"train": {"contrast": {}}})
    config = parse_config(merge(values, sections), "test")
    with pytest.raises(InputError, match=says):
        build_vae(config, shape=shape, channels=1, n_images=4)
