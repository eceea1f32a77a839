from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import modpose.train.session
from modpose.config import merge, parse_config
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.errors import InputError, TrainingError
from modpose.estimator import PoseModel
from modpose.evaluate import metrics
from modpose.plot.grids import align
from modpose.recipes import recipe_config
from modpose.run import Run
from modpose.simulate.particles import HingeSettings, simulate_particles
from studies import spatial_vae
from studies.common import study
from studies.common.conduct import Study
from studies.common.page import Page
from studies.common.samples import Sample, write_sample
from studies.spatial_vae import digits, galaxies, hinge
from studies.spatial_vae.budgets import PLANS, Plan, StudyBudget, configured
from studies.spatial_vae.common import Setting

FIGURES = {
    "digits": ["figure-2", "appendix-1", "figure-3", "appendix-3"],
    "hinge": ["figure-4", "appendix-4", "appendix-5"],
    "galaxies": ["figure-5"],
    "particles": ["figure-6", "appendix-6", "appendix-7"],
}
TABLES = {
    "figure-2": 12,
    "appendix-1": 3,
    "appendix-2": 6,
    "table-1": 5,
    "table-1-seeds": 10,
    "appendix-4": 7,
    "figure-5": 3,
    "appendix-6": 3,
}
"""Rows of each table under the smoke budget."""


@pytest.fixture(scope="module")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of noise where real galaxies and particles would be; digits are left out."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (folder / "galaxy").mkdir()
    pictures = rng.integers(256, size=(30, 64, 64, 3), dtype=np.uint8)
    np.savez(folder / "galaxy" / "galaxy_zoo_train_64.npz", images=pictures)
    (folder / "spa").mkdir()
    stack = folder / "spa" / "apoferritin_empiar10146_64.mrcs"
    write_mrcs(stack, rng.standard_normal((30, 64, 64)).astype(np.float32), 3.0)
    names = [f"{i:06d}@{stack.name}" for i in range(1, 31)]
    write_star(stack.with_suffix(".star"), pd.DataFrame({"rlnImageName": names}), None)
    return folder


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Path:
    """The whole experiment, by its public function."""
    out = tmp_path_factory.mktemp("experiment") / "out"
    index = spatial_vae.run("smoke", out, 3, data=real_data)
    assert index == out / "index.md"
    return out


# --- the whole experiment ---------------------------------------------------------------------


