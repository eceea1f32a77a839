"""Build the wheel, and use it in an empty environment: alone, then with each extra.

    python -m tools.wheel FOLDER [--extra NAME ...] [--python PYTHON] [--torch torch==2.13.0]

The environment gets the wheel in FOLDER (with ``--torch``: after this version of torch, such as a
small one without CUDA), and then one extra after the other.  Each is tried by the smallest thing
that it is for (:data:`USES`), and no package may then lack what it needs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

SERVED = """
import subprocess, sys, urllib.request
command = [sys.argv[1], "explore", "run", "--no-browser"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    try:
        with urllib.request.urlopen(server.stdout.readline().strip()) as page:
            assert b"modpose" in page.read()
    finally:
        server.terminate()
"""
NOTEBOOK = """
import jupytext, nbclient
page = "# A page\\n\\n```python\\nimport modpose\\n```"
nbclient.NotebookClient(jupytext.reads(page, "md")).execute()
"""
STACK = "import numpy as np; stack = np.random.default_rng(0).normal(size=(4, 16, 16)); "
USES: dict[str, list[list[str]]] = {
    "": [
        ["modpose", "--version"],
        ["modpose", "simulate", "particles", "-o", "data", "--images", "40", "--box", "40"],
        ["modpose", "inspect", "data/particles.star", "--json"],
        ["modpose", "fit", "data/particles.star", "-o", "run", "--z-dim", "2", "--epochs", "1"],
        ["modpose", "report", "run"],
        ["modpose", "explore", "run", "--export", "page"],
    ],
    "zarr": [
        ["python", "-c", STACK + "import zarr; zarr.save('stack.zarr', stack)"],
        ["modpose", "inspect", "stack.zarr"],
    ],
    "hdf5": [
        ["python", "-c", STACK + "import h5py; h5py.File('stack.h5', 'w')['images'] = stack"],
        ["modpose", "inspect", "stack.h5:images"],
        ["modpose", "export", "run", "-o", "run.h5ad"],
    ],
    "fits": [
        ["python", "-c", STACK + "from astropy.io import fits; fits.writeto('stack.fits', stack)"],
        ["modpose", "inspect", "stack.fits"],
    ],
    "soap": [
        ["python", "-c", "import numpy as np; np.save('three.npy', np.eye(9).reshape(3, 3, 3, 3))"],
        ["modpose", "affinity", "three.npy", "-o", "affinity.csv", "--metric", "soap"],
    ],
    "umap": [["modpose", "embed", "run", "--method", "umap"]],
    "explore": [["python", "-c", SERVED, "modpose"]],
    "notebooks": [["python", "-c", NOTEBOOK]],
}
"""Extras for users, and what is done with each; the first is the wheel alone."""
PROGRAMS = ("modpose", "python")


def try_wheel(wheel: Path, extras: Sequence[str], python: str, torch: str | None) -> None:
    """Install the wheel into an empty environment, add its extras, and use each there."""
    with tempfile.TemporaryDirectory(prefix="modpose-") as folder:
        place = Path(folder)
        run([python, "-m", "venv", str(place / "venv")], place)
        scripts = place / "venv" / "bin"
        pip = [str(scripts / "python"), "-m", "pip"]
        if torch is not None:
            run([*pip, "install", "--quiet", torch], place)
        for extra in ("", *extras):
            run([*pip, "install", "--quiet", f"{wheel}[{extra}]" if extra else str(wheel)], place)
            run([*pip, "check"], place)
            for command in USES[extra]:
                paths = [str(scripts / word) if word in PROGRAMS else word for word in command]
                run(paths, place)
            print(f"{wheel.name}{f'[{extra}]' if extra else ''}: works", flush=True)


def check_readme(wheel: Path) -> None:
    """End if the README of a wheel names files that only the repository has."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        if b"](docs/" in archive.read(name):
            sys.exit(f"{wheel}: its README names files of the repository, expected addresses")


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder, with no code of elsewhere; end with its message if it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-2000:] or done.stdout[-2000:]}")


def main() -> None:
    """Build the wheel and try it."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheel", description=__doc__)
    parser.add_argument("folder", type=Path)
    extras = [extra for extra in USES if extra]
    parser.add_argument("--extra", choices=extras, action="append", help="Default: each.")
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
    try_wheel(wheel, given.extra or extras, given.python, given.torch)


if __name__ == "__main__":
    main()
