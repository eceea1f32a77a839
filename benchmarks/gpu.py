"""Four minutes on one GPU: which recipes run, how fast, and what fills the time.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu --seconds 1 --batch 2

First the tests marked ``device`` run there, if pytest and hypothesis are installed: steps and
gradients of seven families, equivariance, search, encoding, maps, and the verbs that use a run,
each compared with the CPU.  Then six families of recipes take steps of training on simulated images
for a few seconds each, on the device and, for comparison, on the CPU.  Printed are the images per
second of both, the share of the time in which the device computes (the profiler's time of kernels
over the clock), the peak of its memory, and the number of copies to the host in a step.  A search
for poses of volumes follows, and a short alignment as of ``modpose align --device``.  What fails
prints its error, and the next one begins.  No data are needed, and nothing is written but temporary
files of the tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks import machine
from modpose.config import parse_config
from modpose.data.batches import Batch
from modpose.devices import computing_on
from modpose.fourier.coefficients import map_coefficients
from modpose.fourier.reference import make_references
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import haar_rotations
from modpose.model.build import build_vae
from modpose.model.objective import Estimate
from modpose.recipes import recipe_config
from modpose.search.pipeline import align
from modpose.search.settings import AlignSettings
from modpose.search.so3_search import search, shift_grid
from modpose.train.learner import set_up

HEADER = ("recipe", "batch", "images/s", "images/s on the CPU", "busy", "GB", "copies a step")
CTF = [1.0, 15000.0, 15000.0, 0.0, 300.0, 2.7, 0.1, 0.0, 0.0]


@dataclass(frozen=True)
class Family:
    """A recipe, the sides of its images, how many are in a batch, and what is known of each."""

    recipe: str
    shape: tuple[int, ...]
    batch: int
    posed: bool = False


FAMILIES = (
    Family("spatial-vae", (64, 64), 100),
    Family("target-vae", (64, 64), 50),
    Family("modpose", (64, 64), 100),
    Family("modpose-posed", (128, 128), 256, posed=True),
    Family("cryodrgn", (64, 64), 8, posed=True),
    Family("affinity-vae", (32, 32, 32), 16),
)


TESTS = "tests/test_on_a_device.py"
PATIENCE = 120.0
"""Seconds for the tests."""


def tested(device: str) -> str:
    """Run the tests marked for a device there; what pytest says of failures, and at its end."""
    root = Path(__file__).parents[1]
    missing = [name for name in ("pytest", "hypothesis") if not importlib.util.find_spec(name)]
    if missing or not (root / TESTS).is_file():
        return f"left out, {' and '.join(missing) or TESTS} is missing"
    words = ["-m", "device", "-q", "--tb=line", "-W", "default", "-p", "no:cacheprovider", TESTS]
    command = [sys.executable, "-m", "pytest", *words]
    known = os.environ | {"MODPOSE_TEST_DEVICE": device}
    try:
        said = subprocess.run(
            command, cwd=root, env=known, capture_output=True, text=True, timeout=PATIENCE
        ).stdout
    except subprocess.TimeoutExpired:
        return f"took longer than {PATIENCE:.0f} s"
    kept = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "\n".join([*kept, *said.splitlines()[-1:]])


def batch_of(family: Family, device: torch.device) -> Batch:
    """Make noise of the right form."""
    count, dim = family.batch, len(family.shape)
    generator = torch.Generator().manual_seed(0)
    made = Batch(
        index=torch.arange(count),
        image=torch.randn(count, 1, *family.shape, generator=generator),
        ctf=torch.tensor([CTF]).expand(count, -1) if family.posed else None,
        pose=Pose(haar_rotations(count, generator), torch.zeros(count, dim))
        if family.posed
        else None,
    )
    return made.to(device)


def copied(batch: Batch) -> Batch:
    """Copy a batch, so that a model cannot use again what it computed from the last one."""
    pose = None if batch.pose is None else Pose(*(part.clone() for part in batch.pose))
    ctf = None if batch.ctf is None else batch.ctf.clone()
    return replace(batch, image=batch.image.clone(), ctf=ctf, pose=pose)


def stepper(family: Family, device: torch.device, precision: str = "32-true") -> Callable[[], None]:
    """Return a step of training, with the recipe's estimate of the bound."""
    config = parse_config(recipe_config(family.recipe) | {"seed": 0}, f"recipe {family.recipe}")
    train = config.train.model_copy(update={"accelerator": device.type, "precision": precision})
    torch.manual_seed(0)
    vae = build_vae(config, shape=family.shape, channels=1, n_images=family.batch)
    learner = set_up(vae, config.model_copy(update={"train": train}))
    learner.vae.train()
    batch, generator = batch_of(family, device), torch.Generator(device).manual_seed(0)
    how = Estimate(
        pixels=train.pixels,
        decoded_images=train.decoded_images,
        augment=train.augment.rotate == "encoder-input",
    )

    def step() -> None:
        (-learner.objective(copied(batch), generator, how).value().mean()).backward()  # type: ignore[no-untyped-call]
        for optimizer in learner.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def searcher(device: torch.device) -> Callable[[], None]:
    """Return a search of the poses of eight volumes."""
    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(8, 32, 32, 32, generator=generator).to(device)
    grid, shifts = haar_rotations(500, generator).to(device), shift_grid(2.0, 2.0)

    def run() -> None:
        data = map_coefficients(volumes, 0.2)
        search(data, make_references(volumes[:2], 0.2), grid, shifts, top=2, apart=0.2)

    return run


