"""2-D classes of particle images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import starfile
import torch
from scipy import ndimage
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.mrc import open_mrc, write_mrcs
from modpose.data.source import Source, open_source
from modpose.errors import InputError
from modpose.fourier.projection import half_plane
from modpose.geometry.grids import bright_centre, lattice
from modpose.geometry.rotations import rotation_2d
from modpose.outputs.classes import select_classes
from modpose.search.abinitio import saved
from modpose.search.abinitio.images import _transform
from modpose.search.classes2d import rounds
from modpose.search.classes2d.neighbours import without_neighbours
from modpose.search.classes2d.rounds import Posed, recentred
from modpose.search.classes2d.run import Classes2d, classify_images, memory_of_classes
from modpose.search.classes2d.settings import Classes2dSettings
from modpose.search.classes2d.turning import Turning
from modpose.search.files import earlier_tables
from modpose.simulate import microscope
from modpose.simulate.star_tables import tables

SIDE, COUNT, PIXEL = 32, 600, 4.0
SHAPES = (
    ((6, 2, 2.0, 1.0), (-4, -3, 2.2, 0.8), (-3, 6, 1.8, 0.7)),
    ((8, 0, 2.0, 0.9), (0, 0, 2.2, 1.0), (-8, 1, 2.0, 0.9)),
)
"""Blobs (x, y, width, height) of two pictures without symmetry, neither the other's mirror."""


