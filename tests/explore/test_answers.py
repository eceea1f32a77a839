"""What the page is told, and that its selections are written by the command line's writers."""

from __future__ import annotations

import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from PIL import Image

from modpose.content.paths import dense_path
from modpose.errors import InputError
from modpose.explore.columns import input_columns, latent_columns
from modpose.explore.opened import OpenRun
from modpose.explore.selections import Selections
from modpose.outputs.select import choose
from modpose.outputs.selected import export_selection
from modpose.plot.grids import align
from modpose.run import Run
from tests.explore.asking import Page
from tests.outputs.test_export import N, make_run, star_run

SOME = np.arange(N) % 3 == 1
BITS = np.packbits(SOME, bitorder="little").tobytes()


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(star_run(tmp_path, "3.1"))


def test_columns_are_those_of_the_latents_and_of_the_input(page: Page) -> None:
    run = page.runs[0]
    [about] = page.ask("runs").json
    assert about["n"] == N and about["content"] == ["z_0", "z_1"]
    own = {one["name"]: one for one in about["columns"]}
    given = {one["name"]: one for one in page.ask("runs/0/input").json}
    assert {"z_0", "z_1", "elbo", "cluster", "angle_deg"} <= set(own)
    assert {"rlnCoordinateX", "rlnMicrographName", "rlnImageSize"} <= set(given)
    assert given["rlnMicrographName"]["names"] == [f"mics/m{i}.mrc" for i in range(7)]
    for name in ("z_0", "rlnCoordinateX"):
        values = np.frombuffer(page.ask(f"runs/0/column?name={name}").body, "<f4")
        table = run.latents if name == "z_0" else pd.DataFrame({name: np.arange(N) * 1.5})
        np.testing.assert_array_equal(values, table[name].to_numpy(np.float32))
    codes = np.frombuffer(page.ask("runs/0/column?name=rlnMicrographName").body, "<f4")
    np.testing.assert_array_equal(codes, np.arange(N) % 7)
    answer = page.ask("runs/0/column?name=nothing")
    assert answer.status == 400 and answer.body.startswith(b"column: the name is 'nothing'")


def test_columns_of_many_texts_are_left_out_and_missing_ones_are_nan() -> None:
    table = pd.DataFrame(
        {
            "z_0": [0.0, 1.0],
            "few": ["b", None],
            "date": pd.to_datetime(["2026-01-01", "2026-01-02"]),
        }
    )
    found = {column.name: column for column in latent_columns(table, ["z_0"])}
    assert set(found) == {"z_0", "few"}
    assert found["few"].names == ["b"] and np.isnan(found["few"].values[1])
    many = pd.DataFrame({"z_0": np.arange(1001.0), "name": [f"{i}" for i in range(1001)]})
    assert [column.name for column in latent_columns(many, ["z_0"])] == ["z_0"]


def test_content_of_three_dimensions_has_principal_components() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 4)) * [1, 5, 1, 3]
    table = pd.DataFrame(z, columns=[f"z_{k}" for k in range(4)])
    found = {column.name: column.values for column in latent_columns(table, list(table))}
    for component, axis in (("pca_0", 1), ("pca_1", 3)):
        assert abs(np.corrcoef(found[component], z[:, axis])[0, 1]) > 0.98


def test_an_expression_means_what_it_means_on_the_command_line(page: Page) -> None:
    for text in ("z_0 > 0 and cluster in (0, 2)", "rlnCoordinateX < 30"):
        found = page.ask(f"runs/0/where?expression={quote(text)}").mask(N)
        np.testing.assert_array_equal(found, choose(page.runs[0].run, where=text))
    answer = page.ask(f"runs/0/where?expression={quote('z_9 > 0')}")
    assert answer.status == 400 and b"z_9" in answer.body


