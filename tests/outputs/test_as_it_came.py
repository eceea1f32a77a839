"""Tables written as they came, read back by the readers of other programs."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
import torch
import yaml

from modpose.data.given import read_ctf, read_poses
from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.source import Source, open_source
from modpose.data.stack import ArrayStack
from modpose.data.star import read_star, write_star
from modpose.data.star_text import value_text
from modpose.data.table_files import files_of_table, write_table
from modpose.data.tables import read_particles
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing
from modpose.geometry.rotations import haar_rotations
from modpose.jobs.positions import open_table
from modpose.outputs.cryodrgn import write_cryodrgn
from modpose.outputs.export import export_run, with_poses
from modpose.outputs.selected import export_selection
from modpose.run import Run
from modpose.run.positions import _names_no_other_table
from tests.outputs.test_export import N, make_run, posed_images, star_run, write_stack
from tests.small_data import cryosparc_table


def write(particles: Particles, out: Path) -> Path:
    with all_or_nothing() as place:
        write_table(particles, out, place)
    return out


def save_cs(path: Path, records: np.ndarray) -> Path:
    with path.open("wb") as file:
        np.save(file, records)
    return path


# --- STAR -------------------------------------------------------------------------------------

STARS = {
    "3.0": """
data_

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnRandomSubset #3
_rlnVoltage #4
_rlnCoordinateX #5
000001@Extract/a.mrcs mics/a.mrc 1 300.0 12.5
000002@Extract/a.mrcs 'a b.mrc' 2 300.0 1e-09
""",
    "3.1": """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
1 1.4
2 0.1

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnRandomSubset #3
000001@a.mrcs 2 1
000002@a.mrcs 1 2
""",
    "5": """
# version 50001

data_general

_rlnTomoSubTomosAre2DStacks 0

# version 50001

data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
1 1.4