def picture(number: int, angle: float = 0.0, shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Draw blobs at rotated places: no image is interpolated."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    out = np.zeros((SIDE, SIDE))
    for px, py, width, height in SHAPES[number]:
        qx = math.cos(angle) * px - math.sin(angle) * py + shift[0]
        qy = math.sin(angle) * px + math.cos(angle) * py + shift[1]
        out += height * np.exp(-((x - qx) ** 2 + (y - qy) ** 2) / (2 * width**2))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of two pictures at random angles and shifts, with CTF and noise."""
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=COUNT)
    angle = rng.uniform(-180, 180, COUNT)
    shift = rng.normal(0, 0.8, (COUNT, 2))
    clean = np.stack(
        [picture(k, math.radians(a), tuple(s)) for k, a, s in zip(kind, angle, shift, strict=True)]
    )
    ctf = microscope.draw_ctf_parameters(COUNT, PIXEL, (8000.0, 22000.0), rng)
    filtered = microscope.filter_by_ctf(clean.astype(np.float32), ctf)
    noisy = microscope.add_unit_noise(microscope.scale_to_snr(filtered, 0.3), rng)
    import pandas as pd

    truth = pd.DataFrame(
        {"class": kind, "angle_deg": angle, "shift_x": shift[:, 0], "shift_y": shift[:, 1]}
    )
    out = tmp_path_factory.mktemp("pictures")
    write_mrcs(out / "particles.mrcs", noisy, PIXEL)
    names = [f"{k + 1:06d}@particles.mrcs" for k in range(COUNT)]
    table, optics = tables(
        {"rlnImageName": names}, truth, ctf, pixel_size=PIXEL, box=SIDE, dimensions=2
    )
    starfile.write({"optics": optics, "particles": table}, out / "particles.star")
    return out


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return open_source(folder / "particles.star")


@pytest.fixture(scope="module")
def found(folder: Path, source: Source) -> Classes2d:
    settings = Classes2dSettings(classes=4, rounds=20, refine_rounds=2)
    return classify_images(source, folder / "classes", settings, quiet=True)


# --- parts ------------------------------------------------------------------------------------


def test_pictures_are_read_at_the_angle_of_an_independent_rotation() -> None:
    plane = half_plane(SIDE, 10.0)
    kept = plane.weight == 2
    k, place = plane.k[kept], plane.place[kept]
    turning = Turning(k / SIDE, 12, SIDE)
    upright = torch.from_numpy(picture(0)).float()
    turned = torch.from_numpy(picture(0, math.radians(45))).float()
    both = _transform(torch.stack([upright, turned]))[:, place]
    read = turning.read(upright[None])[0]
    # the pictures fade to 1e-3 at the edge of the box; their peak coefficient is about 3
    assert (read[0] - both[0]).abs().max() < 1e-5
    assert (read[3] - both[1]).abs().max() < 2e-2


def test_images_are_turned_back() -> None:
    plane = half_plane(SIDE)
    kept = plane.weight == 2
    k, place = plane.k[kept], plane.place[kept]
    turning = Turning(k / SIDE, 12, SIDE)
    turned = torch.from_numpy(picture(0, math.radians(45))).float()
    sums = torch.zeros(1, 12, len(k), dtype=torch.complex64)
    sums[0, 3] = _transform(turned[None])[0, place]
    back = turning.turned_back(sums, torch.ones(1, SIDE))[0].numpy()
    inside = lattice((SIDE, SIDE)).norm(dim=1).reshape(SIDE, SIDE).numpy() < 12
    difference = back - picture(0)
    difference -= difference[inside].mean()  # the mean of an image is not among its coefficients
    assert np.abs(difference[inside]).max() < 0.03


def test_averages_are_moved_to_the_middle_with_their_images() -> None:
    x, y = lattice((SIDE, SIDE)).reshape(SIDE, SIDE, 2).unbind(-1)
    centre = torch.tensor([4.0, -2.0])
    blob = torch.exp(-((x - centre[0]).square() + (y - centre[1]).square()) / 8)
    angle, shift = torch.tensor([0.3]), torch.tensor([[1.0, 2.0]])
    posed = Posed(torch.tensor([0]), angle, shift, torch.zeros(1))
    moved = recentred(posed, blob[None], 2.0)
    # an average twice as large, its blob in the middle, makes the same image
    before = shift[0] + rotation_2d(angle)[0] @ (2 * centre)
    assert (moved.shift[0] - before).norm() < 1e-2


def disc(x: float, y: float, radius: float) -> torch.Tensor:
    """Draw a disc of ones."""
    place = lattice((SIDE, SIDE)).reshape(SIDE, SIDE, 2) - torch.tensor([x, y])
    return (place.norm(dim=2) < radius).float()


def test_a_neighbour_at_the_edge_does_not_count_for_the_middle() -> None:
    ring = disc(2, -1, 7) - disc(2, -1, 4)
    beside = disc(14, 6, 6) * disc(0, 0, 14)
    parts = disc(-5, 2, 3) + disc(4, 2, 3)
    wide = disc(3, 0, 12) * disc(0, 0, 14)
    pictures = torch.stack([ring + beside, parts, wide])
    kept = without_neighbours(pictures, 28.0)
    assert torch.equal(kept[0], ring)
    assert torch.equal(kept[1], parts)  # all parts of a particle count
    assert torch.equal(kept[2], wide)  # a particle that fills the circle is no neighbour


def test_averages_have_their_mass_in_the_middle(found: Classes2d) -> None:
    good = torch.from_numpy(found.averages[(found.table["kind"] == "good").to_numpy()])
    off = bright_centre(good)
    assert off.norm(dim=1).max() < 1.0


# --- the whole --------------------------------------------------------------------------------


def test_classes_are_pure(source: Source, found: Classes2d) -> None:
    true = source.particles.truth()["class"].to_numpy()
    right = sum(np.bincount(true[found.class_index == k]).max(initial=0) for k in range(4))
    assert right >= 0.98 * COUNT


def test_angles_and_shifts_are_those_of_the_truth(source: Source, found: Classes2d) -> None:
    truth = source.particles.truth()
    largest = np.bincount(found.class_index).argmax()
    own = found.class_index == largest
    turn = np.deg2rad(found.angle_deg - truth["angle_deg"].to_numpy())[own]
    mean = np.exp(1j * turn).mean()
    off = np.rad2deg(np.abs(np.angle(np.exp(1j * turn) / mean)))
    assert np.median(off) < 5
    # what is left of the shift is the offset of the average, turned with the image
    angle = np.deg2rad(found.angle_deg[own])
    left = (found.shift_px - truth[["shift_x", "shift_y"]].to_numpy())[own]
    x = np.cos(angle) * left[:, 0] + np.sin(angle) * left[:, 1]
    y = -np.sin(angle) * left[:, 0] + np.cos(angle) * left[:, 1]
    assert np.median(np.hypot(x - np.median(x), y - np.median(y))) < 0.5


def test_a_class_average_is_corrected_for_the_ctf(source: Source, found: Classes2d) -> None:
    truth = source.particles.truth()
    own = found.class_index == 0
    kind = int(np.bincount(truth["class"].to_numpy()[own]).argmax())
    turn = np.deg2rad(truth["angle_deg"].to_numpy() - found.angle_deg)[own]
    turned = picture(kind, float(np.angle(np.exp(1j * turn).mean())))
    offset = ndimage.center_of_mass(turned), ndimage.center_of_mass(found.averages[0].clip(min=0))
    moved = ndimage.shift(turned, np.subtract(offset[1], offset[0]), order=3)
    assert np.corrcoef(moved.ravel(), found.averages[0].ravel())[0, 1] > 0.9


def test_the_table_rotates_images_as_relion_means_it(
    folder: Path, source: Source, found: Classes2d
) -> None:
    """Move and rotate images by the written columns with scipy: their mean is the average.

    RELION's transformation of an image onto its reference: shift by the origin, then rotate by psi.
    """
    table = starfile.read(folder / "classes" / "particles.star")["particles"]
    assert (table["rlnClassNumber"].to_numpy() == found.class_index + 1).all()
    own = np.flatnonzero(found.class_index == 0)
    images = source.stack.read(own)[:, 0]
    psi = table["rlnAnglePsi"].to_numpy()[own]
    origin = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy()[own] / PIXEL
    total = np.zeros((SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    for image, degrees, move in zip(images, psi, origin, strict=True):
        a = math.radians(degrees)
        # the value of the average at u is that of the image at R(-psi) u - origin
        at_x = math.cos(a) * x + math.sin(a) * y - move[0] + SIDE // 2
        at_y = -math.sin(a) * x + math.cos(a) * y - move[1] + SIDE // 2
        total += ndimage.map_coordinates(image, [at_y, at_x], order=3, mode="reflect")
    inside = np.hypot(x, y) < 12
    smooth = ndimage.gaussian_filter(total, 1.5), ndimage.gaussian_filter(found.averages[0], 1.5)
    assert np.corrcoef(smooth[0][inside], smooth[1][inside])[0, 1] > 0.85


def test_what_is_written_is_read_again(folder: Path, source: Source, found: Classes2d) -> None:
    out = folder / "classes"
    again = open_source(out / "particles.star", datadir=folder)
    rotation, shift = again.particles.poses(PIXEL)
    assert np.allclose(shift, found.shift_px, atol=1e-5)
    angle = np.rad2deg(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))
    assert np.allclose(np.cos(np.deg2rad(angle - found.angle_deg)), 1, atol=1e-6)
    averages = open_mrc(out / "classes.mrcs")
    assert averages.n == 4 and averages.pixel_size == pytest.approx(PIXEL)
    assert np.array_equal(averages.read(np.arange(4))[:, 0], found.averages)
    classes = starfile.read(out / "classes.star")
    assert classes["modposeClassImages"].sum() == COUNT
    assert (np.diff(found.table["quality"][found.table["kind"] == "good"]) <= 0).all()
    for name in ("classes.png", "frc.csv", "settings.json"):
        assert (out / name).stat().st_size > 0


def test_the_command_makes_classes_of_images_and_says_so(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(60, 32, 32)))
    asked = ["align", str(tmp_path / "few.npy"), "-o", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, [*asked, "--classes", "2", "--rounds", "2"])
    assert ran.exit_code == 0, ran.output
    assert "halves not independent" in ran.output or "junk" in ran.output
    table = starfile.read(tmp_path / "out" / "particles.star")
    assert set(table["rlnClassNumber"]) <= {1, 2} and "rlnOriginX" in table


def test_a_table_of_an_earlier_search_does_not_stay(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("particles.cs", "particles.csg"):
        (out / name).write_text("of the user")
    (out / "settings.json").write_text('{"editor": 1}')
    assert not earlier_tables(out)  # another program's settings
    (out / "settings.json").unlink()
    asked = ["align", str(folder / "particles.star"), "-o", str(out), "--classes", "2"]
    asked += ["--rounds", "1", "--refine-rounds", "1", "--box", "24"]
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 0, ran.output
    assert (out / "particles.cs").is_file()  # no search had written there
    ran = CliRunner().invoke(app, [*asked, "--overwrite"])
    assert ran.exit_code == 0, ran.output
    tables = sorted(path.name for path in out.glob("particles.*"))
    assert tables == ["particles.star"]


def test_chosen_classes_are_selected(folder: Path, found: Classes2d, tmp_path: Path) -> None:
    out, best = folder / "classes", np.isin(found.class_index, [0, 1])
    asked = ["select", str(out), "--class", "1,2", "-o", str(tmp_path / "good.star")]
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 0, ran.output
    assert f"kept {best.sum()} of {COUNT} images" in ran.output
    every = starfile.read(out / "particles.star")["particles"]
    kept = starfile.read(tmp_path / "good.star")["particles"]
    assert list(kept["rlnImageName"]) == list(every["rlnImageName"][best])
    for extra, said in (
        (["--class", "77"], "the class is 77, expected one of 1, 2"),
        (["--class", "a"], "whole numbers separated by commas"),
        (["--class", "1", "--where", "elbo > 0"], "--class and --where"),
    ):
        ran = CliRunner().invoke(app, ["select", str(out), "-o", str(tmp_path / "x.star"), *extra])
        assert isinstance(ran.exception, InputError) and said in str(ran.exception)
    ran = CliRunner().invoke(app, ["select", str(tmp_path), "-o", "x.star", "--class", "1"])
    assert "holds no particles.star" in str(ran.exception)


def test_an_interrupted_search_goes_on_to_the_same_result(
    folder: Path, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = source.subset(np.arange(100))
    settings = Classes2dSettings(classes=2, rounds=4, refine_rounds=2)
    whole = classify_images(few, tmp_path / "whole", settings, quiet=True)
    monkeypatch.setattr(saved, "EVERY", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(rounds._Work, "whole_round", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            classify_images(few, tmp_path / "parts", settings, quiet=True)
    with pytest.raises(InputError, match="an interrupted search is here"):
        classify_images(few, tmp_path / "parts", settings)
    given = np.repeat([[2.0, 9000, 9000, 0, 300, 2.7, 0.1, 0, 0]], few.n, axis=0)
    other = replace(few, particles=replace(few.particles, given_ctf=given))
    with pytest.raises(InputError, match="the CTF is not that of the start"):
        classify_images(other, tmp_path / "parts", settings, resume=True)
    again = classify_images(few, tmp_path / "parts", settings, resume=True, quiet=True)
    assert np.array_equal(again.class_index, whole.class_index)
    assert np.array_equal(again.averages, whole.averages)
    assert not (tmp_path / "parts" / "unfinished").exists()


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_cryosparc_gets_classes_and_poses(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = np.stack([picture(0, a) for a in rng.uniform(0, 6, 60)]) + rng.normal(
        size=(60, 32, 32)
    )
    write_mrcs(tmp_path / "stack.mrc", images.astype(np.float32), PIXEL)
    records = np.zeros(60, [("uid", "<u8"), ("blob/path", "S9"), ("blob/idx", "<u4")])
    records["uid"], records["blob/path"], records["blob/idx"] = range(60), b"stack.mrc", range(60)
    with (tmp_path / "particles.cs").open("wb") as file:
        np.save(file, records)
    source = open_source(tmp_path / "particles.cs")
    settings = Classes2dSettings(classes=2, rounds=4, refine_rounds=1)
    found = classify_images(source, tmp_path / "out", settings, quiet=True)
    table = np.load(tmp_path / "out" / "particles.cs")
    assert np.array_equal(table["alignments2D/class"], found.class_index)
    assert np.allclose(table["alignments2D/pose"], np.deg2rad(-found.angle_deg), atol=1e-5)
    kept = select_classes(tmp_path / "out", "1", tmp_path / "one.cs")
    assert np.array_equal(kept, found.class_index == 0)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--classes", "50"], "the number of images is 60, expected at least 500, ten for each"),
        (["--classes", "2", "--wedge", "-60,60"], "--wedge is for volumes"),
        (["--classes", "2", "--motions", "1"], "--motions is for volumes"),
        (["--classes", "2", "--box", "8"], "box"),
        (["--classes", "2", "--box", "48"], "--box is 48, expected at most 32"),
        (["--classes", "2", "--max-shift", "33"], "--max-shift is 33, expected at most the 32"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, extra: list[str], said: str) -> None:
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(60, 32, 32)))
    asked = ["align", str(tmp_path / "few.npy"), "-o", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, [*asked, *extra])
    assert isinstance(ran.exception, InputError)
    assert said in str(ran.exception)
    assert not (tmp_path / "out").exists()


def test_memory_of_classes_is_asked_for_before_images_are_read(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1.9e9 < memory_of_classes(100_000, 64, 50) < 2.5e9
    monkeypatch.setattr("modpose.search.classes2d.run.memory_of_classes", lambda *_: 2**50)
    monkeypatch.setattr("modpose.search.classes2d.run.read_images", None)
    with pytest.raises(InputError, match="does not fit: it needs 1,048,576 GiB of memory"):
        classify_images(source, tmp_path / "out", Classes2dSettings(classes=4))


def test_dark_particles_and_a_missing_ctf_are_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dark = open_mrc(folder / "particles.mrcs").read(np.arange(200))[:, 0]
    write_mrcs(tmp_path / "dark.mrcs", -dark, PIXEL)
    few = Classes2dSettings(classes=2, rounds=1, refine_rounds=1)
    source = open_source(tmp_path / "dark.mrcs")
    found = classify_images(source, tmp_path / "out", few, quiet=True)
    assert "it gives no CTF" in caplog.text
    assert "darker than their surroundings" in caplog.text
    assert "rlnAnglePsi" in (tmp_path / "out" / "particles.star").read_text()
    caplog.clear()
    upright = classify_images(source, tmp_path / "two", replace(few, invert=True), quiet=True)
    assert "darker" not in caplog.text
    assert found.averages[0].sum() < 0 < upright.averages[0].sum()


def test_images_of_pure_noise_make_junk(source: Source, tmp_path: Path) -> None:
    images = source.stack.read(np.arange(400))[:, 0]
    rng = np.random.default_rng(3)
    noise = np.arange(0, 400, 4)
    images[noise] = rng.normal(size=(100, SIDE, SIDE))
    settings = Classes2dSettings(classes=6, rounds=20, refine_rounds=2)
    found = classify_images(open_source(images), tmp_path / "out", settings, quiet=True)
    junk = np.isin(found.class_index, np.flatnonzero(found.table["kind"] == "junk"))
    others = np.setdiff1d(np.arange(400), noise)
    assert junk[noise].mean() > 0.5 > 10 * junk[others].mean()
    assert found.noise_like[noise].mean() > 0.9 > 10 * found.noise_like[others].mean()
    told = f"{found.noise_like.sum():,} images fit their class hardly better than noise would"
    assert any(line.startswith(told) for line in found.lines())


def test_volumes_have_no_2d_classes(tmp_path: Path) -> None:
    volumes = open_source(np.zeros((20, 24, 24, 24), np.float32))
    with pytest.raises(InputError, match="expected images"):
        classify_images(volumes, tmp_path / "out", Classes2dSettings(classes=1))
