"""Scores of conformations against the truth: perfect models, useless ones, and the verb."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from modpose.backprojection.halves import open_posed
from modpose.cli import app
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.evaluate.conformations import (
    TrueMap,
    classes_discriminated,
    classes_found,
    images_of,
    map_areas,
    motion_found,
    read_true_maps,
    reference_areas,
    score_conformations,
)
from modpose.evaluate.known_maps import score_known_maps
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import ProjectionSettings, simulate_projections

RNG = np.random.default_rng(0)


def truth(n: int = 200) -> pd.DataFrame:
    return pd.DataFrame({"class": RNG.integers(0, 2, n), "hinge_deg": RNG.uniform(-20, 20, n)})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    settings = ProjectionSettings(
        n=400, box=24, pixel_size=6.7, snr=2.0, hinge_range_deg=(-40.0, 40.0), shift_std_px=0.5
    )
    simulated = simulate_projections(settings, built_in_conformers(2))
    folder = tmp_path_factory.mktemp("made")
    write_projections(simulated, folder, maps=3)
    return simulated, folder


def test_images_of_a_state_are_its_class_nearest_its_angle():
    table = truth()
    rows = images_of(table, TrueMap(np.zeros((2, 2, 2), np.float32), 1, 5.0))
    assert (table["class"][rows] == 1).all()
    mine = table[table["class"] == 1]
    assert len(rows) == round(0.1 * len(mine))
    farthest = (table["hinge_deg"][rows] - 5.0).abs().max()
    assert ((mine["hinge_deg"] - 5.0).abs() < farthest).sum() == len(rows) - 1


def test_a_model_that_knows_the_truth_scores_one_and_one_that_knows_nothing_less(made):
    simulated, folder = made
    maps = read_true_maps(folder / "maps")
    assert len(maps) == 6
    z = simulated.truth[["class", "hinge_deg"]].to_numpy(float)

    def exact(content):
        return simulated.volume(int(content[0, 0]), float(content[0, 1]))[None]

    def average(content):
        return np.mean([one.volume for one in maps], axis=0)[None]

    found = score_conformations(exact, z, simulated.truth, maps)
    assert min(found.areas) > 0.985  # the typical image is within a few degrees
    assert found.motion == pytest.approx(1.0)
    assert np.mean(map_areas(average, z, simulated.truth, maps)) < np.mean(found.areas) - 0.02
    assert len(found.lines()) == 5
    assert found.discriminant == pytest.approx(1.0)  # k-means follows the hinge


def test_the_reference_is_what_the_images_of_each_state_give(made):
    simulated, folder = made
    data = open_posed(open_source(folder / "particles.star"))
    areas = reference_areas(data, simulated.truth, read_true_maps(folder / "maps")[:2], quiet=True)
    assert all(0.3 < one < 0.98 for one in areas)


def test_motion_is_ranked_within_classes_whatever_its_sign_and_bend():
    table = truth()
    bent = np.sign(table["class"] - 0.5) * np.tan(table["hinge_deg"] / 20)
    z = np.stack([bent, 40.0 * table["class"]], axis=1)
    assert motion_found(z, table) == pytest.approx(1.0, abs=1e-6)
    assert motion_found(RNG.normal(size=(200, 2)), table) < 0.3
    assert motion_found(z, table.drop(columns="hinge_deg")) is None
    assert motion_found(np.zeros((200, 2)), table) == 0.0


def test_classes_are_scored_by_the_adjusted_rand_index():
    table = truth()
    z = np.stack([9.0 * table["class"], RNG.normal(size=200)], axis=1)
    assert classes_found(z, table) == pytest.approx(1.0)
    assert abs(classes_found(RNG.normal(size=(200, 2)), table)) < 0.1
    assert classes_found(z, table.drop(columns="class")) is None


def test_a_discriminant_reads_classes_that_clusters_do_not_follow():
    table = truth()
    hinge = 30.0 * RNG.normal(size=200)
    z = np.stack([hinge, 4.0 * table["class"] + RNG.normal(size=200)], axis=1)
    assert abs(classes_found(z, table)) < 0.1
    assert classes_discriminated(z, table) > 0.8
    assert abs(classes_discriminated(RNG.normal(size=(200, 2)), table)) < 0.1
    assert abs(classes_discriminated(np.zeros((200, 2)), table)) < 0.1  # nothing varies
    assert classes_discriminated(z[:9], table[:9].assign(**{"class": [0] * 8 + [1]})) is None
    assert classes_discriminated(z, table.drop(columns="class")) is None


def test_missing_maps_and_truth_are_named(tmp_path, made):
    with pytest.raises(InputError, match=r"there is no maps\.csv"):
        read_true_maps(tmp_path)
    (tmp_path / "maps.csv").write_text("file,hinge_deg\n")
    with pytest.raises(InputError, match="expected also class"):
        read_true_maps(tmp_path)


def test_the_verb_scores_a_run(tmp_path, made):
    _, folder = made
    run = tmp_path / "run"
    small = ["--epochs", "1", "--z-dim", "2", "--set", "model.encoder.hidden=8"]
    small += ["--set", "model.field.hidden=8", "--set", "model.field.depth=1"]
    star = str(folder / "particles.star")
    command = ["fit", star, "-o", str(run), "--recipe", "cryodrgn", *small]
    fitted = CliRunner().invoke(app, command)
    assert fitted.exit_code == 0, fitted.output
    done = CliRunner().invoke(app, ["score", str(run), "--maps", str(folder / "maps")])
    assert done.exit_code == 0, done.output
    assert "mean FSC with 6 true maps" in done.output
    assert "|Spearman|" in done.output
    assert "ARI" in done.output


def test_who_has_the_true_maps_tells_states_better_than_chance(made):
    _, folder = made
    maps = read_true_maps(folder / "maps")
    source = open_source(folder / "particles.star")
    truth = source.particles.truth().reset_index(drop=True)
    found = score_known_maps(open_posed(source), truth, maps, quiet=True)
    assert 0.8 < found.motion <= 1 and 0.3 < found.classes <= 1
    rows = np.random.default_rng(0).permutation(len(truth))
    mixed = score_known_maps(
        open_posed(source), truth.iloc[rows].reset_index(drop=True), maps, True
    )
    assert mixed.motion < 0.2 and abs(mixed.classes) < 0.05
