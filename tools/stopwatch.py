"""Time what four users do, from ``pip install`` to a selection on disk, with real data.

    python -m tools.stopwatch DATA [--user NAME] [--installed] [--torch torch==2.13.0]

DATA is the folder of real data sets that the tests use (``MODPOSE_DATA``).  Without
``--installed`` the package is first installed into an empty environment (after this ``--torch``,
such as a small one without CUDA), which counts for each user.  Printed are seconds of the clock,
seconds of the processor, and what was kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

USERS = {
    "structural biologist": (
        "modpose inspect {data}/spa/apoferritin_empiar10146_64.star",
        "modpose align {data}/spa/apoferritin_empiar10146_64.star -o classes --classes 8 --invert",
        "modpose select classes --class 1,2,3,4 -o good.star",
    ),
    "microscopist": (
        "modpose inspect {data}/stem/graphene_4nm_Si_2nm.npz",
        "modpose pick {data}/stem/graphene_4nm_Si_2nm.npz:gb4 -o atoms.star --radius 9 --packed "
        "--extract 32",
        "modpose fit atoms.star -o run --z-dim 2 --clusters 3 --max-minutes 2",
        "modpose report run",
        "modpose select run --cluster 0 -o first.star",
    ),
    "astronomer": (
        "modpose inspect {data}/galaxy/galaxy_zoo_train_64.npz",
        "modpose fit {data}/galaxy/galaxy_zoo_train_64.npz:images -o run --z-dim 8 --box 32 "
        "--clusters 4 --max-minutes 3",
        "modpose report run",
        "modpose select run --cluster 0,1 -o chosen.txt",
    ),
    "researcher of machine learning": (
        "modpose inspect {data}/mnist.npz:x_train",
        "modpose fit {data}/mnist.npz:x_train -o run --z-dim 8 --max-minutes 3",
        "modpose cluster run --k 10 --method kmeans",
        "modpose select run --cluster 3 -o chosen.npy",
    ),
}
"""Commands of each user; each ends with a selection on disk."""


def main() -> None:
    """Time the users."""
    parser = argparse.ArgumentParser(prog="python -m tools.stopwatch", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--user", choices=USERS, action="append")
    parser.add_argument("--installed", action="store_true", help="Use this environment.")
    parser.add_argument("--torch", help="Default: whatever pip chooses.")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    with tempfile.TemporaryDirectory(prefix="modpose-") as folder:
        place, before = Path(folder), (0.0, 0.0)
        scripts = Path(sys.executable).parent
        if not arguments.installed:
            scripts, before = _install(place / "venv", arguments.torch)
            print(f"install: {before[0]:.0f} s, processor {before[1]:.0f} s", flush=True)
        for name in arguments.user or USERS:
            work = place / name.replace(" ", "-")
            work.mkdir()
            clock, processor = before
            for command in USERS[name]:
                words = shlex.split(command.format(data=data))
                seconds = timed([str(scripts / words[0]), *words[1:]], work)
                clock, processor = clock + seconds[0], processor + seconds[1]
                print(
                    f"  {seconds[0]:6.0f} s, processor {seconds[1]:6.0f} s  {command}", flush=True
                )
            kept = max(work.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            print(f"{name}: {clock:.0f} s, processor {processor:.0f} s, wrote {kept.name}")


def _install(venv: Path, torch: str | None) -> tuple[Path, tuple[float, float]]:
    """Install the package into an empty environment; returns its commands and the time."""
    scripts = venv / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet"]
    steps = [[sys.executable, "-m", "venv", str(venv)], *([[*pip, torch]] if torch else [])]
    times = [timed(step, Path.cwd()) for step in [*steps, [*pip, "."]]]
    clock, processor = (sum(parts) for parts in zip(*times, strict=True))
    return scripts, (clock, processor)


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command in a folder; returns seconds of the clock and of the processor."""
    began, used = time.perf_counter(), _processor()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began, _processor() - used


def _processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
