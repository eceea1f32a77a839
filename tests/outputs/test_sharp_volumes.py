"""Sharp maps on the command line: computed once, kept, drawn with what belongs to them."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from modpose.cli import main
from modpose.content_maps.files import COMPANIONS, read_content_maps
from modpose.content_maps.fit import _Fitting
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.outputs.content_maps import content_maps_of, stored_content_maps
from modpose.outputs.volumes import Stops, at_file, content_name, write_volumes
from modpose.run import Run

CONTENT_MAPS = "content_maps.safetensors"


def run_cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as leaving:
        main([str(one) for one in arguments])
    return int(leaving.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated particles that move, and a run fitted to them."""
    place = tmp_path_factory.mktemp("sharp")
    simulate = ["simulate", "projections", "-o", place / "data", "--images", 100, "--snr", 1]
    assert run_cli(*simulate, "--box", 16, "--pixel-size", 10, "--ctf") == 0
    star = place / "data" / "particles.star"
    few = ["--epochs", 1, "--z-dim", 2, "--set", "model.field.motions=2"]
    assert run_cli("fit", star, "-o", place / "run", *few) == 0
    return place


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Path:
    out = folder / "drawn"
    assert run_cli("volumes", folder / "run", "-o", out, "--along", 1, "--steps", 2) == 0
    return out


def test_each_volume_has_half_maps_a_curve_and_a_local_resolution(drawn: Path) -> None:
    for volume in ("volume-001", "volume-002"):
        for name in COMPANIONS:
            assert (drawn / f"{volume}-{name}").is_file()
        with mrcfile.open(drawn / f"{volume}.mrc") as file:
            assert file.data.shape == (16, 16, 16)
            assert file.voxel_size.x == pytest.approx(10.0)
    quality = pd.read_csv(drawn / "quality.csv")
    assert list(quality) == ["volume", "images", "resolution_A"]
    assert (quality["images"] <= 100).all() and (quality["resolution_A"] >= 20).all()
    local = mrcfile.read(drawn / "volume-001-resolution.mrc")
    assert local.max() <= 160 and local[local > 0].min() >= 20


def test_the_solution_is_kept_and_used_again(folder: Path, drawn: Path) -> None:
    kept = folder / "run" / CONTENT_MAPS
    before = kept.stat().st_mtime_ns
    again = folder / "again"
    assert run_cli("volumes", folder / "run", "-o", again, "--along", 1, "--steps", 2) == 0
    assert kept.stat().st_mtime_ns == before
    one, other = (mrcfile.read(place / "volume-001.mrc") for place in (drawn, again))
    np.testing.assert_array_equal(one, other)


def test_a_kept_solution_needs_no_images(folder: Path, drawn: Path) -> None:
    run = Run.open(folder / "run")
    found = stored_content_maps(run)
    assert found is not None and found.z.shape == found.std.shape and (found.std >= 0).all()
    assert len(found.z) == 100
    assert found.draw(found.z[3]).images > 0
    latents = run.latents()
    assert sum(name.startswith("sharp_") for name in latents) == 2 * found.z.shape[1]
    np.testing.assert_array_equal(latents["sharp_1"], found.z[:, 1])
    np.testing.assert_array_equal(latents["sharp_0_std"], found.std[:, 0])


