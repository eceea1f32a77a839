"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.another_device import given_device
from tests.small_data import write_small_data

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
# The same tests try the same examples; HYPOTHESIS_PROFILE=new tries others.
# A busy machine makes examples slowly; that is no fault of a test.
LATE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **LATE)
settings.register_profile("new", **LATE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


DATA = Path(os.environ.get("MODPOSE_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = [pytest.param("real", marks=pytest.mark.shared)] if DATA.is_dir() else []


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data sets, or skip where there is none."""
    if not DATA.is_dir():
        pytest.skip(f"the real data sets are not in {DATA} (set MODPOSE_DATA)")
    return DATA


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of small files of our own, named as the real ones are."""
    folder = tmp_path_factory.mktemp("small-data")
    write_small_data(folder)
    return folder


@pytest.fixture(params=["small", *REAL])
def some_data(request: pytest.FixtureRequest) -> Path:
    """Return the small files and then, where they are, the real ones: a test of both."""
    folder: Path = request.getfixturevalue(
        "small_data" if request.param == "small" else "shared_data"
    )
    return folder


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name a device to compute on: that of MODPOSE_TEST_DEVICE, or one that is made up."""
    with given_device(monkeypatch) as name:
        yield name


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Start every test from the same random state, whatever ran before it."""
    torch.manual_seed(0)
