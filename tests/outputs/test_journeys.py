"""A user of each program: fit, select, export, go on; read by that program's reader."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
import tifffile

from modpose.cli import main
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from modpose.run import Run
from modpose.simulate.particles import simulate_particles
from modpose.simulate.settings import HingeSettings
from tests.small_data import cryosparc_table

N = 24
TINY = ["--epochs", "1", "--batch-size", "8", "--z-dim", "2", "--seed", "0"]
SMALL = ["--set", "model.encoder.hidden=8", "--set", "model.field.hidden=8"]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    settings = HingeSettings(n=N, box=16, pixel_size=10.0, snr=1.0)
    return np.asarray(simulate_particles(settings).images, np.float32)


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    assert not leaving.value.code, arguments


def fit(source: object, out: Path, *options: str) -> Run:
    run("fit", source, "-o", out, "--recipe", "spatial-vae", *TINY, *SMALL, *options)
    return Run.open(out)


def relion_30(folder: Path) -> str:
    head = ("ImageName", "MicrographName", "CoordinateX", "Voltage", "SphericalAberration")
    head += ("AmplitudeContrast", "DefocusU", "DefocusV", "DefocusAngle", "DetectorPixelSize")
    head += ("Magnification", "RandomSubset")
    rows = [
        f"{i + 1:06d}@p.mrcs mics/{i % 3}.mrc {10 * i}.5 300 2.7 0.1 {9000 + 100 * i} 9000 12.5 5 "
        f"5000 {i % 2 + 1}"
        for i in range(N)
    ]
    tags = "".join(f"_rln{name} #{k}\n" for k, name in enumerate(head, 1))
    (folder / "p.star").write_text(f"\ndata_\n\nloop_\n{tags}" + "\n".join(rows) + "\n")
    return "p.star"


def relion_31(folder: Path, version: int = 30001) -> str:
    optics = "_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnVoltage #3\n_rlnImagePixelSize #4\n"
    optics += "_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n_rlnImageSize #7\n"
    optics += (
        "_rlnImageDimensionality #8\n1 og1 300 10.0 2.7 0.1 16 2\n2 og2 300 10.0 2.7 0.07 16 2\n"
    )
    tags = ("ImageName", "OpticsGroup", "DefocusU", "DefocusV", "DefocusAngle", "GroupName")
    lines = "".join(f"_rln{name} #{k}\n" for k, name in enumerate(tags, 1))
    rows = [f"{i + 1}@p.mrcs {i % 2 + 1} {9000 + 100 * i} 9000 3 g{i % 4}" for i in range(N)]
    comment = f"\n# version {version}\n\n"
    (folder / "p.star").write_text(
        f"{comment}data_optics\n\nloop_\n{optics}\n{comment}data_particles\n\nloop_\n{lines}"
        + "\n".join(rows)
        + "\n"
    )
    return "p.star"


def relion_5(folder: Path) -> str:
    return relion_31(folder, 50001)


STARS: dict[str, Callable[[Path], str]] = {"3.0": relion_30, "3.1": relion_31, "5": relion_5}


@pytest.mark.parametrize("version", STARS)
def test_a_relion_user_goes_there_and_back(tmp_path, monkeypatch, images, version):
    monkeypatch.chdir(tmp_path)
    write_mrcs(tmp_path / "p.mrcs", images, 10.0)
    name = STARS[version](tmp_path)
    first = fit(name, tmp_path / "run")
    run("select", "run", "--where", "rlnDefocusU between 9500 and 10600", "-o", "good.star")
    before, after = (starfile.read(f, always_dict=True) for f in (name, "good.star"))
    block = "particles" if "particles" in before else ""
    table, kept = before[block], after[block]
    chosen = table["rlnDefocusU"].between(9500, 10600)
    assert 5 < chosen.sum() < N
    for column in table.columns:
        assert kept[column].tolist() == table[column][chosen].tolist(), column
    assert ("# version" in Path("good.star").read_text()) == (version != "3.0")
    run("export", "run", "-o", "aligned.star")
    aligned = starfile.read("aligned.star", always_dict=True)[block]
    latents = first.latents()
    turned = np.deg2rad(aligned["rlnAnglePsi"].to_numpy() + latents["angle_deg"].to_numpy())
    opposite = np.deg2rad(aligned["rlnAnglePsi"].to_numpy() - latents["angle_deg"].to_numpy())
    assert min(np.abs(np.sin(turned)).max(), np.abs(np.sin(opposite)).max()) < 1e-4
    assert fit("good.star", tmp_path / "again").latents().shape[0] == chosen.sum()


def test_a_cryosparc_user_goes_there_and_back(tmp_path, monkeypatch, images):
    dataset = pytest.importorskip("cryosparc.dataset")
    monkeypatch.chdir(tmp_path)
    write_mrcs(tmp_path / "p.mrcs", images, 10.0)
    records = cryosparc_table(N, ">p.mrcs", 16)
    records["blob/psize_A"] = 10.0
    with open("p.cs", "wb") as file:
        np.save(file, records)
    fit("p.cs", tmp_path / "run")
    run("select", "run", "--where", "`ctf/df1_A` > 0 and abs(z_0) < 1e9", "-o", "good.cs")
    found = dataset.Dataset.load("good.cs")
    assert set(records.dtype.names) <= set(found.fields())
    assert found["uid"].tolist() == records["uid"][records["ctf/df1_A"] > 0].tolist()
    assert Path("good.csg").exists()
    assert fit("good.cs", tmp_path / "again").latents().shape[0] == len(found)


def test_a_cryodrgn_user_goes_there_and_back(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_mrcs(tmp_path / "p.mrcs", images, 10.0)
    turns = np.linalg.qr(rng.normal(size=(N, 3, 3)))[0]
    turns *= np.linalg.det(turns)[:, None, None]
    poses = (turns.astype(np.float32), rng.uniform(-0.1, 0.1, (N, 2)).astype(np.float32))
    row = [16, 10.0, 12000, 11500, 20, 300, 2.7, 0.1, 0]
    ctf = np.tile(np.array(row, np.float32), (N, 1))
    for name, content in (("poses", poses), ("ctf", ctf)):
        Path(f"{name}.pkl").write_bytes(pickle.dumps(content))
    files = ["--poses", "poses.pkl", "--ctf", "ctf.pkl"]
    run("fit", "p.mrcs", "-o", "run", "--recipe", "modpose-posed", "--epochs", 1, *files,
        "--batch-size", 8, "--z-dim", 1)  # fmt: skip
    run("select", "run", "--where", "z_0 > -1e9", "-o", "good.pkl")
    kept = pickle.loads(Path("good.pkl").read_bytes())
    np.testing.assert_array_equal(kept, np.arange(N))
    run("export", "run", "-o", "out", "--format", "pkl")
    written = {path.name: pickle.loads(path.read_bytes()) for path in Path("out").glob("*.pkl")}
    rotations, shifts = next(v for v in written.values() if isinstance(v, tuple))
    np.testing.assert_allclose(rotations, poses[0], atol=1e-5)
    np.testing.assert_allclose(shifts, poses[1], atol=1e-5)
    table = next(v for v in written.values() if getattr(v, "shape", ()) == (N, 9))
    np.testing.assert_allclose(table, ctf, rtol=1e-5)
    run("fit", "p.mrcs", "-o", "again", "--recipe", "modpose-posed", "--epochs", 1, *files,
        "--index", "good.pkl", "--batch-size", 8, "--z-dim", 1)  # fmt: skip


def ome_tiff(folder: Path, images: np.ndarray) -> str:
    path = folder / "cells.ome.tif"
    tifffile.imwrite(path, images, ome=True, metadata={"axes": "TYX", "PhysicalSizeX": 0.1})
    return path.name


def fits_folder(folder: Path, images: np.ndarray) -> str:
    fits = pytest.importorskip("astropy.io.fits")
    (folder / "galaxies").mkdir()
    for i, image in enumerate(images):
        fits.PrimaryHDU(image).writeto(folder / "galaxies" / f"g{i}.fits")
    return "galaxies"


Maker = Callable[[Path, np.ndarray], Any]


@pytest.mark.parametrize("make", [ome_tiff, fits_folder])
def test_a_user_of_pictures_goes_there_and_back(
    tmp_path, monkeypatch, images: np.ndarray, make: Maker
):
    monkeypatch.chdir(tmp_path)
    name = make(tmp_path, images)
    assert open_source(name).n == N
    latents = fit(name, tmp_path / "run").latents()
    middle = float(np.median(latents["z_0"]))
    run("select", "run", "--where", f"z_0 > {middle}", "-o", "good.txt")
    rows = np.loadtxt("good.txt", dtype=int)
    np.testing.assert_array_equal(rows, np.flatnonzero(latents["z_0"] > middle))
    run("export", "run", "-o", "out", "--format", "csv", "--format", "mrcs")
    assert {path.suffix for path in Path("out").iterdir()} == {".csv", ".mrcs"}
    run("fit", name, "-o", "again", "--recipe", "spatial-vae", *TINY, *SMALL, "--index", "good.txt")
    assert len(Run.open("again").latents()) == len(rows)
