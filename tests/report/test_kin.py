"""Sections on known classes, and placing images in the map of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modpose import InputError, Run, fit_run, open_source
from modpose.affinity import Affinity
from modpose.cli import main
from modpose.config import merge, parse_config
from modpose.estimator import PoseModel
from modpose.evaluate.placing import map_of_run, place_images
from modpose.recipes import recipe_config
from modpose.report.build import build_report
from modpose.report.kin import class_cosines, interpolation_grid

NAMES = ("a", "b", "c")
MATRIX = Affinity(np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.0]]), NAMES)


def fitted(folder: Path, recipe: str = "affinity-vae", **known: Any) -> Run:
    rng = np.random.default_rng(0)
    x = 0.1 * rng.random((40, 8, 8)).astype(np.float32)
    for i in range(40):
        x[i, 2 + i % 3 : 5 + i % 3, 2:6] += 0.7
    folder.mkdir(exist_ok=True)
    np.save(folder / "x.npy", x)
    small = {
        "model": {
            "z_dim": 3,
            "encoder": {"kind": "conv", "channels": 4, "depth": 1},
            "field": {"kind": "conv", "channels": 4, "depth": 1},
        },
        "train": {"epochs": 1, "batch_size": 20},
    }
    config = parse_config(merge(recipe_config(recipe), small), recipe)
    return fit_run(open_source(folder / "x.npy"), config, folder / "run", quiet=True, **known)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    labels = np.array([NAMES[i % 3] for i in range(40)], dtype="<U2")
    labels[7] = "-1"
    return fitted(tmp_path_factory.mktemp("kin"), labels=labels, affinity=MATRIX)


def test_class_cosines_are_means_over_pairs_of_images() -> None:
    rng = np.random.default_rng(1)
    z, labels = rng.standard_normal((12, 3)), np.array(["a", "b", "b", "c"] * 3)
    labels[0] = ""
    found = class_cosines(z, labels, NAMES)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    for i, first in enumerate(NAMES):
        for j, second in enumerate(NAMES):
            pairs = [
                unit[p] @ unit[q]
                for p in range(12)
                for q in range(12)
                if p != q and labels[p] == first and labels[q] == second
            ]
            assert found[i, j] == pytest.approx(np.mean(pairs))
    assert np.isnan(class_cosines(z[1:2], labels[1:2], ("b", "c"))).all()


def test_corners_of_a_grid_are_the_four_points() -> None:
    corner = np.arange(8.0).reshape(4, 2)
    grid = interpolation_grid(corner, 5).reshape(5, 5, 2)
    assert np.allclose([grid[0, 0], grid[0, -1], grid[-1, 0], grid[-1, -1]], corner)
    assert np.allclose(grid[2, 2], corner.mean(0))


def test_report_shows_classes_affinities_pose_channel_and_corners(run: Run) -> None:
    page = build_report(run.path, quiet=True).read_text()
    for name in ("classes", "affinities", "pose-channel", "corners"):
        assert (run.path / "report" / f"{name}.png").stat().st_size > 2000
    assert "Requested and learned affinities" in page and "validation images" in page


def test_map_places_the_known_and_finds_the_far(run: Run) -> None:
    known = map_of_run(run)
    assert known.distance == "cosine" and len(known.z) == 39 and known.names == NAMES
    table = place_images(run, open_source(run.path.parent / "x.npy"))
    assert list(table["index"]) == list(range(40)) and {"nearest", "new", "z_2"} <= set(table)
    encoded = PoseModel.load(run.path).encode(open_source(run.path.parent / "x.npy"))
    assert (table["nearest"].to_numpy() == np.array(NAMES)[known.nearest(encoded.z)]).all()
    euclidean = map_of_run(run, "euclidean")
    assert euclidean.place(encoded.z + 50.0)["new"].all()


def test_map_verb(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "placed.csv"
    arguments = ["map", str(run.path), str(run.path.parent / "x.npy"), "-o", str(out)]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0 and len(pd.read_csv(out)) == 40
    assert "lie further out" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and "--overwrite" in capsys.readouterr().err


def test_map_needs_classes(tmp_path: Path) -> None:
    plain = fitted(tmp_path / "plain", "conv-vae")
    with pytest.raises(InputError, match="fitted with --labels"):
        map_of_run(plain)
