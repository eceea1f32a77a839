"""Small jobs on maps, stacks and tables: no model is fitted."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modpose.cli.answer import Json, answer, answer_written
from modpose.cli.arguments import (
    CtfFile,
    DataDir,
    Device,
    Index,
    Overwrite,
    Partial,
    PosesFile,
    app,
    needs,
)
from modpose.cli.lazily import lazily
from modpose.errors import InputError
from modpose.limits import check_whole

with lazily():
    from modpose.backprojection import files as map_files
    from modpose.data import source as sources
    from modpose.data import table_files
    from modpose.files import writing
    from modpose.fourier import fsc as curves
    from modpose.jobs import (
        curve_files,
        duplicates,
        hand,
        positions,
        prepare,
        resolution,
        subtract,
        symmetry,
        unbin,
    )

if TYPE_CHECKING:
    from modpose.data.particles import Particles

MOST_CONES = 1000

Table = Annotated[Path, typer.Argument(metavar="TABLE", help="particles.star or .cs.")]
TableOut = Annotated[
    Path,
    typer.Option(
        "-o", "--out", metavar="TABLE", help="The new table, .star or .cs like the input."
    ),
]
By = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Larger is better; -COLUMN: smaller is better."),
]
MicrographPixel = Annotated[
    float | None, typer.Option(help="Å per pixel of the coordinates, if TABLE does not give it.")
]


def _open(table: Path, out: Path, overwrite: bool, *others: Path) -> Particles:
    """Read a table, after checking that ``out`` can be written in the same form."""
    particles = positions.open_table(table)
    table_files.check_format(out, particles)
    writing.check_outputs(table_files.files_of_table(out), overwrite, [table, *others])
    return particles


def _write(
    particles: Particles, source: Path, out: Path, before: int, done: str, as_json: bool
) -> None:
    """Write a table, and print what was done to a table of ``before`` rows."""
    notes = table_files.notes_of_paths(particles, source, out)
    with writing.all_or_nothing() as place:
        table_files.write_table(particles, out, place)
    for note in notes:
        typer.echo(note, err=True)
    facts = {"rows_before": before, "rows": particles.n, "written": table_files.files_of_table(out)}
    answer(facts, [f"{done}; wrote {out}"], as_json)


@app.command("fsc")
def fsc_verb(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="A.mrc", help="A map.")],
    second: Annotated[Path, typer.Argument(metavar="B.mrc", help="A map of the same size.")],
    mask: Annotated[
        Path | None, typer.Option(metavar="MRC", help="Multiply both with this map first.")
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(help="Multiply both with a soft ball of this radius, in half boxes."),
    ] = None,
    randomise: Annotated[
        bool,
        typer.Option("--randomise", help="Correct for the effect of the mask, by random phases."),
    ] = False,
    cones: Annotated[
        int, typer.Option(metavar="N", help="Also inside cones about N directions.")
    ] = 0,
    cone_angle: Annotated[float, typer.Option(help="Half angle of a cone, degrees.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the random phases.")] = 0,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The curve: .csv, .xml (EMDB) or .star (RELION); may be repeated.",
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(metavar="PNG", help="Plot of the curve.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare two maps by Fourier shell correlation: resolution at 0.143 and 0.5, mean.

    With --randomise, phases are randomised beyond the frequency where the FSC of the whole maps
    falls below 0.8, and the curve is corrected for the effect of the mask.  --cones prints the
    resolution in the best and the worst direction.

    \b
    modpose fsc half1.mrc half2.mrc --radius 0.85
    modpose fsc half1.mrc half2.mrc --mask mask.mrc --randomise --cones 100 -o fsc.csv -o fsc.xml
    modpose fsc map.mrc truth.mrc --mask mask.mrc -o fsc.csv --figure fsc.png
    """
    tables = out or []
    outputs = [*tables, *([] if figure is None else [figure])]
    for path in tables:
        curve_files.check_curve_file(path)
        if tables.count(path) > 1:
            raise InputError(f"{path}: is given twice, expected different files")
    check_whole("--cones", "the number", cones, 0, MOST_CONES)
    needs(context, "cone_angle", "--cones", cones > 0)
    given = [path for path in (first, second, mask) if path is not None]
    writing.check_outputs(outputs, overwrite, given)
    found = resolution.resolution_of_files(
        first,
        second,
        mask,
        radius,
        randomise=randomise,
        cones=cones,
        cone_deg=cone_angle,
        seed=seed,
    )
    with writing.all_or_nothing() as place:
        for path in tables:
            curve_files.write_resolution(found, place(path))
        if figure is not None:
            drawn = found.curves(f"{first.name}, {second.name}")
            map_files.draw_curve(drawn, place(figure), curves.HALF_MAPS)
    lines = [found.curve.sentence(threshold) for threshold in (curves.HALF_MAPS, curves.KNOWN)]
    lines += [f"mean FSC up to Nyquist: {found.curve.area():.4f}", *found.lines()]
    answer(
        found.facts() | {"written": outputs}, [*lines, *(f"wrote {p}" for p in outputs)], as_json
    )