def test_a_selection_is_kept_in_the_folder_of_the_run(page: Page, tmp_path: Path) -> None:
    kept = page.ask("runs/0/selections/good%20ones?how=lasso", "PUT", BITS).json
    assert kept == {"name": "good ones", "how": "lasso", "count": int(SOME.sum())}
    stored = np.load(tmp_path / "run" / "selections" / "good ones.npy")
    np.testing.assert_array_equal(stored, np.flatnonzero(SOME))
    again = Page(page.runs[0].run)
    assert again.ask("runs/0/selections").json == [kept]
    np.testing.assert_array_equal(again.ask("runs/0/selections/good%20ones").mask(N), SOME)
    assert again.ask("runs/0/selections/good%20ones", "DELETE").status == 200
    assert again.ask("runs/0/selections").json == []
    assert not (tmp_path / "run" / "selections" / "good ones.npy").exists()


@pytest.mark.parametrize("suffix", [".star", ".txt", ".npy", ".pkl", ".mrcs"])
def test_files_are_those_of_the_command_line(page: Page, tmp_path: Path, suffix: str) -> None:
    assert suffix in page.ask("runs/0/formats").json
    page.ask("runs/0/selections/a", "PUT", BITS)
    for _ in range(2):  # the second replaces the first
        answer = page.ask(f"runs/0/selections/a/write?suffix={suffix}", "POST")
        assert answer.json["file"] == f"a{suffix}"
    expected = tmp_path / f"a{suffix}"
    export_selection(page.runs[0].run, SOME, expected)
    content = page.ask(f"runs/0/written/a{suffix}").body
    if suffix == ".mrcs":
        with mrcfile.mmap(tmp_path / "stack.mrcs") as stack, mrcfile.open(expected) as written:
            np.testing.assert_array_equal(written.data, stack.data[SOME])
            assert written.voxel_size.x == stack.voxel_size.x
        assert content[1024:] == expected.read_bytes()[1024:]  # the header holds the time
    else:
        assert content == expected.read_bytes()
    if suffix == ".star":
        rows = starfile.read(tmp_path / "run" / "selections" / "a.star")["particles"]
        assert rows["rlnCoordinateX"].tolist() == (1.5 * np.flatnonzero(SOME)).tolist()


def test_a_selection_that_is_made_again_leaves_no_file_of_the_earlier_one(
    page: Page, tmp_path: Path
) -> None:
    held = page.runs[0].selections
    page.ask("runs/0/selections/a", "PUT", BITS)
    for suffix in (".txt", ".pkl"):
        page.ask(f"runs/0/selections/a/write?suffix={suffix}", "POST")
    (held.folder / "notes.txt").write_text("of the user")
    page.ask("runs/0/selections/a", "PUT", BITS)  # the same images: its files are still right
    assert (held.folder / "a.txt").is_file()
    held.save("a", ~SOME, "inverted")
    names = sorted(path.name for path in held.folder.iterdir())
    assert names == ["a.npy", "notes.txt", "selections.json"]


@pytest.mark.parametrize("suffix", [".star", ".mrcs"])
def test_a_file_that_a_run_may_be_fitted_to_is_never_removed(page: Page, suffix: str) -> None:
    held = page.runs[0].selections
    held.save("a", SOME, "")
    path, _ = held.write("a", suffix)
    before = path.read_bytes()
    kept = np.load(held.folder / "a.npy")
    answer = page.ask("runs/0/selections/a", "PUT", np.packbits(~SOME, bitorder="little").tobytes())
    assert answer.status == 400 and b"expected another name than 'a'" in answer.body
    np.testing.assert_array_equal(np.load(held.folder / "a.npy"), kept)
    held.remove("a")
    with pytest.raises(InputError, match="a run may have been fitted to it"):
        held.save("a", ~SOME, "")
    assert held.all() == []
    held.save("a", SOME, "again")  # the same images: the file is still right
    assert path.read_bytes() == before
    path.unlink()
    held.save("a", ~SOME, "")
    np.testing.assert_array_equal(held.mask("a"), ~SOME)


def test_selections_that_are_kept_at_the_same_time_are_all_kept(page: Page) -> None:
    def keep(number: int) -> None:
        Selections(page.runs[0].run).save(f"s{number % 8}", np.arange(N) < 1 + number, "")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(32)))
    held = Selections(page.runs[0].run)
    assert sorted(one.name for one in held.all()) == [f"s{number}" for number in range(8)]
    for one in held.all():
        assert held.mask(one.name).sum() == one.count


