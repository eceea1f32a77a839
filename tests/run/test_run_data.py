"""A run and its images, opened again: followed in any order, refused where they changed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from modpose import InputError, PoseModel, Run, fit_run, open_source, resume_run
from modpose.config import Config, merge, parse_config
from modpose.data.dataset import dataset_of
from modpose.data.recognise import check_used
from modpose.data.record import LEAST_SAMPLED, SAMPLED, column_sums, pixel_sums, record_of, sampled
from modpose.data.stack import ArrayStack
from modpose.data.star import write_star
from modpose.data.tables import read_particles
from modpose.recipes import recipe_config
from modpose.run.folder import MARKER, check_target, sha256
from modpose.run.pretrained import content_of, first_fingerprint
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import ProjectionSettings, simulate_projections

STORED = Path(__file__).parents[1] / "stored_runs"
N = 24
ORDER = np.random.default_rng(5).permutation(N)
TINY: dict[str, Any] = {
    "model": {"z_dim": 1, "encoder": {"hidden": 8}, "field": {"hidden": 8}, "ctf": "auto"},
    "train": {"epochs": 2, "batch_size": 8, "pixels": 50, "accelerator": "cpu"},
}


def tiny(recipe: str = "cryodrgn", **sections: Any) -> Config:
    values = merge(merge(recipe_config(recipe), TINY), sections)
    return parse_config(values, recipe)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    settings = ProjectionSettings(n=N, box=16, pixel_size=10.0, seed=1, ctf=True)
    star = write_projections(simulate_projections(settings), folder)
    rewrite(star, lambda table: table.assign(rlnClassNumber=np.arange(N) % 3 + 1))
    return star


@pytest.fixture(scope="module")
def first(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fit a run with given poses and a CTF, in a folder with its data."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(simulated.parent, folder / "data")
    star = folder / "data" / simulated.name
    fit_run(open_source(star), tiny(), folder / "run", labels="rlnClassNumber", quiet=True)
    return folder


@pytest.fixture
def project(first: Path, tmp_path: Path) -> Path:
    """Copy the run and its data to where a test may change them."""
    folder = tmp_path / "project"
    shutil.copytree(first, folder)
    environment = json.loads((folder / "run" / "environment.json").read_text())
    environment["input"] = str(folder / "data" / Path(environment["input"]).name)
    (folder / "run" / "environment.json").write_text(json.dumps(environment))
    return folder


def star_of(project: Path) -> Path:
    return Path(Run.open(project / "run").environment["input"])


def rewrite(
    path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], out: Path | None = None
) -> None:
    particles = read_particles(path)
    write_star(out or path, change(particles.table.copy()), particles.optics, overwrite=True)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[ORDER].reset_index(drop=True)


def encoded(project: Path) -> NDArray[np.float32]:
    run = Run.open(project / "run")
    return PoseModel.load(run.path).encode(run.dataset().source).z


# --- what is followed -------------------------------------------------------------------------


def test_a_table_in_another_order_is_followed(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run.open(project / "run")
    before = run.dataset()
    rewrite(star_of(project), in_order)
    with caplog.at_level(logging.INFO):
        after = run.dataset()
    assert "found by name" in caplog.text
    names = [str(name) for name in before.source.particles.column("rlnImageName")]
    assert after.source.particles.column("rlnImageName").tolist() == names
    everything = np.arange(N)
    then, now = before.batch(everything), after.batch(everything)
    assert then.ctf is not None and now.ctf is not None
    assert then.pose is not None and now.pose is not None
    assert torch.equal(then.image, now.image) and torch.equal(then.ctf, now.ctf)
    assert all(map(torch.equal, then.pose, now.pose))
    np.testing.assert_allclose(
        encoded(project)[:, 0], run.latents()["z_0"].to_numpy(), rtol=1e-5, atol=1e-6
    )
    assert after.source.selection is not None  # where they are now, as select needs it
    assert ORDER[after.source.selection].tolist() == list(range(N))


def test_resuming_follows_a_table_in_another_order(project: Path) -> None:
    other = Path(shutil.copytree(project / "run", project / "other"))
    longer = resume_run(project / "run", epochs=4, quiet=True)
    rewrite(star_of(project), in_order)
    followed = resume_run(other, epochs=4, quiet=True)
    pd.testing.assert_frame_equal(longer.latents(), followed.latents())


def test_a_table_that_grew_is_cut_to_the_images_of_the_run(project: Path) -> None:
    star = star_of(project)
    images = open_source(star).stack.read(np.arange(N))
    some = project / "data" / "some.star"
    rewrite(star, lambda table: table.iloc[[3, 7, 11, 2, 9, 20, 21, 22, 23, 1]], some)
    run = fit_run(open_source(some), tiny(), project / "part", quiet=True)
    rewrite(star, in_order, some)
    opened = run.dataset()
    np.testing.assert_array_equal(
        opened.source.stack.read(np.arange(10)), images[[3, 7, 11, 2, 9, 20, 21, 22, 23, 1]]
    )


def test_rows_of_an_index_are_found_by_name(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    star, index = star_of(project), project / "index.txt"
    index.write_text("3 7 11 2 9 20 21 22 23 1\n")
    rows = [3, 7, 11, 2, 9, 20, 21, 22, 23, 1]
    images = open_source(star).stack.read(np.array(rows))
    run = fit_run(open_source(star, index=index), tiny(), project / "part", index=index, quiet=True)
    rewrite(star, in_order)
    np.testing.assert_array_equal(run.dataset().source.stack.read(np.arange(10)), images)
    index.write_text("1 2 3\n")
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(run.dataset().source.stack.read(np.arange(10)), images)
    assert f"{index}: has changed since the fit" in caplog.text
    index.unlink()
    assert run.dataset().n == 10


def test_repeated_images_are_told_apart_by_their_occurrence(project: Path) -> None:
    star, double = star_of(project), project / "data" / "double.star"

    def expanded(table: pd.DataFrame) -> pd.DataFrame:
        turned = table.assign(rlnAnglePsi=table["rlnAnglePsi"] + 60)
        return pd.concat([table, turned]).reset_index(drop=True)

    rewrite(star, expanded, double)
    run = fit_run(open_source(double), tiny(), project / "double", quiet=True)
    before = run.dataset().rotation
    rewrite(double, lambda table: table.iloc[np.r_[ORDER, N + ORDER]])
    after = run.dataset().rotation
    assert before is not None and after is not None
    np.testing.assert_array_equal(before, after)
    rewrite(double, lambda table: table.iloc[::-1])  # the second now comes first
    with pytest.raises(InputError, match="rotation was"):
        run.dataset()


def test_columns_that_the_run_does_not_use_may_change(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(star_of(project), lambda table: table.assign(rlnCoordinateX=1.0, wordy="added"))
    rewrite(star_of(project), lambda table: table.assign(modposeTruthHinge=0.0))
    with caplog.at_level(logging.INFO):
        assert Run.open(project / "run").dataset().n == N
    said = [record.message for record in caplog.records]
    noted = [text for text in said if "nothing that it used" in text]
    assert len(noted) == 1 and "rlnCoordinateX" not in noted[0]


def test_images_that_moved_are_opened_where_they_are(project: Path) -> None:
    run = Run.open(project / "run")
    star = star_of(project)
    (project / "data").rename(project / "elsewhere")
    with pytest.raises(InputError, match="no such file"):
        run.dataset()
    moved = project / "elsewhere" / star.name
    assert run.dataset(moved).n == N
    longer = resume_run(run.path, epochs=3, input=moved, quiet=True)
    assert longer.dataset().n == N
    images = open_source(moved).stack.read(np.arange(N))
    with pytest.raises(InputError, match="does not name its images"):
        run.dataset(images[:, 0])


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("rlnDefocusU", r"the CTF \(defocus u\) was .*rlnDefocusU"),
        ("rlnAngleTilt", r"the rotation was .*rlnAngleTilt"),
        ("rlnOriginXAngst", r"the shift was .*rlnOriginXAngst"),
        ("rlnClassNumber", "rlnClassNumber, the labels of the run, was"),
    ],
)
def test_a_column_that_the_run_uses_may_not_change(
    project: Path, column: str, expected: str
) -> None:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[4, column] = float(table[column].iloc[4]) + 3
        return table

    if column not in read_particles(star_of(project)).table:
        pytest.skip(f"the simulator writes no {column}")
    rewrite(star_of(project), changed)
    run = Run.open(project / "run")
    with pytest.raises(InputError, match=expected) as refused:
        run.dataset()
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    rewrite(star_of(project), in_order)
    with pytest.raises(InputError, match=expected):
        run.dataset()


def test_poses_and_ctf_from_files_are_followed_and_compared(project: Path) -> None:
    star, poses = star_of(project), project / "refined.star"
    shutil.copy(star, poses)
    stack = next(open_source(star).stack.files())
    opened = open_source(stack, poses=poses, ctf=poses)
    run = fit_run(opened, tiny(), project / "bare", poses=poses, ctf=poses, quiet=True)
    before = run.dataset()
    rewrite(poses, in_order)
    after = run.dataset()
    assert before.rotation is not None and before.ctf is not None
    np.testing.assert_array_equal(before.rotation, after.rotation)
    np.testing.assert_array_equal(before.ctf, after.ctf)
    rewrite(poses, lambda table: table.assign(rlnAnglePsi=table["rlnAnglePsi"].to_numpy()[::-1]))
    with pytest.raises(InputError, match="rotation was"):
        run.dataset()
    shutil.copy(star, poses)
    rewrite(poses, lambda table: table.assign(rlnDefocusU=table["rlnDefocusU"] + 50))
    with pytest.raises(InputError, match="defocus u"):
        run.dataset()
    rewrite(poses, lambda table: table.iloc[1:])
    with pytest.raises(InputError):
        run.dataset()


def test_wedge_masks_that_changed_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = rng.standard_normal((12, 8, 8, 8)).astype(np.float32)
    masks = np.ones((12, 8, 8, 8), np.float32)
    masks[:, :, :2] = 0
    np.save(tmp_path / "volumes.npy", volumes)
    np.save(tmp_path / "masks.npy", masks)
    values = merge(recipe_config("modpose-3d"), {"model": {"wedge": str(tmp_path / "masks.npy")}})
    config = parse_config(values, "modpose-3d")
    dataset = dataset_of(open_source(tmp_path / "volumes.npy"), config)
    record = record_of(dataset)
    check_used(record, dataset_of(open_source(tmp_path / "volumes.npy"), config))
    masks[11, :, :3] = 0
    np.save(tmp_path / "masks.npy", masks)
    with pytest.raises(InputError, match="image 12: the wedge mask was"):
        check_used(record, dataset_of(open_source(tmp_path / "volumes.npy"), config))


def test_the_pixel_size_and_a_meaning_of_pixels_may_not_change(project: Path) -> None:
    star, run = star_of(project), Run.open(project / "run")
    particles = read_particles(star)
    assert particles.optics is not None
    optics = particles.optics.copy()
    optics["rlnImagePixelSize"] = 11.0
    write_star(star, particles.table, optics, overwrite=True)
    with pytest.raises(InputError, match=r"rlnImagePixelSize|pixel size"):
        run.dataset()


def test_replaced_pixels_and_files_are_refused(project: Path) -> None:
    run = Run.open(project / "run")
    stack = next(run.dataset().source.stack.files())
    raw = stack.read_bytes()
    stack.write_bytes(raw[:-8] + b"\0\0\0\x40" + raw[-4:])  # one number of the last image
    with pytest.raises(InputError, match="image 24: its pixels changed"):
        run.dataset()
    stack.write_bytes(raw)
    assert run.dataset().n == N


def test_a_file_of_another_size_is_refused_unless_all_of_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).standard_normal((40, 16, 16)).astype(np.float32)
    path = tmp_path / "stack.npy"
    config = tiny("spatial-vae", model={"ctf": "off"}, train={"epochs": 1})
    for whole in (True, False):
        np.save(path, images)
        with monkeypatch.context() as patch:
            patch.setattr("modpose.data.record.WHOLE_BYTES", 2**24 if whole else 0)
            patch.setattr("modpose.data.record.SAMPLED", 8)
            run = fit_run(open_source(path), config, tmp_path / str(whole), quiet=True)
        assert run.dataset().n == 40
        np.save(path, images.astype(np.float64))  # the same numbers
        if whole:
            assert run.dataset().n == 40
        else:
            with pytest.raises(InputError, match=r"has 82048 bytes and had 41088"):
                run.dataset()


def test_a_table_with_other_rows_is_refused(project: Path) -> None:
    rewrite(star_of(project), lambda table: table.iloc[:-3])
    with pytest.raises(InputError, match=r"3 of the 24 images of the run are missing.*22@"):
        Run.open(project / "run").dataset()


@pytest.mark.parametrize("n", [40, 700])
def test_a_bare_stack_whose_images_were_permuted_is_refused(n: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((n, 16, 16)).astype(np.float32)
    path = tmp_path / "stack.npy"
    np.save(path, images)
    config = tiny("spatial-vae", model={"ctf": "off"}, train={"epochs": 1})
    run = fit_run(open_source(path), config, tmp_path / "run", quiet=True)
    order = np.random.default_rng(1).permutation(n)
    np.save(path, images[order])
    with pytest.raises(InputError, match="replaced or re-ordered"):
        run.dataset()
    np.save(path, images[: n - 1])
    with pytest.raises(InputError, match="are missing"):
        run.dataset()
    np.save(path, images)
    path.rename(tmp_path / "other_name.npy")
    assert run.dataset(tmp_path / "other_name.npy").n == n
    assert run.dataset(images).n == n


# --- models in memory -------------------------------------------------------------------------


def test_a_lookup_table_never_gives_an_image_the_row_of_another() -> None:
    images = np.random.default_rng(0).standard_normal((40, 16, 16)).astype(np.float32)
    config = tiny("spatial-vae").model_dump(mode="json")
    options = {
        "model": config["model"] | {"ctf": "off", "encoder": {"kind": "table"}},
        "train": config["train"],
        "data": {"val_fraction": 0.0},
    }
    model = PoseModel("spatial-vae", options=options, quiet=True).fit(images)
    assert model._fitted_to(model.dataset(images))
    swapped = images.copy()
    swapped[[3, 30]] = images[[30, 3]]
    for other in (images[::-1], swapped, images[:39]):
        assert not model._fitted_to(model.dataset(other))


def test_a_saved_model_knows_the_images_that_it_was_fitted_to(project: Path) -> None:
    model = PoseModel.load(project / "run")
    source = Run.open(project / "run").dataset().source
    assert model._fitted_to(model.dataset(source))
    saved = model.save(project / "again")
    assert saved.dataset().n == N
    turned = source.particles.table.assign(rlnAnglePsi=12.0)
    write_star(star_of(project), turned, source.particles.optics, overwrite=True)
    assert not model._fitted_to(model.dataset(star_of(project)))  # the poses are other ones


def test_content_of_another_run_follows_the_order_of_the_images(project: Path) -> None:
    star, config = star_of(project), tiny()
    straight, _ = content_of(str(project / "run"), open_source(star), config)
    rewrite(star, in_order)
    turned, _ = content_of(str(project / "run"), open_source(star), config)
    assert torch.equal(turned, straight[ORDER])
    rewrite(star, lambda table: table.iloc[:-1])
    with pytest.raises(InputError, match="fitted to other images"):
        content_of(str(project / "run"), open_source(star), config)


# --- what is remembered -----------------------------------------------------------------------


def test_few_bytes_are_read_of_a_large_stack() -> None:
    def rows(n: int, side: int, dims: int = 2) -> NDArray[np.int64]:
        stack = ArrayStack(np.broadcast_to(np.float32(0), (n, *(side,) * dims)))
        return sampled(stack)

    assert len(rows(5000, 16)) == SAMPLED or len(rows(5000, 16)) == 5000
    large = rows(100_000, 128)
    assert len(large) == SAMPLED and large[0] == 0 and large[-1] == 99_999
    assert len(rows(1000, 128, 3)) == 32
    assert len(rows(1000, 400, 3)) == LEAST_SAMPLED
    assert rows(7, 8).tolist() == list(range(7))


def test_checksums_do_not_depend_on_how_numbers_are_stored(tmp_path: Path) -> None:
    images = np.arange(5 * 64, dtype=np.int16).reshape(5, 8, 8)
    whole = pixel_sums(ArrayStack(images), np.arange(5))
    assert (pixel_sums(ArrayStack(images.astype(np.float64)), np.arange(5)) == whole).all()
    assert len(set(whole.tolist())) == 5
    table = pd.DataFrame({"rlnImageName": ["1@a.mrcs", "2@a.mrcs"], "rlnDefocusU": [1, 2]})
    write_star(tmp_path / "one.star", table)
    write_star(tmp_path / "two.star", table.astype({"rlnDefocusU": float}))
    sums = [column_sums(read_particles(tmp_path / f"{name}.star")) for name in ("one", "two")]
    assert sums[0] == sums[1]


def test_a_damaged_list_of_rows_is_refused(project: Path) -> None:
    path = project / "run" / "rows.parquet"
    raw = path.read_bytes()
    path.write_bytes(raw[:300] + b"x" + raw[301:])
    with pytest.raises(InputError, match=r"rows\.parquet.*checksum"):
        Run.open(project / "run").dataset()
    marker = project / "run" / MARKER
    marker.write_text('{"format": 1}')
    table = pd.read_parquet(project / "run" / "latents.parquet")
    for bad in (b"", b"PAR1", raw[:-9], raw[:300] + bytes(99) + raw[399:]):
        path.write_bytes(bad)
        with pytest.raises(InputError):
            Run.open(project / "run").dataset()
    table.to_parquet(path)
    with pytest.raises(InputError, match="is not what a fit writes"):
        Run.open(project / "run").dataset()
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        Run.open(project / "run").dataset()


# --- runs of version 0.1 ----------------------------------------------------------------------

INPUTS = {
    "cryodrgn": "posed",
    "vlt": "posed",
    "modpose-posed": "posed",
    "3d-spvae": "volumes",
    "modpose-3d": "volumes",
    "affinity-vae": "blocks",
}
RUNS = ["vae", "spatial-vae", "target-vae", "modpose", *INPUTS]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_version_0_1_is_read_and_gone_on_with(name: str, tmp_path: Path) -> None:
    stored = Path(shutil.copytree(STORED / name, tmp_path / name))
    images = STORED / INPUTS.get(name, "pictures") / "particles.star"
    run = Run.open(stored)
    assert run.finished and run.record() is None
    before = run.latents()
    assert run.dataset(images).n == len(before)
    found = PoseModel.load(run.path).encode(run.dataset(images).source) if name != "vlt" else None
    if found is not None:
        known = before[[f"z_{k}" for k in range(2)]].to_numpy()
        np.testing.assert_allclose(found.z, known, rtol=1e-3, atol=1e-4)
    longer = resume_run(stored, epochs=3, input=images, quiet=True)
    assert longer.metrics()["epoch"].tolist() == [1, 2, 3]
    assert longer.record() is not None and longer.dataset().n == len(before)
    assert (stored / MARKER).is_file()
    assert set(json.loads((stored / MARKER).read_text())["sha256"].values()) == {
        sha256(stored / "latents.parquet"),
        sha256(stored / "rows.parquet"),
        sha256(stored / "checkpoints" / "best.safetensors"),
    }


def test_a_folder_is_a_run_as_input_where_it_is_one_as_output(tmp_path: Path) -> None:
    """A run of version 0.1 is known by what its files hold, with checkpoints or without."""
    run = Path(shutil.copytree(STORED / "vae", tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match="this is the folder of a run"):
        open_source(run)
    check_target(run, overwrite=True)
    for name in ("config.yaml", "environment.json"):
        (run / name).write_text("{}\n")
    (run / "checkpoints").mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(run / "a.png")
    assert open_source(run).n == 1
    with pytest.raises(InputError, match="is no modpose run"):
        check_target(run, overwrite=True)


def test_a_run_of_version_0_1_refuses_images_in_another_order(project: Path) -> None:
    run = Run.open(project / "run")
    fingerprint = first_fingerprint(run.dataset().source)
    (run.path / "rows.parquet").unlink()
    run.update_environment(fingerprint=fingerprint, data=None)
    assert run.dataset().n == N
    rewrite(star_of(project), in_order)
    with pytest.raises(InputError, match="not those of the run"):
        run.dataset()
