"""Start the studies of the repository: experiment."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import app
from modpose.errors import InputError

EXPERIMENTS = {
    "spatial-vae": "spatial_vae",
    "target-vae": "target_vae",
    "subtomograms": "subtomograms",
    "affinity": "affinity",
    "amortisation": "amortisation",
}
"""Name of an experiment and its package in ``studies/`` of the repository."""
STDERR = 2


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(EXPERIMENTS)}.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables and figures.")],
    budget: Annotated[
        Literal["smoke", "scaled", "printed", "full"],
        typer.Option(
            help="Seconds for a trial, hours on two cores, the paper's recipes, limited, or its "
            "own sizes."
        ),
    ] = "scaled",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the real data sets that the studies use.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="STUDY", help="Name of one study.")] = None,
    minutes_per_fit: Annotated[
        float | None, typer.Option(help="Training time of every fit, instead of the budget's.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Fits in parallel, instead of the budget's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Repeat the studies of a paper.  An interrupted experiment continues if started again.

    The studies are in the repository of modpose and are not installed with it.

    \b
    modpose experiment spatial-vae --budget smoke -o study
    """
    if name not in EXPERIMENTS:
        raise InputError.of("experiment", "the name", name, f"one of {', '.join(EXPERIMENTS)}")
    options: dict[str, object] = {"--budget": budget, "--seed": seed, "--out": out}
    options |= {"--data": data, "--only": only, "--minutes-per-fit": minutes_per_fit}
    options["--jobs"] = jobs
    given = [f"{flag}={value}" for flag, value in options.items() if value is not None]
    code = _run_module(f"studies.{EXPERIMENTS[name]}", given, find_repository(), quiet=as_json)
    if as_json and code == 0:
        facts = {"experiment": name, "budget": budget, "seed": seed, "written": [out / "index.md"]}
        answer(facts, [], as_json)
    raise typer.Exit(code)


def find_repository() -> Path:
    """Return the folder with ``studies/``: that of an editable install, or the current folder.

    Raises
    ------
    InputError
        If there is none; the sentence says how to get it.
    """
    for folder in (Path(__file__).resolve().parents[3], Path.cwd()):
        if (folder / "studies" / "common" / "conduct.py").is_file():
            return folder
    raise InputError(
        "experiment: the studies are not installed with modpose; download its source code, and "
        "run this command in that folder"
    )


def _run_module(module: str, arguments: list[str], repository: Path, quiet: bool) -> int:
    """Run a module in a separate process; return its exit code.  Quiet: it prints on stderr."""
    paths = [str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        stdout=STDERR if quiet else None,
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child too
    try:
        code = child.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        if child.poll() is None:
            child.terminate()
            child.wait()
    return code if code >= 0 else 128 - code
