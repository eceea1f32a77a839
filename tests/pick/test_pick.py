from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from benchmarks.pick import lattice, precision_and_recall
from modpose import find_objects, pick_images
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.jobs.positions import open_table
from modpose.pick.coordinates import read_coordinates, write_coordinates
from modpose.pick.peaks import expected_by_chance, local_maxima
from modpose.pick.templates import templates_of, templates_of_run
from modpose.simulate.field import Field, simulate_field, write_field
from modpose.simulate.particles import simulate_particles
from modpose.simulate.settings import HingeSettings

RADIUS = 14.0
STORED = Path(__file__).parents[1] / "stored_runs"


@pytest.fixture(scope="module")
def field() -> Field:
    return simulate_field(HingeSettings(n=60, snr=0.1, shift_std_px=0.5, seed=5), 512)


def places(field: Field) -> np.ndarray:
    return field.truth[["x", "y"]].to_numpy(np.float64)


def upright_pictures() -> np.ndarray:
    """Pictures at three hinge angles; rotated copies are averaged back by the truth."""
    from modpose.outputs.upright import turn_upright

    found = []
    for hinge in (-12.0, 0.0, 12.0):
        settings = HingeSettings(n=4, hinge_range_deg=(hinge, hinge), shift_std_px=0, seed=1)
        one = simulate_particles(settings)
        angle = one.truth["angle_deg"].to_numpy()
        found.append(turn_upright(one.clean, angle, np.zeros((4, 2))).mean(0))
    return np.stack(found)


# --- what is found ----------------------------------------------------------------------------


def test_planted_molecules_are_found_by_their_radius(field: Field) -> None:
    precision, recall = precision_and_recall(
        find_objects(field.image, radius=RADIUS), places(field), RADIUS / 2
    )
    assert precision >= 0.95
    assert recall >= 0.95


def test_dark_objects_are_those_of_the_negative(field: Field) -> None:
    bright = find_objects(field.image, radius=RADIUS)
    dark = find_objects(-field.image, radius=RADIUS, dark=True)
    assert len(bright) == len(dark)
    assert_allclose(dark.x, bright.x, atol=1e-3)


def test_templates_find_molecules_and_how_they_are_turned(field: Field) -> None:
    picks = find_objects(field.image, templates=templates_of(upright_pictures()))
    truth = places(field)
    assert precision_and_recall(picks, truth, RADIUS / 2) == (1.0, 1.0)
    nearest = np.hypot(picks.x[:, None] - truth[:, 0], picks.y[:, None] - truth[:, 1]).argmin(1)
    assert picks.angle_deg is not None
    error = picks.angle_deg - field.truth["angle_deg"].to_numpy()[nearest]
    error = (error + 180) % 360 - 180
    assert np.median(np.abs(error)) < 360 / templates_of(upright_pictures()).angles
    offset = np.stack([picks.x, picks.y], 1) - truth[nearest]
    assert np.abs(offset.mean(0)).max() < 4 * offset.std() / np.sqrt(len(picks))


def test_coloured_background_is_not_taken_for_objects() -> None:
    rng = np.random.default_rng(3)
    k = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None])
    white = np.fft.fft2(rng.standard_normal((512, 512)))
    waves = np.fft.ifft2(white / np.maximum(k, 1 / 512)).real
    image = rng.standard_normal((512, 512)) + waves / waves.std()
    assert len(find_objects(image, radius=10.0)) <= 1
    assert len(find_objects(image, templates=templates_of(upright_pictures()))) <= 1


def test_atoms_of_a_lattice_are_found() -> None:
    image, truth = lattice(256, 17.0, 0.1, seed=8)
    inside = ((truth > 5) & (truth < 250)).all(1)  # nearer ones are left out
    picks = find_objects(image, radius=8.5, packed=True)
    precision, _ = precision_and_recall(picks, truth, 17 / 4)
    _, recall = precision_and_recall(picks, truth[inside], 17 / 4)
    assert precision >= 0.95
    assert recall >= 0.95


@pytest.mark.shared
@pytest.mark.parametrize("name", ["gb4", "si2"])
def test_atoms_of_graphene_are_where_a_network_found_them(shared_data: Path, name: str) -> None:
    with np.load(shared_data / "stem" / "graphene_4nm_Si_2nm.npz") as arrays:
        image, reference = arrays[name], arrays[f"{name}_coord"][:, 1::-1]
    picks = find_objects(image, radius=9.0, packed=True)  # half of 0.142 nm
    precision, recall = precision_and_recall(picks, reference, 4.5)
    assert precision >= 0.9
    assert recall >= 0.9


