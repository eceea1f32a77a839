"""Exports read back by other programs: starfile, mrcfile and scipy rebuild what was meant."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from modpose.data.dataset import Dataset
from modpose.data.fresh_table import fresh_particles
from modpose.data.record import record_of
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.geometry.rotations import relion_of_rotation
from modpose.model.build import build_vae
from modpose.options import resolve
from modpose.outputs.export import export_run, with_poses, write_latents
from modpose.outputs.selected import export_selection
from modpose.recipes import recipe_config
from modpose.run import Run
from modpose.train.checkpoint import save_weights
from modpose.train.session import describe_fit

PIXEL_SIZE = 1.7
N = 60

Images = NDArray[np.float32]


def blobs(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """An object without symmetry, in pixels about its centre."""
    parts = [(0, 0, 5.0, 1.0), (7, 2, 2.5, 1.5), (-3, 8, 2.5, 1.0), (-6, -5, 2.0, 2.0)]
    return np.asarray(
        sum(a * np.exp(-((x - i) ** 2 + (y - j) ** 2) / (2 * s**2)) for i, j, s, a in parts)
    )


def grid(box: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = np.arange(box) - box // 2
    x, y = np.meshgrid(axis, axis)
    return x.astype(float), y.astype(float)


def posed_images(box: int) -> tuple[Images, pd.DataFrame]:
    """signal(x) = f(R^T (x - t)) written out by hand, and the poses."""
    rng = np.random.default_rng(1)
    poses = pd.DataFrame(
        {
            "angle_deg": rng.uniform(-180, 180, N),
            "shift_x": rng.uniform(-4, 4, N),
            "shift_y": rng.uniform(-4, 4, N),
        }
    )
    x, y = grid(box)
    images = np.empty((N, box, box), np.float32)
    for i, (angle, dx, dy) in enumerate(poses.itertuples(index=False)):
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        images[i] = blobs(cos * (x - dx) + sin * (y - dy), -sin * (x - dx) + cos * (y - dy))
    return images, poses


def write_stack(path: Path, images: Images) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(images)
        mrc.set_image_stack()
        mrc.voxel_size = PIXEL_SIZE


def star_tables(style: str, box: int) -> dict[str, pd.DataFrame]:
    """What RELION 3.0 or 3.1 would have written, with columns that must survive."""
    particles = pd.DataFrame(
        {
            "rlnCoordinateX": np.arange(N) * 1.5,
            "rlnImageName": [f"{i + 1:06d}@stack.mrcs" for i in range(N)],
            "rlnMicrographName": [f"mics/m{i % 7}.mrc" for i in range(N)],
        }
    )
    if style == "3.0":
        particles["rlnMagnification"] = 10000.0
        particles["rlnDetectorPixelSize"] = PIXEL_SIZE
        particles["rlnOriginX"] = 99.0
        particles["rlnOriginY"] = 99.0
        return {"": particles}
    particles["rlnOpticsGroup"] = 1 + np.arange(N) % 2
    particles["rlnAnglePsi"] = 45.0
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1, 2],
            "rlnOpticsGroupName": ["first", "second"],
            "rlnImagePixelSize": PIXEL_SIZE,
            "rlnImageSize": box,
        }
    )
    return {"optics": optics, "particles": particles}


def make_run(
    folder: Path, source: str, latents: pd.DataFrame, index: Path | None = None, **data: Any
) -> Run:
    """A finished run without any training: an untrained model and given latents."""
    config = resolve(recipe_config("spatial-vae"), flags={"": ("data", data or None)})
    opened = open_source(source, index=index)
    dataset = Dataset(opened, config.data, seed=0)
    record = record_of(dataset)
    environment = describe_fit(dataset, config, None, None, record)
    environment |= {"datadir": None, "index": None if index is None else str(index)}
    with Run.begin(folder, config, environment, record=record) as run:
        pass
    vae = build_vae(config, shape=dataset.shape, channels=dataset.channels, n_images=dataset.n)
    save_weights(run.path / "checkpoints" / "best.safetensors", vae.state_dict())
    z = np.random.default_rng(2).normal(size=(dataset.n, config.model.z_dim))
    content = pd.DataFrame(z, columns=[f"z_{k}" for k in range(z.shape[1])])
    table = pd.concat([latents.iloc[: dataset.n].reset_index(drop=True), content], axis=1)
    table.insert(0, "index", np.arange(dataset.n))
    table["elbo"] = 0.0
    run.write_latents(table)
    run.write_metrics([{"epoch": 1}])
    return run


def star_run(tmp_path: Path, style: str, shrink: float = 1, **data: Any) -> Run:
    images, poses = posed_images(40)
    write_stack(tmp_path / "stack.mrcs", images)
    starfile.write(star_tables(style, 40), tmp_path / "particles.star")
    poses[["shift_x", "shift_y"]] /= shrink
    poses["cluster"] = np.arange(N) % 3
    return make_run(tmp_path / "run", str(tmp_path / "particles.star"), poses, **data)


def relion_average(table: pd.DataFrame, images: Images, psi_sign: int = 1) -> Images:
    """Average after RELION's definition: an object point u lies at A u + t, t = -origin."""
    center = images.shape[-1] // 2
    upright = []
    for image, psi, ox, oy in zip(
        images,
        np.deg2rad(psi_sign * table["rlnAnglePsi"]),
        table["rlnOriginXAngst"] / PIXEL_SIZE,
        table["rlnOriginYAngst"] / PIXEL_SIZE,
        strict=True,
    ):
        a = np.array([[np.cos(psi), np.sin(psi)], [-np.sin(psi), np.cos(psi)]])
        on_rows_columns = a[::-1, ::-1]
        offset = np.array([-oy, -ox]) + center - on_rows_columns @ [center, center]
        upright.append(affine_transform(image, on_rows_columns, offset, order=3))
    return np.mean(upright, axis=0)


def correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# --- STAR -------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["3.0", "3.1"])
@pytest.mark.parametrize(
    ("data", "shrink"), [({}, 1), ({"box": 20}, 2), ({"crop": 36, "box": 24}, 1.5)]
)
def test_relion_would_average_to_the_sharp_object(
    tmp_path: Path, style: str, data: dict[str, int], shrink: float
) -> None:
    run = star_run(tmp_path, style, shrink=shrink, **data)
    written, _ = export_run(run, tmp_path / "out.star")
    assert written == [tmp_path / "out.star"]
    *_, table = starfile.read(tmp_path / "out.star", always_dict=True).values()
    images, _ = posed_images(40)
    template = blobs(*grid(40))
    assert correlation(relion_average(table, images), template) > 0.999
    assert correlation(relion_average(table, images, -1), template) < 0.95
    assert correlation(images.mean(axis=0), template) < 0.95


def test_the_exported_poses_are_the_latents_when_read_as_particles(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1", shrink=2, box=20)
    export_run(run, tmp_path / "out.star")
    poses = open_source(tmp_path / "out.star").particles.poses()
    assert poses is not None
    rotation, shift = poses
    latents = run.latents()
    angle = np.rad2deg(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))
    np.testing.assert_allclose(angle, latents["angle_deg"], atol=1e-5)
    np.testing.assert_allclose(shift, 2 * latents[["shift_x", "shift_y"]], atol=1e-5)


