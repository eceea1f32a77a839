"""Posed particles the whole way: fit, report, volumes, on the command line."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from modpose import PoseModel
from modpose.cli import main
from modpose.errors import InputError
from modpose.outputs.volumes import along_component, along_path, at_clusters, at_file, mirrored
from modpose.run import Run

FIT = ["--epochs", "1", "--batch-size", "16", "--set", "model.field.hidden=8"]


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(list(arguments))
    return int(leaving.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated particles and a run fitted to them."""
    place = tmp_path_factory.mktemp("posed")
    simulate = ["simulate", "projections", "-o", str(place / "data"), "--images", "40"]
    assert run_cli(*simulate, "--box", "16", "--pixel-size", "10", "--ctf") == 0
    star = str(place / "data" / "particles.star")
    assert run_cli("fit", star, "-o", str(place / "run"), "--recipe", "cryodrgn", *FIT) == 0
    return place


def test_the_run_has_the_given_poses(folder: Path) -> None:
    run = Run.open(folder / "run")
    table, dataset = run.latents(), run.dataset()
    assert dataset.rotation is not None and dataset.translation is not None
    np.testing.assert_allclose(table["r20"], dataset.rotation[:, 2, 0], atol=1e-6)
    np.testing.assert_allclose(table["shift_x"], dataset.translation[:, 0], atol=1e-6)
    assert run.content().shape == (40, 8)
    assert (table["kl_pose"] == 0).all() and np.isfinite(table["elbo"]).all()


def test_a_loaded_model_encodes_and_draws(folder: Path) -> None:
    model = PoseModel.load(folder / "run")
    found = model.encode(folder / "data" / "particles.star")
    np.testing.assert_allclose(found.z, Run.open(folder / "run").content(), atol=1e-5)
    assert model.reconstruct(folder / "data" / "particles.star").shape == (40, 16, 16)
    assert model.sample(2).shape == (2, 16, 16, 16)


def test_the_report_shows_volumes_and_no_poses_in_the_plane(folder: Path) -> None:
    assert run_cli("report", str(folder / "run")) == 0
    page = (folder / "run" / "report" / "index.html").read_text()
    for anchor in ("conformations", "content", "truth", "reconstructions", "learning"):
        assert f'id="{anchor}"' in page, anchor
    for anchor in ("average", "pose", "symmetry", "manifold"):
        assert f'id="{anchor}"' not in page, anchor


@pytest.mark.parametrize(
    ("choice", "count"),
    [(["--along", "1", "--steps", "3"], 3), (["--cluster", "2"], 2), (["--path", "0..5"], 10)],
)
def test_volumes_are_written_with_their_pixel_size(
    folder: Path, tmp_path: Path, choice: list[str], count: int
) -> None:
    assert run_cli("volumes", str(folder / "run"), "-o", str(tmp_path), *choice) == 0
    maps = sorted(tmp_path.glob("*.mrc"))
    assert len(maps) == count and (tmp_path / "strip.png").stat().st_size > 1000
    content = pd.read_csv(tmp_path / "content.csv")
    with mrcfile.open(maps[-1]) as file:
        assert file.is_volume() and file.voxel_size.x == pytest.approx(10.0)
        drawn = PoseModel.load(folder / "run").decode(content.to_numpy()[-1:])
        np.testing.assert_allclose(file.data, drawn[0], atol=1e-4 * np.abs(drawn).max())


def test_the_other_hand_is_the_mirror_image(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "z.csv").write_text(",".join(["0.5"] * 8) + "\n")
    both = [str(folder / "run"), "--at", str(tmp_path / "z.csv"), "-o"]
    assert run_cli("volumes", *both, str(tmp_path / "a")) == 0
    assert run_cli("volumes", *both, str(tmp_path / "b"), "--flip-hand") == 0
    one, other = (mrcfile.read(tmp_path / name / "volume-001.mrc") for name in "ab")
    np.testing.assert_array_equal(other, mirrored(one))
    np.testing.assert_array_equal(mirrored(other), one)
    np.testing.assert_array_equal(other[8], one[8])  # the plane through the centre stays
    np.testing.assert_array_equal(other[9], one[7])


