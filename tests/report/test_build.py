"""The report of real, tiny runs."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import starfile
from PIL import Image

from modpose import InputError, PoseModel, Run, fit_run, open_source
from modpose.config import merge, parse_config
from modpose.outputs.columns import embed_run
from modpose.plot import figures, grids
from modpose.plot.html import Picture, Section
from modpose.recipes import recipe_config
from modpose.report import build, build_report, gather
from modpose.report.gather import read_pictures
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import ProjectionSettings, simulate_projections

SMALL = {
    "train": {"epochs": 2, "batch_size": 20, "restarts": 1, "delay_z_steps": 0},
    "model": {
        "encoder": {"kind": "mlp", "hidden": 16},
        "field": {"hidden": 16, "activation": "tanh", "fourier": None},  # smooth to interpolate
    },
}


def config(recipe: str, z_dim: int, **data: object):
    values = merge(
        recipe_config(recipe), SMALL if "spatial" in recipe else {"train": SMALL["train"]}
    )
    return parse_config(merge(values, {"model": {"z_dim": z_dim}, "data": data}), "test")


def pngs(report: Path) -> set[str]:
    found = {path.name for path in report.glob("*.png")}
    for name in found:
        Image.open(report / name).verify()
    return found


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw at a low resolution, which is quick."""
    monkeypatch.setattr(figures, "DPI", 30)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(path, np.random.default_rng(0).normal(size=(60, 16, 16)).astype(np.float32))
    return path


def test_report_of_a_posed_run_with_labels_and_clusters(images: Path, tmp_path: Path) -> None:
    run = fit_run(
        open_source(images), config("spatial-vae", 3, normalize="image"), tmp_path / "run",
        labels=np.arange(60) % 3, clusters=2, quiet=True,
    )  # fmt: skip
    page = build_report(run.path, quiet=True)
    assert page == run.path / "report" / "index.html"
    text = page.read_text()
    for anchor in ("reconstructions", "average", "manifold", "content", "clusters", "traversals",
                   "interpolations", "samples", "pose", "learning"):  # fmt: skip
        assert f'<section id="{anchor}">' in text
    assert '<section id="truth">' not in text
    assert "row 0 at the bottom" in text
    assert {"angles.png", "shifts.png", "content-2.png", "clusters.png"} <= pngs(page.parent)
    assert sorted(p.name for p in run.path.iterdir() if p.name.startswith(".")) == []


def test_a_report_at_given_poses_says_nothing_of_inferred_ones(tmp_path: Path) -> None:
    settings = ProjectionSettings(80, 16, 10.0, hinge_range_deg=(-30.0, 30.0))
    star = write_projections(simulate_projections(settings, built_in_conformers(1)), tmp_path)
    options = config("modpose-posed", 2)
    fit_run(open_source(star), options, tmp_path / "run", quiet=True)
    text = build_report(tmp_path / "run", quiet=True).read_text()
    for words in ("Recovery of the truth", "content follows the hinge along one curve."):
        assert words in text
    for words in ("upright frame", "inferred angle", "half a turn", "KL of the pose"):
        assert words not in text


def run_with_table(tmp_path: Path) -> Run:
    """Fit images whose table has columns of a user: numbers, a text, and one value for all."""
    star = write_particles(simulate_particles(HingeSettings(n=60, box=24, pixel_size=7)), tmp_path)
    tables = starfile.read(star, always_dict=True)
    tables["particles"]["rlnCoordinateX"] = 1.5 * np.arange(60)
    tables["particles"]["rlnGroupName"] = [f"group {row % 4}" for row in range(60)]
    tables["particles"]["rlnHelicalTubeID"] = 1
    starfile.write(tables, star, overwrite=True)
    small = config("spatial-vae", 2, normalize="image")
    return fit_run(open_source(star), small, tmp_path / "run", clusters=2, quiet=True)


