from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from modpose.errors import InputError
from modpose.evaluate.recovery import recover

N = 3000


def rotated(angle_deg: np.ndarray, vector: tuple[float, float]) -> np.ndarray:
    a = np.deg2rad(angle_deg)
    return np.stack(
        [
            np.cos(a) * vector[0] - np.sin(a) * vector[1],
            np.sin(a) * vector[0] + np.cos(a) * vector[1],
        ],
        axis=1,
    )


@pytest.fixture
def truth() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "angle_deg": rng.uniform(-180, 180, N),
            "shift_x": rng.normal(size=N),
            "shift_y": rng.normal(size=N),
            "hinge_deg": rng.uniform(-20, 20, N),
        }
    )


@pytest.fixture
def latents(truth: pd.DataFrame) -> pd.DataFrame:
    """A good model whose frame is rotated by 100°, follows the hinge by 0.25 and is off-centre."""
    rng = np.random.default_rng(1)
    hinge = truth.hinge_deg.to_numpy() / 11.547
    shift = truth[["shift_x", "shift_y"]] + rotated(truth.angle_deg.to_numpy(), (2.0, -1.0))
    angle = truth.angle_deg + 100 + 0.25 * truth.hinge_deg + rng.normal(0, 3, N)
    return pd.DataFrame(
        {
            "index": np.arange(N),
            "z_0": rng.normal(size=N) + 0.3 * hinge,
            "z_0_std": hinge,  # not a component
            "z_1": -hinge + rng.normal(0, 0.5, N),
            "angle_deg": 180 - (180 - angle) % 360,
            "shift_x": shift.shift_x + rng.normal(0, 0.2, N),
            "shift_y": shift.shift_y + rng.normal(0, 0.2, N),
        }
    )


def test_all_figures_of_a_known_model(latents: pd.DataFrame, truth: pd.DataFrame) -> None:
    found = recover(latents, truth)
    assert found.images == N
    assert found.hinge_component == "z_1"
    assert found.hinge_pearson == pytest.approx(1 / math.sqrt(1.25), abs=0.01)
    # z_0 adds 0.3² / 1 of independent evidence to the 1 / 0.25 of z_1: R² = 4.09 / 5.09
    assert found.hinge_pearson_linear == pytest.approx(math.sqrt(4.09 / 5.09), abs=0.01)
    assert found.hinge_spearman == pytest.approx(found.hinge_pearson, abs=0.03)
    assert found.rotation_rmse_deg == pytest.approx(math.hypot(3, 0.25 * 11.547), rel=0.04)
    assert found.rotation_rmse_given_hinge_deg == pytest.approx(3, rel=0.04)
    assert found.rotation_resultant == pytest.approx(
        math.exp(-0.5 * math.radians(math.hypot(3, 0.25 * 11.547)) ** 2), abs=1e-3
    )
    assert found.shift_rmse_px == pytest.approx(0.2 * math.sqrt(2), rel=0.05)
    assert found.shift_pearson == pytest.approx(1 / math.sqrt(1.04), abs=0.005)
    assert found.cluster_accuracy is None
    assert "cluster_ari" not in found.to_dict()
    assert found.to_dict()["hinge_component"] == "z_1"


def test_lines_say_every_figure(latents: pd.DataFrame, truth: pd.DataFrame) -> None:
    text = "\n".join(recover(latents, truth).lines())
    assert "recovery of the truth on 3000 images" in text
    assert "hinge angle: |r| 0.89" in text
    assert "with the best linear combination of all z" in text
    one = recover(latents.drop(columns="z_0"), truth)
    assert "linear combination" not in "\n".join(one.lines())
    assert "3.0° given the hinge angle" in text
    assert "ill-conditioned for uniform angles" in text
    assert "shift: RMS error 0.2" in text
    bare = replace(recover(latents, truth), hinge_pearson=None, shift_pearson=None)
    assert "hinge angle:" not in "\n".join(bare.lines())


def test_a_permutation_of_the_rows_changes_nothing(
    latents: pd.DataFrame, truth: pd.DataFrame
) -> None:
    part = latents.sample(500, random_state=0)
    whole = recover(part, truth)
    sorted_part = recover(part.sort_values("index"), truth)
    assert whole.images == 500
    for name, value in whole.to_dict().items():
        assert sorted_part.to_dict()[name] == pytest.approx(value), name
    assert whole.rotation_rmse_given_hinge_deg == pytest.approx(3, rel=0.12)


def test_only_figures_that_apply(latents: pd.DataFrame, truth: pd.DataFrame) -> None:
    assert set(recover(latents[["z_0"]], truth).to_dict()) == {
        "images",
        "hinge_pearson",
        "hinge_component",
        "hinge_pearson_linear",
        "hinge_spearman",
    }
    only_angle = recover(latents, truth[["angle_deg"]]).to_dict()
    assert set(only_angle) == {
        "images",
        "rotation_resultant",
        "rotation_rmse_deg",
        "rotation_circular_correlation",
    }
    fixed = truth.assign(shift_x=0.0, shift_y=0.0)
    assert recover(latents, fixed).shift_pearson is None
    assert recover(latents, fixed).shift_rmse_px is not None
    rigid = truth.assign(hinge_deg=3.0)
    assert recover(latents, rigid).hinge_pearson is None
    assert recover(latents, rigid).rotation_rmse_given_hinge_deg is None


