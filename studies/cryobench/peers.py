"""Contenders that are other programs, installed in environments of their own and run as commands.

cryoDRGN: ``parse_pose_star``, ``parse_ctf_star``, ``train_vae`` and ``eval_vol`` with their
defaults but for the networks' width (3 × 256) and the number of epochs.

RECOVAR: the mean map alone (``pipeline --only-mean``).  Version 1.0.5 without a GPU draws it
twice too large: its insertion on the CPU leaves out the factor two between the spacing of images
and of the finer lattice, which the GPU's has.  No map of it can be compared there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from modpose.errors import InputError
from modpose.fourier.fsc import read_map
from studies.cryobench.measure import Cost, measured
from studies.cryobench.score import Draw, Judge, Volume

PEERS = ("cryodrgn", "recovar")
Z_DIM = 8
AS_TEXT = (
    "import pickle, sys, numpy\nnumpy.savetxt(sys.argv[2], pickle.load(open(sys.argv[1], 'rb')))"
)
"""Run by the peer's own Python: its pickled content as text."""


def python_of(name: str, options: argparse.Namespace) -> Path:
    """Return the Python of a peer's environment; raise InputError if it is not given or there."""
    python: Path | None = getattr(options, f"{name}_python")
    if python is None or not (python.parent / name).is_file():
        found = "not given" if python is None else f"{python}, without {name} beside it"
        raise InputError(
            f"--{name}-python: {found}, expected the Python of an environment with {name}"
        )
    return python


def fit(name: str, python: Path, star: Path, folder: Path, seed: int, epochs: int) -> Cost:
    """Run a peer on a set."""
    command, log = str(python.parent / name), folder / "log.txt"
    if name == "recovar":
        options = ["--mask", "sphere", "--only-mean", "--accept-cpu", "--no-downsample"]
        where = ["-o", str(folder / "run"), "--zdim", "4"]
        return measured([command, "pipeline", str(star), *where, *options], log)
    poses, ctf, run = (folder / part for part in ("poses.pkl", "ctf.pkl", "run"))
    cost = measured([command, "parse_pose_star", str(star), "-o", str(poses)], log)
    cost += measured([command, "parse_ctf_star", str(star), "-o", str(ctf)], log)
    given = ["--poses", str(poses), "--ctf", str(ctf), "--zdim", str(Z_DIM), "--seed", str(seed)]
    size = ["-n", str(epochs), "--enc-dim", "256", "--dec-dim", "256", "--no-analysis"]
    train = [command, "train_vae", str(star), "--datadir", str(star.parent), "-o", str(run)]
    return cost + measured([*train, *given, *size], log)


def drawing(name: str, python: Path, folder: Path) -> Draw:
    """Draw the maps of images; of RECOVAR the mean."""
    if name == "recovar":
        mean = read_map(folder / "run" / "output" / "volumes" / "mean.mrc")[0]
        return lambda rows: (mean for _ in rows)
    return lambda rows: _decoded(python, folder, rows)


def _decoded(python: Path, folder: Path, rows: NDArray[np.int64]) -> list[Volume]:
    """Let cryoDRGN draw the maps of these images' content."""
    run, log, maps = folder / "run", folder / "log.txt", folder / "maps"
    text, asked = folder / "z.txt", folder / "asked.txt"
    measured([str(python), "-c", AS_TEXT, str(run / "z.pkl"), str(text)], log)
    np.savetxt(asked, np.loadtxt(text)[rows])
    command = [str(python.parent / "cryodrgn"), "eval_vol", str(run / "weights.pkl")]
    given = ["-c", str(run / "config.yaml"), "--zfile", str(asked)]
    measured([*command, *given, "-o", str(maps)], log)
    made = [read_map(path)[0] for path in sorted(maps.glob("vol_*.mrc"))]
    if len(made) != len(rows):
        raise InputError.of(maps, "the number of maps", len(made), f"{len(rows)}")
    return made


def large(volume: Volume) -> Volume:
    """Return the middle of a map, drawn twice as large in the same box."""
    quarter = len(volume) // 4
    inner = slice(quarter, len(volume) - quarter)
    return np.asarray(zoom(volume[inner, inner, inner], 2, order=3, grid_mode=True, mode="nearest"))


def stretched(judge: Judge, volume: Volume) -> float:
    """Return the correlation of a map with the mean of the true ones, drawn twice as large."""
    mean = np.mean([one.volume for one in judge.true], 0)
    return float(abs(np.corrcoef(large(mean).ravel(), volume.ravel())[0, 1]))