def aligner(device: torch.device) -> Callable[[], None]:
    """Return a short alignment of eight volumes, which stay on the host."""
    generator = torch.Generator().manual_seed(0)
    data = map_coefficients(torch.randn(8, 32, 32, 32, generator=generator), 0.4)
    settings = AlignSettings(rounds=1, refine_rounds=1, rotations=300, motions=0)

    def run() -> None:
        with computing_on("--device", device):
            align(data, settings, quiet=True)

    return run


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def per_second(step: Callable[[], None], device: torch.device, seconds: float) -> float:
    """Steps a second, after two that warm up."""
    for _ in range(2):
        step()
    synchronise(device)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step()
        count += 1
        synchronise(device)
    return count / (time.perf_counter() - begun)


def watched(step: Callable[[], None], device: torch.device, steps: int = 5) -> tuple[float, float]:
    """Share of the time in which the device computes, and copies to the host in a step."""
    if device.type != "cuda":
        return float("nan"), float("nan")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        synchronise(device)
        clock = time.perf_counter() - begun
    events = seen.key_averages()
    kernels = [event for event in events if event.device_type == DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6 / clock
    copies = sum(event.count for event in events if "DtoH" in event.key)
    return busy, copies / steps


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--batch", type=int, help="images; default: that of each recipe here")
    parser.add_argument("--only", nargs="+", help="tests, recipes, search or align; default: all")
    options = parser.parse_args(arguments)
    device, host = torch.device(options.device), torch.device("cpu")
    print(machine.sentence(torch.get_num_threads()), flush=True)
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device), flush=True)
    if not options.only or "tests" in options.only:
        print(f"tests: {tested(options.device)}", flush=True)
    print(" | ".join(HEADER), flush=True)
    families = [replace(one, batch=options.batch or one.batch) for one in FAMILIES]
    works: list[tuple[str, int, Callable[[torch.device], Callable[[], None]]]]
    works = [(one.recipe, one.batch, partial(stepper, one)) for one in families]
    for name, size, make in [*works, ("search", 8, searcher), ("align", 8, aligner)]:
        if options.only and name not in options.only:
            continue
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            step = make(device)
            here = size * per_second(step, device, options.seconds)
            busy, copies = watched(step, device)
            memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
            there = here
            if device != host:
                there = size * per_second(make(host), host, options.seconds)
        except Exception as error:  # the next one may run
            print(f"{name} | failed: {type(error).__name__}: {error}"[:300], flush=True)
            continue
        numbers = f"{here:.0f} | {there:.0f} | {busy:.2f} | {memory / 1e9:.2f} | {copies:.1f}"
        print(f"{name} | {size} | {numbers}", flush=True)


if __name__ == "__main__":
    main()
