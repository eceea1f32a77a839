"""The benchmark of time over the number of images: its molecule, its table, its line."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from modpose import open_source
from modpose.errors import InputError
from modpose.simulate.molecules import hinged_molecule

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import large_maps
from benchmarks.large_maps import coarse, joined, line, simulated, straight
from benchmarks.size import Cost

OPTIONS = Namespace(molecule=None, images=[9], box=16, snr=1.0, seed=0)


def test_neighbours_are_joined_and_mass_stays() -> None:
    fine = hinged_molecule()
    found = coarse(fine, 3)
    assert len(found.masses) < 0.4 * len(fine.masses)
    for part in (True, False):
        mine, own = fine.arm == part, found.arm == part
        assert found.masses[own].sum() == pytest.approx(fine.masses[mine].sum())
        centre = fine.masses[mine] @ fine.centers[mine]
        np.testing.assert_allclose(found.masses[own] @ found.centers[own], centre, rtol=1e-12)


def images_of(star: Path) -> NDArray[np.float32]:
    stack = open_source(star).stack
    return stack.read(np.arange(stack.n))


def test_a_table_names_the_first_images_of_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_maps, "SHARD", 4)
    stars = simulated(OPTIONS, tmp_path)
    assert len(stars) == 3
    images = np.concatenate([images_of(star) for star in stars])
    for count in (3, 9):
        found = images_of(joined(stars, count, tmp_path / "first.star"))
        np.testing.assert_array_equal(found, images[:count])
    with pytest.raises(InputError, match="the number of images is 9, expected 10"):
        joined(stars, 10, tmp_path / "first.star")


def test_the_line_of_times_that_are_straight_is_found_again() -> None:
    slope, start, off = straight([10, 30, 100], [25.0, 65.0, 205.0])
    assert (slope, start) == (pytest.approx(2.0), pytest.approx(5.0))
    np.testing.assert_allclose(off, 0, atol=1e-9)
    said = line("fit", [1000, 2000], [100.0, 136.0])
    assert "64 s and 36.00 ms per image, 10.0 h for a million" in said


def test_each_size_is_measured_and_the_line_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []

    def run(*words: str) -> Cost:
        said.append(words)
        return Cost(1.0, float(words[1].count("4") + 1), 2e9)

    monkeypatch.setattr(large_maps, "run", run)
    large_maps.main(["--images", "2", "4", "--box", "16", "--folder", str(tmp_path)])
    told = capsys.readouterr().out
    assert [words[0] for words in said] == ["fit", "volumes"] * 2
    assert "4 | maps" in told and "h for a million" in told and "2.00" in told