def test_large_objects_are_found_in_a_reduced_image() -> None:
    y, x = np.mgrid[:600, :600]
    image = np.exp(-((x - 200.3) ** 2 + (y - 391.6) ** 2) / (2 * 40.0**2))
    image = image + 0.3 * np.random.default_rng(0).standard_normal(image.shape)
    picks = find_objects(image, radius=70.0)
    assert len(picks) == 1
    assert_allclose([picks.x[0], picks.y[0]], [200.3, 391.6], atol=70 / 20)


def test_noise_has_as_many_maxima_as_expected() -> None:
    from scipy.ndimage import gaussian_filter

    rng, level, found = np.random.default_rng(1), 3.0, 0
    for _ in range(8):
        noise = gaussian_filter(rng.standard_normal((512, 512)), 3.0, mode="wrap")
        _, height = local_maxima((noise / noise.std()).astype(np.float32), 2.0)
        found += int((height > level).sum())
    roughness = 1 / (2 * 3.0**2)  # of white noise blurred by a Gaussian of s.d. 3
    expected = 8 * float(expected_by_chance(np.array([level]), 512.0**2, roughness)[0])
    assert abs(found - expected) < 4 * np.sqrt(expected) + 0.1 * expected


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_is_found_in_noise(packed: bool) -> None:
    for seed in range(4):
        noise = np.random.default_rng(seed).standard_normal((300, 400))
        assert len(find_objects(noise, radius=9.0, packed=packed)) <= 1


def test_the_scores_are_what_decides(field: Field) -> None:
    every = find_objects(field.image, radius=RADIUS, threshold=2.5)
    best = find_objects(field.image, radius=RADIUS, threshold=5.0)
    assert len(every) > len(best) > 0
    assert (np.diff(every.score) <= 0).all()
    assert (best.score >= 5.0).all()


def test_a_model_of_single_images_gives_templates(field: Field) -> None:
    templates = templates_of_run(STORED / "spatial-vae", contents=2, scale=2.5)
    assert templates.pictures.shape == (2, 16, 16)
    assert templates.scale == 2.5
    assert find_objects(field.image[:128, :128], templates=templates).template is not None
    by_size = templates_of_run(STORED / "spatial-vae", contents=1, pixel_size=5.0)
    assert by_size.scale == 2.0  # the run's pixels have 10 angstrom


# --- files ------------------------------------------------------------------------------------


def test_objects_are_listed_and_cut_out(field: Field, tmp_path: Path) -> None:
    image = write_field(field, tmp_path)
    star, listed = tmp_path / "picks.star", tmp_path / "picks.csv"
    found = pick_images(image, star, radius=RADIUS, extract=40)
    assert found.written == [tmp_path / "picks.mrcs", star]
    pick_images(image, listed, radius=RADIUS)
    table = read_coordinates(listed)
    assert len(table) == found.objects + found.left_out
    assert set(table["micrograph"]) == {str(image)}
    source = open_source(star)
    assert source.n == found.objects
    assert source.pixel_size == field.pixel_size
    again = read_coordinates(star)
    row = again.iloc[3]
    corner = np.rint([row.y, row.x]).astype(int) - 20
    cut = field.image[corner[0] : corner[0] + 40, corner[1] : corner[1] + 40]
    assert_allclose(source.stack.read(np.array([3]))[0, 0], cut)
    assert str(source.particles.table["rlnMicrographName"].iloc[3]) == str(image)


def test_known_coordinates_are_cut_out(field: Field, tmp_path: Path) -> None:
    image = write_field(field, tmp_path)
    found = pick_images(
        image, tmp_path / "out.star", coordinates=tmp_path / "coordinates.star", extract=32
    )
    assert found.objects + found.left_out == len(field.truth)
    assert read_coordinates(tmp_path / "out.star").x[0] == pytest.approx(field.truth.x[0])


