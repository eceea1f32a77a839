"""A package outside the repository adds a recipe with an encoder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from modpose.evaluate.recovery import recover

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "reflection"
ENTRY = "[modpose.systems]\nreflection = {}\n"


def installed(folder: Path, entry: str = "reflection_vae:SYSTEM") -> Path:
    """Put the example where an installer would: its modules, and what names the entry point."""
    folder.mkdir()
    for module in EXAMPLE.glob("*.py"):
        shutil.copy(module, folder)
    about = folder / "reflection_vae-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: reflection-vae\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text(ENTRY.format(entry))
    return folder


def modpose(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "modpose", *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        cwd=site.parent,
    )


def chiral_shapes(count: int) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """An F of blobs at random poses, f(M^m R^T x), by hand; noise of a third of its brightness."""
    rng = np.random.default_rng(0)
    angle, mirrored = rng.uniform(-180, 180, count), rng.random(count) < 0.5
    x, y = np.meshgrid(np.arange(16.0) - 8, np.arange(16.0) - 8)
    cos, sin = (part(np.deg2rad(angle))[:, None, None] for part in (np.cos, np.sin))
    u, v = cos * x + sin * y, cos * y - sin * x
    v = np.where(mirrored[:, None, None], -v, v)
    stem = [(-1.5, -4.0), (-1.5, -1.5), (-1.5, 1.0), (-1.5, 3.5)]
    blobs = [*stem, (1.0, 3.5), (3.5, 3.5), (1.0, 0.0)]
    shapes = sum(np.exp(-((u - i) ** 2 + (v - j) ** 2) / 3) for i, j in blobs)
    images = shapes + 0.3 * rng.standard_normal(u.shape)
    truth = pd.DataFrame({"angle_deg": angle, "mirrored": mirrored.astype(int)})
    return images.astype(np.float32), truth


def test_its_recipe_finds_rotation_and_reflection(tmp_path: Path) -> None:
    site = installed(tmp_path / "site")
    images, truth = chiral_shapes(300)
    np.save(tmp_path / "x.npy", images)
    assert "reflection-vae" in modpose(site, "recipes").stdout
    options = ["--recipe", "reflection-vae", "--epochs", "12"]
    done = modpose(site, "fit", "x.npy", "-o", "run", *options)
    assert done.returncode == 0, done.stderr
    first = pd.read_parquet(tmp_path / "run" / "latents.parquet")
    figures = recover(first, truth)
    assert figures.mirrored_accuracy is not None and figures.mirrored_accuracy >= 0.95
    assert figures.rotation_rmse_deg is not None and figures.rotation_rmse_deg < 10
    assert ((first["mirrored_prob"] > 0.5) == (first["mirrored"] == 1)).all()
    done = modpose(site, "encode", "run", "x.npy", "-o", "again.parquet")
    assert done.returncode == 0, done.stderr
    again = pd.read_parquet(tmp_path / "again.parquet")
    np.testing.assert_array_equal(again["mirrored"], first["mirrored"])
    np.testing.assert_allclose(again["angle_deg"], first["angle_deg"], atol=1e-3)
    assert modpose(site, "report", "run").returncode == 0
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "of the images show the object mirrored" in page
    done = modpose(site, "encode", "run", "x.npy", "--search", "-o", "s.parquet")
    assert done.returncode == 2 and "the search knows no mirror images" in done.stderr


def test_its_options_are_kept_and_its_shifts_turn_with_the_copies(tmp_path: Path) -> None:
    site = installed(tmp_path / "site")
    np.save(tmp_path / "x.npy", chiral_shapes(40)[0])
    settings = ("model.encoder.rotations=4", "model.shift.prior=gaussian")
    chosen = [word for one in settings for word in ("--set", one)]
    options = ["--recipe", "reflection-vae", "--epochs", "1", *chosen]
    done = modpose(site, "fit", "x.npy", "-o", "run", *options)
    assert done.returncode == 0, done.stderr
    assert "kind: copies\n    rotations: 4" in (tmp_path / "run" / "config.yaml").read_text()
    assert "shift_x" in pd.read_parquet(tmp_path / "run" / "latents.parquet")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model.encoder.rotation=3", "there is no option"),
        ("model.encoder.rotations=many", "expected a whole number"),
        ("model.encoder.kind=momentous", "expected one of"),
    ],
)
def test_what_is_wrong_with_its_options_is_said(tmp_path: Path, setting: str, says: str) -> None:
    site = installed(tmp_path / "site")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(8, 16, 16)))
    done = modpose(
        site, "fit", "x.npy", "-o", "run", "--recipe", "reflection-vae", "--set", setting
    )
    assert done.returncode == 2 and says in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_a_package_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    site = installed(tmp_path / "site", "reflection_vae:NOTHING")
    done = modpose(site, "recipes")
    assert done.returncode == 2
    assert "the entry point reflection of modpose.systems" in done.stderr


def test_a_run_of_a_package_that_is_gone_is_named(tmp_path: Path) -> None:
    site = installed(tmp_path / "site")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(8, 16, 16)))
    options = ["--recipe", "reflection-vae", "--epochs", "1"]
    assert modpose(site, "fit", "x.npy", "-o", "run", *options).returncode == 0
    shutil.rmtree(site)
    site.mkdir()
    done = modpose(site, "report", "run")
    assert done.returncode == 2 and "model.encoder is {'hidden'" in done.stderr
