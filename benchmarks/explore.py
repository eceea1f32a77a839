"""The page of ``modpose explore`` with a million images: first picture, frames, writing.

    python -m benchmarks.explore
    python -m benchmarks.explore --rows 10000000 --no-table
    python -m benchmarks.explore --clicks --side 128

The folder of a run is made without any fit, with a STAR file and a cryoSPARC table of as many rows
(``--no-table``: without).  The page is opened in the distribution's Chromium, with drawing in
software.  Printed are the time from the address to the first picture, frames per second while the
scatter is dragged to and fro, each with seconds of the processor (of browser and server together),
and, with tables, the time in which the page's server writes a third of the images to each kind of
file.  ``--clicks`` times only what a click draws, by models of the full size of their recipes that
were hardly trained.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import Page, sync_playwright

from benchmarks import machine
from benchmarks.select import make_run, write_cs, write_particles
from modpose.estimator import PoseModel
from modpose.explore.opened import OpenRun
from modpose.run import Run
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

SOFTWARE = ["--no-sandbox", "--enable-unsafe-swiftshader"]
READY = "document.documentElement.dataset.ready === 'yes'"
FIRST = "performance.getEntriesByName('first picture')[0]?.startTime"
COUNTED = """() => { window.frames_ = 0; const count = () => { window.frames_++;
    requestAnimationFrame(count); }; requestAnimationFrame(count); }"""
DRAGS, STEPS = 6, 30
CLICKS = 9
PATIENCE = 600_000
AIMS = {".npy": 2.0, ".star": 10.0, ".cs": 10.0}
"""Seconds in which a million rows should be written."""


def make_bare_run(folder: Path, n: int, seed: int) -> Run:
    """Make the folder of a run with n rows of latents and no images."""
    images = np.random.default_rng(seed).normal(size=(20, 8, 8)).astype(np.float32)
    tiny = {
        "model": {"encoder": {"hidden": 8}, "field": {"hidden": 8}},
        "train": {"epochs": 1},
    }
    run = PoseModel("spatial-vae", z_dim=2, options=tiny, quiet=True).fit(images).save(folder)
    rng = np.random.default_rng(seed)
    latents = pd.DataFrame({"index": np.arange(n), "elbo": rng.standard_normal(n)})
    for k in range(2):
        latents[f"z_{k}"] = rng.standard_normal(n)
    run.update_environment(n=n)
    run.write_latents(latents.assign(cluster=rng.integers(0, 3, n)))
    return Run.open(folder)


@contextmanager
def served(run: Path) -> Iterator[str]:
    """Serve a run within this context."""
    command = [sys.executable, "-m", "modpose", "explore", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def used() -> float:
    """Return the seconds of the processor that this process and all that it started have used."""
    parents, seconds, tick = {}, {}, os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            values = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(values[1])
            seconds[int(stat.parent.name)] = sum(map(int, values[11:15])) / tick

    def ours(process: int) -> bool:
        while process and process != os.getpid():
            process = parents.get(process, 0)
        return process != 0

    return sum(spent for process, spent in seconds.items() if ours(process))


def frames(page: Page) -> tuple[float, float]:
    """Drag the scatter to and fro; returns frames per second, and processor seconds a frame."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate(COUNTED)
    page.mouse.move(x, y)
    page.mouse.down()
    before, began, spent = page.evaluate("window.frames_"), time.perf_counter(), used()
    for drag in range(DRAGS):
        page.mouse.move(x + (-120 if drag % 2 else 120), y + 20 * drag, steps=STEPS)
    counted, seconds = page.evaluate("window.frames_") - before, time.perf_counter() - began
    spent = used() - spent
    page.mouse.up()
    return float(counted / seconds), spent / max(1, counted)


def write_thirds(run: Run, seed: int) -> None:
    """Write a third of the images to each kind of file that has an aim; print the times."""
    opened = OpenRun(run)
    mask = np.random.default_rng(seed).random(len(opened.latents)) < 1 / 3
    for suffix in dict.fromkeys((".npy", *opened.formats())):
        if suffix in AIMS:
            cpu, clock = time.process_time(), time.perf_counter()
            if suffix == ".npy":
                opened.selections.save("third", mask, "a third")
            opened.write("third", suffix)
            cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
            print(
                f"a third to {suffix}: {cpu:.1f} s of the processor ({clock:.1f} s by the "
                f"clock; aim {AIMS[suffix]:g} s for a million)",
                flush=True,
            )


def clicks(folder: Path, side: int, seed: int) -> None:
    """Time what a click draws, for a model of pictures and for two of volumes."""
    images = np.random.default_rng(seed).normal(size=(40, side, side)).astype(np.float32)
    settings = ProjectionSettings(n=40, box=side, pixel_size=200 / side, seed=seed)
    star = write_projections(simulate_projections(settings), folder, 0, True)
    for recipe, data in (("modpose", images), ("modpose-posed", star), ("cryodrgn", star)):
        options = {"train": {"epochs": 1, "batch_size": 8}}
        model = PoseModel(recipe, z_dim=4, options=options, quiet=True).fit(data)
        opened = OpenRun(model.save(folder / recipe))
        pictures = opened.pictures
        pictures.prepare()
        z = np.zeros(4)
        draws: dict[str, Callable[[], object]] = {"first picture": partial(pictures.place, z)}
        if opened.places.volumes:
            draws["three slices"] = partial(pictures.slices, z)
            draws["surface"] = partial(pictures.surface, z, 3.0)
        for name, draw in draws.items():
            spent = [timed(draw) for _ in range(CLICKS)]
            cpu, clock = (1000 * statistics.median(times) for times in zip(*spent, strict=True))
            print(f"{recipe}, side {side}, {name}: {cpu:.0f} ms of the processor, {clock:.0f} ms")


def timed(draw: Callable[[], object]) -> tuple[float, float]:
    """Return seconds of the processor and of the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    draw()
    return time.process_time() - cpu, time.perf_counter() - clock


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-table", action="store_true")
    parser.add_argument("--clicks", action="store_true")
    parser.add_argument("--side", type=int, default=128, help="--clicks: of the images, pixels")
    given = parser.parse_args(arguments)
    print(machine.sentence())
    if given.clicks:
        with tempfile.TemporaryDirectory() as name:
            clicks(Path(name), given.side, given.seed)
        return
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        if given.no_table:
            run = make_bare_run(folder / "run", given.rows, given.seed)
        else:
            star = write_particles(folder, given.rows, given.seed)
            run = Run.open(make_run(folder / "run", star, given.seed))
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=SOFTWARE
        )
        with served(run.path) as address:
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(PATIENCE)
            before = used()
            page.goto(address)
            page.wait_for_function(READY, timeout=PATIENCE)
            first = page.evaluate(FIRST) / 1000
            print(
                f"{given.rows:,} images: first picture after {first:.1f} s (aim 2 s); "
                f"{used() - before:.1f} s of the processor until all is ready",
                flush=True,
            )
            rate, each = frames(page)
            print(
                f"dragging: {rate:.1f} frames a second (aim 10), {1000 * each:.0f} ms of the "
                "processor a frame",
                flush=True,
            )
            chromium.close()
        if given.no_table:
            return
        write_thirds(run, given.seed)
        write_thirds(
            Run.open(make_run(folder / "of_cs", write_cs(folder, given.rows, given.seed))),
            given.seed,
        )


if __name__ == "__main__":
    main()
