"""Classes of turned digits with no network: ten aligned linear subspaces, found by exact search.

    python -m benchmarks.subspaces --data mnist.npz --seed 0

A bar for every model that clusters digits.  Each image is centred on its centre of mass and read on
rings; its score for a class is the squared length of its projection on the class's subspace, at the
best of all angles (an FFT along the rings).  Classes are drawn from the scores at a temperature
that falls to zero, images are turned to their best angle, and subspaces are fitted again.  Nothing
is learned of shift; labels only score.  Related: Frey & Jojic 2003; Monnier et al. 2020.
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
from modpose.geometry.grids import lattice
from modpose.geometry.pose import sample_images
from modpose.simulate.digits import transform

CLASSES, ANGLES, RADII, REACH = 10, 64, 20, 14.0
ROUNDS, FIRST, EVERY = 44, 20, 4
"""Rounds in all; after the first so many, subspaces grow by a dimension every few."""
WARMEST = 0.02
"""Temperature of the first round, of scores that are at most 1."""
CHUNK = 1000


def rings(images: Tensor) -> Tensor:
    """Transforms (N, RADII, ANGLES // 2 + 1) along rings about each image's centre of mass.

    Rings are weighted by their area, and an image has length one.
    """
    mass = images.flatten(1)
    centre = mass @ lattice(images.shape[1:]) / mass.sum(1, keepdim=True)
    radius = (torch.arange(RADII) + 0.5) * REACH / RADII
    angle = torch.arange(ANGLES) * (2 * torch.pi / ANGLES)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    points = (radius[:, None, None] * circle).reshape(-1, 2)
    values = sample_images(images[:, None], points + centre[:, None])[..., 0]
    values = values.reshape(-1, RADII, ANGLES) * radius[:, None].sqrt()
    values = values / values.flatten(1).norm(dim=1)[:, None, None]
    transforms: Tensor = torch.fft.rfft(values, norm="ortho")
    return transforms


def scores(spectrum: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Score (N, K) of images for subspaces (K, c, RADII, F) at the best angle, and that (N, K)."""
    correlation = torch.einsum("nrf,kcrf->nkcf", spectrum, basis.conj())
    along = torch.fft.irfft(correlation, n=ANGLES, norm="forward")
    best = along.square().sum(2).max(-1)
    return best.values, best.indices


def turned(spectrum: Tensor, step: Tensor) -> Tensor:
    """Images turned back by ``step`` (N,) angles of the grid."""
    wave = torch.arange(spectrum.shape[-1])
    phase = 2 * torch.pi / ANGLES * step[:, None] * wave
    return spectrum * torch.polar(torch.ones_like(phase), phase)[:, None]


def subspace(spectrum: Tensor, dimensions: int) -> Tensor:
    """Best subspace (dimensions, RADII, F) of aligned images (n, RADII, F), not centred."""
    rows = torch.fft.irfft(spectrum, n=ANGLES, norm="ortho").flatten(1)
    vectors = torch.svd_lowrank(rows, q=min(dimensions + 4, len(rows)))[2][:, :dimensions]
    basis: Tensor = torch.fft.rfft(vectors.T.reshape(-1, RADII, ANGLES), norm="ortho")
    return basis


def cluster(spectrum: Tensor, seed: int) -> Tensor:
    """Classes (N,) of images by their rings."""
    torch.manual_seed(seed)  # of the randomised decompositions
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(len(spectrum), generator=generator)[:CLASSES]
    bases = [subspace(spectrum[k, None], 1) for k in first]
    for turn in range(ROUNDS):
        dimensions = 1 + max(0, (turn - FIRST) // EVERY + 1)
        parts = [scores(part, torch.stack(bases)) for part in torch.split(spectrum, CHUNK)]
        score, step = (torch.cat(part) for part in zip(*parts, strict=True))
        temperature = WARMEST * max(0.0, 1 - turn / (2 * ROUNDS / 3))
        noise = -torch.empty_like(score).exponential_(generator=generator).log()
        chosen = (score + temperature * noise).argmax(1)
        aligned = turned(spectrum, step.gather(1, chosen[:, None]).squeeze(1))
        for k in range(CLASSES):
            mine = torch.nonzero(chosen == k).squeeze(1)
            if len(mine) <= dimensions:  # an empty class begins again with images at random
                mine = torch.randint(len(spectrum), (2 * dimensions,), generator=generator)
            bases[k] = subspace(aligned[mine], min(dimensions, len(mine)))
        least = min(len(basis) for basis in bases)
        bases = [basis[:least] for basis in bases]
    return chosen


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
    found = cluster(rings(torch.from_numpy(images)), options.seed)
    share = metrics.hungarian_accuracy(labels, found.numpy())[0]
    print(f"clusters: {100 * share:.1f} %, in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
