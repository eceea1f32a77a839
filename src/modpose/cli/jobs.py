"""Small jobs on maps, stacks and tables: no model is fitted."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modpose.cli.arguments import CtfFile, DataDir, Index, Overwrite, app
from modpose.cli.lazily import lazily
from modpose.errors import InputError
from modpose.limits import check_whole

with lazily():
    from modpose.backprojection import files as map_files
    from modpose.data import source as sources
    from modpose.files import writing
    from modpose.fourier import fsc as curves
    from modpose.jobs import curve_files, prepare, resolution

MOST_CONES = 1000


@app.command("fsc")
def fsc_verb(
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
        typer.Option("--randomise", help="Take off what the mask adds, by random phases."),
    ] = False,
    cones: Annotated[
        int, typer.Option(metavar="N", help="Also inside cones about N directions.")
    ] = 0,
    cone_angle: Annotated[float, typer.Option(help="Half angle of a cone, degrees.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the random phases.")] = 0,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The curve: .csv, .xml (EMDB) or .star (RELION); may be repeated.",
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(metavar="PNG", help="The curve, drawn.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare two maps by Fourier shell correlation: resolution at 0.143 and 0.5, mean.

    With --randomise, phases are random beyond the frequency where the FSC of the whole maps falls
    below 0.8, and the curve is corrected for what the mask adds there.  With --cones the
    resolution of the best and the worst direction is printed.

    \b
    modpose fsc half1.mrc half2.mrc --radius 0.85
    modpose fsc half1.mrc half2.mrc --mask mask.mrc --randomise --cones 100 -o fsc.csv -o fsc.xml
    modpose fsc map.mrc truth.mrc --mask mask.mrc -o fsc.csv --figure fsc.png
    """
    tables = out or []
    outputs = [*tables, *([] if figure is None else [figure])]
    for path in tables:
        curve_files.check_curve_file(path)
    check_whole("--cones", "the number", cones, 0, MOST_CONES)
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
    for threshold in (curves.HALF_MAPS, curves.KNOWN):
        typer.echo(found.curve.sentence(threshold))
    typer.echo(f"mean FSC up to Nyquist: {found.curve.area():.4f}")
    for line in found.lines():
        typer.echo(line)
    with writing.all_or_nothing() as place:
        for path in tables:
            curve_files.write_resolution(found, place(path))
        if figure is not None:
            drawn = found.curves(f"{first.name}, {second.name}")
            map_files.draw_curve(drawn, place(figure), curves.HALF_MAPS)
    for path in outputs:
        typer.echo(f"wrote {path}")


@app.command()
def preprocess(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Images, as fit takes them.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    flip: Annotated[
        bool, typer.Option("--flip-phases", help="First, change the sign where the CTF has it.")
    ] = False,
    multiply: Annotated[
        bool, typer.Option("--multiply-ctf", help="First, multiply by the CTF.")
    ] = False,
    crop: Annotated[int | None, typer.Option(help="Keep so many central pixels.")] = None,
    box: Annotated[int | None, typer.Option(help="Bin to so many pixels (Fourier crop).")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Make dark particles bright.")] = False,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Zero mean and unit s.d. outside the particle.")
    ] = False,
    diameter: Annotated[
        float | None, typer.Option(help="Of the particle, Å: background lies outside.")
    ] = None,
    resolution_wanted: Annotated[
        float | None,
        typer.Option("--resolution", help="Å that a box must hold; default: twice the pixel."),
    ] = None,
    shard: Annotated[int, typer.Option(help="Images in a file.")] = 10_000,
    datadir: DataDir = None,
    index: Index = None,
    ctf: CtfFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Crop, bin and normalise a stack once, phases corrected first; write it and its table.

    Phases are corrected in the box as it is, before anything is cropped.  A defocus moves signal
    by λ Δf / d; a box too small for that is refused, and the right one is named.  An interrupted
    job goes on where it was.

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
    typer.echo(f"wrote {opened.n} images to {table}")
