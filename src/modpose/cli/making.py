"""Making data and repeating studies: simulate, experiment."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Literal

import typer

from modpose.cli.arguments import Overwrite, app, simulate_app
from modpose.errors import InputError

EXPERIMENTS = {"spatial-vae": "spatial_vae", "target-vae": "target_vae"}
"""Name of an experiment and its module in :mod:`modpose.evaluate.experiments`."""


@simulate_app.command()
def particles(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    images: Annotated[int, typer.Option(help="Number of images.")] = 3000,
    box: Annotated[int, typer.Option(help="Side of the images, pixels.")] = 40,
    pixel_size: Annotated[float, typer.Option(help="Angstrom a pixel.")] = 4.0,
    snr: Annotated[float, typer.Option(help="var(signal) / var(noise) inside the box.")] = 0.5,
    hinge: Annotated[
        tuple[float, float], typer.Option(help="Smallest and largest hinge angle, degrees.")
    ] = (-20.0, 20.0),
    shift: Annotated[
        float, typer.Option(help="Standard deviation of the shift on each axis, pixels.")
    ] = 1.0,
    ctf: Annotated[bool, typer.Option("--ctf", help="Filter by a microscope's CTF.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw a hinged macromolecule in random poses: particles.mrcs and particles.star.

    The truth is kept in STAR columns of its own (modposeTruthAngle, ...Hinge, ...ShiftX/Y).

    \b
    modpose simulate particles -o demo --images 3000 --box 40 --snr 0.5
    """
    from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles

    settings = HingeSettings(
        n=images,
        box=box,
        pixel_size=pixel_size,
        snr=snr,
        hinge_range_deg=hinge,
        shift_std_px=shift,
        ctf=ctf,
        seed=seed,
    )
    star = write_particles(simulate_particles(settings), out, overwrite)
    typer.echo(f"wrote {images} images to {star}")


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(EXPERIMENTS)}.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables and figures.")],
    budget: Annotated[
        Literal["smoke", "scaled", "full"],
        typer.Option(help="Seconds to try it, hours on two cores, or the paper's own sizes."),
    ] = "scaled",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the real data sets that the studies use.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="STUDY", help="One study by name.")] = None,
    minutes_per_fit: Annotated[
        float | None, typer.Option(help="Training time of every fit, instead of the budget's.")
    ] = None,
) -> None:
    """Repeat the studies of a paper.  Started again, it goes on where it was interrupted.

    \b
    modpose experiment spatial-vae --budget smoke -o study
    """
    if name not in EXPERIMENTS:
        raise InputError.of("experiment", "the name", name, f"one of {', '.join(EXPERIMENTS)}")
    module = importlib.import_module(f"modpose.evaluate.experiments.{EXPERIMENTS[name]}")
    page = module.run(budget, out, seed, data=data, only=only, minutes_per_fit=minutes_per_fit)
    typer.echo(f"experiment: {page}")
