"""Time and memory of a fit, over the number of images.

    python -m benchmarks.size
    python -m benchmarks.size --images 1000 10000 100000 --box 32
    python -m benchmarks.size --volumes --images 100000 --box 64 --minutes 1

A table names 1,000 simulated images (``--volumes``: 200 subtomograms) again and again, as often as
needed, so that the images need no disk.  ``modpose inspect`` and ``modpose fit --max-minutes`` run
on it in processes of their own.  Printed are the seconds of both, the peak of the resident memory
of the fit, the number of images that were encoded at its end, and straight lines through seconds
and memory.

With ``--sparse N`` the stack says that it holds N images, and has holes behind the first 1,000: a
million of 128 pixels a side are 66 GB by the header, and 66 MB on the disk.  ``modpose inspect`` of
this stack is measured too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import machine
from modpose.data.mrc import HEADER_BYTES
from modpose.run import Run
from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles
from modpose.simulate.species import built_in_species
from modpose.simulate.subtomogram_files import write_subtomograms
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms

STORED, VOLUMES = 1000, 200
OPTICS = """data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImagePixelSize #3
_rlnImageSize #4
_rlnImageDimensionality #5
1 all 5.0 {box} 2

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnMicrographName #3
"""


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of one process."""

    clock: float
    processor: float
    memory: float


def write_table(folder: Path, stack: Path, n: int, box: int) -> Path:
    """Write a STAR of ``n`` rows that name the stored images again and again."""
    path = folder / f"particles_{n}.star"
    with path.open("w", encoding="utf-8") as file:
        file.write(OPTICS.format(box=box))
        file.writelines(
            f"{i % STORED + 1:06d}@{stack.name} 1 micrograph_{i:08d}.mrc\n" for i in range(n)
        )
    return path


def write_volumes(folder: Path, n: int, box: int) -> Path:
    """Write a STAR of ``n`` rows that name the stored subtomograms again and again."""
    star = folder / "particles.star"
    if not star.is_file():
        settings = SubtomogramSettings(n=VOLUMES, box=box, pixel_size=3.0, snr=0.1)
        write_subtomograms(simulate_subtomograms(settings, built_in_species(2)), folder)
    lines = star.read_text(encoding="utf-8").splitlines()
    begin = max(i for i, line in enumerate(lines) if line.startswith("_")) + 1
    rows = [line for line in lines[begin:] if line.strip()]
    path = folder / f"particles_{n}.star"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines[:begin])
        file.writelines(f"{rows[i % len(rows)]}\n" for i in range(n))
    return path


def stretch(stack: Path, n: int, box: int) -> None:
    """Let a stack say that it holds ``n`` images; nothing is written behind those it has."""
    with stack.open("r+b") as file:
        file.seek(8)
        file.write(n.to_bytes(4, "little"))
        file.truncate(HEADER_BYTES + 4 * n * box**2)


def run(*words: str) -> Cost:
    """Run ``modpose`` with these words, and measure that process."""
    command = [sys.executable, "-m", "modpose", *words]
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        if status:
            said.seek(0)
            code, last = os.waitstatus_to_exitcode(status), said.read()[-2000:]
            raise SystemExit(f"{' '.join(command)}: ended with {code}\n{last}")
    scale = 1 if sys.platform == "darwin" else 1024
    seconds = used.ru_utime + used.ru_stime
    return Cost(time.perf_counter() - begun, seconds, float(scale * used.ru_maxrss))


def line_through(n: Sequence[int], values: Sequence[float]) -> str:
    """Describe the straight line of least squares."""
    slope, start = np.polyfit(np.asarray(n, float), np.asarray(values), 1)
    return f"{start:.3g} + {1e6 * slope:.3g} for a million images"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.size", description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--recipe", help="default: modpose, of volumes modpose-3d")
    parser.add_argument("--volumes", action="store_true", help="subtomograms in place of images")
    parser.add_argument("--minutes", type=float, default=0.5, help="of training")
    parser.add_argument("--sparse", type=int, metavar="N", help="images that the stack claims")
    options = parser.parse_args(arguments)
    print(machine.sentence(1), flush=True)
    header = ("images", "inspect, CPU s", "fit, clock s", "fit, CPU s", "memory, GB", "encoded")
    print(" | ".join(header), flush=True)
    costs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.volumes:
            settings = HingeSettings(n=STORED, box=options.box, pixel_size=5.0, seed=0)
            star = write_particles(simulate_particles(settings), folder)
        if options.sparse is not None:
            stretch(star.with_suffix(".mrcs"), options.sparse, options.box)
            looked = run("inspect", str(star.with_suffix(".mrcs")))
            print(f"inspect the stack of {options.sparse:,}: {looked.processor:.1f} CPU s")
        for n in options.images:
            if options.volumes:
                table = write_volumes(folder, n, options.box)
            else:
                table = write_table(folder, star.with_suffix(".mrcs"), n, options.box)
            looked = run("inspect", str(table))
            out = folder / f"run_{n}"
            recipe = options.recipe or ("modpose-3d" if options.volumes else "modpose")
            words = ["fit", str(table), "-o", str(out), "--recipe", recipe]
            fitted = run(*words, "--max-minutes", str(options.minutes))
            encoded = Run.open(out).environment.get("encoded") or n
            costs.append((looked, fitted))
            print(
                f"{n:,} | {looked.processor:.1f} | {fitted.clock:.0f} | {fitted.processor:.0f} | "
                f"{fitted.memory / 1e9:.2f} | {encoded:,}",
                flush=True,
            )
    if len(costs) > 1:
        print(f"inspect, CPU s: {line_through(options.images, [c[0].processor for c in costs])}")
        print(f"fit, CPU s: {line_through(options.images, [c[1].processor for c in costs])}")
        print(f"memory, GB: {line_through(options.images, [c[1].memory / 1e9 for c in costs])}")


if __name__ == "__main__":
    main()