# version 50001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnTomoName #3
1@a.mrcs 1 TS_01
2@a.mrcs 1 TS_02
""",
}


def same_blocks(one: Path, other: Path) -> None:
    first, second = (starfile.read(path, always_dict=True) for path in (one, other))
    assert list(first) == list(second)
    for name, block in first.items():
        if isinstance(block, dict):
            assert block == second[name]
        else:
            pd.testing.assert_frame_equal(block, second[name])


@pytest.mark.parametrize("version", list(STARS))
def test_a_star_comes_back_in_its_version(tmp_path: Path, version: str) -> None:
    (tmp_path / "in.star").write_text(STARS[version])
    write(read_particles(tmp_path / "in.star"), tmp_path / "out.star")
    same_blocks(tmp_path / "in.star", tmp_path / "out.star")
    lines = [line for line in (tmp_path / "out.star").read_text().splitlines() if "version" in line]
    expected = {"3.0": [], "3.1": ["# version 30001"] * 2, "5": ["# version 50001"] * 3}
    assert lines == expected[version]


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        *("star/relion30_particles", "star/relion31_particles", "star/relion5_particles"),
        *("star/PfCRT_FinalRefinement", "star/cylindra_relion5_Refine3D_data"),
        *("star/helical_data_test2", "star/portal_relion_3", "star/M_particles_sub10"),
        *("star/cryocat_relion_3.1_optics2", "star/relion_symmetry_D4"),
        *("spa/apoferritin_empiar10146_64", "spa/empiar_10076_7", "spa_sim/rln_proj_65_shifted"),
        "tomo/warptools_test_4-tomos_10-ptcls_box-32_angpix-12",
    ],
)
def test_files_of_others_come_back_field_by_field(
    tmp_path: Path, shared_data: Path, name: str
) -> None:
    star = shared_data / f"{name}.star"
    write(open_table(star), tmp_path / "out.star")
    same_blocks(star, tmp_path / "out.star")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["cs/cryosparc_P12_J24_001_particles", "spa/empiar_10076_7"])
def test_cryosparc_tables_of_others_come_back_bit_for_bit(
    tmp_path: Path, shared_data: Path, name: str
) -> None:
    path = shared_data / f"{name}.cs"
    before = np.load(path)
    after = np.load(write(open_table(path), tmp_path / "out.cs"))
    assert after.dtype == before.dtype
    assert after.tobytes() == before.tobytes()


def test_numbers_and_words_are_written_as_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spread = rng.normal(size=400) * 10.0 ** rng.integers(-12, 18, 400)
    odd = [0.0, -0.0, np.nan, np.inf, -np.inf, 0.1 + 0.2, 9007199254.740993, -1.5, 1e300]
    reals = np.concatenate([spread, np.round(rng.normal(size=400) * 1e4, 6), odd])
    whole = rng.integers(-(2**63), 2**63 - 1, len(reals))
    whole[:4] = -(2**63), 2**63 - 1, 0, -1
    names = ["a.mrc", "", "b c", "data_x", "_y", "#z", "it's", 'say"so'] * len(reals)
    table = pd.DataFrame(
        {
            "rlnImageName": names[: len(reals)],
            "modposeReal": reals,
            "modposeWhole": whole,
            "modposeUid": whole.astype(np.uint64),
            "modposeFlag": whole > 0,
        }
    )
    write_star(tmp_path / "a.star", table)
    lines = (tmp_path / "a.star").read_text().split("\n")[9:-2]
    columns = list(zip(*(line.split()[-4:] for line in lines), strict=True))
    small = np.abs(reals) < 1e9  # above, 0.000001 is no more than the last digit
    words = np.array([value_text(value) for value in reals.tolist()])
    np.testing.assert_array_equal(np.array(columns[0])[small], words[small])
    np.testing.assert_array_equal(np.array(columns[0], float), reals)
    for column, name in zip(columns[1:], table.columns[2:], strict=True):
        assert list(column) == [value_text(value) for value in table[name].tolist()]
    again = read_star(tmp_path / "a.star")["particles"]
    assert again["rlnImageName"].tolist() == table["rlnImageName"].tolist()


# --- cryoSPARC --------------------------------------------------------------------------------


def wide_records(n: int = N) -> np.ndarray:
    """A cryoSPARC table with text, vectors, a matrix and odd byte order."""
    plain = cryosparc_table(n, ">J1/stack.mrcs", 40)
    extra = [("components_mode_0/value", "<f4"), ("x/m", ">f8", (2, 2)), ("x/u", "<U3")]
    records = np.zeros(n, plain.dtype.descr + extra)
    for name in plain.dtype.names:
        records[name] = plain[name]
    records["uid"] = np.arange(n, dtype=np.uint64) + 2**63
    records["x/m"] = np.random.default_rng(0).normal(size=(n, 2, 2))
    records["x/u"] = "äb"
    return records


def test_a_cs_comes_back_bit_for_bit_with_its_group(tmp_path: Path) -> None:
    records = wide_records()
    source = read_particles(save_cs(tmp_path / "in.cs", records))
    rows = np.array([5, 1, 1, 40])
    write(source.subset(rows), tmp_path / "out.cs")
    again = np.load(tmp_path / "out.cs")
    assert again.dtype == records.dtype
    assert again.tobytes() == records[rows].tobytes()
    group = yaml.safe_load((tmp_path / "out.csg").read_text())
    assert group["results"]["blob"] == {
        "metafile": ">out.cs",
        "num_items": 4,
        "type": "particle.blob",
    }
    fields = {name.split("/")[0] for name in records.dtype.names if "/" in name}
    assert set(group["results"]) == fields


def test_cryosparc_tools_reads_what_is_written(tmp_path: Path) -> None:
    reason = "cryosparc-tools is not installed"
    dataset = pytest.importorskip("cryosparc.dataset", reason=reason).Dataset
    records = wide_records()
    source = read_particles(save_cs(tmp_path / "in.cs", records))
    latents = pd.DataFrame({"angle_deg": np.linspace(-90, 90, N), "shift_x": 1.5, "shift_y": -2.0})
    latents["cluster"] = np.arange(N) % 3
    latents["z_0"] = np.linspace(0, 1, N)
    write(with_poses(source, latents, pixels_per_model_pixel=2.0), tmp_path / "out.cs")
    found = dataset.load(tmp_path / "out.cs")
    np.testing.assert_array_equal(found["uid"], records["uid"])
    np.testing.assert_allclose(
        np.rad2deg(found["alignments2D/pose"]), -latents["angle_deg"], atol=1e-4
    )
    np.testing.assert_array_equal(found["alignments2D/class"], latents["cluster"])
    np.testing.assert_allclose(found["alignments2D/shift"], np.tile([-3.0, 4.0], (N, 1)))
    np.testing.assert_allclose(found["components_mode_0/value"], latents["z_0"], atol=1e-7)


def test_shifts_are_in_the_pixels_of_their_own_field(tmp_path: Path) -> None:
    records = wide_records()
    records["alignments3D/psize_A"] = 3 * records["blob/psize_A"]
    source = read_particles(save_cs(tmp_path / "in.cs", records))
    shift = np.random.default_rng(2).normal(size=(N, 2))
    posed = with_pose(source, rotation=np.tile(np.eye(3), (N, 1, 1)), shift=shift)
    found = np.load(write(posed, tmp_path / "out.cs"))
    np.testing.assert_allclose(found["alignments3D/shift"], -shift / 3, atol=1e-6)


def test_a_table_of_relion_30_without_shifts_gets_them_in_pixels() -> None:
    table = pd.DataFrame({"rlnImageName": ["1@a.mrcs"], "rlnDetectorPixelSize": 4.0})
    old = Particles(table, None, "star", "old.star")
    posed = with_pose(old, angle_deg=np.array([10.0]), shift=np.array([[2.0, -1.0]])).table
    assert posed[["rlnOriginX", "rlnOriginY", "rlnAnglePsi"]].to_numpy().tolist() == [[-2, 1, -10]]
    assert posed[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy().tolist() == [[-8, 4]]


def test_content_replaces_that_of_an_analysis_with_more_components(tmp_path: Path) -> None:
    plain = wide_records()
    names = [f"components_mode_{k}/{what}" for k in (1, 2) for what in ("component", "value")]
    records = np.zeros(N, plain.dtype.descr + [(name, "<f4") for name in names])
    for name in plain.dtype.names:
        records[name] = plain[name]
    source = read_particles(save_cs(tmp_path / "in.cs", records))
    latents = pd.DataFrame({"z_0": np.linspace(0, 1, N)})
    found = np.load(write(with_poses(source, latents), tmp_path / "out.cs"))
    assert {name for name in found.dtype.names if "components" in name} == {
        "components_mode_0/component",
        "components_mode_0/value",
    }
    np.testing.assert_allclose(found["components_mode_0/value"], latents["z_0"], atol=1e-7)


def test_poses_in_space_come_back_from_both_tables(tmp_path: Path) -> None:
    rotation = haar_rotations(N, torch.Generator().manual_seed(3)).double().numpy()
    shift = np.random.default_rng(1).normal(size=(N, 2))
    (tmp_path / "in.star").write_text(STARS["3.1"])
    star = read_particles(tmp_path / "in.star").subset(np.arange(N) % 2)
    records = wide_records()
    cs = read_particles(save_cs(tmp_path / "in.cs", records))
    for particles, suffix in ((star, ".star"), (cs, ".cs")):
        posed = with_pose(particles, rotation=rotation, shift=shift)
        written = read_particles(write(posed, tmp_path / f"out{suffix}"))
        found = written.poses()
        assert found is not None
        np.testing.assert_allclose(found[0], rotation, atol=2e-6)
        np.testing.assert_allclose(found[1], shift, atol=1e-5)


def test_a_run_of_a_cs_exports_a_cs(tmp_path: Path) -> None:
    images, poses = posed_images(40)
    (tmp_path / "J1").mkdir()
    write_stack(tmp_path / "J1/stack.mrcs", images)
    records, split = wide_records(), np.random.default_rng(2).integers(0, 2, N)
    both = np.zeros(N, [*records.dtype.descr, ("alignments3D/split", "<u4")])
    for name in records.dtype.names:
        both[name] = records[name]
    both["alignments3D/split"] = split
    save_cs(tmp_path / "in.cs", both)
    poses["cluster"] = np.arange(N) % 2
    run = make_run(tmp_path / "run", str(tmp_path / "in.cs"), poses)
    written, _ = export_run(run, tmp_path / "all")
    assert {path.name for path in written} >= {"particles.cs", "particles.csg", "particles.star"}
    for_relion = starfile.read(tmp_path / "all/particles.star")["particles"]
    assert for_relion["rlnRandomSubset"].tolist() == (split + 1).tolist()
    found = np.load(tmp_path / "all/particles.cs")
    np.testing.assert_array_equal(found["x/m"], wide_records()["x/m"])
    np.testing.assert_allclose(
        np.rad2deg(found["alignments2D/pose"]), -poses["angle_deg"], atol=1e-4
    )
    kept = np.zeros(N, bool)
    kept[[3, 9]] = True
    export_selection(run, kept, tmp_path / "kept.cs")
    assert np.load(tmp_path / "kept.cs").tobytes() == both[kept].tobytes()
    assert (tmp_path / "kept.csg").is_file()
    (tmp_path / "other.csg").write_text("mine")
    with pytest.raises(InputError, match=r"other\.csg: already exists"):
        export_selection(run, kept, tmp_path / "other.cs")


def test_a_cs_has_mirrored_images_in_space_and_no_scale(tmp_path: Path) -> None:
    images, poses = posed_images(40)
    (tmp_path / "J1").mkdir()
    write_stack(tmp_path / "J1/stack.mrcs", images)
    save_cs(tmp_path / "in.cs", wide_records())
    poses["mirrored"], poses["scale"] = np.arange(N) % 2, 1.1
    run = make_run(tmp_path / "run", str(tmp_path / "in.cs"), poses)
    _, notes = export_run(run, tmp_path / "out.cs")
    assert any("seen from behind" in note for note in notes)
    assert any("no field for the scale" in note for note in notes)
    read = open_source(tmp_path / "out.cs").particles.poses()
    assert read is not None
    np.testing.assert_allclose(read[0][:, 2, 2], 1.0 - 2.0 * (np.arange(N) % 2), atol=1e-5)
    cosine = np.cos(np.deg2rad(poses["angle_deg"]))
    np.testing.assert_allclose(read[0][:, 0, 0], cosine, atol=1e-5)


# --- cryoDRGN ---------------------------------------------------------------------------------


class OnlyArrays(pickle.Unpickler):
    """Refuses everything but what numpy arrays are made of."""

    def find_class(self, module: str, name: str) -> Any:
        assert module.split(".")[0] == "numpy"
        assert name in {"_reconstruct", "ndarray", "dtype"}
        return super().find_class(module, name)


def test_cryodrgn_files_hold_arrays_and_come_back(tmp_path: Path) -> None:
    images, _ = posed_images(16)
    write_stack(tmp_path / "stack.mrcs", images)
    (tmp_path / "keep.txt").write_text("9\n4\n7\n")
    rotation = haar_rotations(3, torch.Generator().manual_seed(0)).double().numpy()
    latents = pd.DataFrame(
        rotation.reshape(3, 9), columns=[f"r{i}{j}" for i in "012" for j in "012"]
    )
    latents["shift_x"], latents["shift_y"] = [1.0, -2.0, 0.5], [0.0, 3.0, -1.0]
    run = make_run(
        tmp_path / "run", str(tmp_path / "stack.mrcs"), latents, index=tmp_path / "keep.txt"
    )
    written, notes = export_run(run, tmp_path / "drgn", ["pkl"])
    assert [path.name for path in written] == ["poses.pkl", "index.pkl"]
    assert any("no CTF" in note for note in notes)
    for path in written:
        with path.open("rb") as file:
            OnlyArrays(file).load()
    found, shift = read_poses(tmp_path / "drgn/poses.pkl", n=N, box=16)
    np.testing.assert_allclose(found[[9, 4, 7]], rotation, atol=1e-6)
    np.testing.assert_allclose(shift[[9, 4, 7]], latents[["shift_x", "shift_y"]], atol=1e-5)
    assert (found[0] == np.eye(3)).all()
    again = open_source(tmp_path / "stack.mrcs", index=tmp_path / "drgn/index.pkl")
    assert again.selection is not None
    assert again.selection.tolist() == [9, 4, 7]
    everything, _ = export_run(run, tmp_path / "all")
    assert not any(path.suffix == ".pkl" for path in everything)
    with pytest.raises(InputError, match=r"type of .*poses\.pkl is \.pkl, expected"):
        export_run(run, tmp_path / "poses.pkl")


def test_the_ctf_of_cryodrgn_comes_back(tmp_path: Path) -> None:
    images, poses = posed_images(40)
    (tmp_path / "J1").mkdir()
    write_stack(tmp_path / "J1/stack.mrcs", images)
    records = wide_records()
    save_cs(tmp_path / "in.cs", records)
    run = make_run(tmp_path / "run", str(tmp_path / "in.cs"), poses)
    assert not any("cannot hold" in note for note in export_run(run, tmp_path / "drgn", ["pkl"])[1])
    before = open_source(tmp_path / "in.cs").particles.ctf()
    assert before is not None
    after = read_ctf(tmp_path / "drgn/ctf.pkl", n=N, box=40)
    np.testing.assert_allclose(after[:, :8], before[:, :8], rtol=1e-6)
    kept = np.arange(N) < 2
    export_selection(run, kept, tmp_path / "kept.pkl")
    with (tmp_path / "kept.pkl").open("rb") as file:
        assert OnlyArrays(file).load().tolist() == [0, 1]


def test_what_a_ctf_of_cryodrgn_cannot_hold_is_noted(tmp_path: Path) -> None:
    ctf = np.tile([1.7, 1e4, 1e4, 0, 300, 2.7, 0.1, 0, 0, 1.0, 1.0], (3, 1))
    plain = Particles(pd.DataFrame(index=range(3)), name="p.star", position=np.arange(3))
    stack = ArrayStack(np.zeros((3, 8, 8), np.float32), pixel_size=1.7)
    latents = pd.DataFrame({"angle_deg": np.zeros(3)})
    for columns, noted in ((ctf, True), (ctf[:, :9], False), (ctf[:, :9] + 1.0, True)):
        source = Source(stack, replace(plain, given_ctf=columns))
        with all_or_nothing() as place:
            notes = write_cryodrgn(source, latents, tmp_path, place)
        assert any("cannot hold what p.star says" in note for note in notes) == noted


def test_occurrences_of_an_expanded_set_are_kept(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    blocks = starfile.read(tmp_path / "particles.star", always_dict=True)
    twice = pd.concat([blocks["particles"]] * 2, ignore_index=True)
    twice["rlnAnglePsi"] = np.arange(2.0 * N)
    starfile.write(blocks | {"particles": twice}, tmp_path / "twice.star")
    latents = pd.concat([run.latents()[["angle_deg", "cluster"]]] * 2, ignore_index=True)
    expanded = make_run(tmp_path / "expanded", str(tmp_path / "twice.star"), latents)
    mask = np.zeros(2 * N, bool)
    mask[[3, N + 3, N + 9]] = True
    export_selection(expanded, mask, tmp_path / "kept.star")
    kept = starfile.read(tmp_path / "kept.star")["particles"]
    assert kept["rlnAnglePsi"].tolist() == [3.0, N + 3.0, N + 9.0]
    assert kept["rlnImageName"].tolist() == ["000004@stack.mrcs"] * 2 + ["000010@stack.mrcs"]


def test_positions_are_those_of_the_input_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = star_run(tmp_path, "3.1")
    star = tmp_path / "particles.star"
    after = datetime.fromtimestamp(star.stat().st_ctime + 1e-3, UTC)
    run.update_environment(started=after.isoformat())
    kept = np.arange(N) < 2
    with monkeypatch.context() as patch:
        patch.setattr(Run, "dataset", lambda _: pytest.fail("the images were opened"))
        export_selection(run, kept, tmp_path / "kept.txt")
    assert (tmp_path / "kept.txt").read_text() == "0\n1\n"
    old = star.stat()
    blocks = starfile.read(star, always_dict=True)
    blocks["particles"] = blocks["particles"][::-1]
    starfile.write(blocks, tmp_path / "new.star")
    os.utime(tmp_path / "new.star", (old.st_atime, old.st_mtime))
    (tmp_path / "new.star").replace(star)
    export_selection(run, kept, tmp_path / "now.txt")
    assert (tmp_path / "now.txt").read_text() == f"{N - 1}\n{N - 2}\n"


def test_files_that_name_other_tables_are_opened_for_positions(tmp_path: Path) -> None:
    (tmp_path / "p.star").write_text(STARS["3.1"])
    (tmp_path / "set.star").write_text("data_optimisation_set\n_rlnTomoParticlesFile p.star\n")
    assert _names_no_other_table(tmp_path / "p.star")
    assert _names_no_other_table(tmp_path / "stack.mrcs")
    for name in ("set.star", "group.csg", "list.txt"):
        assert not _names_no_other_table(tmp_path / name)


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.star").write_text(STARS["3.1"])
    particles = read_particles(tmp_path / "in.star")
    with pytest.raises(InputError, match=r"extension is '\.cs', expected \.star"):
        write(particles, tmp_path / "out.cs")
    with pytest.raises(InputError, match=r"expected \.star or \.cs"):
        write(particles, tmp_path / "out.csv")
    assert not any(path.exists() for path in files_of_table(tmp_path / "out.cs"))
