"""The benchmark of alignments runs and says what it measured."""

from __future__ import annotations

import pytest

from benchmarks import averaging


def test_a_small_alignment_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--volumes", "16", "--box", "20", "--snr", "2", "--rounds", "1", "--rotations", "30"]
    averaging.main(small)
    out = capsys.readouterr().out
    assert "1 molecule, 16 volumes, SNR 2, seed 0" in out
    assert "× the bound" in out


def test_the_rate_of_the_search_is_positive() -> None:
    assert averaging.search_rate(20, 0.1, 24, 2) > 0
