"""Contenders that are recipes of this package, run by its own command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.estimator import PoseModel
from modpose.outputs.content_maps import stored_content_maps
from modpose.run import Run
from studies.cryobench.measure import Cost, measured, once
from studies.cryobench.score import Draw

MODPOSE = (sys.executable, "-m", "modpose")
RECIPES = {"ours": "modpose-posed", "own-cryodrgn": "cryodrgn", "own-vlt": "vlt"}


def fit(name: str, star: Path, folder: Path, seed: int, options: Sequence[str]) -> Cost:
    """Fit a recipe with these options of ``modpose fit``; of ours compute the sharp maps too."""
    run, log = folder / "run", folder / "log.txt"
    options = ["--recipe", RECIPES[name], "--seed", str(seed), *options]
    command = [*MODPOSE, "fit", str(star), "-o", str(run), *options]
    cost = once(folder / "fit.json", lambda: measured(command, log))
    if name == "ours":
        drawn = ["-o", str(folder / "volumes"), "--cluster", "1"]
        cost += measured([*MODPOSE, "volumes", str(run), *drawn], log)
    return cost


def drawing(name: str, folder: Path) -> Draw:
    """Draw the sharp maps of ours, the decoder's maps of the others."""
    run = Run.open(folder / "run")
    if name == "ours":
        maps = stored_content_maps(run)
        assert maps is not None
        return lambda rows: (maps.volume(maps.z[row]) for row in rows)
    model, z = PoseModel.load(run.path), run.content()
    return lambda rows: (np.asarray(model.decode(z[row][None])[0], np.float32) for row in rows)


def averaged(folder: Path, state: NDArray[np.int64]) -> Draw:
    """Draw the sharp maps of ours at the mean content of all images of the same true state.

    What these maps reach more tells how much is lost where the content of one image is wrong.
    """
    maps = stored_content_maps(Run.open(folder / "run"))
    assert maps is not None
    return lambda rows: (maps.volume(maps.z[state == state[row]].mean(0)) for row in rows)


def mask_of(folder: Path) -> NDArray[np.float32]:
    """Return the mask that the sharp maps of ours were computed in."""
    maps = stored_content_maps(Run.open(folder / "run"))
    assert maps is not None
    return maps.mask