@app.command()
def preprocess(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Images, as for fit.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    flip: Annotated[
        bool, typer.Option("--flip-phases", help="First flip the phases where the CTF is negative.")
    ] = False,
    multiply: Annotated[
        bool, typer.Option("--multiply-ctf", help="First multiply by the CTF.")
    ] = False,
    crop: Annotated[int | None, typer.Option(help="Keep this many central pixels.")] = None,
    box: Annotated[int | None, typer.Option(help="Bin to this many pixels (Fourier crop).")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Make dark particles bright.")] = False,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Zero mean and unit s.d. outside the particle.")
    ] = False,
    diameter: Annotated[
        float | None, typer.Option(help="Diameter of the particle, Å: the box must hold it.")
    ] = None,
    resolution_wanted: Annotated[
        float | None,
        typer.Option("--resolution", help="Resolution in Å to keep; default: twice the new pixel."),
    ] = None,
    shard: Annotated[int, typer.Option(help="Images per file.")] = 10_000,
    datadir: DataDir = None,
    index: Index = None,
    ctf: CtfFile = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Correct phases, crop, bin and normalise a stack; write it and its table.

    Phases are corrected in the original box, before cropping.  A defocus moves signal by λ Δf / d;
    a box that is too small for this is refused, and the message gives the right one.  An
    interrupted job continues if started again.

    \b
    modpose preprocess particles.star -o small --box 128 --normalise
    modpose preprocess particles.star -o flipped --flip-phases --crop 256 --box 128
    """
    if flip and multiply:
        raise InputError("preprocess: --flip-phases and --multiply-ctf, expected one of the two")
    opened = sources.open_source(source, datadir=datadir, index=index, ctf=ctf)
    wanted = prepare.Preparation(
        ctf="flip" if flip else "multiply" if multiply else None,
        crop=crop,
        box=box,
        invert=invert,
        normalise=normalise,
        diameter=diameter,
        resolution=resolution_wanted,
    )
    table = prepare.prepare(opened, out, wanted, shard=shard, overwrite=overwrite)
    answer_written(opened.n, "images", table, as_json)


@app.command("duplicates")
def duplicates_verb(
    table: Table,
    out: TableOut,
    distance: Annotated[
        float, typer.Option(help="Smallest distance, Å; of two closer ones the better is kept.")
    ],
    by: By = None,
    micrograph_pixel_size: MicrographPixel = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Remove particles that are too close to another one in a micrograph or tomogram.

    Distances include the shifts.  Symmetry-expanded copies of one image are kept or removed
    together.

    \b
    modpose duplicates particles.star -o once.star --distance 60
    modpose duplicates picks.star -o once.star --distance 60 --by rlnAutopickFigureOfMerit
    """
    particles = _open(table, out, overwrite)
    keep = duplicates.without_duplicates(
        particles, distance, by=by, micrograph_pixel_size=micrograph_pixel_size
    )
    done = f"kept {int(keep.sum())} of {len(keep)} rows"
    _write(particles.subset(keep.nonzero()[0]), table, out, particles.n, done, as_json)


