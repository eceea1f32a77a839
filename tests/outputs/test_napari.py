"""The reader for napari, without napari: layers, arrows and what is read of the stack."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml

from modpose import PoseModel
from modpose.data.mrc import write_mrcs
from modpose.errors import InputError
from modpose.outputs import napari

STAR = """data_particles

loop_
_rlnImageName #1
_rlnAnglePsi #2
_rlnOriginX #3
_rlnOriginY #4
1@stack.mrcs 0 0 0
2@stack.mrcs 90 -2 1
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).normal(size=(2, 16, 16)).astype(np.float32)
    write_mrcs(tmp_path / "stack.mrcs", images, 2.0)
    path = tmp_path / "particles.star"
    path.write_text(STAR)
    return path


def test_the_manifest_names_the_reader() -> None:
    text = resources.files("modpose").joinpath("napari.yaml").read_text()
    [command] = yaml.safe_load(text)["contributions"]["commands"]
    module, _, function = command["python_name"].partition(":")
    assert module == napari.__name__ and hasattr(napari, function)


def test_a_table_becomes_images_and_arrows(table: Path) -> None:
    opened = napari.reader(str(table))
    assert opened is not None
    (images, about, kind), (arrows, more, other) = opened(str(table))
    assert (kind, other) == ("image", "vectors") and images.shape == (2, 16, 16)
    assert about["scale"] == more["scale"] == [1.0, 2.0, 2.0]
    first, second = np.asarray(images[0]), np.asarray(images[1:, 2, 3:5])
    assert first.shape == (16, 16) and second.shape == (1, 2)
    assert np.array_equal(np.asarray(images[-1, 2, 3:5]), second[0])
    assert "rlnAnglePsi" in more["features"]
    # psi = 0 points along +x; 90 degrees along +y or -y, and the origin is minus the shift
    assert arrows[0].tolist() == [[0, 8, 8], [0, 0, 4]]
    assert np.allclose(arrows[1, 0], [1, 8 - 1, 8 + 2])
    assert np.allclose(np.abs(arrows[1, 1]), [0, 4, 0], atol=1e-6)


def test_a_run_opens_and_other_folders_do_not(tmp_path: Path, table: Path) -> None:
    assert napari.reader(str(tmp_path)) is None
    assert napari.reader([str(table), str(table)]) is None
    options = {
        "model": {"encoder": {"hidden": 8}, "field": {"hidden": 8}},
        "train": {"epochs": 1},
    }
    images = np.random.default_rng(0).normal(size=(20, 16, 16)).astype(np.float32)
    write_mrcs(tmp_path / "twenty.mrcs", images, 2.0)
    model = PoseModel("spatial-vae", z_dim=1, options=options, quiet=True)
    model.fit(str(tmp_path / "twenty.mrcs"))
    run = model.save(tmp_path / "run")
    opened = napari.reader(str(tmp_path / "run"))
    assert opened is not None
    _, (arrows, about, _) = opened(str(run.path))
    latents = run.latents()
    assert np.allclose(arrows[:, 0, 1:], 8 + latents[["shift_y", "shift_x"]], atol=1e-5)
    angle = np.deg2rad(latents["angle_deg"])
    assert np.allclose(arrows[:, 1, 2], 4 * np.cos(angle), atol=1e-5)
    assert list(about["features"]["name"])[:2] == ["1@twenty.mrcs", "2@twenty.mrcs"]


def test_coloured_images_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "rgb.npy", np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="coloured"):
        napari.layers(tmp_path / "rgb.npy")
