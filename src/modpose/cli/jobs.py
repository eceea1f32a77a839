"""Small jobs on maps, stacks and tables: no model is fitted."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modpose.cli.arguments import Overwrite, app
from modpose.cli.lazily import lazily
from modpose.limits import check_whole

with lazily():
    from modpose.backprojection import files as map_files
    from modpose.files import writing
    from modpose.fourier import fsc as curves
    from modpose.jobs import curve_files, resolution

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
