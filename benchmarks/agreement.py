r"""Whether fits group the same digits in the same way: a choice of settings without labels.

    python -m benchmarks.poses --recipe modpose-classes --data mnist.npz --images 10000 \
        --seed 0 --run A0
    python -m benchmarks.poses --recipe modpose-classes --data mnist.npz --images 10000 \
        --seed 1 --run A1
    python -m benchmarks.agreement --data mnist.npz A0 A1

The runs are fits of one setting with different seeds.  They read training digits that they have
not seen, and their content is clustered.  The adjusted Rand index of two partitions is 1 where they
agree and 0 by chance.  No label is read.  Take the setting whose fits agree best.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.digits import FAR
from modpose import PoseModel
from modpose.content.clustering import Method, cluster
from modpose.evaluate import metrics
from modpose.simulate.digits import transform

METHODS: tuple[Method, ...] = ("ward", "kmeans")
CLASSES = 10


def agreement(contents: Sequence[np.ndarray], method: Method) -> float:
    """Return the mean adjusted Rand index of the clusters of every two contents (N, z_dim)."""
    found = [cluster(z, CLASSES, method) for z in contents]
    return float(np.mean([metrics.ari(*pair) for pair in combinations(found, 2)]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="of benchmarks.poses --run, two or more")
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--first", type=int, default=50_000, help="of the training digits read")
    parser.add_argument("--count", type=int, default=3_000, help="training digits read")
    options = parser.parse_args(arguments)
    if len(options.runs) < 2:
        parser.error("expected two runs or more")
    print(machine.sentence(1), flush=True)
    with np.load(options.data, allow_pickle=False) as arrays:
        pictures = arrays["x_train"][options.first :][: options.count].astype(np.float32) / 255
    images, _ = transform(pictures, box=FAR.box, shift_std_px=FAR.shift_std_px, seed=3)
    contents = [PoseModel.load(run).encode(images).z for run in options.runs]
    said = ", ".join(f"{method} {agreement(contents, method):.3f}" for method in METHODS)
    print(f"{len(images)} digits, {len(contents)} runs: adjusted Rand index of clusters: {said}")


if __name__ == "__main__":
    main()
