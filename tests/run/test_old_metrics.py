"""Metrics of runs of version 0.1 are read under their present names."""

from __future__ import annotations

from pathlib import Path

import pytest

from modpose.run.files import read_metrics

STORED = Path(__file__).parents[1] / "stored_runs"


def test_terms_have_their_present_names() -> None:
    first = read_metrics(STORED / "modpose-3d" / "metrics.jsonl")[0]
    assert first["pose_supervision"] == pytest.approx(15.887474166022407)
    assert "first_pass" in read_metrics(STORED / "modpose" / "metrics.jsonl")[0]
