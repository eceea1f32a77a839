"""The report of many images: time, memory, and the size of its page.

    python -m benchmarks.report
    python -m benchmarks.report --images 6000 --posed 0

Two runs are made: of images without poses (``--images``, noise of 8×8 pixels, an epoch of a small
model), and of images whose poses are known (``--posed``: a table that names 1,000 simulated
projections of 16×16 pixels again and again).  ``modpose report`` then runs on each in a process of
its own.  Printed are its seconds of the processor and of the clock,
the peak of its resident memory, and the size of the page.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.select import measure, write_particles

PAGE_MB = 2.0
DIFFERENT = 1000
"""Projections that are simulated."""
FITS = {
    "modpose": ("--epochs", "1", "--z-dim", "2", "--set", "model.encoder.hidden=8"),
    "modpose-posed": ("--epochs", "1", "--z-dim", "2"),
}


def write_projections(folder: Path, n: int, seed: int) -> Path:
    """Write a table of n rows that name simulated projections again and again."""
    size = ["--images", str(DIFFERENT), "--box", "16", "--pixel-size", "10", "--seed", str(seed)]
    measure(["simulate", "projections", "-o", str(folder), *size, "--ctf", "--quiet"])
    star = folder / "particles.star"
    lines = star.read_text().splitlines()
    rows = [line for line in lines if "@" in line]
    head = lines[: lines.index(rows[0])]
    again = [rows[k % len(rows)] for k in range(n)]
    star.write_text("\n".join([*head, *again, ""]))
    return star


def time_report(folder: Path, n: int, recipe: str, seed: int) -> str:
    """Make the run of n images, and its report; returns what it took."""
    folder.mkdir()
    write = write_particles if recipe == "modpose" else write_projections
    star, run = write(folder, n, seed), folder / "run"
    fit = ["fit", str(star), "-o", str(run), "--recipe", recipe, "--seed", str(seed)]
    made, _, _ = measure([*fit, *FITS[recipe], "--clusters", "3", "--quiet"])
    cpu, clock, memory = measure(["report", str(run), "--quiet"])
    size = (run / "report" / "index.html").stat().st_size / 1e6
    return (
        f"{n:,} images, {recipe}: {cpu:.0f} s of the processor ({clock:.0f} s by the clock), "
        f"{memory:.2f} GB, a page of {size:.1f} MB (aim {PAGE_MB:g} MB); "
        f"the fit before it took {made:.0f} s of the processor"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--posed", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    print(machine.sentence())
    with tempfile.TemporaryDirectory() as name:
        for recipe, n in (("modpose", given.images), ("modpose-posed", given.posed)):
            if n:
                print(time_report(Path(name) / recipe, n, recipe, given.seed), flush=True)


if __name__ == "__main__":
    main()
