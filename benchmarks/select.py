"""A selection from a million particles, and the speed at which stacks are written.

    python -m benchmarks.select
    python -m benchmarks.select --rows 100000

A STAR file of 24 columns with its stacks (8×8 pixels per image) and the folder of a run are made,
without any fit.  ``modpose select`` then runs on them in processes of its own, once to a STAR file
and once to a list of positions; a stack of 1 GB is written and read.  Times of the processor and of
the clock, and the peak of resident memory, are printed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import machine
from modpose.data.dataset import Dataset
from modpose.data.mrc import open_mrc, write_mrcs
from modpose.data.record import record_of
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.options import resolve
from modpose.recipes import recipe_config
from modpose.run import Run
from modpose.train.session import describe_fit

SIDE, PIXEL_SIZE, IN_A_STACK = 8, 1.5, 20_000
NUMBERS = (
    *("CoordinateX", "CoordinateY", "AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst"),
    *("OriginYAngst", "DefocusAngle", "CtfMaxResolution", "CtfFigureOfMerit", "NormCorrection"),
    *("LogLikeliContribution", "MaxValueProbDistribution"),
)
SECONDS, GIGABYTES = {"star": 10.0, "txt": 2.0}, 2.0


def write_particles(folder: Path, n: int, seed: int = 0) -> Path:
    """Write a STAR file of ``n`` particles as RELION 3.1 has it, and their stacks."""
    rng, row = np.random.default_rng(seed), np.arange(n)
    for first in range(0, n, IN_A_STACK):
        images = rng.standard_normal((min(IN_A_STACK, n - first), SIDE, SIDE), np.float32)
        write_mrcs(folder / f"mic{first // IN_A_STACK:03d}.mrcs", images, PIXEL_SIZE)
    stack, place = np.divmod(row, IN_A_STACK)
    pairs = list(zip(place.tolist(), stack.tolist(), strict=True))
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{k + 1:06d}@mic{m:03d}.mrcs" for k, m in pairs],
            "rlnMicrographName": [f"MotionCorr/job002/mic{m:03d}.mrc" for _, m in pairs],
            "rlnOpticsGroup": 1 + row % 2,
            "rlnRandomSubset": 1 + row // 2 % 2,
            "rlnClassNumber": 1,
            **{f"rln{name}": rng.uniform(0, 5, n).round(6) for name in NUMBERS},
            "rlnDefocusU": rng.uniform(5e3, 3e4, n).round(6),
            "rlnPhaseShift": 0.0,
            "rlnCtfBfactor": 0.0,
            "rlnCtfScalefactor": 1.0,
            "rlnGroupNumber": 1 + stack,
        }
    )
    table["rlnDefocusV"] = table["rlnDefocusU"]
    optics = pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["a", "b"]})
    optics = optics.assign(
        rlnVoltage=300.0,
        rlnSphericalAberration=2.7,
        rlnAmplitudeContrast=0.1,
        rlnImagePixelSize=PIXEL_SIZE,
        rlnImageSize=SIDE,
        rlnImageDimensionality=2,
    )
    write_star(folder / "particles.star", table, optics)
    return folder / "particles.star"


def write_cs(folder: Path, n: int, seed: int = 0) -> Path:
    """Write a cryoSPARC table of the stacks that :func:`write_particles` has written."""
    rng, row = np.random.default_rng(seed), np.arange(n)
    names = np.char.add(np.char.zfill((row // IN_A_STACK).astype("S3"), 3), b".mrcs")
    columns: dict[str, tuple[str, object]] = {
        "uid": ("<u8", row + 1),
        "blob/path": ("S12", np.char.add(b"mic", names)),
        "blob/idx": ("<u4", row % IN_A_STACK),
        "blob/shape": ("2<u4", (SIDE, SIDE)),
        "blob/psize_A": ("<f4", PIXEL_SIZE),
        "ctf/accel_kv": ("<f4", 300.0),
        "ctf/cs_mm": ("<f4", 2.7),
        "ctf/amp_contrast": ("<f4", 0.1),
        "ctf/df1_A": ("<f4", rng.uniform(5e3, 3e4, n)),
        "ctf/df2_A": ("<f4", 1e4),
        "ctf/df_angle_rad": ("<f4", rng.uniform(0, 3, n)),
        "ctf/phase_shift_rad": ("<f4", 0.0),
        "alignments3D/pose": ("3<f4", rng.uniform(-1, 1, (n, 3))),
        "alignments3D/shift": ("2<f4", rng.uniform(-2, 2, (n, 2))),
    }
    records = np.zeros(n, [(name, kind) for name, (kind, _) in columns.items()])
    for name, (_, values) in columns.items():
        records[name] = values
    np.save(folder / "particles.npy", records)
    return (folder / "particles.npy").rename(folder / "particles.cs")


def make_run(folder: Path, star: Path, seed: int = 0) -> Path:
    """Make what a fit of the particles would leave: their record and their latents."""
    time.sleep(1.1)  # a run is told to be later than its input by whole seconds
    config = resolve(recipe_config("spatial-vae"))
    dataset = Dataset(open_source(star), config.data, seed=0)
    record = record_of(dataset)
    environment = describe_fit(dataset, config, None, None, record)
    rng, n = np.random.default_rng(seed), dataset.n
    with Run.begin(folder, config, environment, record=record) as run:
        pass
    latents = pd.DataFrame({"index": np.arange(n), "angle_deg": rng.uniform(-180, 180, n)})
    for name in ("shift_x", "shift_y", *(f"z_{k}" for k in range(config.model.z_dim))):
        latents[name] = rng.standard_normal(n)
    run.write_latents(latents.assign(elbo=0.0, cluster=rng.integers(0, 3, n)))
    return folder


def measure(command: Sequence[str]) -> tuple[float, float, float]:
    """Run a command; return seconds of the processor, of the clock, and the peak in GB."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)\n"
        "sys.exit(done)\n"
    )
    began = time.perf_counter()
    words = [sys.executable, "-c", code, sys.executable, "-m", "modpose", *command]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    return float(printed[0]), time.perf_counter() - began, float(printed[1]) * 1024 / 1e9