def test_the_number_of_functions_can_be_given(
    folder: Path, drawn: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run.open(folder / "run")
    try:
        assert len(content_maps_of(run, functions=2, quiet=True).basis) == 2
        assert len(content_maps_of(run, functions=2, quiet=True).basis) == 2
        assert "computed with" not in caplog.text
        assert len(content_maps_of(run, quiet=True).basis) == 2  # the kept one
        assert "these sharp maps are used, which were computed with --functions" in caplog.text
        content_maps_of(run, functions=2, refine_poses=True, quiet=True)
        assert "--refine-poses has" not in caplog.text
        content_maps_of(run, functions=1, refine_poses=True, quiet=True)
        assert "--refine-poses has corrected no pose: content has 1 function(s)" in caplog.text
    finally:
        content_maps_of(run, overwrite=True, quiet=True)


def test_a_focus_is_drawn_and_columns_of_other_content_are_removed(
    folder: Path, drawn: Path, tmp_path: Path
) -> None:
    region = np.zeros((16, 16, 16), np.float32)
    region[6:10, 6:10, 8:12] = 1.0
    with mrcfile.new(tmp_path / "focus.mrc") as file:
        file.set_data(region)
    run, choice = folder / "run", ["--along", 1, "--steps", 2, "--focus", tmp_path / "focus.mrc"]
    try:
        assert run_cli("volumes", run, "-o", tmp_path / "out", *choice, "--refine-poses") == 0
        found = stored_content_maps(Run.open(run))
        assert found is not None and found.focus is not None and found.pose is not None
        ours = {name for name in Run.open(run).latents() if name.startswith("sharp_")}
        axes = range(found.z.shape[1])
        expected = {f"sharp_{k}" for k in axes} | {f"sharp_{k}_std" for k in axes}
        assert ours == expected | {"sharp_turn_deg", "sharp_move_px"}
    finally:  # and back to maps without a focus
        choice = ["--along", 1, "--steps", 2, "--maps", "new", "--overwrite"]
        assert run_cli("volumes", run, "-o", tmp_path / "out", *choice) == 0
    found = stored_content_maps(Run.open(run))
    assert found is not None and found.focus is None
    assert "sharp_turn_deg" not in Run.open(run).latents()


def test_what_cannot_be_drawn_is_refused_before_the_sums(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / CONTENT_MAPS).unlink(missing_ok=True)
    monkeypatch.setattr(_Fitting, "run", lambda *_: pytest.fail("summed"))
    (tmp_path / "z.csv").write_text("1,2,3\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "strip.png").touch()
    for out, choice, said in (
        ("new", ["--along", 3], "the component is 3, expected 1 to 2"),
        ("new", ["--at", tmp_path / "z.csv"], "expected 2 numbers"),
        ("new", ["--path", "3..100"], "the image is 100, expected 0 to 99"),
        ("full", ["--cluster", 1], "strip.png: already exists"),
        ("new", ["--cluster", 2, "--steps", 5], "--steps is given with --cluster, expected --al"),
        ("new", ["--at", tmp_path / "z.csv", "--steps", 5], "--steps is given with --at"),
        ("new", ["--along", 1, "--symmetry", "C3"], "like its average over C3 about z, expected"),
        ("new", ["--along", 1, "--symmetry", "I2"], "like its average over I2 about z, expected"),
    ):
        assert run_cli("volumes", tmp_path / "run", "-o", tmp_path / out, *choice) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_content_of_sharp_maps_is_not_taken_for_that_of_the_run(
    folder: Path, drawn: Path, tmp_path: Path
) -> None:
    run = Run.open(folder / "run")
    found = stored_content_maps(run)
    assert found is not None
    own, kept = replace(found, z=found.z + 1.0), replace(found, z=run.content())
    assert [content_name(run, maps) for maps in (own, kept, None)] == ["sharp", "z", "z"]
    stops = Stops(own.z[:2], ["a", "b"])
    write_volumes(run, stops, tmp_path / "out", content_maps=own, quiet=True)
    count = stops.z.shape[1]
    again = at_file(tmp_path / "out" / "content.csv", count, "sharp")
    np.testing.assert_allclose(again.z, stops.z, rtol=1e-5)  # six digits are written
    for text in ("z_0,z_1\n1,2\n", "1,2\n"):
        (tmp_path / "z.csv").write_text(text)
        with pytest.raises(InputError, match="the content of these maps; or --maps model"):
            at_file(tmp_path / "z.csv", count, "sharp")


def test_without_images_the_model_is_drawn_and_a_note_says_so(
    folder: Path, tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, images = folder / "run", folder / "data" / "particles.mrcs"
    kept = (run / CONTENT_MAPS).rename(tmp_path / "kept")
    images.rename(tmp_path / "moved")
    try:
        choice = ["volumes", run, "-o", tmp_path / "out", "--along", 1, "--steps", 2]
        assert run_cli(*choice) == 0
        assert "maps of the model" in capsys.readouterr().err
        assert not (tmp_path / "out" / "quality.csv").exists()
        assert run_cli(*choice, "--maps", "sharp", "--overwrite") == 2
    finally:
        (tmp_path / "moved").rename(images)
        kept.rename(run / CONTENT_MAPS)


def test_volumes_of_the_model_replace_sharp_ones_whole(folder: Path, drawn: Path) -> None:
    out = folder / "replaced"
    choice = ["volumes", folder / "run", "-o", out, "--along", 1, "--steps", 2]
    assert run_cli(*choice) == 0
    assert run_cli(*choice, "--maps", "model", "--overwrite") == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["content.csv", "series.cxc", "strip.png", "volume-001.mrc", "volume-002.mrc"]


def test_maps_of_hardly_any_image_are_said(
    folder: Path, drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The sums of images tell how many are near; a thousandth of 100 images is less than one."""
    run = Run.open(folder / "run")
    found = stored_content_maps(run)
    assert found is not None
    stops = Stops(found.z[:2], ["a", "b"])
    write_volumes(run, stops, tmp_path / "all", content_maps=found, quiet=True)
    assert ("say little" in caplog.text) == any(found.images(z) < 5 for z in stops.z)
    caplog.clear()
    few = replace(found, moment=found.moment / 1000)
    write_volumes(run, stops, tmp_path / "few", content_maps=few, quiet=True)
    assert "fewer than 5 images are near the content of volume-001.mrc, volume-002" in caplog.text


def test_damaged_maps_and_wrong_masks_are_named(
    folder: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mrcfile.new(tmp_path / "mask.mrc") as file:
        file.set_data(np.ones((8, 8, 8), np.float32))
    choice = ["volumes", folder / "run", "-o", tmp_path / "out", "--along", 1]
    assert run_cli(*choice, "--mask", tmp_path / "mask.mrc") == 2
    assert "8 x 8 x 8, expected 16 x 16 x 16" in capsys.readouterr().err
    assert run_cli(*choice, "--mask", tmp_path / "none.mrc") == 2
    assert run_cli(*choice, "--maps", "model", "--functions", 3) == 2
    assert run_cli(*choice, "--focus", tmp_path / "mask.mrc") == 2
    assert run_cli(*choice, "--focus", tmp_path / "none.mrc") == 2
    assert run_cli(*choice, "--maps", "model", "--refine-poses") == 2
    kept = folder / "run" / CONTENT_MAPS
    raw = kept.read_bytes()
    try:
        kept.write_bytes(raw[:-100])
        assert run_cli(*choice, "--maps", "sharp") in (0, 2)
        read_content_maps(kept)
    finally:
        kept.write_bytes(raw)


def test_content_dimensions_beyond_six_need_no_other_option(folder: Path, tmp_path: Path) -> None:
    star = folder / "data" / "particles.star"
    assert run_cli("fit", star, "-o", tmp_path / "run", "--epochs", 1, "--z-dim", 10) == 0


def test_a_disk_without_space_is_told_before_the_work(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = namedtuple("small", "total used free")(2000, 1000, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: small)
    out, run = tmp_path / "out", folder / "run"
    for choice in (["--maps", "model"], ["--functions", 3]):
        assert run_cli("volumes", run, "-o", out, "--along", 1, *choice) == 2
        assert "the free space of the disk is 1e-06 GB, expected" in capsys.readouterr().err
        assert not out.exists()
    star = folder / "data" / "particles.star"
    for words in (["simulate", "projections", "--images", 10], ["fit", star, "--epochs", 1]):
        assert run_cli(*words, "-o", out) == 2
        assert "the free space of the disk is 1e-06 GB, expected" in capsys.readouterr().err
        assert not out.exists()


def test_a_symmetry_of_the_fit_is_that_of_all_maps(folder: Path, tmp_path: Path) -> None:
    few = ["--epochs", 1, "--z-dim", 2, "--set", "model.field.motions=2"]
    group = ["--set", "model.field.symmetry=C2"]
    star, run = folder / "data" / "particles.star", tmp_path / "run"
    assert run_cli("fit", star, "-o", run, *few, *group) == 0
    opened = Run.open(run)
    made = PoseModel.load(run).decode(opened.content()[:1])[0]
    sharp = content_maps_of(opened, quiet=True)
    for volume in (made, sharp.volume(sharp.z[0])):
        inner = np.asarray(volume)[1:, 1:, 1:]  # about n // 2: the first row has no partner
        turned = inner[:, ::-1, ::-1]
        assert np.linalg.norm(inner - turned) < 0.02 * np.linalg.norm(inner)
    again = content_maps_of(opened, symmetry="C1", quiet=True)
    assert np.abs(again.bands[0].maps - sharp.bands[0].maps[: len(again.basis)]).max() > 0