@pytest.mark.parametrize("version", ["3.0", "3.1"])
def test_particles_are_cut_out_again_with_their_poses(tmp_path: Path, version: str) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_mrcs(tmp_path / f"{name}.mrc", rng.random((1, 128, 128)), 2.0)
    x, y = np.array([40.3, 60.0, 10.0, 90.6]), np.array([50.7, 30.0, 60.0, 70.0])
    shift = rng.normal(0, 3, (4, 2))
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{k + 1}@old.mrcs" for k in range(4)],
            "rlnMicrographName": ["mics/b.mrc", "mics/a.mrc", "mics/a.mrc", "mics/b.mrc"],
            "rlnCoordinateX": x,
            "rlnCoordinateY": y,
            "rlnAngleRot": [10.0, 20, 30, 40],
            "rlnAngleTilt": [50.0, 60, 70, 80],
            "rlnAnglePsi": [-10.0, 20, 90, 170],
            "rlnRandomSubset": [1, 2, 2, 1],
            "rlnDefocusU": [1e4, 1.1e4, 1.2e4, 1.3e4],
            "rlnCtfDataArePhaseFlipped": 1,
        }
    )
    optics = None
    if version == "3.0":
        table = table.assign(rlnDetectorPixelSize=16.0, rlnMagnification=2e4)
        table[["rlnOriginX", "rlnOriginY"]] = -shift / 8.0
    else:
        optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [8.0]})
        optics = optics.assign(rlnVoltage=300.0, rlnImageSize=8)
        table[["rlnOriginXAngst", "rlnOriginYAngst"]] = -shift
        table["rlnOpticsGroup"] = 1
    write_star(tmp_path / "refined.star", table, optics)
    words: dict[str, Any] = {"coordinates": tmp_path / "refined.star", "extract": 32}
    images = [tmp_path / "a.mrc", tmp_path / "b.mrc"]
    found = pick_images(images, tmp_path / "new.star", **words)
    assert (found.objects, found.left_out) == (3, 1)  # the third box leaves its image
    source, kept = open_source(tmp_path / "new.star"), [0, 1, 3]
    assert source.pixel_size == 2.0
    made, before = source.particles, open_table(tmp_path / "refined.star").subset(np.array(kept))
    for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnRandomSubset", "rlnDefocusU"):
        assert_allclose(made.column(name), before.column(name))
    assert not made.numbers("rlnCtfDataArePhaseFlipped").any()
    poses = made.poses()
    assert poses is not None
    corner = np.rint(np.stack([x, y], 1)[kept]) - 16
    assert_allclose(corner + 16 + poses[1], np.stack([x, y], 1)[kept] + shift[kept] / 2, atol=1e-5)
    for k, name in enumerate(("b", "a", "b")):
        pixels = open_source(tmp_path / f"{name}.mrc").stack.read(np.array([0]))[0, 0]
        i, j = corner[k, ::-1].astype(int)
        assert_allclose(source.stack.read(np.array([k]))[0, 0], pixels[i : i + 32, j : j + 32])
    blocks = replace(before, table=before.table.assign(rlnMicrographPixelSize=1.0))
    write_star(tmp_path / "refined.star", blocks.table, blocks.optics, overwrite=True)
    with pytest.raises(InputError, match=r"\(rlnMicrographPixelSize\) is 1 Å, expected 2 Å"):
        pick_images(images, tmp_path / "other.star", **words)
    with pytest.raises(InputError, match="expected none with --coordinates"):
        pick_images(images, tmp_path / "other.star", dark=True, **words)


@pytest.mark.parametrize("name", ["none.star", "none.csv"])
def test_an_image_without_objects_gives_an_empty_table(name: str, tmp_path: Path) -> None:
    write_mrcs(tmp_path / "i.mrc", np.random.default_rng(0).random((1, 64, 64)), None)
    found = pick_images(tmp_path / "i.mrc", tmp_path / name, radius=5, threshold=50)
    assert found.objects == len(read_coordinates(tmp_path / name)) == 0


