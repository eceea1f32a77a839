from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import poses
from modpose.evaluate import metrics


def test_both_measures_of_rotation_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    true, n = rng.uniform(-180, 180, 400), 400
    errors = rng.normal(0, 10, n)

    def encode(images: Any, search: bool = False, copies: int = 1) -> Any:
        moved = images.max() > 0
        angle = true + errors if moved else np.zeros(n)
        shift = np.zeros((n, 2)) + 1e-3 * rng.normal(size=(n, 2))
        return SimpleNamespace(angle_deg=angle, shift=shift, elbo=np.zeros(n))

    truth = pd.DataFrame({"angle_deg": true, "shift_x": 0.0, "shift_y": 0.0})
    truth[["shift_x", "shift_y"]] = rng.normal(size=(n, 2))
    images = np.ones((n, 4, 4), np.float32)
    model: Any = SimpleNamespace(encode=encode)
    poses.report_poses(model, images, 0 * images, truth, np.arange(n) % 10)
    said = capsys.readouterr().out
    assert "ill-conditioned" in said
    resultant = float(re.search(r"([\d.]+) \(all\)", said)[1])  # type: ignore[index]
    assert resultant == pytest.approx(metrics.resultant_length(errors), abs=6e-4)
    circular = float(re.search(r"angles\) (-?[\d.]+)", said)[1])  # type: ignore[index]
    expected = metrics.circular_correlation(true + errors, true)
    assert circular == pytest.approx(expected, abs=6e-4)
