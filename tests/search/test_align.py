"""The verb ``align`` and its Python twin: folder, conventions, bad input, going on."""

from __future__ import annotations

import json
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

import modpose.search.pipeline
from modpose import AlignSettings, InputError, PoseModel, align_subtomograms, open_source
from modpose.cli import main
from modpose.data.mrc import write_mrcs
from modpose.data.preprocess import fourier_crop
from modpose.data.source import Source
from modpose.data.star import write_star
from modpose.data.table_files import write_table
from modpose.data.wedges import open_wedges
from modpose.files.writing import all_or_nothing
from modpose.fourier.fsc import fsc_of_classes
from modpose.search.alignment import Alignment
from modpose.search.classify import Assignment
from modpose.search.files import pose_table
from modpose.search.run import coefficients_of_source
from modpose.simulate.species import built_in_species
from modpose.simulate.subtomogram_files import write_subtomograms
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms

QUICK = ["--rounds", "5", "--refine-rounds", "1", "--rotations", "200", "--motions", "1"]
BOX = 20


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subtomograms")
    settings = SubtomogramSettings(n=40, box=BOX, pixel_size=9.0, snr=1.0, max_shift_px=1.0)
    return write_subtomograms(simulate_subtomograms(settings, built_in_species(1)), folder)


@pytest.fixture(scope="module")
def aligned(star: Path) -> Path:
    out = star.parent / "aligned"
    with pytest.raises(SystemExit) as leaving:
        main(["align", str(star), "-o", str(out), *QUICK])
    assert not leaving.value.code
    return out


