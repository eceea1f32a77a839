"""Prepared stacks: phases, crops, tables, interruption, and what is refused."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.mrc import write_mrcs
from modpose.data.plain_pickle import write_plain_pickle
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.geometry.rotations import haar_rotations
from modpose.jobs import shards
from modpose.jobs.prepare import Preparation, delocalisation, good_side, prepare
from modpose.observe.ctf import ctf_2d
from tests.small_data import cryosparc_table

N, BOX, PIXEL = 7, 64, 2.0


def particles(folder: Path, style: str = "3.1", defocus: float = 3000.0) -> Path:
    """Points seen through a CTF in boxes of 64 pixels, with shifts in pixels and in Å."""
    x = np.arange(BOX) - BOX // 2
    point = np.exp(-(x[:, None] ** 2 + x**2) / 2)
    ctf = torch.tensor([[PIXEL, defocus, defocus * 0.9, 20, 300, 2.7, 0.1, 0, 0]] * N)
    seen = torch.fft.rfft2(torch.from_numpy(np.fft.ifftshift(point)))[None] * ctf_2d(
        ctf.double(), (BOX, BOX)
    )
    images = np.fft.fftshift(torch.fft.irfft2(seen).numpy(), axes=(1, 2))
    noise = np.random.default_rng(0).normal(size=images.shape)
    folder.mkdir(parents=True, exist_ok=True)
    write_mrcs(folder / "stack.mrcs", (images + 1e-3 * noise).astype(np.float32), PIXEL)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{k + 1:06d}@stack.mrcs" for k in range(N)],
            "rlnDefocusU": defocus,
            "rlnDefocusV": defocus * 0.9,
            "rlnDefocusAngle": 20.0,
            "rlnOriginX": np.arange(N) * 0.5,
        }
    )
    microscope = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    if style == "3.0":
        table = table.assign(**microscope, rlnDetectorPixelSize=PIXEL, rlnMagnification=1e4)
        write_star(folder / "p.star", table)
    else:
        table = table.assign(rlnOpticsGroup=1, rlnOriginXAngst=table["rlnOriginX"] * PIXEL)
        optics = {"rlnOpticsGroup": 1, "rlnImagePixelSize": PIXEL, "rlnImageSize": BOX}
        write_star(folder / "p.star", table, pd.DataFrame([optics | microscope]))
    return folder / "p.star"


@pytest.mark.parametrize("ctf", ["flip", "multiply"])
def test_phases_are_corrected_before_the_box_is_cropped(tmp_path: Path, ctf: str) -> None:
    star = particles(tmp_path / "in", defocus=8000.0)
    how = Preparation(ctf=ctf, crop=24)  # type: ignore[arg-type]
    table = prepare(open_source(star), tmp_path / "out", how)
    with mrcfile.open(tmp_path / "out/particles_00000.mrcs") as mrc:
        made = np.array(mrc.data)
        assert mrc.is_image_stack()
        assert float(mrc.voxel_size.x) == pytest.approx(PIXEL)
    with mrcfile.open(tmp_path / "in/stack.mrcs") as mrc:
        raw = np.array(mrc.data)
    params = torch.from_numpy(open_source(star).particles.ctf()[:, :9]).double()
    factor = ctf_2d(params, (BOX, BOX)).numpy()
    factor = np.sign(factor) if ctf == "flip" else factor
    whole = np.fft.irfft2(np.fft.rfft2(raw) * factor)
    np.testing.assert_allclose(made, whole[:, 20:44, 20:44], atol=1e-5)
    if ctf == "flip":  # a later correction would lack what the microscope moved out of the crop
        small = np.sign(ctf_2d(params, (24, 24)).numpy())
        late = np.fft.irfft2(np.fft.rfft2(raw[:, 20:44, 20:44]) * small)
        assert np.linalg.norm(late - made) > 0.05 * np.linalg.norm(made)
    again = open_source(table)
    state = again.particles.ctf()
    assert state is not None
    assert (state[:, 10] == {"flip": 1, "multiply": 2}[ctf]).all()
    np.testing.assert_array_equal(again.stack.read(np.arange(N))[:, 0], made)


@pytest.mark.parametrize("style", ["3.0", "3.1"])
def test_the_table_follows_the_pixels(tmp_path: Path, style: str) -> None:
    star = particles(tmp_path / "in", style)
    table = prepare(open_source(star), tmp_path / "out", Preparation(box=32, normalise=True))
    before, after = open_source(star), open_source(table)
    assert after.stack.shape == (32, 32)
    assert after.pixel_size == pytest.approx(2 * PIXEL)
    shift = [source.particles.numbers("rlnOriginX") for source in (before, after)]
    np.testing.assert_allclose(shift[1], shift[0] / 2)
    if style == "3.1":
        angst = after.particles.numbers("rlnOriginXAngst")
        np.testing.assert_allclose(angst, shift[0] * PIXEL)
    blocks = starfile.read(table, always_dict=True)
    assert ("optics" in blocks) == (style == "3.1")
    particles_block = list(blocks.values())[-1]
    assert particles_block["rlnImageOriginalName"][3] == "000004@stack.mrcs"
    x = np.arange(32) - 16
    outside = x[:, None] ** 2 + x**2 > 16**2
    images = after.stack.read(np.arange(N))[:, 0]
    np.testing.assert_allclose(images[:, outside].mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(images[:, outside].std(1), 1, atol=1e-5)


def test_a_cs_follows_too(tmp_path: Path) -> None:
    star = particles(tmp_path / "in")
    records = cryosparc_table(N, ">stack.mrcs", BOX)
    records["blob/psize_A"] = PIXEL
    with (tmp_path / "in/p.cs").open("wb") as file:
        np.save(file, records)
    source = open_source(tmp_path / "in/p.cs")
    table = prepare(source, tmp_path / "out", Preparation(box=32, invert=True))
    found = np.load(table)
    assert table.with_suffix(".csg").is_file()
    np.testing.assert_array_equal(found["uid"], records["uid"])
    assert (found["blob/shape"] == 32).all()
    np.testing.assert_allclose(found["blob/psize_A"], 2 * PIXEL)
    np.testing.assert_array_equal(found["alignments3D/shift"], records["alignments3D/shift"])
    before, after = source.particles.poses(), open_source(table).particles.poses()
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after[1], before[1] / 2, rtol=1e-5)
    with pytest.raises(InputError, match=r"is a \.cs, expected a STAR file"):
        prepare(source, tmp_path / "flip", Preparation(ctf="flip", resolution=50))
    assert star.is_file()


def test_an_interrupted_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(particles(tmp_path / "in"))
    how, out = Preparation(box=32), tmp_path / "out"
    whole = prepare(source, tmp_path / "whole", how, shard=3)
    made = shards.write_mrcs_parts

    def stopped(path: Path, *rest: object, **more: object) -> None:
        if path.name == "particles_00001.mrcs":
            raise KeyboardInterrupt
        made(path, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_mrcs_parts", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out, how, shard=3)
    first = (out / "particles_00000.mrcs").stat().st_mtime_ns
    assert not (out / "particles.star").exists()
    with pytest.raises(InputError, match="interrupted job with another box"):
        prepare(source, out, Preparation(box=16), shard=3)
    prepare(source, out, how, shard=3)
    assert (out / "particles_00000.mrcs").stat().st_mtime_ns == first
    for name in ("particles.star", *(f"particles_0000{k}.mrcs" for k in range(3))):
        assert (out / name).read_bytes() == (whole.parent / name).read_bytes()
    with pytest.raises(InputError, match=r"particles\.star: already exists"):
        prepare(source, out, how, shard=3)
    prepare(source, out, Preparation(box=16), shard=100, overwrite=True)
    assert sorted(path.name for path in out.glob("*.mrcs")) == ["particles_00000.mrcs"]
    assert open_source(out / "particles.star").stack.shape == (16, 16)


def test_how_far_a_microscope_moves_signal() -> None:
    params = np.array([[1.0, 20000, 18000, 0, 300, 2.7, 0.1, 0, 0]], np.float32)
    assert delocalisation(params, 3.0) == pytest.approx(131, abs=1)
    assert [good_side(x) for x in (2, 63.5, 65, 97.1, 262)] == [2, 64, 72, 100, 270]


def test_boxes_that_are_too_small_are_refused_with_the_right_one(tmp_path: Path) -> None:
    source = open_source(particles(tmp_path / "in", defocus=20000.0))
    # 0.0197 Å * 20000 Å / 4 Å = 98.4 Å; twice that and a particle of 50 Å are 123.4 px of 2 Å
    match = r"the box is 64 px \(128 Å\).* by 98 Å, expected 128 px"
    with pytest.raises(InputError, match=match):
        prepare(source, tmp_path / "a", Preparation(ctf="flip", diameter=50))
    with pytest.raises(InputError, match=r"--crop is 32 px .* expected 100 px"):
        prepare(source, tmp_path / "a", Preparation(crop=32))
    assert not (tmp_path / "a").exists()
    prepare(source, tmp_path / "a", Preparation(ctf="flip", crop=32, resolution=20))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (Preparation(), "nothing is requested"),
        (Preparation(crop=80), "data.crop: the size is 80"),
        (Preparation(box=80), "data.box: the size is 80"),
        (Preparation(box=-4), "--box is -4, expected a whole number"),
        (Preparation(crop=0), "--crop is 0, expected a whole number"),
        (Preparation(box=32, diameter=-5), "--diameter is -5, expected a number above 0"),
        (Preparation(crop=16, resolution=0), "--resolution is 0, expected a number above 0"),
        (Preparation(box=32, diameter=130), "--diameter is 130 Å, expected at most .* 128 Å"),
        (Preparation(crop=48, diameter=100), "--diameter is 100 Å, expected at most .* 96 Å"),
        (Preparation(box=32, resolution=7.9), "--resolution is 7.9 Å, expected at least .* 8 Å"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path: Path, how: Preparation, sentence: str) -> None:
    source = open_source(particles(tmp_path / "in"))
    with pytest.raises(InputError, match=sentence):
        prepare(source, tmp_path / "out", how)
    assert not (tmp_path / "out").exists()


def test_lengths_in_angstrom_need_what_gives_them_a_meaning(tmp_path: Path) -> None:
    write_mrcs(tmp_path / "no.mrcs", np.ones((N, BOX, BOX), np.float32), None)
    for option in ("diameter", "resolution"):
        how = Preparation(box=32, **{option: 20})  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"no pixel size, expected one for --{option}"):
            prepare(open_source(tmp_path / "no.mrcs"), tmp_path / "out", how)
    assert not (tmp_path / "out").exists()


def test_lengths_that_just_fit_are_taken(tmp_path: Path) -> None:
    """A pixel size in a header has 24 bits: twice three of 0.8 Å are a little more than 4.8."""
    images = np.random.default_rng(0).random((2, 96, 96)).astype(np.float32)
    for pixel_size in (0.8, 0.85, 1.1):
        write_mrcs(tmp_path / "p.mrcs", images, pixel_size, overwrite=True)
        finest, width = round(6 * pixel_size, 2), round(96 * pixel_size, 2)
        how = Preparation(box=32, resolution=finest, diameter=width)
        prepare(open_source(tmp_path / "p.mrcs"), tmp_path / "out", how, overwrite=True)


def test_phases_are_not_flipped_twice(tmp_path: Path) -> None:
    star = particles(tmp_path / "in")
    once = prepare(open_source(star), tmp_path / "once", Preparation(ctf="flip"))
    with pytest.raises(InputError, match="flipped or images multiplied by their CTF already"):
        prepare(open_source(once), tmp_path / "twice", Preparation(ctf="flip"))
    bare = open_source(tmp_path / "in/stack.mrcs")
    with pytest.raises(InputError, match="there is no CTF"):
        prepare(bare, tmp_path / "bare", Preparation(ctf="flip"))


def test_poses_and_ctf_of_their_own_files_go_along_or_are_refused(tmp_path: Path) -> None:
    star = particles(tmp_path / "in")
    rotation = haar_rotations(N, torch.Generator().manual_seed(0)).numpy()
    write_plain_pickle(tmp_path / "poses.pkl", (rotation, np.full((N, 2), 0.1, np.float32)))
    ctf = [BOX, PIXEL, 3000, 2700, 20, 300, 2.7, 0.1, 0]
    write_plain_pickle(tmp_path / "ctf.pkl", np.array([ctf] * N, np.float32))
    given = {"poses": tmp_path / "poses.pkl", "ctf": tmp_path / "ctf.pkl"}
    source = open_source(tmp_path / "in/stack.mrcs", **given)
    again = open_source(prepare(source, tmp_path / "out", Preparation(ctf="flip", box=32)))
    found = again.particles.poses()
    assert found is not None
    np.testing.assert_allclose(found[0], rotation, atol=1e-5)
    np.testing.assert_allclose(found[1], -0.1 * BOX / 2, atol=1e-5)
    params = again.particles.ctf()
    assert params is not None
    np.testing.assert_allclose(params[0, :9], [2 * PIXEL, *ctf[2:], 0], rtol=1e-6)
    assert (params[:, 10] == 1).all()
    with pytest.raises(InputError, match="--ctf is given with a table"):
        prepare(open_source(star, ctf=given["ctf"]), tmp_path / "no", Preparation(box=32))
    assert not (tmp_path / "no").exists()


def test_the_verb(tmp_path: Path) -> None:
    star = particles(tmp_path / "in")
    words = ["preprocess", str(star), "-o", str(tmp_path / "out"), "--flip-phases", "--box", "32"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "wrote 7 images" in done.output
    both = CliRunner().invoke(app, [*words[:-2], "--multiply-ctf"])
    assert isinstance(both.exception, InputError)
