"""A set of tilt series for several files of tests; others have own fixtures of these names."""

from __future__ import annotations

from pathlib import Path

import pytest

from modpose.data.tilt_series import TiltSeries, open_tilt_series
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import SimulatedTilts
from tests.search.tilt_set import simulated


@pytest.fixture(scope="module")
def made() -> SimulatedTilts:
    return simulated()


@pytest.fixture(scope="module")
def table(made: SimulatedTilts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the optimisation set of 48 particles of one molecule, without poses."""
    return write_tilts(made, tmp_path_factory.mktemp("tilts"), poses=False)


@pytest.fixture(scope="module")
def series(table: Path) -> TiltSeries:
    return open_tilt_series(table)