def test_every_column_that_varies_gives_a_colour(tmp_path: Path) -> None:
    run = run_with_table(tmp_path)
    embed_run(run, "pca", dims=1)
    text = build_report(run.path, quiet=True).read_text()
    inside = text.split('<script type="application/json" id="scatter-data">')[1]
    data = json.loads(inside.split("</script>")[0])
    colours = {one["name"]: one for one in data["colourings"]}
    assert len(colours) == len(data["colourings"]) and "pca_0" in colours
    assert {"cluster", "z_0", "rlnCoordinateX", "rlnGroupName"} <= set(colours)
    assert not {"rlnHelicalTubeID", "rlnImageName", "name"} & set(colours)
    assert colours["rlnGroupName"]["categories"] == [f"group {k}" for k in range(4)]
    packed = colours["rlnCoordinateX"]["values"]
    codes = np.frombuffer(base64.b64decode(packed["codes"]), "<u2")
    x = packed["low"] + packed["step"] * codes
    np.testing.assert_allclose(x, 1.5 * np.array(data["index"]), atol=packed["step"])


def test_report_of_colour_without_pose(tmp_path: Path) -> None:
    path = tmp_path / "colour.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3)).astype(np.uint8))
    run = fit_run(
        open_source(path), config("vae", 2, normalize="range"), tmp_path / "run", quiet=True
    )
    text = build_report(run.path, quiet=True).read_text()
    assert '<section id="manifold">' in text
    assert '<section id="pose">' not in text
    assert '<section id="average">' not in text
    assert "row 0 at the top" in text


def test_report_of_volumes(tmp_path: Path) -> None:
    path = tmp_path / "volumes.npy"
    np.save(path, np.random.default_rng(0).normal(size=(30, 8, 8, 8)).astype(np.float32))
    run = fit_run(
        open_source(path, kind="volumes"), config("vae", 3, kind="volumes"), tmp_path / "run",
        quiet=True,
    )  # fmt: skip
    found = pngs(build_report(run.path, quiet=True).parent)
    assert {"reconstructions.png", "manifold.png", "traversals.png"} <= found


@pytest.mark.parametrize("recipe", ["spatial-vae-rotation", "spatial-vae-translation"])
def test_report_of_half_a_pose_and_of_no_content(images: Path, tmp_path: Path, recipe: str) -> None:
    run = fit_run(
        open_source(images), config(recipe, 0, normalize="image"), tmp_path / "run", quiet=True
    )
    found = pngs(build_report(run.path, quiet=True).parent)
    assert ("angles.png" in found) == (recipe == "spatial-vae-rotation")
    assert ("shifts.png" in found) == (recipe == "spatial-vae-translation")
    assert "average.png" in found
    assert "manifold.png" not in found


def test_report_of_a_model_fitted_to_an_array(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 12, 12)).astype(np.float32)
    model = PoseModel("spatial-vae", z_dim=1, options=SMALL, quiet=True).fit(x)
    run = model.save(tmp_path / "run")
    page = build_report(run.path, quiet=True)
    assert "array in memory" in page.read_text()
    found = pngs(page.parent)
    assert "manifold.png" in found
    assert "reconstructions.png" not in found


def test_known_truth_is_shown(tmp_path: Path) -> None:
    from modpose.simulate.particles import write_particles

    simulated = simulate_particles(HingeSettings(n=60, box=40, seed=0))
    star = write_particles(simulated, tmp_path / "sim")
    run = fit_run(
        open_source(star), config("spatial-vae", 1, normalize="image", box=20),
        tmp_path / "run", quiet=True,
    )  # fmt: skip
    page = build_report(run.path, quiet=True)
    assert {"truth-hinge.png", "truth-angle.png", "truth-shift.png"} <= pngs(page.parent)
    assert "hinge angle" in page.read_text()