def stack_times(folder: Path, gigabytes: float = 1.0) -> dict[str, tuple[float, float]]:
    """Write and read a stack, and the same bytes without our code.

    Returns seconds of the processor and of the clock for a GB.
    """
    images = np.zeros((int(gigabytes * 1e9 / 4 / 256**2), 256, 256), np.float32)
    size, found = images.nbytes / 1e9, {}

    def timed(name: str, work: Callable[[], object]) -> None:
        cpu, clock = time.process_time(), time.perf_counter()
        work()
        found[name] = (time.process_time() - cpu) / size, (time.perf_counter() - clock) / size

    def plain() -> None:
        with (folder / "plain.bin").open("wb") as file:
            file.write(images.data)
            os.fsync(file.fileno())

    def read() -> None:
        stack = open_mrc(folder / "stack.mrcs")
        for first in range(0, stack.n, 1000):
            stack.read(np.arange(first, min(first + 1000, stack.n)))

    timed("plain bytes", plain)
    timed("write_mrcs", lambda: write_mrcs(folder / "stack.mrcs", images, PIXEL_SIZE))
    timed("read", read)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    print(machine.sentence())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder / "run", write_particles(folder, given.rows, given.seed), given.seed)
        for kind, limit in SECONDS.items():
            out = str(folder / f"kept.{kind}")
            cpu, clock, memory = measure(["select", str(run), "--cluster", "1", "-o", out])
            print(
                f"{given.rows:,} rows, a third to .{kind}: {cpu:.1f} s of the processor "
                f"({clock:.1f} s by the clock; aim {limit:g} s), "
                f"{memory:.2f} GB (aim {GIGABYTES:g})"
            )
        for what, (cpu, clock) in stack_times(folder).items():
            print(f"1 GB, {what}: {cpu:.1f} s of the processor ({clock:.1f} s by the clock)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"making all this: {peak:.2f} GB")


if __name__ == "__main__":
    main()
