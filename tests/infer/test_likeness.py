"""New images that are not like those of the fit are refused or named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.particles import Particles
from modpose.data.source import Source
from modpose.data.stack import ArrayStack
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.infer.likeness import check_alike, say_if_unlike


def dataset(size: float | None, box: int | None = None, in_table: bool = True) -> Dataset:
    images = np.random.default_rng(0).normal(size=(12, 16, 16)).astype(np.float32)
    table = pd.DataFrame({"rlnImageName": [f"{i + 1}@s.mrcs" for i in range(12)]})
    if in_table and size is not None:
        table["rlnImagePixelSize"] = size
    source = Source(ArrayStack(images, pixel_size=size), Particles(table, None, "star", "p.star"))
    return Dataset(source, DataConfig(box=box), seed=0)


def test_images_of_another_pixel_size_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    fitted = {"pixel_size": 4.0}
    with pytest.raises(InputError, match=r"p.star: the pixel size is 2 Å, expected 4 Å"):
        check_alike(dataset(2.0), fitted, ctf=False)
    check_alike(dataset(2.0, box=8), fitted, ctf=False)
    check_alike(dataset(None), fitted, ctf=False)
    check_alike(dataset(2.0), {}, ctf=False)
    check_alike(dataset(1.0, in_table=False), fitted, ctf=False)
    assert not caplog.text
    check_alike(dataset(4.2), fitted, ctf=False)
    assert "objects are 5.0 % smaller than the model expects" in caplog.text


def test_a_missing_ctf_is_named(caplog: pytest.LogCaptureFixture) -> None:
    fitted = {"data": {"columns": {"rlnDefocusU": "x"}}}
    check_alike(dataset(4.0), fitted, ctf=False)
    check_alike(dataset(4.0), {"data": {"columns": {}}, "ctf": None}, ctf=True)
    assert not caplog.text
    check_alike(dataset(4.0), fitted, ctf=True)
    assert "it gives no CTF, but the images of the fit had one" in caplog.text


def test_images_that_fit_far_worse_are_named(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(size=1000)
    say_if_unlike(rng.normal(size=50), known, "new.star")
    say_if_unlike(np.full(5, -100.0), known, "new.star")
    assert not caplog.text
    say_if_unlike(np.full(50, -100.0), known, "new.star")
    assert "new.star: most of these images fit worse than 99 %" in caplog.text


def test_a_model_names_inverted_images(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-8:8, -8:8]
    disc = 4.0 * np.exp(-((x**2 + y**2) / 18.0))
    images = (disc + rng.normal(size=(60, 16, 16))).astype(np.float32)
    options = {"train": {"epochs": 8, "batch_size": 20, "lr": 0.01}}
    model = PoseModel("vae", z_dim=1, options=options, quiet=True).fit(images)
    caplog.clear()
    model.encode(images)
    assert "fit worse" not in caplog.text
    model.encode(-images)
    assert "fit worse" in caplog.text