def test_nothing_is_overwritten_silently(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = ["volumes", str(folder / "run"), "-o", str(tmp_path), "--along", "1", "--steps", "2"]
    assert run_cli(*choice) == 0
    assert run_cli(*choice) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_cli(*choice, "--overwrite") == 0


def test_exactly_one_way_is_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("volumes", str(folder / "run"), "-o", "x") == 2
    assert "one of --at" in capsys.readouterr().err


def test_too_few_images_to_find_poses_are_told_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(folder / "data" / "particles.mrcs")
    assert run_cli("fit", images, "-o", str(tmp_path / "run"), "--recipe", "cryodrgn", *FIT) == 2
    answer = capsys.readouterr().err
    assert "without poses: these are found first" in answer
    assert "the number of images is 40, expected at least 100" in answer
    assert not (tmp_path / "run").exists()


# --- where volumes are drawn ------------------------------------------------------------------


def test_a_component_is_walked_through_the_mean() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal([1.0, 2.0, 3.0], [0.1, 3.0, 0.5], (500, 3))
    walk = along_component(z, 1, 5).z
    assert np.ptp(walk[:, 1]) > 8 and np.ptp(walk[:, 0]) < 0.5
    low, high = np.percentile(z[:, 1], [5, 95])
    np.testing.assert_allclose(sorted(walk[[0, -1], 1]), [low, high], atol=0.1)
    with pytest.raises(InputError, match="1 to 3"):
        along_component(z, 4, 5)


def test_a_component_of_a_ring_is_followed_where_images_are() -> None:
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 3000)
    z = 0.3 * rng.standard_normal((3000, 3))
    z[:, :2] += np.stack([12 * np.cos(angle), 8 * np.sin(angle)], 1)
    walk = along_component(z, 1, 9, np.ones_like(z))
    on_ellipse = np.hypot(walk.z[:, 0] / 12, walk.z[:, 1] / 8)
    assert np.abs(on_ellipse - 1).max() < 0.1
    assert np.ptp(walk.z[:, 0]) > 20
    assert (np.diff(walk.z[:, 0]) > 0).all() or (np.diff(walk.z[:, 0]) < 0).all()
    far = np.linalg.norm(np.diff(walk.z, axis=0), axis=1)
    assert far.max() < 1.5 * far.min()  # it does not jump
    straight = along_component(z, 1, 9).z
    assert np.abs(np.hypot(straight[:, 0] / 12, straight[:, 1] / 8)).min() < 0.1


def test_a_component_of_states_stops_at_states_alone() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[-10.0, 0, 0], [0, 1, 0], [10, 0, 0]])
    z = centres[rng.integers(3, size=900)] + 0.3 * rng.standard_normal((900, 3))
    for component in (1, 3):  # along the states, and within them
        walk = along_component(z, component, 5, np.ones_like(z))
        far = np.linalg.norm(walk.z[:, None] - centres, axis=2).min(1)
        assert (far < 1.5).all()
        assert walk.names[0].startswith(f"PC {component} at ")
    first = along_component(z, 1, 5, np.ones_like(z)).z[:, 0]
    assert np.ptp(first) > 18


def test_centres_are_images() -> None:
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(c, 0.1, (30, 2)) for c in ((0, 0), (5, 0), (0, 5))])
    stops = at_clusters(z, 3, seed=0)
    assert all((stop == z).all(1).any() for stop in stops.z)
    assert sorted(np.round(stops.z).tolist()) == [[0, 0], [0, 5], [5, 0]]
    assert all("30 images" in name for name in stops.names)


def test_a_path_goes_straight_from_image_to_image() -> None:
    z = np.arange(8.0).reshape(4, 2)
    np.testing.assert_allclose(along_path(z, "1..3", 3).z, [[2, 3], [4, 5], [6, 7]])
    for wrong, named in (("1-3", "3..120"), ("1..9", "0 to 3")):
        with pytest.raises(InputError, match=named):
            along_path(z, wrong, 3)


@pytest.mark.parametrize(
    "text", ["1 2\n3 4\n", "a,b\n1,2\n3,4", "1;2\n\n3;4", "z_1,x,z_0\n2,b,1\r\n4,c,3"]
)
def test_content_is_read_from_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "z.csv"
    path.write_text(text)
    np.testing.assert_array_equal(at_file(path, 2).z, [[1, 2], [3, 4]])


@pytest.mark.parametrize("text", ["1,2,3\n", "", "1,x\n1,y\n", "1,nan\n1,inf\n", "z_0,x\n1,2"])
def test_content_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "z.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"z\.csv"):
        at_file(path, 2)