@pytest.fixture
def bare(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run; its report is a page without sections, which is quick to make."""
    monkeypatch.setattr(build, "make_sections", lambda *_: [])
    return fit_run(open_source(images), config("vae", 1), tmp_path / "run", quiet=True).path


def test_pictures_come_in_the_order_asked_for(images: Path, bare: Path) -> None:
    rows = np.random.default_rng(1).permutation(60)[:31]
    expected = np.load(images)[rows]
    assert np.allclose(read_pictures(Run.open(bare).dataset(), rows, chunk=7), expected)


def test_alignment_undoes_the_pose_that_the_model_draws(images: Path, tmp_path: Path) -> None:
    run = fit_run(
        open_source(images), config("spatial-vae", 2, normalize="image"), tmp_path / "r", quiet=True
    )
    material = gather.gather(run, run.latents())
    rows = material.rows[: len(material.posed)]
    upright = material.decode(material.z[rows])
    aligned, inside = grids.align(material.posed, *material.pose_of(rows))
    spread = upright.std()
    assert spread > 0
    assert inside.mean() > 0.5
    assert np.abs((aligned - upright) * inside).max() < 0.1 * spread
    angle, shift, *_ = material.pose_of(rows)
    backwards, reached = grids.align(material.posed, -angle, shift)
    assert np.abs((backwards - upright) * reached).max() > 0.5 * spread


def test_refusals_leave_everything_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        build_report(tmp_path / "absent")
    with pytest.raises(InputError, match="not a modpose run folder"):
        build_report(tmp_path)


def test_a_new_report_replaces_the_old_one_whole(bare: Path) -> None:
    page = build_report(bare, quiet=True)
    listed = page.parent / ".files.json"
    names = json.loads(listed.read_text())["files"]
    assert {*names, listed.name} == {p.name for p in page.parent.iterdir()}
    (page.parent / "stale.png").write_bytes(b"")
    (page.parent / "mine.png").write_bytes(b"mine")
    listed.write_text(json.dumps({"files": [*names, "stale.png", "../config.yaml"]}))
    with pytest.raises(InputError, match="already exists"):
        build_report(bare, overwrite=False, quiet=True)
    assert (page.parent / "stale.png").exists()
    build_report(bare, quiet=True)
    assert not (page.parent / "stale.png").exists()
    assert (page.parent / "mine.png").read_bytes() == b"mine"
    assert (bare / "config.yaml").is_file()
    assert {p.name for p in page.parent.iterdir()} == {*names, listed.name, "mine.png"}


def test_a_report_of_an_older_version_is_replaced_and_a_figure_of_the_user_is_not(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Picture.of(figures.new_figure(1, 1), "one.png", "nothing")
    section = Section("one", "One", "Nothing.", pictures=[picture])
    monkeypatch.setattr(build, "make_sections", lambda *_: [section])
    page = build_report(bare, quiet=True)
    (page.parent / ".files.json").unlink()
    older = f"modpose {base64.b64encode(picture.png).decode()}"  # that page held the PNG itself
    page.write_text(older, encoding="utf-8")
    figure = next(page.parent.glob("*.png"))
    (page.parent / "mine.png").write_bytes(b"mine")
    build_report(bare, quiet=True)
    assert (page.parent / "mine.png").read_bytes() == b"mine"
    (page.parent / ".files.json").write_text('{"files": ["index.html"]}')
    figure.write_bytes(b"mine, too")
    with pytest.raises(InputError, match="is not a file of a report"):
        build_report(bare, quiet=True)
    assert figure.read_bytes() == b"mine, too"


def test_what_a_killed_report_left_is_no_obstacle(bare: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = bare / "report" / f".modpose.{ended.pid}.part"
    left.mkdir(parents=True)
    (left / "index.html").write_text("half")
    (bare / "report" / ".lock").write_text("{}")
    page = build_report(bare, quiet=True)
    assert {path.name for path in page.parent.iterdir()} == {"index.html", ".files.json"}


def test_a_folder_that_is_no_report_is_not_replaced(bare: Path) -> None:
    mine = bare / "report" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match="is no report"):
        build_report(bare, quiet=True)
    assert mine.read_text() == "mine"


def test_a_failure_leaves_the_old_report(bare: Path, monkeypatch) -> None:
    page = build_report(bare, quiet=True)
    before = page.read_bytes()

    def full_disk(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        build_report(bare, quiet=True)
    assert page.read_bytes() == before
    assert [p.name for p in bare.iterdir() if p.name.startswith(".report")] == []
