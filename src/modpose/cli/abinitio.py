"""Maps from particles without poses: abinitio."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import (
    CtfFile,
    DataDir,
    Device,
    Index,
    Overwrite,
    Partial,
    app,
    needs,
    was_given,
)
from modpose.cli.lazily import lazily
from modpose.cli.signals import resumable
from modpose.cli.tilts import Grouped, Tomograms, opened_tilts
from modpose.search.abinitio.settings import AbInitioSettings

with lazily():
    from modpose.data import source as sources
    from modpose.search import sizes
    from modpose.search.abinitio import run as maps
    from modpose.search.abinitio import saved
    from modpose.search.tilts import run as tilted


@app.command()
def abinitio(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Particle images: particles.star, .cs, .mrcs.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    classes: Annotated[int, typer.Option(help="How many structures.")] = AbInitioSettings.classes,
    similar: Annotated[
        bool,
        typer.Option(
            "--similar", help="The structures are states of one: find its map and poses first."
        ),
    ] = AbInitioSettings.similar,
    motions: Annotated[
        int,
        typer.Option(help="Principal motions of a structure that moves; poses count with them."),
    ] = AbInitioSettings.motions,
    symmetry: Annotated[
        str,
        typer.Option(
            help="Point group that is imposed: C1, C4, D7, T, O, I; auto finds and tests it."
        ),
    ] = AbInitioSettings.symmetry,
    start_map: Annotated[
        Path | None,
        typer.Option("--map", metavar="MRC", help="Start from this map, low-passed to 40 Å."),
    ] = None,
    starts: Annotated[
        int, typer.Option(help="Random starts; the best is kept.")
    ] = AbInitioSettings.starts,
    box: Annotated[
        int, typer.Option(help="Side of the refined maps, pixels.")
    ] = AbInitioSettings.box,
    max_shift: Annotated[
        float, typer.Option(help="Largest shift, as a fraction of the box.")
    ] = AbInitioSettings.max_shift,
    invert: Annotated[
        bool, typer.Option("--invert", help="Make dark particles bright first.")
    ] = False,
    tomograms: Tomograms = None,
    grouped: Grouped = False,
    ctf: CtfFile = None,
    datadir: DataDir = None,
    index: Index = None,
    partial: Partial = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of everything random.")
    ] = AbInitioSettings.seed,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted search in DIR.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Find maps and poses of particles whose poses are not known.

    Random starts, of which the best is kept, then refinement in two halves.  Poses in the input
    are ignored; its half sets (rlnRandomSubset) are kept.  In tilt series (RELION 5, WarpTools),
    one pose of a particle explains all its images, and the hand is determined.  Writes
    class001.mrc ... with half maps and masks, fsc.csv, and particles.star (or .cs) with poses,
    classes and half sets.

    \b
    modpose abinitio particles.star -o maps
    modpose abinitio particles.star -o maps --classes 3
    modpose abinitio particles.star -o maps --symmetry D7 --map start.mrc
    modpose abinitio optimisation_set.star -o maps --classes 4
    modpose abinitio particles.star -o maps --symmetry auto
    """
    needs(context, "starts", "random starts, not --map", start_map is None)
    settings = AbInitioSettings(
        classes=classes,
        similar=similar,
        motions=motions,
        starts=starts,
        symmetry=symmetry,
        max_shift=max_shift,
        box=box,
        seed=seed,
    )
    series = opened_tilts("abinitio", [source], tomograms, grouped, datadir, ctf, index)
    if series is None:
        opened = sources.open_source(source, datadir=datadir, index=index, ctf=ctf, partial=partial)
    if was_given(context, "box"):
        sizes.check_sizes(opened if series is None else series.images, box)
    with resumable(lambda: _how(out)):
        if series is None:
            found = maps.find_maps(
                opened,
                out,
                settings,
                start_map=start_map,
                invert=invert,
                overwrite=overwrite,
                resume=resume,
                device=device,
            )
        else:
            found = tilted.find_tilt_maps(
                series,
                out,
                settings,
                start_map=start_map,
                invert=invert,
                overwrite=overwrite,
                resume=resume,
                device=device,
            )
    first = out / "class001.mrc"
    answer(found.facts() | {"written": out}, [*found.lines(), f"wrote {first}"], as_json)


def _how(out: Path) -> str:
    """Say how a search can continue."""
    if saved.is_unfinished(out):
        return "continue with the same command and --resume"
    return "nothing was found yet"
