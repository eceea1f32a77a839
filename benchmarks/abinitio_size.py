"""Time and memory of maps or 2-D classes of images without poses, against their number.

    python -m benchmarks.abinitio_size --images 5000 10000 20000 --box 128
    python -m benchmarks.abinitio_size --images 2000 4000 --box 128 --classes2d 50

Simulates projections and runs ``modpose abinitio``, or ``modpose align --classes`` for 2-D classes,
on them in a process of its own, on one thread.  Prints its processor seconds and the peak of its
resident memory for each number of images, then the straight line through the times and what 100,000
images would take by it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import machine

ASKED = 100_000


def cost(images: int, told: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Processor seconds, and peak of the resident memory in bytes, of a search."""
    made, out = folder / "made", folder / "maps"
    seed, box = ["--seed", str(told.seed)], str(told.box)
    size = ["--images", str(images), "--box", box, "--pixel-size", str(160 / told.box)]
    optics = ["--ctf", "--snr", "0.1", *seed]
    _run(["simulate", "projections", "-o", str(made), *size, *optics])
    asked = ["abinitio", "--starts", str(told.starts)]
    if told.classes2d:
        asked = ["align", "--classes", str(told.classes2d)]
    used = _run([*asked, str(made / "particles.star"), "-o", str(out), *seed])
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_utime + used.ru_stime, unit * used.ru_maxrss


def _run(command: Sequence[str]) -> resource.struct_rusage:
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
    parser.add_argument("--classes2d", type=int, metavar="K", help="K 2-D classes, not maps")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    print(machine.sentence())
    seconds, peaks = [], []
    for images in told.images:
        with tempfile.TemporaryDirectory() as name:
            used, peak = cost(images, told, Path(name))
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