def test_a_model_without_pose_or_with_dead_content(
    latents: pd.DataFrame, truth: pd.DataFrame
) -> None:
    dead = latents.assign(z_0=0.0, z_1=0.0, angle_deg=0.0)
    found = recover(dead, truth)
    assert found.hinge_pearson is None
    assert found.rotation_resultant is not None
    assert found.rotation_resultant < 0.05
    assert found.rotation_circular_correlation is None


def test_classes_and_clusters() -> None:
    latents = pd.DataFrame({"cluster": [5, 5, 1, 1, 1]})
    truth = pd.DataFrame({"class": ["a", "a", "b", "b", "a"]})
    found = recover(latents, truth)
    assert found.cluster_accuracy == 0.8
    assert "80.0 % of the images" in "\n".join(found.lines())
    assert recover(latents, truth.assign(**{"class": "a"})).cluster_accuracy is None


def test_refuses_tables_that_do_not_belong_together(
    latents: pd.DataFrame, truth: pd.DataFrame
) -> None:
    with pytest.raises(InputError, match="largest index is 2999, expected less than 10 rows"):
        recover(latents, truth.iloc[:10])
    with pytest.raises(InputError, match="number of rows is 3000, expected 10 of truth"):
        recover(latents.drop(columns="index"), truth.iloc[:10])
    with pytest.raises(InputError, match="number of rows is 0"):
        recover(latents.iloc[:0], truth)


def test_reflections_are_compared_after_one_of_the_frame(truth: pd.DataFrame) -> None:
    """A frame that is rotated, off-centre and mirrored explains the same images."""
    rng = np.random.default_rng(5)
    mirrored = rng.random(N) < 0.4
    known = truth.assign(mirrored=mirrored.astype(int))
    sense = np.where(mirrored, -1.0, 1.0)
    angle = known.angle_deg + 100 * sense + rng.normal(0, 3, N)
    offset = np.stack([np.full(N, 2.0), -1.0 * sense], axis=1)  # M c where mirrored
    turn = np.deg2rad(known.angle_deg.to_numpy())
    moved = np.stack(
        [
            np.cos(turn) * offset[:, 0] - np.sin(turn) * offset[:, 1],
            np.sin(turn) * offset[:, 0] + np.cos(turn) * offset[:, 1],
        ],
        axis=1,
    )
    wrong = rng.random(N) < 0.02
    found = pd.DataFrame(
        {
            "angle_deg": np.where(wrong, rng.uniform(-180, 180, N), 180 - (180 - angle) % 360),
            "shift_x": known.shift_x + moved[:, 0] + 9 * wrong,
            "shift_y": known.shift_y + moved[:, 1],
            "mirrored": (~mirrored ^ wrong).astype(int),
        }
    )
    figures = recover(found, known)
    assert figures.mirrored_accuracy == pytest.approx(1 - wrong.mean())
    assert figures.rotation_rmse_deg == pytest.approx(3.0, abs=0.2)
    assert figures.shift_rmse_px == pytest.approx(0.0, abs=1e-9)
    assert any("% right after one global reflection" in line for line in figures.lines())
    blind = recover(found.drop(columns="mirrored"), known)
    assert blind.mirrored_accuracy is None and blind.rotation_rmse_deg > 45


def test_scales_are_compared_after_the_factor_of_the_frame(truth: pd.DataFrame) -> None:
    """An off-centre frame that is 10 % larger moves objects by their own scale."""
    rng = np.random.default_rng(6)
    known = truth.assign(scale=np.exp(0.1 * rng.standard_normal(N)))
    moved = rotated(known.angle_deg.to_numpy(), (2.0, -1.0)) * known.scale.to_numpy()[:, None]
    found = pd.DataFrame(
        {
            "angle_deg": known.angle_deg,
            "shift_x": known.shift_x + moved[:, 0],
            "shift_y": known.shift_y + moved[:, 1],
            "scale": known.scale / 1.1 * np.exp(0.02 * rng.standard_normal(N)),
        }
    )
    figures = recover(found, known)
    assert figures.scale_median_error == pytest.approx(0.02 * 0.6745, rel=0.1)
    assert figures.shift_rmse_px == pytest.approx(0.0, abs=1e-9)
    assert "scale: median error 1." in " ".join(figures.lines())
    follows = found.assign(scale=found.scale * np.exp(0.01 * known.hinge_deg))
    figures = recover(follows, known)
    assert figures.scale_median_error is not None and figures.scale_median_error > 0.05
    assert figures.scale_median_error_given_hinge == pytest.approx(0.02 * 0.6745, rel=0.1)
