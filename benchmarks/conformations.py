"""How well conformations are learned where poses had to be found, against given poses.

    modpose simulate projections -o hinge --images 3000 --ctf
    python -m benchmarks.conformations hinge/particles.star

The table is one of ``modpose simulate projections``: its poses are the true ones, and it holds the
hinge angles.  Fits ``modpose-posed`` twice, with these poses and without any.  The error of content
is that of the angle which it foretells: each image gets the mean angle of the 20 images nearest to
it in content, out of the other four fifths of the images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.abinitio import LOST_DEG, errors_deg
from modpose import PoseModel
from modpose.data.source import Source, open_source

NEIGHBOURS, PARTS = 20, 5
POSES = ("rlnAngle", "rlnOrigin")


def without_poses(source: Source) -> Source:
    """Return the same images without the columns of their poses."""
    table = source.particles.table
    kept = [name for name in table.columns if not str(name).startswith(POSES)]
    return replace(source, particles=replace(source.particles, table=table[kept]))


def angle_errors(z: NDArray[np.float64], angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors (N,), in the unit of ``angle``, degrees, of angles told from content (N, d)."""
    from sklearn.neighbors import KNeighborsRegressor

    rad = np.deg2rad(angle)
    circle = np.stack([np.cos(rad), np.sin(rad)], 1)
    order, found = np.random.default_rng(0).permutation(len(z)), np.empty(len(z))
    for part in range(PARTS):
        held = order[part::PARTS]
        rest = np.setdiff1d(order, held)
        told = KNeighborsRegressor(NEIGHBOURS).fit(z[rest], circle[rest]).predict(z[held])
        found[held] = np.arctan2(told[:, 1], told[:, 0])
    return np.abs(np.rad2deg(np.angle(np.exp(1j * (found - rad)))))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", help="particles.star of modpose simulate projections")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    print(machine.sentence())
    source = open_source(told.table)
    truth = source.particles.truth()
    angle = truth["hinge_deg"].to_numpy()
    names = [f"r{i}{j}" for i in range(3) for j in range(3)]
    rotation = torch.tensor(truth[names].to_numpy().reshape(-1, 3, 3)).float()
    options = {"train": {"epochs": told.epochs}}
    medians = []
    for name, images in (("given", source), ("found", without_poses(source))):
        used = time.process_time()
        model = PoseModel("modpose-posed", options=options, seed=told.seed, quiet=True).fit(images)
        used = time.process_time() - used
        table = model.latents()
        z = table[[f"z_{k}" for k in range(model.config.model.z_dim)]].to_numpy(float)
        error = angle_errors(z, angle)
        medians.append(float(np.median(error)))
        print(
            f"poses {name}: hinge angle {medians[-1]:.2f}° median, {error.mean():.2f}° mean error; "
            f"{used:.0f} processor seconds"
        )
    found = torch.tensor(model._record.used("rotation").reshape(-1, 3, 3))
    off = errors_deg(found, rotation, torch.eye(3)[None])
    print(
        f"poses found: rotation {float(off.median()):.2f}° median, "
        f"{100 * float((off > LOST_DEG).float().mean()):.1f} % lost"
    )
    print(f"error of content: {medians[1] / medians[0]:.2f} × that with given poses")


if __name__ == "__main__":
    main()