def test_coordinates_keep_their_meaning_in_both_formats(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"micrograph": "a.mrc", "x": [1.5, 2.25], "y": [3.0, 4.0], "score": [9.0, 8.0]}
    ).assign(angle_deg=[30.0, -170.0], template=[0, 3])
    for name in ("t.star", "t.csv"):
        write_coordinates(tmp_path / name, table)
        pd.testing.assert_frame_equal(read_coordinates(tmp_path / name), table, check_dtype=False)
    assert "-30.0" in (tmp_path / "t.star").read_text()  # RELION's angle has the other sign


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "expected one of --radius, --run and --coordinates"),
        ({"radius": 9, "coordinates": "c.csv"}, "expected one of"),
        ({"radius": 0.2}, "the radius, pixels, is 0.2, expected a number from 1"),
        ({"radius": float("nan")}, "the radius, pixels, is nan"),
        ({"radius": 100}, "the diameter is 200 px, expected less than 128 x 128"),
        ({"radius": 9, "false_fraction": 2}, "the fraction is 2"),
        ({"radius": 9, "threshold": -1}, "the score is -1"),
        ({"radius": 9, "separation": 0}, "the distance is 0"),
        ({"radius": 9, "extract": 1}, "the box is 1"),
        ({"radius": 9, "scale": 2}, "expected --run with them"),
        ({"radius": 9, "extract": 127}, "none of them with its box inside"),
        ({"radius": 9, "pixel_size": 0}, "the size, angstrom, is 0"),
        ({"run": STORED / "cryodrgn"}, "the model is of volumes"),
        ({"run": STORED / "modpose-3d"}, "the model is of volumes"),
        ({"run": STORED / "spatial-vae", "dark": True}, "go with a radius"),
        ({"run": STORED / "spatial-vae", "contents": 0}, "the number is 0"),
        ({"run": STORED / "spatial-vae", "scale": 0}, "the factor is 0"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(
    options: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    write_mrcs(tmp_path / "i.mrc", np.random.default_rng(0).random((1, 128, 128)), 2.0)
    with pytest.raises(InputError) as caught:
        pick_images(tmp_path / "i.mrc", tmp_path / "out.star", **options)  # type: ignore[arg-type]
    assert sentence in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["i.mrc"]


def test_bad_images_and_tables_are_refused_in_a_sentence(tmp_path: Path) -> None:
    flat, odd = np.ones((64, 64), np.float32), np.ones((64, 64), np.float32)
    odd[3, 3] = np.nan
    for image, sentence in (
        (flat, "every pixel of the image has the same value"),
        (odd, "pixels that are not numbers"),
        (flat[:4], "at least 8 pixels a side"),
    ):
        with pytest.raises(InputError, match=sentence):
            find_objects(image, radius=2.0)
    with pytest.raises(InputError, match="the templates are empty"):
        templates_of(np.zeros((8, 8)))
    np.save(tmp_path / "colour.npy", np.zeros((2, 40, 40, 3), np.uint8))
    with pytest.raises(InputError, match="in colour, expected a grey picture"):
        pick_images(tmp_path / "colour.npy", tmp_path / "o.csv", radius=3)
    with pytest.raises(InputError, match="expected star or csv"):
        pick_images(tmp_path / "colour.npy", tmp_path / "o.txt", radius=3)
    with pytest.raises(InputError, match="star, with --extract"):
        pick_images(tmp_path / "colour.npy", tmp_path / "o.csv", radius=3, extract=8)
    for text, sentence in (
        ("a,b\n1,2\n", "there is no column x"),
        ("x,y\n1,two\n", "column y holds what is no finite number"),
    ):
        (tmp_path / "c.csv").write_text(text)
        with pytest.raises(InputError, match=sentence):
            read_coordinates(tmp_path / "c.csv")
    (tmp_path / "c.star").write_text("data_\nloop_\n_rlnVoltage\n300\n")
    with pytest.raises(InputError, match="no table of it has a column rlnCoordinateX"):
        read_coordinates(tmp_path / "c.star")
    with pytest.raises(InputError, match="expected at most about"):
        simulate_field(HingeSettings(n=500, seed=1), 128)


def test_files_of_one_name_are_told_apart_and_far_coordinates_left_out(tmp_path: Path) -> None:
    images = []
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        write_mrcs(tmp_path / folder / "i.mrc", np.full((1, 32, 32), value), None)
        images.append(str(tmp_path / folder / "i.mrc"))
    table, out = tmp_path / "c.csv", tmp_path / "o.star"
    table.write_text(f"micrograph,x,y\n{images[1]},16,16\n{images[0]},16,16\n{images[0]},1e300,5\n")
    found = pick_images(images, out, coordinates=table, extract=8)
    assert (found.objects, found.left_out) == (2, 1)
    assert open_source(out).stack.read(np.array([0, 1]))[:, 0, 0, 0].tolist() == [2.0, 1.0]
    table.write_text("micrograph,x,y\ni.mrc,16,16\n")
    with pytest.raises(InputError, match="expected one of the images given"):
        pick_images(images, out, coordinates=table, extract=8, overwrite=True)
    table.write_text(f"micrograph,x,y\n{images[1]},16,16\n{images[0]},16,16\n")
    with pytest.raises(InputError, match=r"a/i\.mrc, expected one of the images given"):
        pick_images(images[1], out, coordinates=table, extract=8, overwrite=True)
    table.write_text("micrograph,x,y\nold/i.mrc,16,16\n")
    assert pick_images(images[1], out, coordinates=table, extract=8, overwrite=True).objects == 1


def test_a_micrograph_that_is_not_given_is_named(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((1, 64, 64))
    write_mrcs(tmp_path / "i.mrc", image, None)
    (tmp_path / "c.csv").write_text("micrograph,x,y\nother.mrc,30,30\n")
    with pytest.raises(InputError, match=r"a micrograph is .?other\.mrc"):
        pick_images(
            tmp_path / "i.mrc", tmp_path / "o.star", coordinates=tmp_path / "c.csv", extract=8
        )
