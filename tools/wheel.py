"""Build the wheel, and try it in empty environments: alone, and with each extra.

    python -m tools.wheel FOLDER [--extra NAME ...] [--python PYTHON] [--torch torch==2.13.0]

Each environment installs the wheel in FOLDER (with ``--torch``: after this version of torch, such
as a small one without CUDA), imports what its extra brings, and runs ``modpose --version`` and a
short simulation.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

BRINGS = {
    "": ("modpose",),
    "zarr": ("zarr",),
    "hdf5": ("h5py",),
    "fits": ("astropy",),
    "soap": ("dscribe",),
    "explore": ("starlette", "uvicorn"),
    "notebooks": ("jupytext", "nbclient", "ipykernel"),
}
"""Extras for users, and the modules that each must bring."""
NEEDED = ("index.html", "vendor/ogl.js", "vendor/regl-scatterplot.js")


def try_wheel(wheel: Path, extra: str, python: str, torch: str | None) -> None:
    """Install the wheel with an extra into an empty environment, and use it there."""
    with tempfile.TemporaryDirectory(prefix="modpose-") as folder:
        place = Path(folder)
        run([python, "-m", "venv", str(place / "venv")], place)
        scripts = place / "venv" / "bin"
        target = f"{wheel}[{extra}]" if extra else str(wheel)
        inside = str(scripts / "python")
        for wanted in (torch, target):
            if wanted is not None:
                run([inside, "-m", "pip", "install", "--quiet", wanted], place)
        files = " and ".join(f"(page.HERE / {name!r}).is_file()" for name in NEEDED)
        lines = (
            f"from modpose.explore import page; assert {files}; import {', '.join(BRINGS[extra])}"
        )
        run([inside, "-c", lines], place)
        run([str(scripts / "modpose"), "--version"], place)
        small = ["simulate", "particles", "-o", "data", "--images", "4", "--box", "40"]
        run([str(scripts / "modpose"), *small], place)
        run([str(scripts / "modpose"), "inspect", "data/particles.star", "--json"], place)
    print(f"{wheel.name}{f'[{extra}]' if extra else ''}: works", flush=True)


def check_readme(wheel: Path) -> None:
    """End if the README of a wheel names files that only the repository has."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        if b"](docs/" in archive.read(name):
            sys.exit(f"{wheel}: its README names files of the repository, expected addresses")


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder; end with its message if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-2000:] or done.stdout[-2000:]}")


def main() -> None:
    """Build the wheel and try it."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheel", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extra", choices=BRINGS, action="append", help="Default: each.")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--torch", help="Default: whatever pip chooses.")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder), "."],
        Path.cwd(),
    )
    wheel = max(folder.glob("modpose-*.whl"), key=lambda path: path.stat().st_mtime_ns)
    check_readme(wheel)
    for extra in given.extra or BRINGS:
        try_wheel(wheel, extra, given.python, given.torch)


if __name__ == "__main__":
    main()
