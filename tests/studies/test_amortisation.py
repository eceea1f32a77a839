"""Moved images against what moving the object does, displacements, and the experiment."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from modpose import PoseModel
from modpose.data.particles import Particles
from modpose.data.source import Source, open_source
from modpose.data.stack import ArrayStack
from modpose.errors import InputError
from modpose.model.settings import SearchSettings
from modpose.simulate.conformations import Conformer, built_in_conformers
from modpose.simulate.projections import ProjectionSettings, simulate_projections
from studies import amortisation
from studies.amortisation import generalisation
from studies.amortisation.budgets import GridBudget
from studies.amortisation.moves import SHIFT, SHIFT_5, TURN, Displacement, Move
from studies.common.null import LABEL


def project(rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    settings = ProjectionSettings(n=len(rotation), box=32, pixel_size=6.0, snr=1e6)
    still = [Conformer("still", built_in_conformers(1)[0].molecule)]
    made = simulate_projections(settings, still, (rotation, shift))
    return made.images / made.scale


@pytest.mark.parametrize("move", [SHIFT, SHIFT_5, TURN, Move("both", 2, True)])
def test_a_moved_projection_is_the_projection_in_the_moved_pose(move):
    rotation = Rotation.random(3, rng=0).as_matrix()
    shift = np.array([[0.5, -1.0], [0.0, 2.0], [-1.5, 0.3]])
    images = project(rotation, shift)
    table = Particles(pd.DataFrame(index=range(3)), given_poses=(rotation, shift))
    table = replace(table, given_ctf=np.ones((3, 9)))
    source = Source(ArrayStack(images, pixel_size=6.0), table)
    moved = move.of_source(source, "consistent")
    expected = project(*moved.particles.poses())
    inside = (slice(None), slice(3, -3), slice(8, -3))  # what was rolled round is left out
    found = moved.stack.read(np.arange(3))[:, 0]
    assert np.abs(found[inside] - expected[inside]).max() < 0.02 * expected.max()
    assert (moved.particles.ctf()[:, 3] == (91.0 if move.turned else 1.0)).all()
    published = move.of_source(source, "as-published")
    assert published.particles is table
    np.testing.assert_array_equal(published.stack.read(np.arange(3))[:, 0], found)


def test_turning_four_times_and_shifting_round_the_box_changes_nothing():
    for side in (7, 8):
        image = torch.randn(2, side, side)
        turned = image
        for _ in range(4):
            turned = TURN.of_images(turned)
        torch.testing.assert_close(turned[:, 1:, 1:], image[:, 1:, 1:])
        assert torch.equal(Move("all", side).of_images(image), image)


def test_displacements_in_units_of_pairs_and_of_standard_deviations():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(4000, 3)).astype(np.float32)
    same = Displacement(before, before, np.ones_like(before))
    assert same.of_pairs() == 0
    assert same.in_std() == 0
    elsewhere = Displacement(before, rng.permutation(before), np.full_like(before, 0.5))
    assert elsewhere.of_pairs() == pytest.approx(1.0, abs=0.03)
    one = Displacement(before, before + 0.5, np.full_like(before, 0.5))
    assert one.in_std() == pytest.approx(1.0, rel=1e-5)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("amortisation")
    amortisation.run("smoke", folder, seed=1)
    return folder


def rows(folder, name: str) -> list[dict[str, str]]:
    with (folder / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_whole_experiment_runs_under_the_smoke_budget(smoke):
    assert len(rows(smoke, "moves")) == 12
    assert len(rows(smoke, "controls")) == 14
    assert len(rows(smoke, "digits")) == 6
    assert rows(smoke, "digits")[-1]["model"] == LABEL
    assert len(rows(smoke, "digits-moves")) == 8
    assert len(rows(smoke, "ranking")) == 18
    assert len(rows(smoke, "generalisation")) == 18
    for name in ("figure-10", "figure-14", "generalisation", "learning-grid-snr1-n24-seed1"):
        assert (smoke / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    page = (smoke / "index.md").read_text()
    assert "sections 3.1 to 3.3 and Appendix C" in page
    assert "A fit failed" not in page


def test_controls_say_what_they_should(smoke):
    found = {row["model"]: row for row in rows(smoke, "controls")}
    frozen = found["table, zeros, frozen"]
    assert float(frozen["ARI"]) == 0
    for row in found.values():
        assert np.isfinite(float(row["ELBO, fitted"]))
        assert np.isfinite(float(row["ELBO, held out"]))
        assert float(row["gap, fitted"]) >= 0
        held_out, table = row["gap, held out"], row["model"].startswith(("table", "null"))
        assert held_out == "" if table else float(held_out) >= 0
    assert float(found["null: one volume for all images"]["KL, fitted"]) == 0


def test_the_ranking_scores_what_each_set_has(smoke):
    found = rows(smoke, "ranking")
    assert {row["set"] for row in found if row["motion"]} == {
        "hinge",
        "mixture of three, all hinged",
    }
    assert all((row["ARI"] == "") == (row["set"] == "hinge") for row in found)
    assert all(np.isfinite(float(row["FSC"])) for row in found)
    assert [row["minutes"] for row in found if row["model"] == "truth known"] == [""] * 3


def test_fitted_and_held_out_images_of_the_grid(smoke):
    for seed in (1, 2):
        parts = [
            np.load(smoke / "data" / f"grid-snr1-n24-seed{seed}" / f"{part}.npy")
            for part in ("train", "test")
        ]
        assert [len(part) for part in parts] == [24, 6]
        assert not np.intersect1d(*parts).size
    for row in rows(smoke, "generalisation"):
        assert row["images seen"] in ("24", "48")
        assert np.isfinite([float(row[f"ELBO, {part}"]) for part in ("fitted", "held out")]).all()
        null, table = (row["model"].startswith(name) for name in ("null", "table"))
        assert (row["motion, held out"] == "") == (row["gap, held out"] == "") == (null or table)
        assert null or table or float(row["gap, held out"]) >= 0


def test_the_hinge_is_read_from_other_images(monkeypatch):
    """An image never counts for itself; a new one may lie exactly on a fitted one."""
    monkeypatch.setattr(generalisation, "NEIGHBOURS", 1)
    z, hinge = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0]]), np.array([1.0, 2.0, 3.0])
    near = cKDTree(z)
    of_fitted = generalisation.read_hinge(near, hinge, z, own=True)
    np.testing.assert_array_equal(of_fitted, [2.0, 1.0, 2.0])
    of_new = generalisation.read_hinge(near, hinge, z, own=False)
    np.testing.assert_array_equal(of_new, hinge)


def test_the_corners_of_the_grid_get_a_second_seed():
    found = generalisation.cells(GridBudget(), seed=3)
    assert len(set(found)) == len(found) == 12
    assert {(c.snr, c.images) for c in found if c.seed == 4} == {
        (1.0, 1000),
        (1.0, 10_000),
        (0.1, 1000),
        (0.1, 10_000),
    }
    assert {(c.snr, c.images, c.seed) for c in found if c.longer} == {
        (1.0, 10_000, 3),
        (0.1, 10_000, 3),
    }
    assert [c.epochs(GridBudget()) for c in (found[0], found[2], found[4], found[-1])] == [
        60,
        20,
        6,
        20,
    ]


def test_rows_of_held_out_images_are_fitted_with_the_decoder_frozen(smoke):
    """Nothing of the model changes, and a held-out image's bound does not depend on others."""
    model = PoseModel.load(smoke / "runs" / "grid-snr1-n24-seed1-table")
    model.quiet = True
    before = {name: value.clone() for name, value in model.vae.state_dict().items()}
    held_out = open_source(
        str(smoke / "data" / "grid-snr1-seed1" / "images" / "particles.star"),
        index=smoke / "data" / "grid-snr1-n24-seed1" / "test.npy",
    )
    search = SearchSettings(modes=1, refine_steps=20, samples=4)
    few, one = (model.encode(held_out, search=search, rows=np.arange(n)) for n in (3, 1))
    after = model.vae.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    np.testing.assert_allclose(few.z[0], one.z[0], rtol=1e-3, atol=1e-4)
    assert few.elbo_gain is None


def test_started_again_it_fits_nothing_and_other_arguments_are_refused(smoke):
    runs = smoke / "runs"
    before = {p: p.stat().st_mtime_ns for p in runs.glob("*/latents.parquet")}
    assert len(before) == 49
    amortisation.run("smoke", smoke, seed=1, only="digits")
    assert before == {p: p.stat().st_mtime_ns for p in runs.glob("*/latents.parquet")}
    with pytest.raises(InputError, match="seed"):
        amortisation.run("smoke", smoke, seed=2)
    with pytest.raises(InputError, match="--only is nothing"):
        amortisation.run("smoke", smoke, seed=1, only="nothing")
