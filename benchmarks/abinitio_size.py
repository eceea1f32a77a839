"""Time and memory of a search without poses, against the number of images.

    python -m benchmarks.abinitio_size --images 5000 10000 20000 --box 128

Simulates projections and runs ``modpose abinitio`` on them in a process of its own, on one thread.
Prints its processor seconds and the peak of its resident memory for each number of images, then the
straight line through the times and what 100,000 images would take by it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import machine

ASKED = 100_000


def cost(images: int, box: int, starts: int, seed: int, folder: Path) -> tuple[float, float]:
    """Processor seconds, and peak of the resident memory in bytes, of a search."""
    made, out = folder / "made", folder / "maps"
    size = ["--images", str(images), "--box", str(box), "--pixel-size", str(160 / box)]
    optics = ["--ctf", "--snr", "0.1", "--seed", str(seed)]
    _run(["simulate", "projections", "-o", str(made), *size, *optics])
    asked = ["--starts", str(starts), "--seed", str(seed)]
    used = _run(["abinitio", str(made / "particles.star"), "-o", str(out), *asked])
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_utime + used.ru_stime, unit * used.ru_maxrss


def _run(command: Sequence[str]) -> os.struct_rusage:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "modpose", *command], env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return used


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 10_000, 20_000])
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    print(machine.sentence())
    seconds, peaks = [], []
    for images in told.images:
        with tempfile.TemporaryDirectory() as name:
            used, peak = cost(images, told.box, told.starts, told.seed, Path(name))
        seconds.append(used)
        peaks.append(peak / 1e9)
        print(f"{images:,} images: {used:.0f} processor seconds, {peak / 1e9:.2f} GB", flush=True)
    if len(seconds) > 1:
        for name, values, unit in (("time", seconds, "s"), ("memory", peaks, "GB")):
            slope, fixed = np.polyfit(told.images, values, 1)
            print(
                f"{name}: {fixed:.3g} {unit} + {1000 * slope:.3g} {unit} per 1,000 images; "
                f"{ASKED:,} images by this line: {fixed + ASKED * slope:.4g} {unit}"
            )


if __name__ == "__main__":
    main()
