"""What a notebook shows of the objects of the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modpose import PoseModel, Run, open_source
from modpose.data.inspect import Description
from modpose.progress import Progress

TINY = {
    "model": {"encoder": {"hidden": 8}, "field": {"hidden": 8}},
    "train": {"epochs": 1, "batch_size": 16, "pixels": 50},
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def model(images: np.ndarray) -> PoseModel:
    return PoseModel("spatial-vae", z_dim=2, options=TINY, quiet=True).fit(images)


def test_images_show_their_number_and_box(images: np.ndarray) -> None:
    text = open_source(images)._repr_html_()
    assert "an array in memory" in text and "<td style='text-align:left'>40</td>" in text
    assert "12 x 12 px" in text


def test_what_was_inferred_is_a_table(model: PoseModel, images: np.ndarray) -> None:
    text = model.encode(images)._repr_html_()
    assert "<table" in text and "z_1_std" in text and text.count("<tr") <= 11


def test_a_run_shows_its_recipe(model: PoseModel, tmp_path: Path) -> None:
    assert "spatial-vae" in model.save(tmp_path / "run")._repr_html_()
    assert "40" in Run.open(tmp_path / "run")._repr_html_()


def test_a_model_shows_its_parameters(model: PoseModel) -> None:
    assert "spatial-vae" in model._repr_html_()


def test_text_of_the_user_is_no_markup() -> None:
    shown = Description("<b>", "<i>", {"<u>": "<s>"}, ["<q>"])._repr_html_()
    assert not any(tag in shown for tag in ("<b>", "<i>", "<u>", "<s>", "<q>"))


def test_the_bar_of_a_short_fit_stays_within_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("fit", 10, seconds=1.2) as progress:
        progress.advance(10, 1.2)  # a warning of tqdm is an error here
    assert "s" in capsys.readouterr().err
