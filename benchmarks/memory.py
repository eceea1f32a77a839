"""Peak memory of fitting a stack that is far larger than memory.

    python -m benchmarks.memory
    python -m benchmarks.memory --volumes
    python -m benchmarks.memory --volumes --recipe modpose-3d

A sparse MRC stack of 20 GB is made (a few hundred megabytes on disk), ``modpose fit`` runs on it
in a process of its own, and the peak of that process's resident memory is printed.  Nothing of
the file is mapped, so that resident memory is all there is to count.  A fit ends with the
inference of every image, which reads the whole stack and decodes every pixel.  With ``--volumes``
it is a stack of 20,000 volumes of 32³ (2.6 GB), and recipe 3d-spvae, its field 8
units wide to save time, or modpose-3d, its search short to save time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import mrcfile
import numpy as np

from benchmarks import machine
from modpose.run import Run

BOX = 256
PIXEL_SIZE = 1.5
LIMIT_GB, VOLUMES_LIMIT_GB = 2.0, 3.0
SAVING_TIME = {
    "3d-spvae": ["model.field.hidden=8"],
    "modpose-3d": [f"train.start.{name}" for name in ("rounds=2", "refine_rounds=1")]
    + ["train.start.rotations=100"],
}
"""Recipes for volumes, and what makes them quicker but no smaller in memory."""
HEADER_BYTES, ROW_BYTES = 1024, 4 * BOX
IMAGE_BYTES = BOX * ROW_BYTES


def write_sparse_stack(path: Path, n: int, seed: int = 0) -> None:
    """Write ``n`` images of 256x256 float32: two rows of noise in each, the rest is holes."""
    rng = np.random.default_rng(seed)
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((1, BOX, BOX), np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = PIXEL_SIZE
        mrc.header.nz = n
    with path.open("r+b") as file:
        file.truncate(HEADER_BYTES + n * IMAGE_BYTES)
        for k in range(n):
            file.seek(HEADER_BYTES + k * IMAGE_BYTES + BOX // 2 * ROW_BYTES)
            file.write(rng.standard_normal(2 * BOX, dtype=np.float32).tobytes())


def write_sparse_volumes(path: Path, n: int, side: int, planes: int = 1, seed: int = 0) -> None:
    """Write ``n`` volumes of float32: planes of noise about the middle of each, else holes."""
    rng = np.random.default_rng(seed)
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((1, side, side, side), np.float32))
        mrc.voxel_size = PIXEL_SIZE
        mrc.header.nz = n * side
    volume = 4 * side**3
    with path.open("r+b") as file:
        file.truncate(HEADER_BYTES + n * volume)
        for k in range(n):
            first = side // 2 - planes // 2
            file.seek(HEADER_BYTES + k * volume + 4 * first * side**2)
            file.write(rng.standard_normal(planes * side**2, dtype=np.float32).tobytes())


def fit(stack: Path, out: Path, options: Sequence[str], *, minutes: float, threads: int) -> float:
    """Run ``modpose fit`` and return the peak of its resident memory, bytes."""
    command = [sys.executable, "-m", "modpose", "fit", str(stack), "-o", str(out)]
    command += ["--max-minutes", str(minutes), *options]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


def durations(run: Run) -> tuple[float, float]:
    """Seconds of training (validation included), and of everything after it."""
    told = run.environment
    begun, ended = (datetime.fromisoformat(told[key]) for key in ("started", "finished"))
    training = float(told["training_seconds"])
    return training, (ended - begun).total_seconds() - training


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=20.0, help="size of the stack")
    parser.add_argument("--box", type=int, default=64, help="box that the model sees")
    parser.add_argument("--minutes", type=float, default=0.3, help="of training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--volumes", action="store_true", help="volumes in place of images")
    parser.add_argument("--recipe", choices=SAVING_TIME, default="3d-spvae", help="for volumes")
    parser.add_argument("--number", type=int, default=20_000, help="of volumes")
    parser.add_argument("--side", type=int, default=32, help="of volumes, voxels")
    parser.add_argument("--folder", type=Path, help="where the stack goes for the time being")
    options = parser.parse_args(arguments)
    n = options.number if options.volumes else max(4, round(options.gigabytes * 1e9 / IMAGE_BYTES))
    limit = VOLUMES_LIMIT_GB if options.volumes else LIMIT_GB
    print(machine.sentence(options.threads), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        stack, out = Path(folder) / "sparse.mrcs", Path(folder) / "run"
        start = time.perf_counter()
        if options.volumes:
            # a search measures the noise in the corners
            planes = options.side if options.recipe == "modpose-3d" else 1
            write_sparse_volumes(stack, n, options.side, planes)
        else:
            write_sparse_stack(stack, n)
        size = stack.stat()
        what = "volumes" if options.volumes else "images"
        print(
            f"stack: {n} {what}, {size.st_size / 1e9:.2f} GB, {512 * size.st_blocks / 1e9:.2f} GB "
            f"on disk, made in {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        more = ["--set", f"data.box={options.box}"]
        if options.volumes:
            quicker = [word for option in SAVING_TIME[options.recipe] for word in ("--set", option)]
            more = ["--recipe", options.recipe, *quicker]
        peak = fit(stack, out, more, minutes=options.minutes, threads=options.threads)
        training, rest = durations(Run.open(out))
    verdict = "below" if peak < limit * 1e9 else "NOT below"
    print(
        f"fit: {training:.0f} s of training and validation, {rest:.0f} s for the inference of all "
        f"images ({1000 * rest / n:.1f} ms per image)\n"
        f"peak resident memory: {peak / 1e9:.2f} GB, {verdict} {limit:g} GB"
    )
    if peak >= limit * 1e9:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
