"""How well maps and poses are found from the images of a table that has poses, but without them.

    python -m benchmarks.abinitio_table particles.star --invert
    python -m benchmarks.abinitio_table particles.star --invert --classes 2 --similar
    python -m benchmarks.abinitio_table particles.star --invert --map true.mrc
    python -m benchmarks.abinitio_table images.mrcs --poses poses.pkl --ctf ctf.pkl

Runs what ``modpose abinitio`` runs, and compares poses with those of the table after one global
rotation, of the hand that fits.  Images from different stacks show different structures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.abinitio import LOST_DEG, errors_deg
from benchmarks.conformations import without_poses
from modpose.data.source import Source, open_source
from modpose.evaluate.metrics import hungarian_accuracy
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.settings import AbInitioSettings


def stacks_of(source: Source) -> NDArray[np.int64]:
    """Number the stack of each image, (N,)."""
    if not source.particles.has("rlnImageName"):
        return np.zeros(source.n, np.int64)
    names = [str(name).rpartition("@")[2] for name in source.particles.column("rlnImageName")]
    return np.unique(names, return_inverse=True)[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--poses", help="file of the poses, where the table has none")
    parser.add_argument("--ctf", help="file of the CTF, where the table has none")
    parser.add_argument("--datadir", help="folder of the images")
    parser.add_argument("--map", type=Path, help="start from this map")
    parser.add_argument("--classes", type=int, default=1)
    parser.add_argument("--similar", action="store_true")
    parser.add_argument("--invert", action="store_true", help="particles are dark")
    parser.add_argument("--max-shift", type=float, default=AbInitioSettings.max_shift)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine.sentence(1), flush=True)
    source = open_source(asked.table, poses=asked.poses, ctf=asked.ctf, datadir=asked.datadir)
    posed = source.particles.poses(source.stack.pixel_size)
    if posed is None:
        raise SystemExit(f"{asked.table}: it has no poses to compare with")
    bare = without_poses(replace(source, particles=replace(source.particles, given_poses=None)))
    settings = AbInitioSettings(
        classes=asked.classes,
        similar=asked.similar,
        max_shift=asked.max_shift,
        starts=asked.starts,
        seed=asked.seed,
    )
    used = time.process_time()
    found = find_maps(bare, None, settings, start_map=asked.map, invert=asked.invert, quiet=True)
    used = time.process_time() - used
    print("\n".join([*found.lines(), f"{used:.0f} processor seconds"]))
    print(f"{float(found.refined.score.mean()):.1f} nats an image, over no object")
    stack, index = stacks_of(source), found.refined.class_index
    if asked.classes > 1:
        print(f"{100 * hungarian_accuracy(stack, index.numpy())[0]:.1f} % in the right class")
    turned = torch.from_numpy(found.poses[0]).float()
    truth = torch.from_numpy(np.asarray(posed[0])).float()
    for number in range(asked.classes):
        rows = index == number
        if not rows.any():
            continue
        error = errors_deg(turned[rows], truth[rows], torch.eye(3)[None])
        lost = 100 * float((error > LOST_DEG).float().mean())
        print(
            f"class {number + 1}: rotation {float(error.median()):.2f}° median, {lost:.1f} % lost"
        )


if __name__ == "__main__":
    main()
