"""Classes and poses without templates: align."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modpose.cli import shards
from modpose.cli.answer import Json, answer
from modpose.cli.arguments import (
    CtfFile,
    DataDir,
    Device,
    Devices,
    Index,
    Inputs,
    Nodes,
    Overwrite,
    Partial,
    app,
)
from modpose.cli.lazily import lazily
from modpose.cli.processes import launched
from modpose.cli.tilts import Grouped, Tomograms, opened_tilts
from modpose.errors import InputError
from modpose.files.text import in_shell
from modpose.search.classes2d.settings import Classes2dSettings
from modpose.search.settings import AlignSettings

with lazily():
    from modpose import parts, ranks
    from modpose.data import source as sources
    from modpose.data import table_files
    from modpose.evaluate import pose_recovery
    from modpose.search import run as subtomograms
    from modpose.search import sizes
    from modpose.search.classes2d import run as pictures
    from modpose.search.tilts import align as tilted

if TYPE_CHECKING:
    from modpose.data.source import Source
    from modpose.data.tilt_series import TiltSeries
    from modpose.search.alignment import Alignment


@app.command()
def align(
    context: typer.Context,
    source: Inputs,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    classes: Annotated[
        int | None,
        typer.Option(
            help=f"Number of structures ({AlignSettings.classes}); "
            f"of images, 2-D classes ({Classes2dSettings.classes})."
        ),
    ] = None,
    box: Annotated[
        int | None,
        typer.Option(
            help="First Fourier-crop to this many voxels per side; "
            f"images: {Classes2dSettings.box} if they are larger."
        ),
    ] = None,
    mask_diameter: Annotated[
        float | None,
        typer.Option(
            help="Diameter of the averages, angstrom.  Default: the box minus 4 voxels; "
            "images: 0.9 of the box."
        ),
    ] = None,
    max_shift: Annotated[
        float | None,
        typer.Option(
            help=f"Largest shift, voxels of the box ({AlignSettings.max_shift_px:g}; "
            "images: 0.08 of the box)."
        ),
    ] = None,
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
        int | None,
        typer.Option(
            help=f"Rounds of refinement in two independent halves ({AlignSettings.refine_rounds}); "
            f"images: rounds with all images ({Classes2dSettings.refine_rounds})."
        ),
    ] = None,
    rotations: Annotated[
        int | None,
        typer.Option(
            help="Volumes: number of rotations in the grid of the search "
            f"({AlignSettings.rotations})."
        ),
    ] = None,
    motions: Annotated[
        int | None,
        typer.Option(help="Volumes: number of principal motions to find within each class."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    ctf: CtfFile = None,
    tomograms: Tomograms = None,
    grouped: Grouped = False,
    datadir: DataDir = None,
    index: Index = None,
    partial: Partial = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted alignment in DIR."),
    ] = False,
    overwrite: Overwrite = False,
    device: Device = None,
    devices: Devices = None,
    nodes: Nodes = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Compute part K of N and write it into DIR, for a job array; see modpose merge.",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(metavar="MINUTES", help="With --shard: wait for the other parts.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Find classes and poses of subtomograms, tilt series or particle images without templates.

    Volumes and tilt series: writes class001.mrc ... and their half maps, particles.star (RELION
    angles, origins, classes), fsc.csv and index.html.  With --motions it also writes volumes of
    each class along its principal motions, class001_motion1.mrc ..., and the columns modposeZ0 ...
    in particles.star.

    Images: makes 2-D classes, corrected for the CTF.  Writes classes.mrcs, classes.star,
    classes.png, frc.csv, and particles.star (or .cs) with classes, in-plane angles and shifts.

    \b
    modpose align volumes.star -o aligned --classes 4
    modpose align volumes.npy -o aligned --wedge -60,60
    modpose align particles.star -o classes --classes 50
    modpose align optimisation_set.star -o aligned --classes 4
    """
    if shard is not None and (devices is not None or nodes is not None):
        raise InputError("align: --shard is given with --devices or --nodes, expected one of them")
    if launched(devices, nodes):
        return
    part = None if shard is None else parts.Shard.parse(shard, wait)
    if part is None and wait:
        raise InputError("align: --wait is given without --shard, expected both")
    series = opened_tilts("align", source, tomograms, grouped, datadir, ctf, wedge, index)
    opened = series.images if series is not None else _opened(source, datadir, index, ctf, partial)
    of_images = series is None and len(opened.stack.shape) == 2
    diameter = _diameter_px(mask_diameter, opened, box, of_images)
    usual = Classes2dSettings.box if of_images else None
    sizes.check_sizes(opened, box, diameter, max_shift, usual=usual)
    options = {
        "classes": classes,
        "box": box,
        "mask_diameter_px": diameter,
        "max_shift_px": max_shift,
        "refine_rounds": refine_rounds,
        "rotations": rotations,
        "motions": motions,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    given |= {"invert": invert, "rounds": rounds, "seed": seed}
    if of_images:
        for name, value in (
            ("--wedge", wedge),
            ("--rotations", rotations),
            ("--motions", motions),
            ("--devices", devices),
            ("--nodes", nodes),
            ("--shard", shard),
        ):
            if value is not None:
                raise InputError(
                    f"align: {name} is for volumes, but {opened.stack.name} holds images"
                )
        _classify(opened, out, Classes2dSettings(**given), overwrite, resume, device, as_json)
        return
    settings = AlignSettings(**given)
    found, line = None, f"all steps are done; write the results with: modpose merge {in_shell(out)}"
    try:
        if series is not None:
            found = tilted.align_tilt_series(
                series, out, settings, overwrite=overwrite, resume=resume, shard=part, device=device
            )
        else:
            found = subtomograms.align_subtomograms(
                opened,
                out,
                settings,
                wedge=wedge,
                datadir=datadir,
                overwrite=overwrite,
                resume=resume,
                shard=part,
                device=device,
            )
    except parts.Waiting as waiting:
        line = str(waiting)
    if part is not None and part.number:
        shards.record(context, out)
    if found is None or (part is not None and part.number):
        answer({"waiting": line}, [line], as_json)
    elif ranks.leads():
        _answer_of_volumes(found, opened, opened if series is None else series, out, as_json)


@app.command()
def merge(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the shards.")],
    as_json: Json = False,
) -> None:
    """Add up what the shards of modpose align have written; after the last step, write results.

    It reads INPUT and the options of the shards from DIR.

    \b
    modpose align volumes.star -o aligned --shard 1/2
    modpose align volumes.star -o aligned --shard 2/2
    modpose merge aligned
    """
    names = set(inspect.signature(align).parameters) - {"context"}
    options = shards.recorded(folder, names)
    align(context, **options | {"as_json": as_json or options["as_json"]})


def _opened(
    source: list[str],
    datadir: Path | None,
    index: Path | None,
    ctf: Path | None,
    partial: bool,
) -> Source:
    """Open images or volumes."""
    opened = sources.open_source(source, datadir=datadir, index=index, ctf=ctf, partial=partial)
    if len(opened.stack.shape) == 2:
        return opened
    return sources.open_source(
        source, kind="volumes", datadir=datadir, index=index, ctf=ctf, partial=partial
    )


def _diameter_px(
    diameter: float | None, opened: Source, box: int | None, of_images: bool
) -> float | None:
    """Convert a diameter, angstrom, to pixels of the box of the search."""
    if diameter is None:
        return None
    if opened.pixel_size is None:
        raise InputError(
            f"{opened.stack.name}: its pixel size is not known, so --mask-diameter in angstrom "
            "says nothing, expected a STAR or MRC file with a pixel size"
        )
    side = min(opened.stack.shape)
    wanted = box or (min(side, Classes2dSettings.box) if of_images else side)
    return diameter * min(wanted, side) / side / opened.pixel_size


def _answer_of_volumes(
    found: Alignment, opened: Source, given: Source | TiltSeries, out: Path, as_json: bool
) -> None:
    """Print what was found, and how well, if the truth is known."""
    size = opened.pixel_size, opened.stack.shape[0]
    facts, lines = found.facts(*size), found.lines(*size)
    truth = given.particles.truth()
    if truth is not None and {"r00", "shift_z"} <= set(truth):
        here = found.assignment
        recovered = pose_recovery.recover_poses(
            here.rotation, found.shift_px, here.class_index, truth
        )
        facts["truth"] = asdict(recovered)
        lines += [f"truth: {line}" for line in recovered.lines()]
    written = [out / "particles.star", out / "index.html"]
    lines.append(f"wrote {written[0]} and {written[1]}")
    answer(facts | {"written": written}, lines, as_json)


def _classify(
    opened: Source,
    out: Path,
    settings: Classes2dSettings,
    overwrite: bool,
    resume: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Find 2-D classes, and print what was found."""
    notes = table_files.path_notes(opened, out / "particles.star")
    found = pictures.classify_images(
        opened, out, settings, overwrite=overwrite, resume=resume, device=device
    )
    for note in notes:
        typer.echo(note, err=True)
    written = [out / "particles.star", out / "classes.png"]
    last = f"wrote {written[0]} and {written[1]}"
    answer(found.facts() | {"written": written}, [*found.lines(), last], as_json)