def test_a_table_goes_to_no_folder_with_another_stack_of_the_same_name(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    for name in ("other", "copy", "empty"):
        (tmp_path / name).mkdir()
    write_stack(tmp_path / "other" / "stack.mrcs", posed_images(40)[0][:3])
    (tmp_path / "copy" / "stack.mrcs").symlink_to(tmp_path / "stack.mrcs")
    every = np.ones(N, bool)
    for write in (
        lambda out: export_run(run, out),
        lambda out: export_selection(run, every, out),
    ):
        with pytest.raises(InputError, match=r"other/stack\.mrcs is another file of this name"):
            write(tmp_path / "other" / "out.star")
        assert not (tmp_path / "other" / "out.star").exists()
    for name in ("copy", "empty"):
        export_run(run, tmp_path / name / "out.star")
        export_selection(run, every, tmp_path / name / "kept.star")


@pytest.mark.parametrize("style", ["3.0", "3.1"])
def test_everything_else_in_the_star_stays(tmp_path: Path, style: str) -> None:
    run = star_run(tmp_path, style)
    export_run(run, tmp_path / "out.star")
    before = starfile.read(tmp_path / "particles.star", always_dict=True)
    after = starfile.read(tmp_path / "out.star", always_dict=True)
    assert list(after) == list(before)
    old, new = list(before.values())[-1], list(after.values())[-1]
    assert list(new.columns[: len(old.columns)]) == list(old.columns)
    kept = [c for c in old if c not in ("rlnAnglePsi", "rlnOriginX", "rlnOriginY")]
    pd.testing.assert_frame_equal(new[kept], old[kept])
    if style == "3.1":
        pd.testing.assert_frame_equal(after["optics"], before["optics"])
    latents = run.latents()
    np.testing.assert_array_equal(new["rlnClassNumber"], latents["cluster"] + 1)
    for k in range(2):
        np.testing.assert_allclose(new[f"modposeZ{k}"], latents[f"z_{k}"], atol=1e-6)
    assert ("rlnOriginX" in new) == (style == "3.0")
    if style == "3.0":
        np.testing.assert_allclose(new["rlnOriginX"], -latents["shift_x"], atol=1e-6)


def test_exporting_an_export_replaces_the_columns(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    export_run(run, tmp_path / "out.star")
    again = make_run(
        tmp_path / "again", str(tmp_path / "out.star"), run.latents()[["angle_deg", "shift_x"]]
    )
    export_run(again, tmp_path / "twice.star")
    first = starfile.read(tmp_path / "out.star")["particles"]
    second = starfile.read(tmp_path / "twice.star")["particles"]
    assert list(first.columns) == list(second.columns)
    np.testing.assert_array_equal(first["rlnAnglePsi"], second["rlnAnglePsi"])
    assert (second["rlnOriginYAngst"] == 0).all()


def test_poses_stay_as_they_were_where_the_model_has_none(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    plain = run.latents().drop(columns=["angle_deg", "shift_x", "shift_y"])
    run.write_latents(plain)
    export_run(run, tmp_path / "out.star")
    table = starfile.read(tmp_path / "out.star")["particles"]
    assert (table["rlnAnglePsi"] == 45).all()
    assert "rlnOriginXAngst" not in table


def test_angles_of_another_pose_do_not_stay_beside_the_one_that_is_found(tmp_path: Path) -> None:
    """In the plane RELION's rot and tilt are 0: the written pose is the one of the run."""
    run = star_run(tmp_path, "3.1")
    path = tmp_path / "particles.star"
    tables = starfile.read(path)
    tables["particles"] = tables["particles"].assign(rlnAngleRot=30.0, rlnAngleTilt=70.0)
    starfile.write(tables, path, overwrite=True)
    written, notes = export_run(run, tmp_path / "out.star")
    assert sum("rlnAngleRot and rlnAngleTilt of" in note for note in notes) == 1
    poses = open_source(written[0]).particles.poses()
    assert poses is not None
    angle = np.deg2rad(run.latents()["angle_deg"])
    np.testing.assert_allclose(poses[0][:, 2, 2], 1.0)
    np.testing.assert_allclose(poses[0][:, 0, 0], np.cos(angle), atol=1e-6)
    np.testing.assert_allclose(poses[0][:, 1, 0], np.sin(angle), atol=1e-6)


def mirrored_run(tmp_path: Path) -> tuple[Run, Images]:
    """A run whose every third image shows the object mirrored: f(M R^T (x - t)) by hand."""
    images, poses = posed_images(40)
    poses["mirrored"] = (np.arange(N) % 3 == 0).astype(int)
    poses["mirrored_prob"] = np.where(poses["mirrored"] == 1, 0.9, 0.2)
    x, y = grid(40)
    for i in np.flatnonzero(poses["mirrored"]):
        angle, dx, dy = poses.loc[i, ["angle_deg", "shift_x", "shift_y"]]
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        images[i] = blobs(cos * (x - dx) + sin * (y - dy), sin * (x - dx) - cos * (y - dy))
    write_stack(tmp_path / "stack.mrcs", images)
    starfile.write(star_tables("3.1", 40), tmp_path / "particles.star")
    return make_run(tmp_path / "run", str(tmp_path / "particles.star"), poses), images


def test_a_mirrored_picture_is_written_as_seen_from_behind(tmp_path: Path) -> None:
    """Read back as a rotation in space, its in-plane part reads the images upright."""
    run, images = mirrored_run(tmp_path)
    written, notes = export_run(run, tmp_path / "out.star")
    assert any(f"{N // 3} of {N} images are mirrored" in note for note in notes)
    table = starfile.read(written[0])["particles"]
    latents = run.latents()
    np.testing.assert_array_equal(table["modposeMirrored"], latents["mirrored"])
    np.testing.assert_allclose(table["modposeMirroredProb"], latents["mirrored_prob"], atol=1e-6)
    poses = open_source(written[0]).particles.poses()
    assert poses is not None
    rotation, shift = poses
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)
    np.testing.assert_allclose(rotation[:, 2, 2], np.where(latents["mirrored"] == 1, -1, 1))
    upright, center = [], np.array([20, 20])
    for image, turn, move in zip(images, rotation, shift, strict=True):
        on_rows_columns = turn[:2, :2][::-1, ::-1]
        offset = move[::-1] + center - on_rows_columns @ center
        upright.append(affine_transform(image, on_rows_columns, offset, order=3))
    assert correlation(np.mean(upright, axis=0), blobs(*grid(40))) > 0.999
    bare = run.latents()[["angle_deg", "shift_x"]]
    again = make_run(tmp_path / "again", str(tmp_path / "out.star"), bare)
    export_run(again, tmp_path / "twice.star")
    assert "modposeMirrored" not in starfile.read(tmp_path / "twice.star")["particles"]


def test_the_scale_is_written_and_taken_off(tmp_path: Path) -> None:
    """f(R^T (x - t) / s) by hand."""
    images, poses = posed_images(40)
    poses["scale"] = np.exp(0.15 * np.random.default_rng(3).standard_normal(N))
    poses["scale_std"] = 0.01
    x, y = grid(40)
    for i, (angle, dx, dy, s, _) in enumerate(poses.itertuples(index=False)):
        cos, sin = np.cos(np.deg2rad(angle)) / s, np.sin(np.deg2rad(angle)) / s
        images[i] = blobs(cos * (x - dx) + sin * (y - dy), -sin * (x - dx) + cos * (y - dy))
    write_stack(tmp_path / "stack.mrcs", images)
    starfile.write(star_tables("3.1", 40), tmp_path / "particles.star")
    run = make_run(tmp_path / "run", str(tmp_path / "particles.star"), poses)
    export_run(run, tmp_path / "out", formats=["star", "mrcs", "csv"])
    table = starfile.read(tmp_path / "out" / "particles.star")["particles"]
    np.testing.assert_allclose(table["modposeScale"], poses["scale"], atol=1e-6)
    np.testing.assert_allclose(table["modposeScaleStd"], 0.01)
    assert {"scale", "scale_std"} <= set(pd.read_csv(tmp_path / "out" / "latents.csv"))
    with mrcfile.open(tmp_path / "out" / "aligned.mrcs") as mrc:
        assert correlation(mrc.data.mean(0), blobs(*grid(40))) > 0.999


def test_a_rotation_read_from_a_mirrored_pose_is_no_reflection(tmp_path: Path) -> None:
    """cryoDRGN's pickle and cryoSPARC's vector hold the same rotation as the STAR file."""
    run, _ = mirrored_run(tmp_path)
    export_run(run, tmp_path / "out", formats=["pkl", "star"])
    rotation, _ = pickle.loads((tmp_path / "out" / "poses.pkl").read_bytes())
    particles = open_source(tmp_path / "out" / "particles.star").particles
    poses = particles.poses()
    assert poses is not None
    np.testing.assert_allclose(rotation, poses[0], atol=1e-5)
    as_cs = replace(particles, format="cs", table=pd.DataFrame(index=range(N)), optics=None)
    table = with_poses(as_cs, run.latents()).table
    vectors = table[[f"alignments3D/pose_{i}" for i in range(3)]].to_numpy()
    turned = Rotation.from_rotvec(vectors).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(turned, rotation, atol=1e-5)
    assert "alignments2D/pose" not in table
    reflection = torch.from_numpy(rotation[:, :2, :2]).double()
    flat = torch.eye(3, dtype=torch.float64).repeat(N, 1, 1)
    flat[:, :2, :2] = reflection
    with pytest.raises(ValueError, match="has no Euler angles"):
        relion_of_rotation(flat)


def test_mirrored_images_are_turned_upright_as_the_others(tmp_path: Path) -> None:
    run, _ = mirrored_run(tmp_path)
    export_run(run, tmp_path / "aligned.mrcs")
    with mrcfile.open(tmp_path / "aligned.mrcs") as mrc:
        average = mrc.data.mean(0)
    assert correlation(average, blobs(*grid(40))) > 0.999


def test_angles_out_of_the_plane_are_told_of(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    blocks = starfile.read(tmp_path / "particles.star", always_dict=True)
    blocks["particles"]["rlnAngleTilt"] = 30.0
    starfile.write(blocks, tmp_path / "particles.star", overwrite=True)
    _, notes = export_run(run, tmp_path / "elsewhere" / "out.star")
    assert any("rlnAngleTilt are kept" in note or "rlnAngleTilt" in note for note in notes)
    assert any("--datadir" in note for note in notes)


# --- inputs without a STAR --------------------------------------------------------------------


def test_a_plain_stack_gets_a_fresh_star(tmp_path: Path) -> None:
    images, poses = posed_images(40)
    write_stack(tmp_path / "stack.mrcs", images)
    (tmp_path / "keep.txt").write_text("5\n3\n40\n")
    run = make_run(
        tmp_path / "run", str(tmp_path / "stack.mrcs"), poses, index=tmp_path / "keep.txt"
    )
    export_run(run, tmp_path / "sub" / "out.star")
    blocks = starfile.read(tmp_path / "sub" / "out.star")
    assert blocks["optics"]["rlnImagePixelSize"][0] == pytest.approx(PIXEL_SIZE)
    again = open_source(tmp_path / "sub" / "out.star")
    np.testing.assert_array_equal(again.stack.read(np.arange(3))[:, 0], images[[5, 3, 40]])
    assert again.pixel_size == pytest.approx(PIXEL_SIZE)


def test_a_cryosparc_table_becomes_a_star_with_its_ctf(tmp_path: Path) -> None:
    images, poses = posed_images(40)
    write_stack(tmp_path / "stack.mrcs", images)
    fields = {
        "blob/path": np.full(N, b">stack.mrcs"),
        "blob/idx": np.arange(N)[::-1].astype(np.uint32),
        "blob/psize_A": np.full(N, PIXEL_SIZE, np.float32),
        "ctf/df1_A": np.linspace(9e3, 2e4, N),
        "ctf/df2_A": np.linspace(8e3, 1.8e4, N),
        "ctf/df_angle_rad": np.linspace(0, 3, N),
        "ctf/accel_kv": np.full(N, 300.0),
        "ctf/cs_mm": np.where(np.arange(N) < 20, 2.7, 0.01),
        "ctf/amp_contrast": np.full(N, 0.1),
        "ctf/phase_shift_rad": np.zeros(N),
    }
    records = np.empty(N, [(name, values.dtype) for name, values in fields.items()])
    for name, values in fields.items():
        records[name] = values
    with (tmp_path / "job.cs").open("wb") as file:
        np.save(file, records)
    run = make_run(tmp_path / "run", str(tmp_path / "job.cs"), poses)
    export_run(run, tmp_path / "out.star")
    before, after = open_source(tmp_path / "job.cs"), open_source(tmp_path / "out.star")
    rows = np.array([0, 7, 59])
    np.testing.assert_array_equal(before.stack.read(rows), after.stack.read(rows))
    ctf_before, ctf_after = before.particles.ctf(), after.particles.ctf()
    assert ctf_before is not None
    assert ctf_after is not None
    np.testing.assert_allclose(ctf_after, ctf_before, rtol=1e-6, atol=1e-5)
    assert len(starfile.read(tmp_path / "out.star")["optics"]) == 2


def test_a_fresh_star_says_what_was_done_to_the_images(tmp_path: Path) -> None:
    images, _ = posed_images(16)
    write_stack(tmp_path / "stack.mrcs", images)
    plain = [PIXEL_SIZE, 9e3, 8e3, 10, 300, 2.7, 0.1, 0, 0]
    ctf = np.array([[*plain, 0.5, 2.0], [*plain, 1.0, 1.0], [*plain, 1.0, 0.0]])
    source = open_source(tmp_path / "stack.mrcs", index=np.arange(3))
    source = replace(source, particles=replace(source.particles, given_ctf=ctf))
    found = fresh_particles(source, tmp_path / "out.star")
    assert len(found.optics) == 3
    np.testing.assert_allclose(found.ctf(), ctf, rtol=1e-6)
    some = replace(source, particles=replace(source.particles, given_ctf=ctf[:, :9]))
    assert "rlnCtfDataAreCtfPremultiplied" not in fresh_particles(some, tmp_path / "o.star").optics


def test_a_ctf_of_a_file_of_its_own_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, poses = posed_images(16)
    write_stack(tmp_path / "stack.mrcs", images)
    names = [f"{k + 1}@stack.mrcs" for k in range(len(images))]
    table = pd.DataFrame({"rlnImageName": names, "rlnPixelSize": PIXEL_SIZE})
    ctf = {"rlnDefocusU": 1e4, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7}
    write_star(tmp_path / "plain.star", table)
    write_star(tmp_path / "ctf.star", table.assign(**ctf, rlnAmplitudeContrast=0.1))
    run = make_run(tmp_path / "run", str(tmp_path / "plain.star"), poses)
    assert export_run(run, tmp_path / "a.star")[1] == []
    source = open_source(tmp_path / "plain.star", ctf=tmp_path / "ctf.star")
    monkeypatch.setattr(Run, "dataset", lambda run: Dataset(source, run.config.data, seed=0))
    notes = export_run(run, tmp_path / "b.star")[1]
    assert notes == [
        f"the columns of the CTF are those of {tmp_path / 'plain.star'}; give --ctf with it again"
    ]


def test_an_array_file_has_no_image_names(tmp_path: Path) -> None:
    images, poses = posed_images(16)
    np.save(tmp_path / "images.npy", images)
    run = make_run(tmp_path / "run", str(tmp_path / "images.npy"), poses)
    with pytest.raises(InputError, match=r"images\.npy: no STAR is written"):
        export_run(run, tmp_path / "out.star")
    written, notes = export_run(run, tmp_path / "all")
    assert [path.name for path in written] == ["latents.csv", "aligned.mrcs", "denoised.mrcs"]
    assert len(notes) == 1
    table = pd.read_csv(tmp_path / "all" / "latents.csv")
    pd.testing.assert_frame_equal(table, run.latents(), check_dtype=False)


def test_colour_images_make_no_mrcs(tmp_path: Path) -> None:
    _, poses = posed_images(16)
    np.save(tmp_path / "rgb.npy", np.random.default_rng(0).random((N, 16, 16, 3)))
    run = make_run(tmp_path / "run", str(tmp_path / "rgb.npy"), poses, normalize="range")
    with pytest.raises(InputError, match="3 channels, expected grey"):
        export_run(run, tmp_path / "all", ["mrcs"])
    assert not (tmp_path / "all").exists()


# --- MRCS -------------------------------------------------------------------------------------


def test_aligned_images_are_the_upright_object(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1", shrink=2, box=20)
    written, _ = export_run(run, tmp_path / "turned.mrcs")
    assert written == [tmp_path / "turned.mrcs", tmp_path / "turned_denoised.mrcs"]
    x, y = grid(20)
    template = blobs(2 * x, 2 * y)
    with mrcfile.open(written[0]) as mrc:
        assert mrc.is_image_stack()
        assert float(mrc.voxel_size.x) == pytest.approx(2 * PIXEL_SIZE)
        assert mrc.data.shape == (N, 20, 20)
        inner = (slice(4, 17), slice(4, 17))
        for image in mrc.data[:10]:
            assert correlation(image[inner], template[inner]) > 0.99
    z = np.array(run.latents()[["z_0", "z_1"]], np.float32)
    with mrcfile.open(written[1]) as mrc:
        drawn = PoseModel.load(run.path).decode(z)
        np.testing.assert_allclose(mrc.data, drawn, rtol=1e-5, atol=1e-6)


def test_nothing_half_written_when_the_model_cannot_be_read(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    (run.path / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"best\.safetensors"):
        export_run(run, tmp_path / "all")
    assert not (tmp_path / "all").exists()


# --- refusals ---------------------------------------------------------------------------------


def test_files_are_not_replaced_silently(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    (tmp_path / "latents.csv").write_text("mine")
    for out in (tmp_path / "latents.csv", tmp_path):
        with pytest.raises(InputError, match=r"latents\.csv: already exists"):
            export_run(run, out, ["csv"])
    assert (tmp_path / "latents.csv").read_text() == "mine"
    export_run(run, tmp_path, ["csv"], overwrite=True)
    assert (tmp_path / "latents.csv").read_text().startswith("index,")


@pytest.mark.parametrize(
    ("out", "formats", "sentence"),
    [
        ("out.xyz", None, r"type of .*out\.xyz is \.xyz, expected \.star, \.cs, \.csv, "),
        ("out.star", ["csv"], r"is \.star, expected csv"),
        ("folder", ["tiff"], "--format is tiff"),
    ],
)
def test_unknown_formats(
    tmp_path: Path, out: str, formats: list[str] | None, sentence: str
) -> None:
    run = star_run(tmp_path, "3.1")
    with pytest.raises(InputError, match=sentence):
        export_run(run, tmp_path / out, formats)


def test_an_input_that_has_grown_is_refused(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    run.write_latents(run.latents().iloc[:-1])
    with pytest.raises(InputError, match="rows is 59, expected 60"):
        export_run(run, tmp_path / "out.star")


def test_latents_as_parquet_or_csv(tmp_path: Path) -> None:
    table = pd.DataFrame({"index": [0, 1], "z_0": [0.1, -3.0]})
    write_latents(table, tmp_path / "new" / "a.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "new" / "a.parquet"), table)
    write_latents(table, tmp_path / "a.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), table)
    with pytest.raises(InputError, match=r"extension is '\.txt', expected"):
        write_latents(table, tmp_path / "a.txt")


# --- selections -------------------------------------------------------------------------------


def test_a_selected_star_keeps_rows_order_and_metadata(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    mask = np.zeros(N, dtype=bool)
    mask[[2, 17, 30, 59]] = True
    export_selection(run, mask, tmp_path / "kept.star")
    before = starfile.read(tmp_path / "particles.star")
    after = starfile.read(tmp_path / "kept.star")
    pd.testing.assert_frame_equal(
        after["particles"], before["particles"][mask].reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(after["optics"], before["optics"])


def test_selected_positions_count_in_the_whole_input(tmp_path: Path) -> None:
    images, poses = posed_images(16)
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "keep.txt").write_text("9\n4\n7\n")
    source = str(tmp_path / "images.npy")
    run = make_run(tmp_path / "run", source, poses, index=tmp_path / "keep.txt")
    mask = np.array([True, False, True])
    export_selection(run, mask, tmp_path / "kept.txt")
    assert (tmp_path / "kept.txt").read_text() == "9\n7\n"
    again = open_source(source, index=tmp_path / "kept.txt")
    np.testing.assert_array_equal(again.stack.read(np.arange(2))[:, 0], images[[9, 7]])
    with pytest.raises(InputError, match=r"no STAR file, expected kept.txt"):
        export_selection(run, mask, tmp_path / "kept.star")
    with pytest.raises(InputError, match="images left is 0"):
        export_selection(run, ~mask & False, tmp_path / "none.txt")
    with pytest.raises(InputError, match="already exists"):
        export_selection(run, mask, tmp_path / "kept.txt")
