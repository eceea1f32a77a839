"""Turned copies of an image: what most of them tell turns exactly with the image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from modpose import InputError, PoseModel
from modpose.cli import main
from modpose.config import ModelConfig, merge
from modpose.distributions.normal import DiagonalNormal
from modpose.geometry.degrees import wrap_deg
from modpose.geometry.rotations import rotation_2d
from modpose.infer.copies import consensus, even_turns, read_copies
from modpose.model.posterior import LatentLayout, Posterior
from studies.common.equivariance import infer_poses

COPIES = 4
SMALL: dict[str, Any] = {
    "model": {
        "encoder": {"angles": 16, "channels": 8, "hidden": 32},
        "field": {"hidden": 32},
        "shift": {"std_px": 1.0},
    },
    "train": {"epochs": 2, "batch_size": 20, "warmup_steps": 5, "threads": 1},
}


def pictures(n: int) -> NDArray[np.float32]:
    """Draw bars with a small knob, which look much the same upside down; 21 pixels a side."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:21, :21] - 10.0
    images = np.empty((n, 21, 21), np.float32)
    for image in images:
        a, (dx, dy) = draw.uniform(0, 2 * np.pi), draw.normal(size=2)
        u, v = (
            np.cos(a) * (x - dx) + np.sin(a) * (y - dy),
            np.cos(a) * (y - dy) - np.sin(a) * (x - dx),
        )
        bar = np.exp(-((v / 1.5) ** 2) - (u / 6) ** 4)
        image[:] = bar + 0.2 * np.exp(-((u - 5) ** 2) - (v - 2) ** 2) + 0.05 * draw.random((21, 21))
    return images


@pytest.fixture(scope="module")
def model() -> PoseModel:
    return PoseModel("modpose", z_dim=2, options=SMALL, quiet=True).fit(pictures(100))


@settings(max_examples=30, deadline=None)
@given(
    truth=st.floats(-math.pi, math.pi),
    flipped=st.sets(st.integers(0, 8), max_size=4),
    jitter=st.floats(0, 0.1),
)
def test_the_pose_of_most_copies_is_kept(truth: float, flipped: set[int], jitter: float) -> None:
    generator = torch.Generator().manual_seed(0)
    angle = truth + jitter * torch.randn(9, generator=generator)
    angle[list(flipped)] += math.pi
    which, agreement = consensus(angle[:, None])
    assert int(which) not in flipped
    assert float(agreement) == pytest.approx(1 - len(flipped) / 9)


def test_each_image_has_its_own_consensus_and_the_first_of_equals_is_kept() -> None:
    angle = torch.tensor([[0.0, 3.0, 1.0], [3.1, 3.0, 1.0], [0.1, 0.0, 1.0]])
    which, agreement = consensus(angle)
    assert which.tolist()[1:] == [0, 0] and which[0] in (0, 2)
    torch.testing.assert_close(agreement, torch.tensor([2 / 3, 2 / 3, 1.0]))


def test_one_copy_is_the_image_itself(model: PoseModel) -> None:
    assert even_turns(1) == [0.0]
    images = pictures(6)
    once, plain = model.encode(images, copies=1), model.encode(images)
    np.testing.assert_array_equal(once.angle_deg, plain.angle_deg)
    assert plain.pose_agreement is None and "pose_agreement" not in plain.to_dataframe()


@settings(max_examples=30, deadline=None)
@given(angle=st.floats(-math.pi, math.pi), x=st.floats(-3, 3), y=st.floats(-3, 3))
def test_the_second_round_shows_an_object_alike_wherever_it_lies(
    angle: float, x: float, y: float
) -> None:
    """A reader that errs by half a turn as the object lies errs alike in all poses."""
    layout = LatentLayout(ModelConfig(z_dim=1), 2)
    truth, place = torch.tensor([angle]), torch.tensor([[x, y]])

    def read(turn: torch.Tensor | None, centre: torch.Tensor | None) -> Posterior:
        turn = torch.zeros(1) if turn is None else turn
        centre = torch.zeros(1, 2) if centre is None else centre
        seen, offset = truth + turn, (place - centre) @ rotation_2d(turn)[0].T
        wrong = ((2 * seen + 1).cos() + 0.2 + offset[:, 0] < 0).float()
        one = torch.zeros(1, 1, 1)
        posterior = Posterior(
            layout=layout,
            cell_log_q=torch.zeros(1, 1),
            content=DiagonalNormal(one, one),
            angle=DiagonalNormal((seen + math.pi * wrong)[:, None, None], one),
            shift=DiagonalNormal(offset[:, None], torch.zeros(1, 1, 2)),
        )
        return posterior.turned_back(turn, centre)

    read_of = read_copies(read, 5, layout)
    best = read_of.posteriors[int(read_of.which)].best()
    assert (best.angle[0, 0] - truth).cos().item() == pytest.approx(1, abs=1e-5)
    assert read_of.agreement.item() == pytest.approx(0.6)
    torch.testing.assert_close(best.shift[:, 0], place, atol=1e-4, rtol=1e-4)


