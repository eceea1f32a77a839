"""Kill a fit of two processes at random moments, resume it, and compare with a fit left alone.

    python -m benchmarks.kills
    python -m benchmarks.kills --kills 5 --seed 1

A fit is started, and one of its processes, or all at once, are killed at a random time: in four of
five cases after it has written a checkpoint, otherwise before.  It is checked that the others end,
and the run is resumed with one process or two, which may be killed in turn.  When a fit comes to
its end, its table and its epochs are compared with those of a fit that was left alone, and another
fit begins, until so many kills are done.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks import machine
from modpose.run import Run
from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles

PATIENCE = 120.0
"""Seconds after which a process that has lost the others should have ended."""
EARLY = 0.2
"""Share of the kills before a fit has written a checkpoint."""
TIMES = ("seconds", "images_per_second")


def start(folder: Path, *words: str | Path) -> subprocess.Popen[bytes]:
    """Start modpose; what it says goes into a file of the folder."""
    command = [sys.executable, "-m", "modpose", *map(str, words), "--quiet"]
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)


def wait(fit: subprocess.Popen[bytes], seconds: float, folder: Path | None = None) -> None:
    """Wait so long, or until a file is written into the folder, or until the fit ends."""
    begun, clock = time.time(), time.perf_counter()
    while fit.poll() is None and time.perf_counter() < clock + seconds:
        if folder is not None and max(written(folder), default=0.0) > begun:
            return
        time.sleep(0.02)


def written(folder: Path) -> list[float]:
    """Return when the files of a folder were written."""
    found = []
    for path in folder.glob("*.safetensors"):
        with suppress(FileNotFoundError):  # removed meanwhile, for a newer one
            found.append(path.stat().st_mtime)
    return found


def left_alone(fit: subprocess.Popen[bytes], folder: Path) -> tuple[float, float]:
    """Seconds of a fit into ``alone``: to its first checkpoint, and to its end."""
    begun, first = time.perf_counter(), float("nan")
    while fit.poll() is None:
        if math.isnan(first) and written(folder / "alone" / "checkpoints"):
            first = time.perf_counter() - begun
        time.sleep(0.02)
    if fit.poll() or math.isnan(first):
        raise SystemExit(f"the fit that was left alone failed: {(folder / 'said').read_text()}")
    return first, time.perf_counter() - begun


def processes_of(main: subprocess.Popen[bytes]) -> list[int]:
    """Return the processes that a launcher has started; without any, the process itself."""
    listing = Path(f"/proc/{main.pid}/task/{main.pid}/children")
    children = [int(word) for word in listing.read_text().split()] if listing.is_file() else []
    return children or [main.pid]


def kill(main: subprocess.Popen[bytes], drawn: random.Random) -> str:
    """Kill one process of a fit, or all; return which, and wait for the end of the others."""
    there = processes_of(main)
    number = drawn.randrange(len(there) + 1)
    for pid in there if number == len(there) else [there[number]]:
        os.kill(pid, signal.SIGKILL)
    main.wait(PATIENCE)
    for pid in there:
        if Path(f"/proc/{pid}").exists():
            raise SystemExit(f"process {pid} goes on without the others")
    return "all" if number == len(there) else f"{number + 1} of {len(there)}"


def difference(one: Run, other: Run) -> float:
    """Largest difference of two runs, relative to the spread of each column."""
    largest = 0.0
    table, same = (run.latents().select_dtypes("number") for run in (one, other))
    for name in table.columns:
        a, b = table[name].to_numpy(float), same[name].to_numpy(float)
        scale = max(float(np.nanstd(a)), 1e-6)
        largest = max(largest, float(np.nanmax(np.abs(a - b), initial=0)) / scale)
    for row, again in zip(one.epochs(), other.epochs(), strict=True):
        gaps = [abs(row[k] - again[k]) / max(1.0, abs(row[k])) for k in row if k not in TIMES]
        largest = max(largest, *gaps)
    return largest


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(machine.sentence(1), flush=True)
    drawn = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = HingeSettings(n=options.images, box=24, pixel_size=6.5, seed=0)
        star = write_particles(simulate_particles(settings), folder)
        words = ("fit", star, "--recipe", "spatial-vae", "--epochs", str(options.epochs))
        two = ("--devices", "2")
        first, whole = left_alone(start(folder, *words, "-o", folder / "alone", *two), folder)
        print(f"left alone: {whole:.0f} s, first checkpoint after {first:.0f} s", flush=True)
        kills, early, number, largest, lost = 0, 0, 0, 0.0, 0.0
        while kills < options.kills:
            number, run, finished = number + 1, folder / f"run{number + 1}", False
            while not finished:
                devices = ("--devices", str(drawn.randint(1, 2)))
                begins = not (run / "config.yaml").is_file()
                how = (*words, "-o", run, *two) if begins else ("resume", run, *devices)
                fit = start(folder, *how)
                if kills >= options.kills:
                    fit.wait()
                elif drawn.random() < EARLY:
                    wait(fit, drawn.uniform(0, first))
                else:
                    wait(fit, math.inf, run / "checkpoints")
                    wait(fit, drawn.uniform(0, whole - first))
                finished = fit.poll() is not None
                if finished and fit.poll():
                    said = (folder / "said").read_text()
                    raise SystemExit(f"{how} ended with {fit.poll()} without a kill: {said}")
                if not finished:
                    saved = written(run / "checkpoints")
                    now, which, kills = time.time(), kill(fit, drawn), kills + 1
                    finished = (run / "config.yaml").is_file() and Run.open(run).finished
                    ago = now - max(saved) if saved else float("nan")
                    lost, early = max(lost, ago) if saved else lost, early + (not saved)
                    print(f"kill {kills}: {which}; last checkpoint {ago:.1f} s before", flush=True)
            largest = max(largest, difference(Run.open(folder / "alone"), Run.open(run)))
            print(f"fit {number} ended; largest difference so far {largest:.1e}", flush=True)
        print(f"{kills} kills, {early} of them before the first checkpoint of a fit")
        print(f"{number} fits came to their end, largest difference {largest:.1e} (relative)")
        print(f"longest time from a checkpoint to a kill {lost:.0f} s")


if __name__ == "__main__":
    main()
