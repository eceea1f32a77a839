"""python -m tools.record_steps PROGRAM --peer-python PATH [--peer-source DIR] -o FILE.npz."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("spatial_vae", "target_vae", "affinity_vae", "cryodrgn", "explicit_latents")
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run one recorder with the program's own Python."""
    parser = argparse.ArgumentParser(prog="python -m tools.record_steps", description=__doc__)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--peer-source", type=Path, help="folder of the unpacked program")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the .npz to write")
    given = parser.parse_args()
    recorder = f"tools.record_steps.steps_of_{given.program}"
    command = [str(given.peer_python), "-m", recorder, str(given.out.resolve())]
    if given.peer_source is not None:
        command.append(str(given.peer_source.resolve()))
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