def test_what_copies_tell_turns_exactly_with_the_image() -> None:
    """Quarter turns about the middle pixel move no pixel off the lattice: copies are the same.

    A perceptron knows nothing of turns by itself.
    """
    images = pictures(40)
    turned = np.rot90(images, -1, axes=(1, 2)).copy()  # x to y: by 90 degrees where rows go down
    small = {"model": {"encoder": {"hidden": 16}, "field": {"hidden": 16}}, "train": {"epochs": 2}}
    model = PoseModel("spatial-vae", z_dim=2, options=small, quiet=True).fit(images)
    errors = {}
    for copies in (1, COPIES):
        before, after = (model.encode(part, copies=copies) for part in (images, turned))
        assert before.angle_deg is not None and after.angle_deg is not None
        errors[copies] = np.abs(wrap_deg(after.angle_deg - before.angle_deg - 90.0))
    assert errors[COPIES].max() < 0.1 < 10 < errors[1].max()
    np.testing.assert_allclose(after.z, before.z, atol=1e-3)
    assert before.pose_agreement is not None and after.pose_agreement is not None
    np.testing.assert_array_equal(after.pose_agreement, before.pose_agreement)
    assert ((before.pose_agreement > 0) & (before.pose_agreement <= 1)).all()


def test_poses_without_bounds_are_the_same(model: PoseModel) -> None:
    images = pictures(12)
    found, quick = model.encode(images, copies=3), infer_poses(model, images, copies=3)
    assert found.angle_deg is not None
    np.testing.assert_allclose(quick.angle_deg, found.angle_deg, atol=1e-3)
    np.testing.assert_allclose(quick.shift, found.shift, atol=1e-4)


def test_the_command_line_reads_copies(model: PoseModel, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    np.save(tmp_path / "images.npy", pictures(9))
    out = tmp_path / "found.csv"
    run, images = str(tmp_path / "run"), str(tmp_path / "images.npy")
    with pytest.raises(SystemExit) as left:
        main(["encode", run, images, "-o", str(out), "--copies", "4"])
    assert left.value.code == 0
    assert pd.read_csv(out)["pose_agreement"].isin([0.25, 0.5, 0.75, 1.0]).all()


def test_copies_that_may_not_be_turned_are_refused(model: PoseModel) -> None:
    images = pictures(20)
    with pytest.raises(InputError, match="--copies: the number is 0"):
        model.encode(images, copies=0)
    with pytest.raises(InputError, match="copies is 4, expected 1 with search"):
        model.encode(images, copies=4, search=True)
    narrow = {"model": {"rotation": {"prior": "gaussian", "std_deg": 45.0}}, "train": {"epochs": 1}}
    other = PoseModel("spatial-vae", z_dim=2, options=narrow, quiet=True).fit(images)
    with pytest.raises(InputError, match="copies is 4, expected 1 where"):
        other.encode(images, copies=4)


def test_copies_are_read_where_some_angles_are_more_probable() -> None:
    """The polar encoder is told by how much a copy was rotated."""
    narrow = merge(SMALL, {"model": {"rotation": {"prior": "gaussian", "std_deg": 20.0}}})
    upright = PoseModel("modpose", z_dim=2, options=narrow, quiet=True).fit(pictures(100))
    images = pictures(30)
    once, copies = upright.encode(images), upright.encode(images, copies=3)
    assert once.angle_deg is not None and copies.angle_deg is not None
    assert np.abs(copies.angle_deg).max() < 120  # by the prior: not what the copies were rotated by
    assert np.median(np.abs(wrap_deg(copies.angle_deg - once.angle_deg))) < 15
