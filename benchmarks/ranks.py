"""What a second process saves: a fit with one process and with several, of one thread each.

    python -m benchmarks.ranks
    python -m benchmarks.ranks --batch 400 --processes 1 2 4

Several processes are measured twice: with steps of as many images as one process takes (the same
fit, done sooner), and with that many for each of them (as with the usual DDP; a fit with larger
steps).  Printed are the images a second of the last epoch by the clock; the efficiency, this over
the number of processes times that of one; and the processor milliseconds of an image in training,
of all processes together, with the efficiency that follows if no process waits for another.  The
clock tells something only where each process has a core to itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine
from benchmarks.size import run
from modpose import ranks
from modpose.run import Run
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings


@dataclass(frozen=True)
class Rate:
    """Images a second by the clock, and processor seconds of an image."""

    clock: float
    processor: float


class Case(NamedTuple):
    """Number of processes, and images of a step of all of them."""

    processes: int
    step: int


def cases(processes: Sequence[int], batch: int) -> list[Case]:
    """List what is measured: one process first, the others with both sizes of a step."""
    one, *more = processes
    return [Case(one, batch), *(Case(n, size) for n in more for size in (batch, n * batch))]


def measure(star: Path, out: Path, case: Case, words: list[str], epochs: int) -> Rate:
    """Fit once for an epoch and once for more; what the epochs between them cost."""
    spent, processes = [], case.processes
    for count in (1, epochs):
        folder = out / f"{processes}-{case.step}-{count}"
        given = ["fit", str(star), "-o", str(folder), *words, "--epochs", str(count), "--quiet"]
        given += ["--set", f"train.batch_size={case.step}"]
        given += ["--devices", str(processes)] if processes > 1 else []
        spent.append(run(*given).processor)
    fitted = Run.open(folder)
    images = (epochs - 1) * int(fitted.environment["n"])
    return Rate(fitted.epochs()[-1]["images_per_second"], (spent[1] - spent[0]) / images)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="the first: 1")
    parser.add_argument("--recipe", default="modpose")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--batch", type=int, default=50, help="images of a step of one process")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args(arguments)
    if options.processes[0] != 1 or max(options.processes) > ranks.MOST or options.epochs < 2:
        sys.exit("expected one process first, and two epochs or more")
    print(machine.sentence(1), flush=True)
    print("processes | step | images/s | efficiency | CPU ms an image | efficiency without waiting")
    words = ["--recipe", options.recipe, "--set", "data.val_fraction=0"]
    measured = cases(options.processes, options.batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixel_size = 192.0 / options.box
        settings = ProjectionSettings(
            n=options.images, box=options.box, pixel_size=pixel_size, ctf=True
        )
        write_projections(simulate_projections(settings, built_in_conformers(1)), folder)
        star = folder / "particles.star"
        found = [measure(star, folder, case, words, options.epochs) for case in measured]
    for (n, step), rate in zip(measured, found, strict=True):
        share = rate.clock / (n * found[0].clock), found[0].processor / rate.processor
        numbers = f"{rate.clock:.0f} | {share[0]:.2f} | {1e3 * rate.processor:.2f}"
        print(f"{n} | {step} | {numbers} | {share[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