def test_the_folder_holds_what_it_should(aligned: Path) -> None:
    for name in ("particles.star", "fsc.csv", "index.html", "metrics.jsonl", "settings.json"):
        assert (aligned / name).stat().st_size > 0
    with mrcfile.open(aligned / "class001.mrc") as file:
        assert file.data.shape == (BOX,) * 3
        assert float(file.voxel_size.x) == pytest.approx(9.0)
    with mrcfile.open(aligned / "class001_motion1.mrc") as file:
        assert file.data.shape == (5, BOX, BOX, BOX)
    lines = [json.loads(line) for line in (aligned / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(1, 7))
    assert {path.name for path in (aligned / "figures").iterdir()} >= {"averages.png", "fsc.png"}
    assert (aligned / "figures" / "class001_motion1.png").is_file()


def averaged(table: Path, folder: Path) -> NDArray[np.float64]:
    """Average by RELION's conventions with other programs: aligned(u) = volume(R u + t)."""
    blocks = starfile.read(table, always_dict=True)
    particles = blocks["particles"]
    size = float(blocks["optics"]["rlnImagePixelSize"].iloc[0])
    angles = particles[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    # RELION's Euler matrix turns the axes: the inverse of the active intrinsic z-y-z rotation
    matrices = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
    origins = particles[[f"rlnOrigin{axis}Angst" for axis in "XYZ"]].to_numpy() / size
    total = np.zeros((BOX,) * 3)
    for name, matrix, origin in zip(particles["rlnImageName"], matrices, origins, strict=True):
        with mrcfile.open(folder / name) as file:
            volume = file.data.astype(float)
        zyx = matrix[::-1, ::-1]
        centre = np.full(3, BOX // 2)
        total += affine_transform(volume, zyx, centre - origin[::-1] - zyx @ centre, order=1)
    return total / len(particles)


def test_poses_re_read_by_others_make_a_sharp_average(aligned: Path, star: Path) -> None:
    found = averaged(aligned / "particles.star", star.parent)
    with mrcfile.open(aligned / "class001.mrc") as file:
        average = file.data.astype(np.float32)
    pair = torch.from_numpy(np.stack([found.astype(np.float32), average]))
    assert fsc_of_classes(pair[:1], pair[1:])[0, 1:6].min() > 0.9


def test_volumes_are_aligned_in_a_smaller_box(star: Path) -> None:
    """Poses come in units of the input, the average in voxels of the box."""
    out = star.parent / "small"
    with pytest.raises(SystemExit) as leaving:
        main(["align", str(star), "-o", str(out), "--box", "16", *QUICK])
    assert not leaving.value.code
    with mrcfile.open(out / "class001.mrc") as file:
        average = file.data.astype(np.float32)
        assert float(file.voxel_size.x) == pytest.approx(9.0 * BOX / 16)
    found = averaged(out / "particles.star", star.parent).astype(np.float32)
    small = fourier_crop(found[None, None], 16)[:, 0]
    pair = torch.from_numpy(np.concatenate([small, average[None]]))
    assert fsc_of_classes(pair[:1], pair[1:])[0, 1:6].min() > 0.9


def test_wedge_and_ctf_stay_what_they_are_in_a_smaller_box(tmp_path: Path) -> None:
    made = SubtomogramSettings(n=12, box=24, pixel_size=6.0, ctf=True, tilt_range_deg=(-60, 40))
    written = write_subtomograms(simulate_subtomograms(made, built_in_species(1)), tmp_path)
    source = open_source(written)
    read = []
    for box in (24, 16):
        wedges = open_wedges(source, shape=(box,) * 3, pixel_size_factor=24 / box)
        data = coefficients_of_source(source, wedges, AlignSettings(box=box))
        where = {tuple(k): i for i, k in enumerate((box * data.frequency).round().int().tolist())}
        read.append((data, where))
    (whole, at), (small, there) = read
    common = sorted(set(at) & set(there))
    assert len(common) > 250
    columns = [at[k] for k in common], [there[k] for k in common]
    for part in ("transfer", "value"):
        one, other = (getattr(d, part)[:, c] for d, c in zip((whole, small), columns, strict=True))
        ratio = (one.abs().sum() / other.abs().sum()).item()
        assert (one - ratio * other).norm() < 0.15 * one.norm()  # noise is measured again


def test_a_larger_box_is_refused(star: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for box, words in (("40", "box is 40, expected at most 20"), ("8", "expected at least 16")):
        with pytest.raises(SystemExit) as leaving:
            main(["align", str(star), "-o", str(star.parent / "never"), "--box", box, *QUICK])
        assert leaving.value.code == 2
        assert words in capsys.readouterr().err
    assert not (star.parent / "never").exists()


def test_columns_of_the_input_stay(aligned: Path, star: Path) -> None:
    before = starfile.read(star, always_dict=True)["particles"]
    after = starfile.read(aligned / "particles.star", always_dict=True)["particles"]
    assert after["rlnImageName"].tolist() == before["rlnImageName"].tolist()
    assert set(after["rlnRandomSubset"]) == {1, 2}
    assert after["rlnClassNumber"].tolist() == [1] * 40
    assert after["modposeAngleStd"].between(0.1, 30).all()
    assert after["modposeZ0"].std() > 0.1


def test_a_second_time_is_refused_and_replaces_when_asked(
    aligned: Path, star: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["align", str(star), "-o", str(aligned), *QUICK])
    assert leaving.value.code == 2
    assert "there is an alignment already" in capsys.readouterr().err
    with pytest.raises(SystemExit) as leaving:
        main(["align", str(star), "-o", str(aligned), "--resume", "--classes", "2", *QUICK])
    assert leaving.value.code == 2
    assert "classes to continue is 2, expected 1 as at the start" in capsys.readouterr().err


def test_an_interrupted_alignment_goes_on(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(star)
    settings = AlignSettings(rounds=4, refine_rounds=1, rotations=100, seed=2)
    whole = align_subtomograms(source, tmp_path / "whole", settings, quiet=True)
    save = modpose.search.pipeline.save_state

    def interrupted(path: Path, state: modpose.search.pipeline.State) -> None:
        save(path, state)
        if state.round == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(modpose.search.pipeline, "save_state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            align_subtomograms(source, tmp_path / "two", settings, quiet=True)
    assert not (tmp_path / "two" / "particles.star").exists()
    later = align_subtomograms(source, tmp_path / "two", settings, resume=True, quiet=True)
    torch.testing.assert_close(later.assignment.rotation, whole.assignment.rotation)
    rounds = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in rounds] == [1, 3, 4, 5]


def test_poses_go_into_a_table_of_relion_3_0_as_it_reads_them(tmp_path: Path) -> None:
    write_mrcs(tmp_path / "v.mrc", np.random.default_rng(0).random((1, 8, 8, 8)), 4.0)
    table = pd.DataFrame({"rlnImageName": ["v.mrc"], "rlnMagnification": 10000.0})
    write_star(tmp_path / "old.star", table.assign(rlnDetectorPixelSize=4.0))
    zero, one = torch.zeros(1, dtype=torch.int64), torch.ones(1)
    shift = torch.tensor([[1.0, -2.0, 0.5]])
    pose = Assignment(torch.eye(3)[None], shift, zero, one, one)
    source = open_source(tmp_path / "old.star")
    particles = pose_table(source, Alignment(pose, None, zero), tmp_path, (one, one))
    with all_or_nothing() as place:
        write_table(particles, tmp_path / "out.star", place)
    text = (tmp_path / "out.star").read_text()
    written = starfile.read(tmp_path / "out.star")
    origin = written[[f"rlnOrigin{axis}" for axis in "XYZ"]].to_numpy()
    assert origin.ravel().tolist() == [-1, 2, -0.5]
    assert written["rlnRandomSubset"].tolist() == [1]
    assert "version 3" not in text and "optics" not in text


def test_arrays_are_aligned_alike(tmp_path: Path) -> None:
    settings = SubtomogramSettings(n=16, box=BOX, pixel_size=9.0, snr=2.0)
    volumes = simulate_subtomograms(settings, built_in_species(1)).volumes()
    found = align_subtomograms(
        open_source(-volumes, kind="volumes"),
        tmp_path / "out",
        AlignSettings(rounds=2, refine_rounds=1, rotations=60, invert=True),
        wedge=(-60.0, 60.0),
        quiet=True,
    )
    assert found.maps.combined.shape == (1, BOX, BOX, BOX)
    assert found.maps.combined.sum() > 0
    written = starfile.read(tmp_path / "out" / "particles.star")
    assert written["rlnOriginX"].abs().max() <= 3.0 + 1e-6


@pytest.mark.parametrize(
    ("shape", "settings", "sentence"),
    [
        ((9, 20, 20), {}, "volumes"),
        ((9, 20, 20, 18), {}, "cubic"),
        ((9, 8, 8, 8), {}, "at least 16 voxels"),
        ((9, 20, 20, 20), {"classes": 2}, "eight for each of 2 classes"),
    ],
)
def test_what_cannot_be_aligned_is_refused(
    shape: tuple[int, ...], settings: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    with pytest.raises(InputError, match=sentence):
        align_subtomograms(open_source(noise), tmp_path / "out", AlignSettings(**settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong", [{"classes": 0}, {"mask_diameter_px": -1.0}, {"rounds": 0}, {"rotations": 3}]
)
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="align"):
        AlignSettings(**wrong)


def test_a_class_too_small_for_its_motions_is_refused_alike(tmp_path: Path) -> None:
    """By ``align`` and by the start of a training; one of two classes of 16 has at most 8."""
    noise = np.random.default_rng(0).standard_normal((16, 16, 16, 16), dtype=np.float32)
    asked = {"classes": 2, "rounds": 2, "refine_rounds": 1, "rotations": 60, "motions": 8}
    sentence = r"volumes in class \d is \d, expected more than the 8 motions"
    with pytest.raises(InputError, match=sentence):
        align_subtomograms(open_source(noise), tmp_path / "a", AlignSettings(**asked), quiet=True)
    options = {"model": {"field": {"count": 18}}, "train": {"start": asked}}
    with pytest.raises(InputError, match=sentence):
        PoseModel("modpose-3d", options=options, quiet=True).fit(noise)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((9, 20, 20, 20), dtype=np.float32)
    noise[3, 2, 2, 2] = np.nan
    with pytest.raises(InputError, match="image 4: it holds values that are not finite"):
        align_subtomograms(open_source(noise), tmp_path / "out", AlignSettings())
    assert not (tmp_path / "out").exists()


def test_a_finished_alignment_stays_until_another_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def volumes(seed: int) -> Source:
        made = SubtomogramSettings(n=16, box=BOX, pixel_size=9.0, snr=2.0, seed=seed)
        simulated = simulate_subtomograms(made, built_in_species(1))
        return open_source(simulated.volumes(), kind="volumes")

    settings = AlignSettings(rounds=2, refine_rounds=1, rotations=60)
    one, other, out = volumes(0), volumes(1), tmp_path / "out"
    align_subtomograms(one, out, settings, quiet=True)
    (out / "mine.txt").write_text("mine")
    (out / "classification.mrc").write_text("mine")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(modpose.search.pipeline, "_log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            align_subtomograms(other, out, settings, overwrite=True, quiet=True)
    assert {p: p.read_bytes() for p in before} == before
    with pytest.raises(InputError, match="not those of its start"):
        align_subtomograms(one, out, settings, resume=True, quiet=True)
    with pytest.raises(InputError, match="the wedge is not that"):
        align_subtomograms(other, out, settings, wedge=(-60, 60), resume=True, quiet=True)
    align_subtomograms(other, out, settings, resume=True, quiet=True)
    changed = {p.name for p in before if p.read_bytes() != before[p]}
    assert {"particles.star", "class001.mrc", "settings.json", "state.safetensors"} <= changed
    assert not changed & {"mine.txt", "classification.mrc"}
    assert {p for p in out.rglob("*") if p.is_file()} == set(before)


def test_an_alignment_never_replaces_its_input(star: Path, aligned: Path) -> None:
    before = (aligned / "particles.star").read_bytes()
    source = open_source(aligned / "particles.star", datadir=star.parent)
    with pytest.raises(InputError, match="is an input of this command"):
        align_subtomograms(source, aligned, overwrite=True, quiet=True)
    assert (aligned / "particles.star").read_bytes() == before


def test_poses_of_a_stack_of_volumes_name_these(tmp_path: Path) -> None:
    made = SubtomogramSettings(n=9, box=16, pixel_size=12.0, snr=2.0)
    volumes = simulate_subtomograms(made, built_in_species(1)).volumes().astype(np.float32)
    with mrcfile.new(tmp_path / "volumes.mrcs") as file:
        file.set_data(volumes)
    quick = AlignSettings(rounds=1, refine_rounds=1, rotations=60)
    align_subtomograms(open_source(tmp_path / "volumes.mrcs"), tmp_path / "out", quick, quiet=True)
    again = open_source(tmp_path / "out" / "particles.star")
    np.testing.assert_array_equal(again.stack.read(np.arange(9))[:, 0], volumes)


def test_settings_of_another_program_are_no_alignment(star: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"editor.tabSize": 4}')
    (tmp_path / "particles.star").write_text("mine")
    with pytest.raises(InputError, match="holds no alignment"):
        align_subtomograms(open_source(star), tmp_path, overwrite=True, quiet=True)
    assert (tmp_path / "particles.star").read_text() == "mine"


def test_a_wedge_may_be_masks_text_or_that_of_the_source(tmp_path: Path) -> None:
    quick = AlignSettings(rounds=1, refine_rounds=1, rotations=60)
    made = SubtomogramSettings(n=16, box=BOX, pixel_size=9.0, snr=2.0)
    plain = simulate_subtomograms(made, built_in_species(1)).volumes()
    limits = (-40.0, 40.0)
    wedges = open_wedges(open_source(plain), limits)
    assert wedges is not None
    mask = wedges.read(np.arange(1))[0]
    found = [
        align_subtomograms(source, tmp_path / str(k), quick, wedge=wedge, quiet=True)
        for k, (source, wedge) in enumerate(
            [
                (open_source(plain), limits),
                (open_source(plain), "-40,40"),
                (open_source(plain), mask),
                (open_source(plain, wedge=limits), None),
            ]
        )
    ]
    scores = [one.assignment.score for one in found]
    assert all(torch.equal(scores[0], other) for other in scores[1:])
    with pytest.raises(InputError, match="the wedge is not that of its start"):
        align_subtomograms(
            open_source(plain), tmp_path / "2", quick, wedge=1 - mask, resume=True, quiet=True
        )
