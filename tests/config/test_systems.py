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

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "moments"
ENTRY = "[modpose.systems]\nmoments = {}\n"


def installed(folder: Path, entry: str = "moments_vae:SYSTEM") -> Path:
    """Put the example where an installer would: its modules, and what names the entry point."""
    folder.mkdir()
    for module in EXAMPLE.glob("*.py"):
        shutil.copy(module, folder)
    about = folder / "moments_vae-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: moments-vae\nVersion: 0.1.0\n")
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


def test_its_recipe_is_fitted_reported_and_encoded_with(tmp_path: Path) -> None:
    site = installed(tmp_path / "site")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 16, 16)))
    assert "moments-vae" in modpose(site, "recipes").stdout
    options = ["--recipe", "moments-vae", "--epochs", "2", "--set", "model.encoder.orders=3"]
    done = modpose(site, "fit", "x.npy", "-o", "run", *options)
    assert done.returncode == 0, done.stderr
    assert "kind: moments\n    orders: 3" in (tmp_path / "run" / "config.yaml").read_text()
    done = modpose(site, "encode", "run", "x.npy", "-o", "again.parquet")
    assert done.returncode == 0, done.stderr
    first = pd.read_parquet(tmp_path / "run" / "latents.parquet")
    again = pd.read_parquet(tmp_path / "again.parquet")
    np.testing.assert_allclose(again["angle_deg"], first["angle_deg"], atol=1e-3)
    assert modpose(site, "report", "run").returncode == 0


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model.encoder.order=3", "there is no option"),
        ("model.encoder.orders=many", "expected a whole number"),
        ("model.encoder.kind=momentous", "expected one of"),
    ],
)
def test_what_is_wrong_with_its_options_is_said(tmp_path: Path, setting: str, says: str) -> None:
    site = installed(tmp_path / "site")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(8, 16, 16)))
    done = modpose(site, "fit", "x.npy", "-o", "run", "--recipe", "moments-vae", "--set", setting)
    assert done.returncode == 2 and says in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_a_package_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    site = installed(tmp_path / "site", "moments_vae:NOTHING")
    done = modpose(site, "recipes")
    assert done.returncode == 2
    assert "the entry point moments of modpose.systems" in done.stderr


def test_a_run_of_a_package_that_is_gone_is_named(tmp_path: Path) -> None:
    site = installed(tmp_path / "site")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(8, 16, 16)))
    options = ["--recipe", "moments-vae", "--epochs", "1"]
    assert modpose(site, "fit", "x.npy", "-o", "run", *options).returncode == 0
    shutil.rmtree(site)
    site.mkdir()
    done = modpose(site, "report", "run")
    assert done.returncode == 2 and "model.encoder is {'hidden'" in done.stderr
