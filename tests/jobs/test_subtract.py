"""Subtraction: what a map explains outside a mask leaves the images, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.poses import given_poses
from modpose.data.posing import with_pose
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.geometry.rotations import haar_rotations
from modpose.jobs import shards
from modpose.jobs.subtract import subtract
from modpose.observe.ctf import ctf_2d

N, BOX, PIXEL, SIGMA = 12, 32, 3.0, 2.0
CENTRES = {"kept": (4.0, 2.0, -1.0), "gone": (-5.0, -3.0, 4.0)}
SCALE = 1.7
CTF = [PIXEL, 9000.0, 8500.0, 30.0, 300.0, 2.7, 0.1, 0.0, 0.0]


def blob(center: tuple[float, float, float]) -> np.ndarray:
    """A Gaussian whose projection along z has the height 1."""
    z, y, x = np.meshgrid(*[np.arange(BOX) - BOX // 2] * 3, indexing="ij")
    square = (x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2
    return np.exp(-square / (2 * SIGMA**2)) / np.sqrt(2 * np.pi) / SIGMA


def seen(name: str, rotation: np.ndarray, shift: np.ndarray, state: str) -> np.ndarray:
    """What each image shows of a blob, by hand."""
    axis = np.arange(BOX) - BOX // 2
    place = rotation @ np.array(CENTRES[name])
    x = axis - place[:, 0, None] - shift[:, 0, None]
    y = axis - place[:, 1, None] - shift[:, 1, None]
    flat = np.exp(-(x[:, None, :] ** 2 + y[:, :, None] ** 2) / (2 * SIGMA**2))
    factor = ctf_2d(torch.tensor([CTF], dtype=torch.float64), (BOX, BOX)).numpy()
    factor = {"recorded": factor, "flipped": np.abs(factor), "multiplied": factor**2}[state]
    return SCALE * np.fft.irfft2(np.fft.rfft2(flat) * factor, s=(BOX, BOX))


def make(folder: Path, state: str = "recorded", noise: float = 0.0) -> dict[str, np.ndarray]:
    """Images, their table, the map and the mask; returns what each blob gives."""
    rotation = haar_rotations(N, torch.Generator().manual_seed(1)).double().numpy()
    shift = np.random.default_rng(0).normal(0, 1.5, (N, 2))
    parts = {name: seen(name, rotation, shift, state) for name in CENTRES}
    images = sum(parts.values()) + noise * np.random.default_rng(1).normal(size=(N, BOX, BOX))
    folder.mkdir(parents=True, exist_ok=True)
    write_mrcs(folder / "stack.mrcs", images.astype(np.float32), PIXEL)
    names = ("Voltage", "SphericalAberration", "AmplitudeContrast")
    optics = {"rlnOpticsGroup": 1, "rlnImagePixelSize": PIXEL, "rlnImageSize": BOX}
    optics |= {f"rln{name}": value for name, value in zip(names, CTF[4:7], strict=True)}
    optics |= {
        "rlnCtfDataArePhaseFlipped": int(state == "flipped"),
        "rlnCtfDataAreCtfPremultiplied": int(state == "multiplied"),
    }
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{k + 1}@stack.mrcs" for k in range(N)],
            "rlnDefocusU": CTF[1],
            "rlnDefocusV": CTF[2],
            "rlnDefocusAngle": CTF[3],
            "rlnOpticsGroup": 1,
        }
    )
    particles = Particles(table, pd.DataFrame([optics]), "star")
    posed = with_pose(particles, rotation=rotation, shift=shift)
    write_star(folder / "p.star", posed.table, posed.optics)
    kept, gone = blob(CENTRES["kept"]), blob(CENTRES["gone"])
    write_mrcs(folder / "map.mrc", (kept + gone)[None].astype(np.float32), PIXEL)
    write_mrcs(folder / "mask.mrc", (kept / (kept + gone))[None].astype(np.float32), PIXEL)
    return parts


@pytest.mark.parametrize("state", ["recorded", "flipped", "multiplied"])
def test_what_lies_outside_the_mask_is_gone(tmp_path: Path, state: str) -> None:
    parts = make(tmp_path, state)
    source = open_source(tmp_path / "p.star")
    files = tmp_path / "map.mrc", tmp_path / "mask.mrc"
    table, scale = subtract(source, *files, tmp_path / "out", quiet=True)
    # trilinear reading of the doubled lattice is good to about a percent here
    assert scale == pytest.approx(SCALE, rel=0.02)
    again = open_source(table)
    left = again.stack.read(np.arange(N))[:, 0]
    wrong = np.linalg.norm(left - parts["kept"]) / np.linalg.norm(parts["gone"])
    assert wrong < 0.03
    before, after = source.particles.poses(), again.particles.poses()
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)
    np.testing.assert_allclose(after[1], before[1], atol=1e-5)
    np.testing.assert_array_equal(again.particles.ctf(), source.particles.ctf())
    assert again.particles.table["rlnImageOriginalName"][1] == "2@stack.mrcs"


def test_the_verb_and_a_given_scale(tmp_path: Path) -> None:
    make(tmp_path, noise=0.1)
    words = ["subtract", str(tmp_path / "p.star"), "-o", str(tmp_path / "out")]
    words += ["--map", str(tmp_path / "map.mrc"), "--mask", str(tmp_path / "mask.mrc")]
    done = CliRunner().invoke(app, [*words, "--scale", "0"])
    assert done.exit_code == 0, done.output
    images = [open_source(tmp_path / name) for name in ("p.star", "out/particles.star")]
    before, after = (source.stack.read(np.arange(N)) for source in images)
    np.testing.assert_array_equal(before, after)
    again = CliRunner().invoke(app, words)
    assert "already exists" in str(again.exception)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path / "p.star")
    map_file, mask, out = tmp_path / "map.mrc", tmp_path / "mask.mrc", tmp_path / "out"
    small = np.ones((1, 16, 16, 16), np.float32)
    write_mrcs(tmp_path / "small.mrc", small, PIXEL)
    with pytest.raises(InputError, match="the box is 16 x 16 x 16, expected 32 x 32 x 32"):
        subtract(source, map_file, tmp_path / "small.mrc", out)
    write_mrcs(tmp_path / "fine.mrc", np.ones((1, BOX, BOX, BOX), np.float32), 1.0)
    with pytest.raises(InputError, match="pixel size is 1 Å, expected 3 Å"):
        subtract(source, tmp_path / "fine.mrc", mask, out)
    write_mrcs(tmp_path / "two.mrc", np.full((1, BOX, BOX, BOX), 2, np.float32), PIXEL)
    with pytest.raises(InputError, match="mask is from 2 to 2, expected values from 0 to 1"):
        subtract(source, map_file, tmp_path / "two.mrc", out)
    dark = -(blob(CENTRES["kept"]) + blob(CENTRES["gone"]))[None].astype(np.float32)
    write_mrcs(tmp_path / "dark.mrc", dark, PIXEL)
    with pytest.raises(InputError, match="images are dark where the map is bright"):
        subtract(source, tmp_path / "dark.mrc", mask, out)
    with pytest.raises(InputError, match="there are no poses"):
        subtract(open_source(tmp_path / "stack.mrcs"), map_file, mask, out, scale=1.0)
    with pytest.raises(InputError, match="--scale is nan, expected a number"):
        subtract(source, map_file, mask, out, scale=float("nan"))
    assert not out.exists()


def test_an_interrupted_job_goes_on_only_with_its_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    source, out = open_source(tmp_path / "p.star"), tmp_path / "out"
    files = tmp_path / "map.mrc", tmp_path / "mask.mrc"
    made = shards.write_mrcs_parts

    def stopped(path: Path, *rest: object, **more: object) -> None:
        if path.name == "particles_00001.mrcs":
            raise KeyboardInterrupt
        made(path, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_mrcs_parts", stopped)
        with pytest.raises(KeyboardInterrupt):
            subtract(source, *files, out, shard=5, quiet=True)
    rotation, shift = given_poses(source)
    with pytest.raises(InputError, match="an interrupted job with another set of poses"):
        subtract(source.with_poses(rotation, shift + 1), *files, out, shard=5, quiet=True)
    given = np.repeat([CTF], N, axis=0)
    other = replace(source, particles=replace(source.particles, given_ctf=given))
    about = json.loads((out / shards.SETTINGS).read_text())
    with pytest.raises(InputError, match="an interrupted job with another CTF"):
        shards.begin(shards.Shards(out, N, 5), other, about, out / "particles.star", False)
    subtract(source, *files, out, shard=5, quiet=True)