@app.command()
def recentre(
    table: Table,
    out: TableOut,
    micrograph_pixel_size: MicrographPixel = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Add the shifts to the coordinates, for another extraction.

    The image names are left out, because the table no longer describes these images.

    \b
    modpose recentre refined_bin4.star -o extract_bin1.star
    """
    particles = _open(table, out, overwrite)
    moved = positions.recentred(particles, micrograph_pixel_size)
    done = f"re-centred {particles.n} particles"
    _write(moved, table, out, particles.n, done, as_json)


@app.command("unbin")
def unbin_verb(
    table: Annotated[Path, typer.Argument(metavar="POSES", help="Table with poses, .star or .cs.")],
    onto: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Table of the images that get the poses.")
    ],
    out: TableOut,
    partial: Partial = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write poses found on binned images into the table of the original images.

    Rows are joined by identity; shifts are converted to the other pixel size.

    \b
    modpose unbin refined_bin4.star particles_bin1.star -o refined_bin1.star
    """
    target = _open(onto, out, overwrite, table)
    made = unbin.unbinned(positions.open_table(table), target, partial=partial)
    _write(made, onto, out, target.n, f"{made.n} of {target.n} images have poses", as_json)


@app.command()
def expand(
    table: Table,
    out: TableOut,
    group: Annotated[str, typer.Option("--symmetry", help="Point group: C4, D7, O, I1, I2.")],
    seed: Annotated[int, typer.Option(help="Seed of the new uids of a .cs.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Repeat each particle for each element of a point group; half sets do not change.

    \b
    modpose expand refined.star -o expanded.star --symmetry D2
    """
    particles = _open(table, out, overwrite)
    made = symmetry.expanded(particles, group, seed=seed)
    done = f"{particles.n} particles became {made.n} rows"
    _write(made, table, out, particles.n, done, as_json)


@app.command()
def join(
    table: Table,
    out: TableOut,
    by: By = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Keep one row of each particle of an expanded set: the first, or the best.

    \b
    modpose join selected.star -o particles.star --by rlnMaxValueProbDistribution
    """
    particles = _open(table, out, overwrite)
    made = symmetry.joined(particles, by)
    done = f"{particles.n} rows became {made.n} particles"
    _write(made, table, out, particles.n, done, as_json)


@app.command("hand")
def hand_verb(
    sources_given: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Maps (.mrc) and tables with poses (.star, .cs)."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Flip the handedness of maps and of their poses; content does not change.

    \b
    modpose hand map.mrc half1.mrc half2.mrc particles.star -o flipped
    """
    written = hand.flip_hand(sources_given, out, overwrite=overwrite)
    answer({"written": written}, [f"wrote {path}" for path in written], as_json)


@app.command("subtract")
def subtract_verb(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Images with poses in space.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    map_file: Annotated[
        Path, typer.Option("--map", metavar="MRC", help="What the images show, in their box.")
    ],
    mask: Annotated[Path, typer.Option(metavar="MRC", help="1 where the signal is to stay.")],
    scale: Annotated[
        float | None, typer.Option(help="Grey values of images over those of the projected map.")
    ] = None,
    shard: Annotated[int, typer.Option(help="Images in a file.")] = 10_000,
    datadir: DataDir = None,
    index: Index = None,
    poses: PosesFile = None,
    ctf: CtfFile = None,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Take from each image what a map explains outside a mask.

    The scale between images and map is fitted to the set, unless it is given, and printed.  An
    interrupted job goes on where it was.

    \b
    modpose subtract refined.star -o core --map map.mrc --mask core_mask.mrc
    """
    opened = sources.open_source(source, datadir=datadir, index=index, poses=poses, ctf=ctf)
    table, used = subtract.subtract(
        opened,
        map_file,
        mask,
        out,
        scale=scale,
        shard=shard,
        overwrite=overwrite,
        device=device,
    )
    facts = {"scale": used, "images": opened.n, "written": [table]}
    answer(facts, [f"scale {used:.4g}; wrote {opened.n} images to {table}"], as_json)