def test_positions_are_those_of_the_whole_input(tmp_path: Path) -> None:
    """Also where the run was fitted to some of the images, in another order."""
    run = star_run(tmp_path, "3.1")
    index = tmp_path / "some.npy"
    np.save(index, np.array([50, 3, 7, 20]))
    poses = run.latents()[["angle_deg", "shift_x", "shift_y"]]
    part = make_run(tmp_path / "part", str(tmp_path / "particles.star"), poses, index=index)
    rows = part.record()
    assert rows is not None
    held = Selections(part)
    mask = np.array([True, False, True, False])
    held.save("two", mask, "")
    whole = np.asarray(rows.rows["row"])
    np.testing.assert_array_equal(np.load(held.folder / "two.npy"), whole[mask])
    np.testing.assert_array_equal(Selections(part).mask("two"), mask)


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b", "a\\b", "x" * 61, "a\0b", " a", "a:b"]
)
def test_names_that_are_no_names_of_files_are_refused(page: Page, name: str) -> None:
    with pytest.raises(InputError, match="the name is"):
        page.runs[0].selections.save(name, SOME, "")


def test_impossible_selections_are_refused(page: Page, tmp_path: Path) -> None:
    for bits in (b"", BITS[:-1], BITS + b"\0"):
        assert page.ask("runs/0/selections/a", "PUT", bits).status == 400
    assert b"at least one" in page.ask("runs/0/selections/a", "PUT", bytes(len(BITS))).body
    assert b"the selection is 'b'" in page.ask("runs/0/selections/b").body
    assert b"the extension" in page.ask("runs/0/selections/b/write?suffix=.py", "POST").body
    page.ask("runs/0/selections/a", "PUT", BITS)
    np.save(tmp_path / "run" / "selections" / "a.npy", np.array([N + 5]))
    assert b"does not have" in page.ask("runs/0/selections/a").body
    about = tmp_path / "run" / "selections" / "selections.json"
    values = json.loads(about.read_text())
    about.write_text(json.dumps(values | {"fingerprint": "of others"}))
    with pytest.raises(InputError, match="of other images"):
        OpenRun(page.runs[0].run)


def test_pictures_are_of_the_image_that_is_asked_for(page: Page) -> None:
    run = page.runs[0]
    for kind in ("particle", "upright", "reconstruction"):
        answer = page.ask(f"runs/0/picture?row=5&kind={kind}")
        assert answer.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(answer.body)) as picture:
            assert picture.size == (40, 40)
            drawn = np.asarray(picture, float)
        if kind == "particle":
            image = run.pictures.dataset.batch(np.array([5])).image.numpy()[0, 0]
            assert np.corrcoef(drawn[::-1].ravel(), image.ravel())[0, 1] > 0.99
    for query in ("row=60&kind=particle", "row=-1&kind=particle", "row=x&kind=particle", "row=1"):
        assert page.ask(f"runs/0/picture?{query}").status == 400


def test_upright_images_are_alike(page: Page) -> None:
    """The images show one object in known poses: turned upright, all correlate."""
    pictures = []
    for row in range(4):
        answer = page.ask(f"runs/0/picture?row={row}&kind=upright")
        with Image.open(io.BytesIO(answer.body)) as picture:
            pictures.append(np.asarray(picture, float)[12:28, 12:28].ravel())
    assert np.corrcoef(pictures).min() > 0.95


def test_a_place_of_content_is_drawn(page: Page) -> None:
    z = page.runs[0].latents.loc[5, ["z_0", "z_1"]].to_numpy(np.float32)
    place = page.ask(f"runs/0/place?z={z[0]},{z[1]}")
    assert place.body == page.ask("runs/0/picture?row=5&kind=reconstruction").body
    for wrong in ("", "1", "1,2,3", "1,nan", "a,b"):
        assert page.ask(f"runs/0/place?z={wrong}").status == 400


def test_a_path_goes_through_images(page: Page) -> None:
    z = page.runs[0].latents[["z_0", "z_1"]].to_numpy()
    a, b = z[np.abs(z).sum(axis=1).argsort()[[0, 1]]]
    query = f"from={a[0]},{a[1]}&to={b[0]},{b[1]}"
    found = np.array(page.ask(f"runs/0/path?{query}&steps=5").json)
    np.testing.assert_allclose(found, dense_path(z, np.array([a, b]), 5).z, atol=1e-6)
    for wrong in (f"{query}&steps=1", f"from=1&to={b[0]},{b[1]}&steps=5", "from=1&to=2&steps=5"):
        assert page.ask(f"runs/0/path?{wrong}").status == 400


