"""The studies of the affinity-VAE paper: all tables and figures, from data to page, in seconds."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from modpose.affinity import MeanDifference, read_affinity
from modpose.cli.experiment import EXPERIMENTS
from modpose.errors import InputError
from modpose.evaluate.latent_map import LatentMap
from modpose.run import Run
from studies import affinity
from studies.affinity import common, descriptors, proteins, tetrominoes
from studies.affinity.budgets import PLANS, Condition, affinity_vae
from studies.affinity.common import Found, Setting
from studies.common import samples, study
from studies.common.samples import Sample
from studies.common.study import Fit, Result

TABLES = {
    "characters": 2,
    "figure-10": 2,
    "figure-11": 2,
    "figure-12": 3,
    "pose": 2,
    "tetrominoes": 4,
    "gamma-3d": 4,
    "width": 3,
    "figure-13": 4,
    "proteins": 4,
    "figure-5-soft": 2,
    "figure-9": 4,
    "descriptors-clean-shift0-tilt90": 10,
    "descriptors-snr0.1-shift2-tilt60": 10,
    "posed": 2,
}
"""Rows of each table under the smoke budget."""
FIGURES = ["figure-3", "figure-3-embedding", "figure-4", "figure-5", "figure-6", "figure-7-left"]
FIGURES += ["figure-7-right", "figure-8", "figure-8-embedding", "figure-9", "figure-10"]
FIGURES += ["figure-11", "figure-12", "figure-13", "gamma-3d", "width"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole experiment, by its public function, without SOAP's heavy package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modpose.affinity.soap._descriptor", _not_installed)
        out = tmp_path_factory.mktemp("experiment") / "out"
        assert affinity.run("smoke", out, 3) == out / "index.md"
    return out


def _not_installed() -> Any:
    raise InputError("--metric soap: the package dscribe is not installed")


def rows_of(smoke: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(smoke / "tables" / f"{name}.csv")


# --- the whole experiment ---------------------------------------------------------------------


def test_every_table_and_figure_of_the_paper_is_there(smoke: Path) -> None:
    page = (smoke / "index.md").read_text()
    for name in FIGURES:
        assert f"(figures/{name}.png)" in page
        assert (smoke / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name, rows in TABLES.items():
        soap = 2 * name.startswith("descriptors")  # its rows are left out here
        with (smoke / "tables" / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == rows - soap, name
    for target in re.findall(r"\]\(((?:tables|figures)/[^)]*)\)", page):
        assert (smoke / target).is_file()
    assert len(re.findall(r"^## ", page, re.MULTILINE)) == len(affinity.STUDIES)
    for number in range(3, 14):
        assert f"Figure {number}" in page
    assert not re.search(r"\bnan\b|A fit failed|Left out", page)
    assert EXPERIMENTS["affinity"] == "affinity"


def test_the_page_says_what_stood_in_for_soap(smoke: Path) -> None:
    page = (smoke / "index.md").read_text()
    assert "by the power spectrum, **not by SOAP**" in page
    assert "power spectrum against FSC: Figure 12" in page and "SOAP against" not in page
    assert rows_of(smoke, "figure-12")["affinity"].iloc[0] == "power spectrum"
    assert not list((smoke / "data").glob("*soap*"))


def test_the_page_says_how_the_affinity_term_is_normalised(smoke: Path) -> None:
    page = (smoke / "index.md").read_text()
    assert page.count("`train.affinity=ordered-pairs`") >= 3


def test_fits_that_studies_share_are_carried_out_once(smoke: Path) -> None:
    runs = {path.name for path in (smoke / "runs").iterdir()}
    assert "characters-affinity-power-spectrum-gamma8-beta5-z8-seed0" in runs  # of four studies
    assert len(runs) == 21
    assert all(Run.open(smoke / "runs" / name).finished for name in runs)


def test_started_again_it_fits_nothing(smoke: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    before = {p: p.read_bytes() for p in (smoke / "tables").iterdir()}
    for module, name in ((study, "fit_run"), (study, "resume_run"), (samples, "write_sample")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(common, "compute_affinity", refuse)
    monkeypatch.setattr("modpose.affinity.soap._descriptor", _not_installed)
    affinity.run("smoke", smoke, 3, only="fsc")
    assert {p: p.read_bytes() for p in (smoke / "tables").iterdir()} == before


def test_what_a_fit_follows_is_told_and_kept(smoke: Path) -> None:
    run = Run.open(
        smoke / "runs" / "tetrominoes-clean-shift0-tilt90-affinity-fsc-gamma1000-beta2-z7-seed0"
    )
    kept = read_affinity(run.path / "affinity.csv")
    assert kept.names == ("I", "O", "S", "T", "L", "E")
    assert kept.values[4, 5] > kept.values[0, 1]  # L is more like E than I is like O
    assert run.config.train.gamma.end == 1000.0 and 1 < run.config.train.beta.end < 5
    assert run.config.train.affinity == "ordered-pairs"
    plain = Run.open(smoke / "runs" / "tetrominoes-clean-shift0-tilt90-vae-beta2-seed0")
    assert not (plain.path / "affinity.csv").exists()
    assert plain.config.model.pose_channel == 0


def test_accuracies_are_scikit_learns_of_what_the_runs_hold(smoke: Path) -> None:
    name = "tetrominoes-clean-shift0-tilt90-vae-beta2-seed0"
    sample = sample_in(smoke, "tetrominoes-clean-shift0-tilt90")
    run = Run.open(smoke / "runs" / name)
    table, test = run.latents(), pd.read_parquet(run.path / "held_out.parquet")
    fitted = (table["split"] == "train").to_numpy()
    z = [f"z_{k}" for k in range(7)]
    train_names, truth = sample.truth_of_train()["name"], sample.truth_of_test()
    theirs = KNeighborsClassifier(1).fit(table[z][fitted], train_names[fitted].tolist())
    fit = Fit(name, sample, "conv-vae", {}, 3, None, (2, 2))
    found = Found.of(Result.read(fit, run.path))
    ours = np.array(found.known.names)[found.known.nearest(found.z, 1)]
    np.testing.assert_array_equal(ours, theirs.predict(test[z]))
    assert sorted(set(truth["name"][truth["seen"] == 0])) == ["EL"]
    assert found.seen.sum() == 32 and len(found.z) == 38
    row = rows_of(smoke, "tetrominoes").iloc[0]
    assert row["kNN 5"] == pytest.approx(found.accuracy())
    assert row["new class, AUC"] == pytest.approx(found.new_auc())


def sample_in(smoke: Path, name: str) -> Sample:
    own = smoke / "data" / name
    return Sample(
        name, str(own / "images.npy"), own / "train.npy", own / "test.npy", "", own / "truth.csv"
    )


def test_rotation_invariant_power_knows_clean_shapes(smoke: Path) -> None:
    table = rows_of(smoke, "descriptors-clean-shift0-tilt90").set_index("way")
    assert table.loc["SH power spectrum", "kNN 5"] > 0.9
    assert table.loc["raw cosine", "kNN 5"] < 0.7
    noisy = rows_of(smoke, "descriptors-snr0.1-shift2-tilt60").set_index("way")
    assert noisy.loc["SH power spectrum", "kNN 5"] < 0.7  # 64 volumes, noise, wedge


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": "scaled"}, "budget of the experiment in it is smoke, expected scaled"),
        ({"only": "stars"}, "--only is stars, expected one of characters, beta, gamma"),
        ({"budget": "huge"}, "--budget is huge, expected one of smoke, scaled, full"),
        ({"minutes_per_fit": 0.0}, "--minutes-per-fit is 0.0, expected more than zero"),
        ({"data": Path("/nowhere")}, "/nowhere: no such folder"),
    ],
)
def test_other_arguments_are_refused(smoke: Path, arguments: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"budget": "smoke", "seed": 3} | arguments
    with pytest.raises(InputError, match=re.escape(said)):
        affinity.run(given.pop("budget"), smoke, **given)


# --- its parts --------------------------------------------------------------------------------


def test_every_budget_names_models_that_can_be_configured(tmp_path: Path) -> None:
    for plan in PLANS.values():
        small = PLANS["smoke"]
        setting = Setting(small, tmp_path, None, 0)
        model = affinity_vae(plan.gammas_3d[-1], z_dim=plan.widths[0])
        config = tetrominoes.fit_of(setting, model).config()
        assert config.train.gamma.end == plan.gammas_3d[-1]
        assert config.model.z_dim == plan.widths[0]
        assert plan.lasting(2.0).proteins.minutes == 2.0


def test_noisy_volumes_share_one_noise_and_hold_the_fusion_out(tmp_path: Path) -> None:
    setting = Setting(PLANS["smoke"], tmp_path, None, 0)
    sample = tetrominoes.sample_of(setting, Condition(0.1, 2.0, 60.0))
    train, test = sample.open_train(), sample.truth_of_test()
    assert train.n == 64
    assert "EL" not in set(sample.truth_of_train()["name"])
    assert (test["name"] == "EL").sum() == 6
    assert train.stack.read(np.arange(64)).var() == pytest.approx(1.1, rel=0.03)
    assert np.abs(sample.truth_of_train()[["shift_x", "shift_y"]].to_numpy()).max() > 1.5


def test_raw_cosine_is_the_correlation_of_voxels() -> None:
    images = np.random.default_rng(0).random((4, 5, 6, 7)).astype(np.float32)
    metric = descriptors.RawCosine()
    found = metric.compare(metric.describe(torch.from_numpy(images)))
    np.testing.assert_allclose(found, np.corrcoef(images.reshape(4, -1)), atol=1e-6)


def test_between_four_samples_every_mixture_is_met() -> None:
    z = np.random.default_rng(0).standard_normal((4, 3))
    square = proteins.between_four(z, 5).reshape(5, 5, 3)
    np.testing.assert_allclose(square[[0, 0, -1, -1], [0, -1, 0, -1]], z)
    np.testing.assert_allclose(square[2, 2], z.mean(0))
    np.testing.assert_allclose(square[0, 1], 0.75 * z[0] + 0.25 * z[1])


def test_offset_and_intensity_are_those_of_the_mass(tmp_path: Path) -> None:
    volumes = np.zeros((3, 8, 8, 8), np.float32)
    volumes[0, 4, 4, 4] = 512.0  # the centre
    volumes[1, 4, 4, 7] = volumes[1, 4, 4, 5] = 1.0  # two voxels along x
    volumes[2, 1, 4, 0] = 1.0
    sample = samples.write_sample(tmp_path, "s", "", volumes, 3)
    offset, intensity = proteins.covariates(sample)
    np.testing.assert_allclose(offset, [0.0, 2.0, 5.0])
    np.testing.assert_allclose(intensity, [1.0, 2 / 512, 1 / 512])


def test_shapes_of_one_volume_are_all_alike_by_mean_difference() -> None:
    setting = Setting(PLANS["smoke"], Path(), None, 0)
    templates = torch.from_numpy(tetrominoes.templates(setting))
    metric = MeanDifference()
    assert (metric.compare(metric.describe(templates)) == 1.0).all()
    other = torch.cat([templates, 2 * templates[:1]])
    found = metric.compare(metric.describe(other))
    np.testing.assert_allclose(found[-1, :-1], 0.0, atol=1e-6)


def test_without_unseen_classes_there_is_no_score_of_them() -> None:
    rng = np.random.default_rng(0)
    known = LatentMap.of(rng.standard_normal((40, 2)), np.repeat(["a", "b"], 20))
    truth = pd.DataFrame({"name": ["a", "b", "a"], "seen": 1})
    found = Found(known, rng.standard_normal((3, 2)), truth)
    assert found.new_auc() is None
    assert found.row()["new class, AUC"] is None


def test_as_printed_the_boxes_are_the_papers() -> None:
    plan = PLANS["printed"]
    assert (plan.tetrominoes.images, plan.tetrominoes.box, plan.proteins.box) == (1000, 32, 64)
