"""Classes of turned digits with no network: ten aligned linear subspaces, found by exact search.

    python -m benchmarks.subspaces --data mnist.npz --seed 0

A bar for every model that clusters digits, and what
:mod:`modpose.train.starts.subspaces` starts models from.  Nothing is learned of shift: images are
centred on their centre of mass; labels only score.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.digits import FAR
from benchmarks.poses import pictures
from modpose.evaluate import metrics
from modpose.model.encoders.polar import Rings
from modpose.simulate.digits import transform
from modpose.train.starts.subspaces import bright_centre, cluster, transformed

CLASSES, ANGLES, REACH = 10, 64, 20.0


def transforms(images: Tensor) -> Tensor:
    """Transforms (N, rings, ANGLES // 2 + 1) of images (N, H, W) round their centres of mass."""
    rings, images = Rings(ANGLES, REACH), images[:, None]
    return transformed(rings.read(images, bright_centre(images)), rings.area)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.subspaces", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--angle-std", type=float, help="degrees; uniform without")
    parser.add_argument("--test", type=int, default=10_000, help="test images, at most")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine.sentence(1), flush=True)
    test, labels = pictures(options.data, "test", options.test)
    images, _ = transform(
        test, box=FAR.box, angle_std_deg=options.angle_std, shift_std_px=FAR.shift_std_px, seed=2
    )
    start = time.perf_counter()
    found = cluster(transforms(torch.from_numpy(images)), CLASSES, options.seed)
    share = metrics.hungarian_accuracy(labels, found.chosen.numpy())[0]
    print(f"clusters: {100 * share:.1f} %, in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