def test_columns_of_the_input_do_not_hide_those_of_the_run(page: Page) -> None:
    particles = page.runs[0].pictures.dataset.source.particles
    names = [column.name for column in input_columns(particles, {"rlnCoordinateX"})]
    assert "rlnCoordinateX" not in names and "rlnAnglePsi" in names


STORED = Path(__file__).parents[1] / "stored_runs"


@pytest.mark.parametrize("name", ["vlt", "cryodrgn", "modpose-posed"])
def test_volumes_have_three_views(tmp_path: Path, name: str) -> None:
    """Of a network the projections, which are quick; on request the slices of the volume."""
    shutil.copytree(STORED / name, tmp_path / name)
    page = Page(Run.open(tmp_path / name, input=str(STORED / "posed" / "particles.star")))
    [about] = page.ask("runs").json
    assert about["volumes"] and about["quick"] == (name != "modpose-posed")
    run = page.runs[0]
    z = run.latents.loc[3, ["z_0", "z_1"]].to_numpy(np.float32)
    volume = run.places.model.decode(z[None])[0].astype(float)
    middle = len(volume) // 2
    slices = [volume[middle], volume[:, middle], volume[:, :, middle]]
    projections = [volume.sum(axis=axis) for axis in range(3)]
    for path, views in {
        "place": projections if about["quick"] else slices,
        "slices": slices,
    }.items():
        answer = page.ask(f"runs/0/{path}?z={z[0]},{z[1]}")
        with Image.open(io.BytesIO(answer.body)) as picture:
            drawn = np.asarray(picture, float)[::-1]
        for found, expected in zip(np.split(drawn, 3, axis=1), views, strict=True):
            assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97


def test_the_surface_of_a_volume_is_at_its_level(tmp_path: Path) -> None:
    shutil.copytree(STORED / "modpose-posed", tmp_path / "run")
    page = Page(Run.open(tmp_path / "run"))
    run = page.runs[0]
    z = run.latents.loc[3, ["z_0", "z_1"]].to_numpy(np.float32)
    volume = run.places.model.decode(z[None])[0]
    body = page.ask(f"runs/0/surface?z={z[0]},{z[1]}&height=2").body
    corners, faces = np.frombuffer(body, "<u4", 2)
    assert len(body) == 8 + 24 * corners + 12 * faces and faces > 0
    place = np.frombuffer(body, "<f4", 3 * corners, 8).reshape(-1, 3)
    inside = volume > volume.mean() + 2 * volume.std()
    reach = np.abs(place).max(axis=0) >= np.abs(np.argwhere(inside) - 8).max(axis=0)[::-1]
    assert reach.all()
    for wrong in (f"z={z[0]}&height=2", f"z={z[0]},{z[1]}&height=x", f"z={z[0]},{z[1]}"):
        assert page.ask(f"runs/0/surface?{wrong}").status == 400


def test_a_picture_follows_the_pose_of_the_sliders(page: Page) -> None:
    """The model's picture, placed at the pose that was inferred for an image, is aligned by it."""
    run = page.runs[0]
    content = ",".join(
        str(run.latents.loc[0, name]) for name in page.ask("runs").json[0]["content"]
    )
    upright = run.places.model.decode(run.places.z[:1].astype(np.float32))[0].astype(float)
    body = page.ask(f"runs/0/place?z={content}&pose=90,3,-2").body
    with Image.open(io.BytesIO(body)) as picture:
        drawn = np.asarray(picture, float)[::-1]
    back, inside = align(drawn[None], np.array([90.0]), np.array([[3.0, -2.0]]))
    seen = inside[0] == 1
    assert np.corrcoef(back[0][seen], upright[seen])[0, 1] > 0.99
    for wrong in ("pose=1,2", "pose=x,0,0"):
        assert page.ask(f"runs/0/place?z={content}&{wrong}").status == 400
    assert page.ask(f"runs/0/surface?z={content}&height=2").status == 400
