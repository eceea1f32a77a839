"""Subtomogram averaging: align."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modpose.cli.arguments import DataDir, Index, Inputs, Overwrite, Partial, app
from modpose.cli.lazily import lazily
from modpose.errors import InputError
from modpose.search.settings import AlignSettings

with lazily():
    from modpose.data import source as sources
    from modpose.evaluate import pose_recovery
    from modpose.search import run as subtomograms

if TYPE_CHECKING:
    from modpose.data.wedges import Wedge


@app.command()
def align(
    source: Inputs,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    classes: Annotated[int, typer.Option(help="Number of structures.")] = AlignSettings.classes,
    box: Annotated[
        int | None, typer.Option(help="First Fourier-crop volumes to this many voxels per side.")
    ] = None,
    mask_diameter: Annotated[
        float | None,
        typer.Option(help="Diameter of the averages, angstrom.  Default: the box minus 4 voxels."),
    ] = None,
    max_shift: Annotated[
        float, typer.Option(help="Largest shift along an axis, voxels of the box.")
    ] = AlignSettings.max_shift_px,
    wedge: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH|FILE",
            help="Tilts, such as -60,60; or a mask (.mrc, .npy); or RELION's tomograms.star.  "
            "Default: from INPUT.",
        ),
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Molecules are darker than their surroundings.")
    ] = False,
    rounds: Annotated[
        int, typer.Option(help="Rounds of the search from a random start.")
    ] = AlignSettings.rounds,
    refine_rounds: Annotated[
        int, typer.Option(help="Rounds of refinement in two independent halves.")
    ] = AlignSettings.refine_rounds,
    rotations: Annotated[
        int, typer.Option(help="Number of rotations in the grid of the search.")
    ] = AlignSettings.rotations,
    motions: Annotated[
        int, typer.Option(help="Number of principal motions to find within each class.")
    ] = AlignSettings.motions,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    datadir: DataDir = None,
    index: Index = None,
    partial: Partial = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted alignment in DIR.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Find classes and poses of subtomograms without templates, and average them.

    Writes class001.mrc ... and their half maps, particles.star (RELION angles, origins, classes),
    fsc.csv and index.html.  With --motions it also writes volumes of each class along its principal
    motions, class001_motion1.mrc ..., and the columns modposeZ0 ... in particles.star.

    \b
    modpose align particles.star -o aligned --classes 4
    modpose align volumes.npy -o aligned --wedge -60,60
    """
    opened = sources.open_source(
        source, kind="volumes", datadir=datadir, index=index, partial=partial
    )
    diameter = mask_diameter
    if diameter is not None:
        if opened.pixel_size is None:
            raise InputError(
                f"{opened.stack.name}: its pixel size is not known, so --mask-diameter in angstrom "
                "says nothing, expected a STAR or MRC file with a pixel size"
            )
        diameter *= (box or opened.stack.shape[0]) / opened.stack.shape[0] / opened.pixel_size
    settings = AlignSettings(
        classes=classes,
        box=box,
        mask_diameter_px=diameter,
        max_shift_px=max_shift,
        invert=invert,
        rounds=rounds,
        refine_rounds=refine_rounds,
        rotations=rotations,
        motions=motions,
        seed=seed,
    )
    found = subtomograms.align_subtomograms(
        opened,
        out,
        settings,
        wedge=None if wedge is None else _wedge(wedge),
        datadir=datadir,
        overwrite=overwrite,
        resume=resume,
    )
    for line in found.lines(opened.pixel_size, opened.stack.shape[0]):
        typer.echo(line)
    truth = opened.particles.truth()
    if truth is not None and {"r00", "shift_z"} <= set(truth):
        here = found.assignment
        for line in pose_recovery.recover_poses(
            here.rotation, found.shift_px, here.class_index, truth
        ).lines():
            typer.echo(f"truth: {line}")
    typer.echo(f"wrote {out / 'particles.star'} and {out / 'index.html'}")


def _wedge(text: str) -> Wedge:
    parts = text.split(",")
    if len(parts) != 2:
        return Path(text)
    try:
        return (float(parts[0]), float(parts[1]))
    except ValueError:
        return Path(text)