def test_every_table_and_figure_of_the_paper_is_there(smoke: Path) -> None:
    page = (smoke / "index.md").read_text()
    for name in [name for names in FIGURES.values() for name in names]:
        assert f"(figures/{name}.png)" in page
        assert (smoke / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name, rows in TABLES.items():
        with (smoke / "tables" / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == rows, name
    for words in ("Table 1", "Appendix Figures 7 and 8", "N(0, 3.5²) px", "K = 5"):
        assert words in page
    for target in re.findall(r"\]\(((?:tables|figures)/[^)]*)\)", page):
        assert (smoke / target).is_file()
    assert "nan" not in page


def test_scores_are_those_of_the_held_out_images(smoke: Path) -> None:
    run = Run.open(smoke / "runs" / "digits-translated-spatial-vae-z2")
    score = json.loads((run.path / "evaluation.json").read_text())
    table = pd.read_parquet(run.path / "held_out.parquet")
    assert len(table) == score["images"] == 12
    assert score["elbo"] == pytest.approx(table["elbo"].mean(), rel=1e-6)
    parts = table["recon"] - table["kl_pose"] - table["kl_content"]
    assert score["elbo"] == pytest.approx(parts.mean(), rel=1e-6)
    assert score["elbo_se"] == pytest.approx(table["elbo"].std(ddof=0) / 12**0.5, rel=1e-5)
    train, test = (np.load(smoke / f"data/digits-translated/{p}.npy") for p in ("train", "test"))
    assert set(train) & set(test) == set()
    assert run.environment["n"] == len(train) == 60
    assert run.environment["index"] == str(smoke / "data/digits-translated/train.npy")


def test_importance_bound_is_above_the_elbo_and_of_the_first_images(smoke: Path) -> None:
    run = Run.open(smoke / "runs" / "digits-plain-spatial-vae-z2")
    score = json.loads((run.path / "evaluation.json").read_text())
    rows = np.load(smoke / "data/digits-plain/test.npy")[:8]
    source = open_source(smoke / "data/digits-plain/images.npy", index=rows)
    model = PoseModel.load(run.path)
    model.quiet = True
    bound = model.importance_bound(source, 5)
    assert score["importance_bound"] == pytest.approx(bound.mean(dtype=float), rel=1e-6)
    assert (score["importance_images"], score["importance_samples"]) == (8, 5)
    assert model.importance_bound(source, 50).mean() > model.encode(source).elbo.mean()


def test_started_again_it_fits_nothing_and_writes_the_same(
    smoke: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("fitted again")

    before = {p: p.read_bytes() for p in (smoke / "tables").iterdir()}
    page = (smoke / "index.md").read_text()
    monkeypatch.setattr(study, "fit_run", refuse)
    monkeypatch.setattr(study, "resume_run", refuse)
    spatial_vae.run("smoke", smoke, 3, data=real_data, only="hinge")
    assert (smoke / "index.md").read_text() == page
    assert {p: p.read_bytes() for p in (smoke / "tables").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": "scaled"}, "budget of the experiment in it is smoke, expected scaled"),
        ({"seed": 4}, "seed of the experiment in it is 3, expected 4"),
        ({"minutes_per_fit": 2.0}, "minutes_per_fit of the experiment in it is None, expected 2"),
        ({"data": None}, "data of the experiment in it is"),
        ({"only": "stars"}, "--only is stars, expected one of digits, hinge, galaxies, particles"),
        ({"budget": "huge"}, "--budget is huge, expected one of smoke, scaled, full, printed"),
        ({"minutes_per_fit": 0.0}, "--minutes-per-fit is 0.0, expected more than zero"),
        ({"data": Path("/nowhere")}, "/nowhere: no such folder"),
    ],
)
def test_other_arguments_are_refused(
    smoke: Path, real_data: Path, arguments: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"budget": "smoke", "seed": 3, "data": real_data} | arguments
    with pytest.raises(InputError, match=re.escape(said)):
        spatial_vae.run(given.pop("budget"), smoke, **given)


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds no modpose experiment"):
        spatial_vae.run("smoke", tmp_path)
    with pytest.raises(InputError, match="a file stands where"):
        spatial_vae.run("smoke", tmp_path / "thesis.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_absent_data_is_said_and_only_one_study_is_made(tmp_path: Path) -> None:
    page = spatial_vae.run("smoke", tmp_path / "out", only="galaxies").read_text()
    assert "Galaxies (Figure 5) were left out" in page
    assert "Digits" not in page


# --- fits -------------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    images = np.random.default_rng(0).standard_normal((24, 12, 12)).astype(np.float32)
    return write_sample(tmp_path / "data", "noise", "Noise.", images, 4)


def small_fit(sample: Sample, name: str = "fit", **train: Any) -> study.Fit:
    options = {
        "model": {"z_dim": 2, "encoder": {"hidden": 4}, "field": {"hidden": 4}},
        "train": {"epochs": 3, "batch_size": 5} | train,
    }
    return study.Fit(name, sample, "vae", options, 0, None, (4, 2))


@pytest.fixture
def diverging(tmp_path: Path) -> study.Fit:
    """A fit to images whose squares are beyond single precision: its first loss is infinite."""
    images = np.random.default_rng(0).standard_normal((24, 12, 12)).astype(np.float32)
    return small_fit(write_sample(tmp_path / "data", "huge", "Huge.", 1e25 * images, 4), "b")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "checkpoints" / "best.safetensors")


def test_an_interrupted_fit_goes_on_to_the_same_numbers(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = small_fit(sample)
    whole = study.carry_out(fit, tmp_path / "a")
    save = modpose.train.session.save_checkpoint

    def interrupt(folder: Path, epoch: int, *rest: Any, **named: Any) -> None:
        save(folder, epoch, *rest, **named)
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(modpose.train.session, "save_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study.carry_out(fit, tmp_path / "b")
    monkeypatch.setattr(modpose.train.session, "save_checkpoint", save)
    assert not Run.open(tmp_path / "b" / "fit").finished
    resumed = study.carry_out(fit, tmp_path / "b")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name])
    first, second = (study.Result.read(fit, path).score for path in (whole, resumed))
    assert first.processor_seconds > 0 and np.isnan(second.processor_seconds)
    alike = [replace(score, seconds=0.0, processor_seconds=0.0) for score in (first, second)]
    assert alike[0] == alike[1]


def test_a_run_with_other_options_is_not_replaced(tmp_path: Path, sample: Sample) -> None:
    study.carry_out(small_fit(sample), tmp_path)
    with pytest.raises(InputError, match="fitted with other options"):
        study.carry_out(small_fit(sample, lr=0.1), tmp_path)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_fit_that_fails_does_not_stop_the_others(
    tmp_path: Path, sample: Sample, diverging: study.Fit, jobs: int
) -> None:
    fits = [small_fit(sample, "a"), diverging, small_fit(sample, "c")]
    outcomes = list(study.carry_out_all(fits, tmp_path / "runs", jobs))
    assert [isinstance(o, TrainingError) for o in outcomes] == [False, True, False]
    assert [o.fit.name for o in outcomes if isinstance(o, study.Result)] == ["a", "c"]
    if jobs == 2:  # the same numbers as on this process's one thread
        alone = study.carry_out(small_fit(sample, "a"), tmp_path / "alone")
        for name, tensor in weights(alone).items():
            assert torch.equal(tensor, weights(tmp_path / "runs" / "a")[name])


def test_a_failed_fit_is_said_on_the_page(tmp_path: Path, diverging: study.Fit) -> None:
    def prepare(_: Setting) -> Study:
        return Study("One", ["Said."], [diverging], lambda *_: ["drawn"])

    one = replace(spatial_vae.EXPERIMENT, studies={"one": prepare})
    with pytest.raises(TrainingError, match="1 of 1 fits failed"):
        one.run("smoke", tmp_path / "out")
    page = (tmp_path / "out" / "index.md").read_text()
    assert "A fit failed: the loss became" in page and "drawn" not in page


# --- budgets ----------------------------------------------------------------------------------


def all_fits(plan: Plan, tmp_path: Path, data: Path, n: int) -> dict[str, list[study.Fit]]:
    """Fits of a plan with its network sizes and few images."""

    def few(budget: StudyBudget) -> StudyBudget:
        return replace(budget, images=n, held_out=4)

    small = replace(
        plan,
        digits=few(plan.digits),
        hinge=few(plan.hinge),
        galaxies=few(plan.galaxies),
        particles=few(plan.particles),
    )
    setting = Setting(small, tmp_path / "data", data, 0)
    prepared = {name: prepare(setting) for name, prepare in spatial_vae.STUDIES.items()}
    return {name: list(s.fits) for name, s in prepared.items() if isinstance(s, Study)}


def test_full_budget_has_the_papers_sizes_and_takes_two_steps(
    tmp_path: Path, real_data: Path
) -> None:
    fits = all_fits(PLANS["full"], tmp_path, real_data, 20)
    configs = {fit.name: fit.config() for each in fits.values() for fit in each}
    for config in configs.values():
        assert (config.train.pixels, config.train.lr, config.train.batch_size) == (None, 1e-4, 100)
        assert config.train.schedule == "constant"
    galaxy = configs["galaxies-spatial-vae-z100"].model
    assert galaxy.encoder.kind == "mlp" and galaxy.encoder.hidden == 5000
    fields = {config.model.field.hidden for config in configs.values()}
    assert fields == {500, 1000}
    assert {c.model.field.activation for c in configs.values()} == {"tanh"}
    assert {c.model.encoder.activation for c in configs.values()} == {"tanh"}  # type: ignore[union-attr]
    delays = {name.split("-")[0]: c.train.delay_z_steps for name, c in configs.items()}
    assert configs["hinge-spatial-vae-rotation-z1-seed2"].train.delay_z_steps == 320
    assert delays["digits"] == delays["galaxies"] == delays["particles"] == 0
    fixed = configs["digits-plain-spatial-vae-fixed-z50"]
    assert (fixed.model.rotation.prior, fixed.model.shift.prior) == ("none", "none")
    assert fixed.train.augment.rotate == "none"
    assert galaxy.rotation.prior == "wide" and galaxy.shift.std_px == 8
    assert configs["particles-spatial-vae-z20"].model.field.hidden == 1000
    assert {c.train.epochs for n, c in configs.items() if n.startswith("hinge")} == {500}
    for fit in (fits["digits"][0], fits["hinge"][0]):
        short = replace(fit, importance=(2, 2), options=configured_to_two_epochs(fit))
        run = Run.open(study.carry_out(short, tmp_path / "runs"))  # an epoch is one batch here
        assert [row["epoch"] for row in run.epochs()] == [1, 2]
        assert np.isfinite([row["elbo"] for row in run.epochs()]).all()


def configured_to_two_epochs(fit: study.Fit) -> dict[str, Any]:
    return {**fit.options, "train": {**fit.options["train"], "epochs": 2}}


def test_scaled_budget_stays_within_three_hours_on_two_cores(
    tmp_path: Path, real_data: Path
) -> None:
    plan = PLANS["scaled"]
    fits = [f for each in all_fits(plan, tmp_path, real_data, 20).values() for f in each]
    assert len({fit.name for fit in fits}) == len(fits)
    minutes = [fit.max_minutes for fit in fits]
    assert all(m is not None and 5 <= m <= 15 for m in minutes)
    assert sum(m for m in minutes if m) / plan.jobs <= 155  # and some to score
    assert {fit.config().train.epochs for fit in fits} == {1_000_000}
    assert plan.lasting(1.5).particles.minutes == plan.lasting(1.5).digits.minutes == 1.5


def test_models_compared_have_the_same_data_time_and_schedule(
    tmp_path: Path, real_data: Path
) -> None:
    fits = all_fits(PLANS["scaled"], tmp_path, real_data, 20)["digits"]
    configs = [fit.config() for fit in fits]
    assert len({c.data.model_dump_json() for c in configs}) == 1
    assert {(c.train.schedule, c.train.epochs, c.seed) for c in configs} == {
        ("cosine", 1_000_000, 0)
    }
    assert len({(f.max_minutes, f.importance) for f in fits}) == 1
    assert all(c.train.augment.rotate == "none" for c in configs)
    priors = {
        fit.name: (fit.config().model.rotation.std_deg, fit.config().model.shift.std_px)
        for fit in fits
        if fit.recipe == "spatial-vae" and fit.name.endswith("z2")
    }
    assert priors == {
        "digits-plain-spatial-vae-z2": (22.5, 1.4),
        "digits-rotated-spatial-vae-z2": (45, 1.4),
        "digits-translated-spatial-vae-z2": (45, 3.5),
        "digits-rotated-spatial-vae-wide-z2": (180, 14),
        "digits-translated-spatial-vae-wide-z2": (180, 14),
    }


def test_as_printed_rotation_only_model_has_no_shift() -> None:
    plan = PLANS["full"]
    recipe, options = configured(plan, plan.hinge, "spatial-vae-rotation", 1, {})
    base = recipe_config(recipe)
    assert base["recipe"] == "spatial-vae-paper"
    config = parse_config(merge(base, options), "test")
    assert config.model.shift.prior == "none" and config.model.rotation.prior == "wide"


# --- data, figures and tables -----------------------------------------------------------------


def test_crops_are_windows_at_uniform_places() -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:10, :12]
    picture = np.stack([y, x, 0 * x], -1).astype(float)
    crops = galaxies.random_crops(np.repeat(picture[None], 4000, 0), 7, rng)
    assert crops.shape == (4000, 7, 7, 3)
    corners = crops[:, 0, 0, :2].astype(int)
    for crop, (top, left) in zip(crops[:50], corners[:50], strict=True):
        np.testing.assert_array_equal(crop, picture[top : top + 7, left : left + 7])
    counts = np.zeros((4, 6))
    np.add.at(counts, tuple(corners.T), 1)
    expected = 4000 / counts.size
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 49.7  # 0.1 % of chi-squared with 23 degrees of freedom


def test_conformations_are_drawn_the_way_up_that_the_model_has_them() -> None:
    made = HingeSettings(n=3, box=40, snr=1e6, shift_std_px=0.0, seed=5)
    simulated = simulate_particles(made)
    offset = 35.0
    angle = simulated.truth["angle_deg"].to_numpy() + offset
    upright, _ = align(simulated.clean, angle, np.zeros((3, 2)))
    drawn = hinge.conformations(made, simulated.truth["hinge_deg"].to_numpy(), offset)
    for found, expected in zip(drawn, upright, strict=True):
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    wrong = hinge.conformations(made, simulated.truth["hinge_deg"].to_numpy(), -offset)
    assert np.corrcoef(wrong[0].ravel(), upright[0].ravel())[0, 1] < 0.9


def test_rows_of_table_1_for_a_perfect_model(tmp_path: Path) -> None:
    n = 400
    rng = np.random.default_rng(2)
    truth = pd.DataFrame(
        {"angle_deg": rng.uniform(-180, 180, n), "hinge_deg": rng.uniform(-20, 20, n)}
    )
    sample = write_sample(tmp_path, "x", "X.", np.zeros((n, 8, 8), np.float32), 300, truth)
    test = truth.iloc[100:]
    values = recipe_config("spatial-vae") | {"model": {"z_dim": 2}}
    with Run.begin(tmp_path / "run", parse_config(values, "test"), {}) as run:
        pass
    pd.DataFrame(
        {
            "index": np.arange(300),
            "z_0": -3 * test["hinge_deg"].to_numpy() + 1,
            "z_1": np.cos(np.deg2rad(test["angle_deg"].to_numpy())),
            "angle_deg": test["angle_deg"].to_numpy() + 30,
        }
    ).to_parquet(run.path / study.HELD_OUT)
    fit = study.Fit("run", sample, "spatial-vae", {}, 0, None, (1, 1))
    score = study.Score(0, 0, 0, 0, 0, 0, 1, 1, 300, 0, 1, "epochs")
    first, second, angle = hinge.variable_rows("M", study.Result(fit, run, score))
    assert first["|r| hinge"] == pytest.approx(1)
    assert first["R rotation"] < 0.2  # type: ignore[operator]
    assert second["R rotation"] == pytest.approx(1)
    assert second["|r| hinge"] < 0.2  # type: ignore[operator]
    assert angle["variable"] == "θ"
    assert angle["resultant"] == pytest.approx(1)
    assert angle["RMSE"] == pytest.approx(0, abs=1e-6)
    turned = np.rad2deg(-3 * test["hinge_deg"].to_numpy() + 1)
    assert first["JS"] == abs(metrics.circular_correlation(turned, test["angle_deg"]))
    assert angle["JS"] == pytest.approx(1)


def test_mean_and_sd_over_seeds(smoke: Path) -> None:
    every = pd.read_csv(smoke / "tables" / "table-1-seeds.csv")
    summary = pd.read_csv(smoke / "tables" / "table-1.csv").set_index(["model", "variable"])
    groups = every.groupby(["model", "variable"])
    names = {"|r| hinge": "|r| sd", "R rotation": "R sd", "RMSE": "RMSE sd", "JS": "JS sd"}
    for column, sd in names.items():
        pd.testing.assert_series_equal(
            groups[column].mean(), summary[column].sort_index(), check_names=False
        )
        pd.testing.assert_series_equal(
            groups[column].std(), summary[sd].sort_index(), check_names=False
        )


def test_tables_keep_full_precision_and_escape_bars(tmp_path: Path) -> None:
    rows = [{"name": "a|b", "x": 1 / 3, "n": 2}, {"name": "c", "x": None, "n": 3}]
    text = Page(tmp_path).table("t", "Caption", rows, {"x": 2})
    lines = text.splitlines()
    assert lines[2:4] == ["| name | x | n |", "| --- | ---: | ---: |"]
    assert lines[4:] == ["| a\\|b | 0.33 | 2 |", "| c |  | 3 |"]
    with (tmp_path / "tables" / "t.csv").open() as file:
        table = list(csv.DictReader(file))
    assert float(table[0]["x"]) == 1 / 3 and table[1]["x"] == ""


def test_digits_without_mnist_are_characters_held_out_by_place(tmp_path: Path) -> None:
    study_of_digits = digits.prepare(Setting(PLANS["smoke"], tmp_path, None, 0))
    assert "built-in font" in study_of_digits.said[0]
    images = np.load(tmp_path / "digits-plain" / "images.npy")
    assert images.dtype == np.uint8 and images.shape == (72, 28, 28)
    assert images.max() > 200 and (images.reshape(72, -1).std(1) > 0).all()
    truth = pd.read_csv(tmp_path / "digits-translated" / "truth.csv")
    assert truth["shift_x"].std() == pytest.approx(3.5, rel=0.35)
    assert truth["angle_deg"].std() == pytest.approx(45, rel=0.35)


def test_data_of_a_folder_are_prepared(some_data: Path, tmp_path: Path) -> None:
    setting = Setting(PLANS["smoke"], tmp_path, some_data, 0)
    prepared = {name: prepare(setting) for name, prepare in spatial_vae.STUDIES.items()}
    assert all(isinstance(s, Study) for s in prepared.values())
    digit = np.load(tmp_path / "digits-plain" / "images.npy")[0]
    with np.load(some_data / "mnist.npz") as mnist:
        np.testing.assert_array_equal(digit, mnist["x_train"][0])
    particles = prepared["particles"]
    assert isinstance(particles, Study)
    assert particles.fits[0].sample.open_test().n == 12
