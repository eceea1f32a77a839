"""Views that are too few: one is refused, gaps and unevenness are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from modpose import InputError, fit_run, open_source
from modpose.alarms.sample import take_sample
from modpose.alarms.views import views_alarm
from modpose.backprojection.halves import check_projections
from modpose.config import DataConfig, parse_config
from modpose.data.dataset import Dataset
from modpose.data.source import Source
from modpose.recipes import recipe_config
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import ProjectionSettings, simulate_projections


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    made = simulate_projections(ProjectionSettings(400, 16, 10.0), built_in_conformers(1))
    return open_source(write_projections(made, tmp_path_factory.mktemp("views")))


TILTED = Rotation.from_euler("XYZ", [40, 50, 60], degrees=True).as_matrix()
ALONG_X = np.eye(3)[[1, 2, 0]]


def seen_within(source: Source, degrees: float, frame: NDArray[np.float64] = TILTED) -> Source:
    """The same images with views within so many degrees of the third axis of a frame."""
    rng = np.random.default_rng(0)
    rot, psi = rng.uniform(0, 360, (2, source.n))
    tilt = np.rad2deg(np.arccos(rng.uniform(np.cos(np.deg2rad(degrees)), 1, source.n)))
    turns = Rotation.from_euler("ZYZ", np.stack([rot, tilt, psi], 1), degrees=True).as_matrix()
    return source.with_poses(turns.transpose(0, 2, 1) @ frame, np.zeros((source.n, 2)))


def dataset(source: Source) -> Dataset:
    return Dataset(source, DataConfig(val_fraction=0), seed=0, poses=True)


def test_even_views_raise_no_alarm(source: Source) -> None:
    assert views_alarm(take_sample(dataset(source))) is None


def test_a_gap_is_told(source: Source) -> None:
    alarm = views_alarm(take_sample(dataset(seen_within(source, 30))))
    assert alarm is not None and alarm.name == "views"
    assert "hardly any image tells 4" in alarm.sentence  # 1 - sin(30° + 6°) is 41 %


def test_symmetry_fills_the_gap_of_views_of_one_side(source: Source) -> None:
    sample = take_sample(dataset(seen_within(source, 45, ALONG_X)))
    assert views_alarm(sample) is not None
    assert views_alarm(sample, "C4") is None  # the same from four sides
    assert views_alarm(sample, "C2") is not None


def test_uneven_views_are_told(source: Source) -> None:
    rotation = dataset(seen_within(source, 20)).rotation
    even = dataset(source).rotation
    assert rotation is not None and even is not None
    rotation[:80] = even[:80]
    found = views_alarm(take_sample(dataset(source.with_poses(rotation, np.zeros((400, 2))))))
    assert found is not None and "The views are uneven" in found.sentence


@pytest.mark.parametrize("degrees", [0, 4])
def test_one_view_is_refused_before_the_fit(source: Source, tmp_path: Path, degrees: int) -> None:
    one = seen_within(source, degrees)
    with pytest.raises(InputError, match="all images show the object from one direction"):
        check_projections(dataset(one))
    options = parse_config(recipe_config("modpose-posed"), "test")
    with pytest.raises(InputError, match="expected rotations in 3-D from a refinement"):
        fit_run(one, options, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_narrow_cone_is_no_single_view(source: Source) -> None:
    check_projections(dataset(seen_within(source, 15)))
