"""The null model of a table of bounds, against its formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.common import study
from studies.common.conduct import Study
from studies.common.null import LABEL, first_fits, null_bounds, null_row
from studies.common.samples import write_sample
from studies.common.study import Fit, Result

SMALL: dict[str, Any] = {
    "data": {"val_fraction": 0.0},
    "model": {"z_dim": 1, "encoder": {"hidden": 4}, "field": {"hidden": 4}},
    "train": {"epochs": 1},
}


def fitted(tmp_path: Path, images: np.ndarray, model: dict[str, Any], **data: Any) -> Result:
    sample = write_sample(tmp_path / "data", "some", "some", images, 20)
    options = {**SMALL, "data": SMALL["data"] | data, "model": SMALL["model"] | model}
    fit = Fit("fit", sample, "vae", options, 0, None, (2, 2))
    return Result.read(fit, study.carry_out(fit, tmp_path / "runs"))


def measured(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = np.linspace(0.5, 2.0, 36).reshape(6, 6)
    return (shape + shape * rng.normal(size=(80, 6, 6))).astype(np.float32)


@pytest.mark.parametrize("noise", ["learned", "per-pixel", "fixed"])
def test_measurements(tmp_path: Path, noise: str) -> None:
    images = measured()
    likelihood = {"kind": "gaussian", "noise": noise, "std": 2.0}
    result = fitted(tmp_path, images, {"likelihood": likelihood}, normalize="none")
    train, test = images[:60].astype(float), images[60:].astype(float)
    mean, std = train.mean(0), train.std(0)
    if noise != "per-pixel":
        std = np.full_like(std, 2.0 if noise == "fixed" else np.sqrt((std**2).mean()))
    density = -0.5 * ((test - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(null_bounds(result.fit), density.sum((1, 2)), rtol=1e-5)


def test_binary_pictures_and_the_row_of_a_table(tmp_path: Path) -> None:
    images = (np.random.default_rng(1).random((80, 6, 6)) < 0.3).astype(np.uint8) * 255
    likelihood = {"likelihood": {"kind": "bernoulli"}}
    result = fitted(tmp_path, images, likelihood, normalize="range")
    p, y = (images[:60] / 255).mean(0), images[60:] / 255
    density = (y * np.log(p) + (1 - y) * np.log(1 - p)).sum((1, 2))
    np.testing.assert_allclose(null_bounds(result.fit), density, rtol=1e-4)
    row = null_row(result, {"model": "m", "ELBO": -1.0, "KL": 2.0, "epochs": 3}, {"model": LABEL})
    assert list(row) == ["model", "ELBO", "KL", "epochs"] and row["epochs"] is None
    assert row["model"] == LABEL and row["KL"] == 0
    assert row["ELBO"] == pytest.approx(density.mean(), rel=1e-4)


def test_pixels_outside_the_mask_do_not_count(tmp_path: Path) -> None:
    images = measured(2)
    images[:, 0, 0] += np.random.default_rng(3).normal(0, 100, 80).astype(np.float32)
    likelihood = {"kind": "gaussian", "noise": "per-pixel", "std": 1.0}
    whole = fitted(tmp_path / "a", images, {"likelihood": likelihood}, normalize="none")
    disc = fitted(tmp_path / "b", images, {"likelihood": likelihood}, normalize="none", mask=0.9)
    assert null_bounds(disc.fit).mean() > null_bounds(whole.fit).mean()


def test_each_set_of_the_studies_is_named_once(tmp_path: Path) -> None:
    fit = fitted(tmp_path, measured(), {}, normalize="none").fit
    study = Study("Figure 1", [], [fit, replace(fit, name="another")], lambda results, page: [])
    assert first_fits([study, "left out"]) == {f"Figure 1: {fit.sample.name}": fit}
