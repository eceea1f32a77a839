"""Affinity matrices: one product of whitened spectra against the pairwise loop.

    python -m benchmarks.affinity

The loop transforms and keeps every volume once, and then sums the shells of each pair, which is
how a library's shell correlation is called on all pairs.  It is timed on some of them.  Times are
those of the processor, summed over threads, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import machine
from modpose.affinity import Fsc, compute_affinity

Volumes = NDArray[np.float32]


class Comparison(NamedTuple):
    """Processor seconds for all pairs by either way, the largest difference of their values."""

    product: float
    loop: float
    difference: float


def make_volumes(count: int, side: int, seed: int = 0) -> Volumes:
    """Draw noise with the spectrum of a molecule's map: coefficients fall off with frequency."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.fft.fftfreq(side)] * 2, np.fft.rfftfreq(side), indexing="ij")
    fall = np.exp(-8 * sum(axis**2 for axis in axes)).astype(np.float32)
    volumes = np.empty((count, side, side, side), dtype=np.float32)
    for volume in volumes:
        noise = rng.standard_normal((side,) * 3, dtype=np.float32)
        volume[...] = np.fft.irfftn(np.fft.rfftn(noise) * fall, s=noise.shape, axes=(0, 1, 2))
    return volumes


@cache
def shell_numbers(side: int) -> NDArray[np.int64]:
    """Shell of every coefficient of the transform, flattened."""
    axes = np.meshgrid(*[np.fft.fftfreq(side) * side] * 3, indexing="ij")
    radius = np.sqrt(np.square(axes).sum(0))
    return np.asarray(np.rint(radius), np.int64).ravel()


def loop_affinity(one: NDArray[np.complex64], two: NDArray[np.complex64], side: int) -> float:
    """Weighted mean shell correlation of a pair, shells 1 to Nyquist, as textbooks write it."""
    shell, last = shell_numbers(side), side // 2
    cross = np.bincount(shell, (one * two.conj()).real)[1 : last + 1]
    power_one = np.bincount(shell, (one * one.conj()).real)[1 : last + 1]
    power_two = np.bincount(shell, (two * two.conj()).real)[1 : last + 1]
    count = np.bincount(shell)[1 : last + 1]
    return float((count * cross / np.sqrt(power_one * power_two)).sum() / count.sum())


def compare(count: int, side: int, pairs: int) -> Comparison:
    """Compute all pairs of ``count`` volumes as a product, and ``pairs`` of them in the loop."""
    volumes = make_volumes(count, side)
    compute_affinity(volumes[:2], Fsc())  # the first takes longer
    started = time.process_time()
    affinity = compute_affinity(volumes, Fsc()).values
    product = time.process_time() - started
    rows, columns = np.triu_indices(count, 1)
    some = np.random.default_rng(1).choice(len(rows), min(pairs, len(rows)), replace=False)
    used = {i: k for k, i in enumerate(np.unique([rows[some], columns[some]]))}
    shell_numbers(side)
    started = time.process_time()
    transforms = [np.fft.fftn(volumes[i]).astype(np.complex64).ravel() for i in used]
    transforming = (time.process_time() - started) * count / len(used)
    started = time.process_time()
    values = [
        loop_affinity(transforms[used[i]], transforms[used[j]], side)
        for i, j in zip(rows[some], columns[some], strict=True)
    ]
    summing = (time.process_time() - started) * len(rows) / len(some)
    difference = float(np.abs(affinity[rows[some], columns[some]] - values).max())
    return Comparison(product, transforming + summing, difference)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.affinity", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="volumes")
    parser.add_argument("--side", type=int, action="append", help="may be repeated; 32 and 64")
    parser.add_argument("--pairs", type=int, default=200, help="that the loop is timed on")
    parser.add_argument("--threads", type=int, default=1, help="of the product")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(machine.sentence(options.threads), flush=True)
    print(f"\n{'volumes':>16} {'product s':>10} {'loop s':>10} {'ratio':>8} {'difference':>11}")
    for side in options.side or [32, 64]:
        found = compare(options.count, side, options.pairs)
        print(
            f"{options.count:>7} of {side:>3}^3 {found.product:10.2f} {found.loop:10.1f} "
            f"{found.loop / found.product:8.0f} {found.difference:11.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
