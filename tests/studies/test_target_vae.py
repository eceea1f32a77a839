from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modpose.config import merge, parse_config
from modpose.errors import InputError, TrainingError
from modpose.model.build import build_vae
from modpose.recipes import recipe_config
from modpose.run import Run
from studies import target_vae
from studies.common import samples, study
from studies.common.conduct import Conduct, Study
from studies.common.samples import Sample, write_sample
from studies.target_vae import (
    common,
    digits,
    figures,
    particles,
    several,
    sprites,
)
from studies.target_vae.budgets import (
    BASELINES,
    BASELINES_PRINTED,
    PLANS,
    VARIANTS,
    Contender,
    Plan,
    Sizes,
    configured,
    modpose,
)
from studies.target_vae.budgets import (
    target_vae as contender,
)
from studies.target_vae.common import Setting

TABLES = {
    "table-1": 2,
    "table-2": 3,
    "symmetry": 2,
    "table-3": 1,
    "equivariance": 1,
    "table-4": 2,
    "offset": 2,
    "figure-8": 1,
    "figure-9": 3,
    "figure-10": 1,
    "figure-11": 1,
    "figure-4": 1,
    "figure-5": 1,
}
"""Rows of each table under the smoke budget."""
FIGURES = ["figure-6", "figure-3-normal", "figure-3-uniform", "figure-8", "figure-10", "figure-11"]
FIGURES += ["figure-7-normal-target-vae-p4-z2", "figure-4-z", "figure-5", "figure-9-z"]
FIGURES += ["figure-9-target-vae-p4-z2", "figure-4-target-vae-p4-z2"]
FIGURES += [f"{name}-curves" for name in ("uniform", "ablation", "sprites", "galaxies", "hinge")]


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of noise where real galaxies would be; everything else is simulated."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (folder / "galaxy").mkdir()
    pictures = rng.integers(256, size=(60, 32, 32, 3), dtype=np.uint8)
    kinds = {"images": pictures, "label": np.arange(60, dtype=np.uint8) % 2}
    np.savez(folder / "galaxy" / "galaxy_zoo_train_64.npz", **kinds)
    return folder


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, galaxies: Path) -> Path:
    """The whole experiment, by its public function."""
    out = tmp_path_factory.mktemp("experiment") / "out"
    assert target_vae.run("smoke", out, 3, data=galaxies) == out / "index.md"
    return out


# --- the whole experiment ---------------------------------------------------------------------


