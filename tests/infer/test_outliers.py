"""Outliers told by contrast and likelihood."""

from __future__ import annotations

import numpy as np
import pandas as pd

from modpose.infer.outliers import outlier_alarm, outlier_score


def encoded(contrast: np.ndarray, std: np.ndarray, recon: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"contrast": contrast, "contrast_std": std, "recon": recon})


def test_faint_and_unlikely_images_stand_out_and_others_are_normal() -> None:
    rng = np.random.default_rng(0)
    n, spread = 5000, 0.2
    precision = rng.uniform(50, 400, n)  # what an image tells of its contrast
    truth = 1 + 0.1 * rng.standard_normal(n)
    truth[:100] = 0
    seen = truth + rng.standard_normal(n) / np.sqrt(precision)
    total = precision + spread**-2
    contrast = (precision * seen + spread**-2) / total
    recon = -500 + 20 * rng.standard_normal(n)
    recon[100:150] -= 200
    score = outlier_score(encoded(contrast, total**-0.5, recon), spread)
    assert score is not None
    assert (score[:100] > 3).mean() > 0.95 and (score[100:150] > 3).all()
    assert (score[150:] > 3).mean() < 0.02
    alarm = outlier_alarm(score)
    assert alarm is not None and "of 5,000 images" in alarm.sentence
    assert outlier_alarm(score[150:]) is None


def test_without_contrast_there_is_no_score() -> None:
    assert outlier_score(pd.DataFrame({"recon": [1.0, 2.0]}), 0.2) is None


def test_equal_images_are_no_outliers() -> None:
    ones = np.ones(10)
    score = outlier_score(encoded(ones, 0.1 * ones, ones), 0.2)
    assert score is not None and (score == 0).all()
