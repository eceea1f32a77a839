"""The report of images with given poses: before sharp maps, with them, and with those of old."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from modpose import Run
from modpose.content_maps.files import read_content_maps
from modpose.fourier.fsc import HALF_MAPS
from modpose.outputs.content_maps import stored_content_maps
from modpose.outputs.volumes import at_clusters
from modpose.plot import figures
from modpose.plot.surface import surface_of, turning
from modpose.report import build_report
from tests.outputs.test_sharp_volumes import drawn, folder  # noqa: F401

CONTENT_MAPS = "content_maps.safetensors"


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw at a low resolution, which is quick."""
    monkeypatch.setattr(figures, "DPI", 30)


@pytest.fixture
def run(folder: Path, drawn: Path, tmp_path: Path) -> Run:  # noqa: F811
    shutil.copytree(folder / "run", tmp_path / "run")
    return Run.open(tmp_path / "run")


def reported(run: Run) -> str:
    return build_report(run.path, quiet=True).read_text()


def test_without_sharp_maps_the_report_says_how_to_get_them(run: Run) -> None:
    (run.path / CONTENT_MAPS).unlink()
    text = reported(run)
    assert "These are maps of the model." in text
    assert "computes sharp ones, and &#39;modpose report&#39; then shows those." in text
    assert "Content is in standard deviations of its prior." in text
    for anchor in ("conformations", "surface", "content", "orientations", "reconstructions"):
        assert f'<section id="{anchor}">' in text
    assert '<section id="resolution">' not in text


def test_sharp_maps_are_drawn_with_their_resolution_and_images(run: Run) -> None:
    text = reported(run)
    sharp = stored_content_maps(run)
    assert sharp is not None
    assert "These are sharp maps, from all images near each content." in text
    assert "computes sharp ones" not in text
    stops = at_clusters(sharp.z, 6, run.config.seed)
    for z, name in zip(stops.z, stops.names, strict=True):
        one = sharp.draw(z)
        row = (name, f"{one.images:,.0f}", f"{one.curve.resolution(HALF_MAPS):.3g} Å")
        assert "".join(f"<td>{cell}</td>" for cell in row) in text
    pictures = {path.name for path in (run.path / "report").glob("*.png")}
    assert {"fsc.png", "local-resolution.png", "orientations.png", "volumes-walk.png"} <= pictures


def test_sharp_maps_of_another_fit_are_left_out(run: Run) -> None:
    (run.path / "added.parquet").unlink()  # as a fit that goes on does
    run.write_latents(run.latents().assign(z_0=1.0))
    read_content_maps(run.path / CONTENT_MAPS)  # they are there
    text = reported(run)
    assert "The sharp maps in the run are of another fit" in text
    assert "These are maps of the model." in text
    assert '<section id="resolution">' not in text


def test_the_page_holds_the_surface_of_every_map(run: Run) -> None:
    text = reported(run)
    found = re.search(r'id="surface-data">(.*?)</script>', text)
    assert found is not None
    data = json.loads(found[1])
    assert len(data["steps"]) == 7
    assert "script-src 'unsafe-inline' data:;" in text
    modules = re.search(r'<script type="importmap">(.*?)</script>', text)
    assert modules is not None
    assert set(json.loads(modules[1])["imports"]) == {"modpose/surface", "modpose/ogl"}


def test_surfaces_to_turn_share_a_level_and_fill_their_box() -> None:
    axis = np.arange(20) - 10
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis, indexing="ij")))
    balls = np.stack([(radius < 4), (radius < 6)]).astype(np.float32)
    data = turning(balls, ["small", "large"])
    assert [step["name"] for step in data["steps"]] == ["small", "large"]
    level = float(balls.mean() + 2.5 * balls.std())
    for ball, step in zip(balls, data["steps"], strict=True):
        assert base64.b64decode(step["packed"]) == surface_of(ball, level).packed()
    assert 2 * 5 < data["side"] < 2 * 6.5