def test_every_table_and_figure_of_the_paper_is_there(smoke: Path) -> None:
    page = (smoke / "index.md").read_text()
    for name in FIGURES:
        assert f"(figures/{name}.png)" in page
        assert (smoke / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name, rows in TABLES.items():
        with (smoke / "tables" / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == rows, name
    for target in re.findall(r"\]\(((?:tables|figures)/[^)]*)\)", page):
        assert (smoke / target).is_file()
    sections = re.findall(r"^## (.*)", page, re.MULTILINE)
    assert len(sections) == len(target_vae.STUDIES)
    for words in ("Table 1", "Table 4", "A.4", "A.5", "A.6", "A.8", "Figure 4", "Figure 5"):
        assert any(words in title for title in [*sections, page])
    assert "Left out" not in page
    assert not re.search(r"\bnan\b", page)


def test_fits_that_studies_share_are_carried_out_once(smoke: Path) -> None:
    runs = {path.name for path in (smoke / "runs").iterdir()}
    assert "digits-uniform-target-vae-p4-z2" in runs  # of digits, ablation and several objects
    assert len(runs) == 11
    assert all(Run.open(smoke / "runs" / name).finished for name in runs)


def test_started_again_it_fits_and_infers_nothing(
    smoke: Path, galaxies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    before = {p: p.read_bytes() for p in (smoke / "tables").iterdir()}
    page = (smoke / "index.md").read_text()
    monkeypatch.setattr(study, "fit_run", refuse)
    monkeypatch.setattr(study, "resume_run", refuse)
    monkeypatch.setattr(samples, "write_sample", refuse)
    monkeypatch.setattr("studies.common.equivariance.move", refuse)
    target_vae.run("smoke", smoke, 3, data=galaxies, only="ablation")
    assert (smoke / "index.md").read_text() == page
    assert {p: p.read_bytes() for p in (smoke / "tables").iterdir()} == before


def test_poses_of_table_1_are_compared_with_the_twins(smoke: Path) -> None:
    run = smoke / "runs" / "digits-uniform-target-vae-p4-z2"
    latents, twins = (pd.read_parquet(run / f"{name}.parquet") for name in ("held_out", "twins"))
    truth = pd.read_csv(smoke / "data" / "digits-uniform" / "truth.csv").tail(24)
    error = latents["angle_deg"].to_numpy() - twins["angle_deg"].to_numpy()
    turns = np.exp(1j * np.deg2rad(error - truth["angle_deg"].to_numpy()))
    table = pd.read_csv(smoke / "tables" / "table-1.csv").set_index("images")
    assert table.loc["MNIST(U)", "resultant"] == pytest.approx(abs(turns.mean()), rel=1e-5)
    median = np.median(np.abs(np.angle(turns, deg=True)))
    assert table.loc["MNIST(U)", "median (°)"] == pytest.approx(median, rel=1e-5)
    r = np.corrcoef(latents["shift_x"], truth["shift_x"])[0, 1]
    assert table.loc["MNIST(U)", "r x"] == pytest.approx(r, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": "scaled"}, "budget of the experiment in it is smoke, expected scaled"),
        ({"only": "stars"}, "--only is stars, expected one of digits, ablation, offset, several"),
        ({"budget": "huge"}, "--budget is huge, expected one of smoke, scaled, full"),
        ({"minutes_per_fit": 0.0}, "--minutes-per-fit is 0.0, expected more than zero"),
        ({"data": Path("/nowhere")}, "/nowhere: no such folder"),
    ],
)
def test_other_arguments_are_refused(
    smoke: Path, galaxies: Path, arguments: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"budget": "smoke", "seed": 3, "data": galaxies} | arguments
    with pytest.raises(InputError, match=re.escape(said)):
        target_vae.run(given.pop("budget"), smoke, **given)


def test_a_fit_of_one_epoch_is_seen_in_its_curve() -> None:
    curves = {"quick": ([2.0], [-200.0]), "slow": ([2.8], [-1000.0])}
    curves["two"] = ([1.0, 2.0], [-400.0, -300.0])
    axes = figures.learning(curves, {"null": -900.0}).axes[0]
    low, high = axes.get_ylim()
    assert list(axes.lines[0].get_ydata()) == [-900.0, -900.0]
    for line in axes.lines[1:]:
        assert line.get_marker() == "o"
        assert all(low < value < high for value in np.asarray(line.get_ydata(), float))
    long = {"long": (list(range(100)), [-1e4, *[-100.0 + k / 10 for k in range(99)]])}
    axes = figures.learning(long, {"null": -150.0}).axes[0]
    assert axes.lines[1].get_marker() == "None"
    assert axes.get_ylim()[0] > -200


def test_absent_galaxies_are_said(tmp_path: Path) -> None:
    page = target_vae.run("smoke", tmp_path / "out", only="galaxies").read_text()
    assert "Galaxies (A.6, Figure 10) were left out" in page


def test_a_failed_fit_is_said_and_the_other_studies_are_written(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((24, 12, 12)).astype(np.float32)
    sound = write_sample(tmp_path / "data", "noise", "Noise.", images, 4)
    # squares beyond single precision: the first loss is infinite
    huge = write_sample(tmp_path / "data", "huge", "Huge.", 1e25 * images, 4)

    def of(name: str, sample: Sample) -> Study:
        options = {"model": {"encoder": {"hidden": 4}}, "train": {"epochs": 2}}
        fit = study.Fit(name, sample, "vae", options, 0, None, (4, 2))
        return Study(f"Study {name}", [], [fit], lambda results, _: [f"drew {sorted(results)}"])

    conduct = Conduct("test", "Title", tmp_path / "out", 1, ["Said."], ["a", "b", "c"])
    studies = {"a": lambda s: of("x", huge), "b": lambda s: of("y", sound), "c": lambda s: "No."}
    with pytest.raises(TrainingError, match="1 of 2 fits failed"):
        conduct.carry_out(None, studies)
    page = (tmp_path / "out" / "index.md").read_text()
    assert "A fit failed: the loss became" in page
    assert "drew ['y']" in page and "## Left out\n\nNo." in page


# --- budgets ----------------------------------------------------------------------------------


def small(plan: Plan, n: int = 20) -> Plan:
    """The plan's networks on few images."""
    names = ("uniform", "normal", "sprites", "galaxies", "hinge", "particles", "views")
    few = {name: replace(getattr(plan, name), images=n, held_out=6) for name in names}
    return replace(plan, **few)


def all_fits(plan: Plan, tmp_path: Path, data: Path | None) -> dict[str, study.Fit]:
    setting = Setting(small(plan), tmp_path / "data", data, 0)
    studies = [prepare(setting) for prepare in target_vae.STUDIES.values()]
    return {fit.name: fit for s in studies if isinstance(s, Study) for fit in s.fits}


def test_scaled_budget_stays_within_three_hours_on_two_cores(
    tmp_path: Path, galaxies: Path
) -> None:
    plan = PLANS["scaled"]
    fits = all_fits(plan, tmp_path, galaxies)
    minutes = [fit.max_minutes for fit in fits.values() if not fit.name.startswith("offset")]
    assert all(m is not None and 5 <= m <= 15 for m in minutes)
    assert sum(m for m in minutes if m) / plan.jobs <= 120  # and an hour to score
    assert plan.lasting(1.5).views.minutes == plan.lasting(1.5).uniform.minutes == 1.5
    configs = {name: fit.config() for name, fit in fits.items()}
    ablated = [configs[f"digits-uniform-{v.slug}"].model.encoder for v in VARIANTS]
    found = [(e.rotations, e.infer_rotation, e.add_offset) for e in ablated]  # type: ignore[union-attr]
    assert found == [(1, True, True), (4, False, True), (4, True, False)]
    uniform = [c for name, c in configs.items() if name.startswith("digits-uniform")]
    assert len(uniform) == 11 + 3
    assert {c.train.schedule for c in uniform} == {"cosine"}
    assert len({c.data.model_dump_json() for c in uniform}) == 1
    for name, config in configs.items():
        if name.startswith("digits-normal") and "vae-z4" not in name:
            assert (config.model.rotation.prior, config.model.rotation.std_deg) == ("gaussian", 45)
        if name.startswith("digits") and "vae-z4" in name:
            assert config.model.rotation.prior == config.model.shift.prior == "none"


def test_full_budget_has_the_papers_sizes_and_takes_two_steps(
    tmp_path: Path, galaxies: Path
) -> None:
    fits = all_fits(PLANS["full"], tmp_path, galaxies)
    ours = {name: fit.config() for name, fit in fits.items() if "-target-vae-p" in name}
    ours = {name: one for name, one in ours.items() if not name.startswith("offset")}  # smaller
    for name, config in ours.items():
        deep = name.startswith(("particles", "views"))
        assert config.recipe == f"target-vae{'-particles' * deep}-paper"
        if not name.startswith(("digits", "sprites", "galaxies")):
            assert config.model.likelihood.noise == "per-pixel"
        assert (config.train.lr, config.train.batch_size, config.train.epochs) == (2e-4, 100, 500)
        assert config.train.pixels is None and config.model.field.hidden == 512
    assert ours["particles-target-vae-p8-z2"].model.field.depth == 6
    assert {f"digits-normal-target-vae-p{n}-z{z}" for n in (4, 8, 16) for z in (2, 32)} <= set(ours)
    fit = fits["hinge-0.5-target-vae-p8-z1"]
    options = {**fit.options, "train": {**fit.options["train"], "epochs": 2}}
    few = fit.sample.train.parent / "few.npy"
    np.save(few, np.load(fit.sample.train)[:3])
    sample = replace(fit.sample, train=few, test=few)
    short = replace(fit, sample=sample, importance=(1, 1), options=options)
    run = Run.open(study.carry_out(short, tmp_path / "runs"))  # an epoch is one batch here
    assert np.isfinite([row["elbo"] for row in run.epochs()]).all() and len(run.epochs()) == 2


@pytest.mark.parametrize(
    ("baselines", "recipe"),
    [(BASELINES, "target-vae"), (BASELINES_PRINTED, "target-vae-paper")],
)
def test_baselines_have_as_many_parameters_as_p8(
    baselines: tuple[Contender, ...], recipe: str
) -> None:
    """Within the change that one unit of width makes, a hundredth."""

    def count(name: str, z_dim: int, options: Any) -> int:
        laid = {"model": {"z_dim": z_dim, "likelihood": {"kind": "bernoulli"}}}
        config = parse_config(merge(merge(recipe_config(name), laid), dict(options)), name)
        vae = build_vae(config, shape=(50, 50), channels=1, n_images=2)
        return sum(p.numel() for p in vae.parameters())

    expected = count(recipe, 2, {})
    printed = recipe.removeprefix("target-vae")
    for row in baselines:
        name = row.recipe + (printed if row.recipe == "spatial-vae" else "")
        assert count(name, row.z_dim, row.options) == pytest.approx(expected, rel=0.01)


def test_variants_3_and_4_differ_in_the_offset_alone() -> None:
    plan = PLANS["scaled"]
    fits = plan.offset.contenders[:2]
    encoders = [dict(c.options["model"]["encoder"]) for c in fits]
    assert [e.pop("add_offset", True) for e in encoders] == [False, True]
    assert encoders[0] == encoders[1] and plan.offset.minutes is None
    assert len({(c.recipe, c.z_dim) for c in fits}) == 1


def test_a_contender_is_a_line() -> None:
    row = Contender("Mine & more", "spatial-vae", 3, {"train": {"lr": 0.5}})
    assert (row.slug, row.name) == ("mine-more-z3", "Mine & more (z 3)")
    more = {"model": {"shift": {"prior": "gaussian", "std_px": 5.0}}, "train": {"pixels": 7}}
    sizes = Sizes(1, 1, 9, None, ())
    recipe, options = configured(PLANS["scaled"], sizes, row, more)
    assert recipe == "spatial-vae"
    assert options["train"] == {"epochs": 9, "schedule": "cosine", "lr": 0.5, "pixels": 7}
    assert options["model"] == {"z_dim": 3, "shift": {"prior": "gaussian", "std_px": 5.0}}
    poseless = configured(PLANS["scaled"], sizes, Contender("V", "vae", 4), more)[1]
    assert poseless["model"] == {"z_dim": 4}
    assert contender(8, 2).options == {"model": {"encoder": {"rotations": 8}}}
    assert modpose(16).has_pose


# --- parts ------------------------------------------------------------------------------------


def test_linkages_find_blobs_and_bear_collapsed_content() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    z = 10 * np.eye(3)[labels] + rng.standard_normal((90, 3))
    for method in ("ward", "kmeans", "average", "complete"):
        groups = common.clusters(z, 3, method)
        assert len(set(zip(groups.tolist(), labels.tolist(), strict=True))) == 3
        assert (common.clusters(np.zeros((5, 2)), 3, method) == 0).all()


def test_digits_and_their_twins_belong_together(tmp_path: Path) -> None:
    setting = Setting(PLANS["smoke"], tmp_path, None, 0)
    sample = digits.sample_of(setting, digits.UNIFORM)
    twins, truth = digits.twins(setting), sample.truth_of_test()
    images = sample.open_test().stack.read(np.arange(24))[:, 0]
    assert twins.shape == images.shape == (24, 50, 50)
    from modpose.plot.grids import align

    angle, shift = (truth[c].to_numpy(copy=True) for c in ("angle_deg", ["shift_x", "shift_y"]))
    upright, _ = align(images, angle, shift)
    for found, twin in zip(upright, twins, strict=True):
        assert np.corrcoef(found.ravel(), twin.ravel())[0, 1] > 0.9


def test_sprites_know_their_symmetry() -> None:
    rng = np.random.default_rng(0)
    n = 600
    classes = np.array(["square", "ellipse", "heart"])[np.arange(n) % 3]
    true = rng.uniform(-180, 180, n)
    fold = np.array([4, 2, 1])[np.arange(n) % 3]
    inferred = true + rng.integers(100, size=n) % fold * 360 / fold + rng.normal(0, 2, n) + 50
    shift = rng.normal(size=(n, 2))
    truth = pd.DataFrame({"class": classes, "scale": 1.0, "angle_deg": true})
    truth[["shift_x", "shift_y"]] = shift
    latents = pd.DataFrame({"z_0": np.arange(n) % 3 + 0.01 * shift[:, 0], "angle_deg": inferred})
    latents[["shift_x", "shift_y"]] = shift
    rows = sprites.shape_rows("M", latents, truth)
    assert [(row["shape"], row["order"]) for row in rows] == [
        ("square", "4"),
        ("ellipse", "2"),
        ("heart", "1"),
    ]
    for row in rows:
        assert row["median (°)"] == pytest.approx(0.6745 * 2, rel=0.2)
        assert row["Ward, shape (%)"] == 100.0
        assert row["shift RMSE (px)"] == pytest.approx(0, abs=1e-9)


def test_planted_contaminants_keep_the_level_and_spectrum() -> None:
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((30, 64, 64)).astype(np.float32) + 5
    kind = np.array(["particle", "gold", "empty"])[np.arange(30) % 3]
    planted = particles.plant(windows, kind, rng)
    np.testing.assert_array_equal(planted[::3], windows[::3])
    np.testing.assert_allclose(planted[2::3].mean((1, 2)), windows[2::3].mean((1, 2)), rtol=1e-3)
    for before, after in zip(windows[2::3], planted[2::3], strict=True):
        np.testing.assert_allclose(
            np.abs(np.fft.fft2(after)), np.abs(np.fft.fft2(before)), rtol=0.05, atol=5
        )
        assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.15
    assert (planted[1::3].min((1, 2)) < planted[2::3].min((1, 2)).min() - 1).all()


# --- several objects --------------------------------------------------------------------------


class Oracle:
    """A model of one bright disc, which knows where the brightest light in a window is."""

    vae = SimpleNamespace(shape=(50, 50))
    quiet = True
    environment = MappingProxyType({"value_range": (0.0, 2.0)})
    config = SimpleNamespace(model=SimpleNamespace(z_dim=1))

    def places(self, windows: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[:50, :50]
        near = np.exp(-((x - 25) ** 2 + (y - 25) ** 2) / (2 * 8.0**2))
        weight = windows * near
        total = np.maximum(weight.sum((1, 2)), 1e-9)
        return np.stack([(weight * (g - 25)).sum((1, 2)) / total for g in (x, y)], 1)

    def reconstruct(self, windows: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[:50, :50] - 25
        px, py = self.places(windows).T[:, :, None, None]
        return (np.hypot(x - px, y - py) <= 5).astype(np.float32)  # in prepared units: half


def test_objects_in_a_field_are_found_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def infer(model: Oracle, windows: np.ndarray) -> Any:
        n = len(windows)
        return SimpleNamespace(
            z=np.zeros((n, 1)), angle_deg=np.zeros(n), shift=model.places(windows)
        )

    monkeypatch.setattr(several, "infer_poses", infer)
    y, x = np.mgrid[:150, :150]
    true = np.array([[30.0, 40.0], [75.5, 75.0], [140.0, 20.0], [60.0, 130.0]])
    field = sum(2.0 * (np.hypot(x - a, y - b) <= 5) for a, b in true)
    found = several.detect(Oracle(), np.asarray(field, np.float32))  # type: ignore[arg-type]
    pairs = several.match(found.place, true - 75)
    assert len(pairs) == len(found.place) == 4
    for i, j in pairs:
        assert np.hypot(*(found.place[i] - (true[j] - 75))) < 2.5
    assert np.corrcoef(found.drawing.ravel(), field.ravel())[0, 1] > 0.8
    nothing = several.detect(Oracle(), np.zeros((150, 150), np.float32))  # type: ignore[arg-type]
    assert nothing.place.shape == (0, 2) and nothing.drawing.shape == (150, 150)


def test_matching_is_one_to_one_and_near() -> None:
    true = np.array([[0.0, 0.0], [50.0, 0.0]])
    assert several.match(np.array([[1.0, 0.0], [2.0, 0.0], [70.0, 0.0]]), true) == [(0, 0)]
    assert several.match(np.zeros((0, 2)), true) == []


# --- real data --------------------------------------------------------------------------------


def test_data_of_a_folder_are_prepared(some_data: Path, tmp_path: Path) -> None:
    setting = Setting(PLANS["smoke"], tmp_path, some_data, 0)
    sample = digits.sample_of(setting, digits.NORMAL)
    with np.load(some_data / "mnist.npz") as mnist:
        labels = np.concatenate([mnist["y_train"][:60], mnist["y_test"][:24]])
    np.testing.assert_array_equal(pd.read_csv(sample.truth)["label"], labels)  # type: ignore[arg-type]
    prepared = sprites.prepare(setting)
    truth = prepared.fits[0].sample.truth_of_test()
    images = prepared.fits[0].sample.open_test().stack.read(np.arange(len(truth)))[:, 0]
    from studies.target_vae.shapes import SHAPES, draw_sprites

    shape = np.array([SHAPES.index(name) for name in truth["class"]])
    shift = truth[["shift_x", "shift_y"]].to_numpy()
    drawn = draw_sprites(shape, truth["scale"].to_numpy(), truth["angle_deg"].to_numpy(), shift, 64)
    both = ((drawn >= 0.5) & (images > 0)).sum((1, 2))
    either = ((drawn >= 0.5) | (images > 0)).sum((1, 2))
    assert (both / either).mean() > 0.9  # the genuine sprites, posed as our conventions say
    assert isinstance(particles.prepare(setting).fits[0].sample, Sample)
