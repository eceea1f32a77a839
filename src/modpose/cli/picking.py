"""Objects in one large image: pick."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import Device, Overwrite, app, needs
from modpose.cli.lazily import lazily

with lazily():
    from modpose.pick import images as picking


@app.command()
def pick(
    context: typer.Context,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Large images: .mrc, .npy, .tif, ...")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="Table to write, .star or .csv.")
    ],
    radius: Annotated[
        float | None,
        typer.Option(help="Radius of the objects, pixels; packed: half the distance."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A model of single images, in place of a radius."),
    ] = None,
    coordinates: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Known coordinates, .star or .csv: search nothing."),
    ] = None,
    dark: Annotated[
        bool, typer.Option("--dark", help="Objects are darker than the background.")
    ] = False,
    packed: Annotated[
        bool, typer.Option("--packed", help="Objects touch, as atoms of a crystal do.")
    ] = False,
    false: Annotated[
        float, typer.Option(help="Fraction of the objects that may be chance, on average.")
    ] = 0.02,
    threshold: Annotated[
        float | None, typer.Option(help="Least score (s.d. of the noise), in place of --false.")
    ] = None,
    separation: Annotated[
        float | None, typer.Option(help="Least distance of two objects, pixels.  [1.2 radii]")
    ] = None,
    contents: Annotated[int, typer.Option(help="Contents of RUN that are searched for.")] = 4,
    angles: Annotated[
        int | None, typer.Option(help="Turns of each that are tried.  [by its size]")
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Pixels of the image that a pixel of RUN is.  [from pixel sizes]"),
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="Angstrom per pixel.  [from the images]")
    ] = None,
    extract: Annotated[
        int | None,
        typer.Option(metavar="BOX", help="Also cut boxes out, to a stack beside the STAR file."),
    ] = None,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Find objects in large images, by a radius alone or by a model; list and cut them out.

    \b
    modpose pick micrograph.mrc -o picks.star --radius 40 --dark
    modpose pick field.mrc -o picks.star --run run --extract 64
    modpose pick atoms.npy -o atoms.csv --radius 9 --packed
    modpose pick micrograph.mrc -o particles.star --coordinates picks.star --extract 256
    """
    needs(context, "contents", "--run", run is not None)
    by_share = coordinates is None and threshold is None
    needs(context, "false", "a search without --threshold", by_share)
    found = picking.pick_images(
        images,
        out,
        radius=radius,
        run=run,
        coordinates=coordinates,
        dark=dark,
        packed=packed,
        false_fraction=false,
        threshold=threshold,
        separation=separation,
        contents=contents,
        angles=angles,
        scale=scale,
        pixel_size=pixel_size,
        extract=extract,
        overwrite=overwrite,
        device=device,
    )
    files = " and ".join(str(path) for path in found.written)
    lines = [f"wrote {found.objects} objects to {files}"]
    if found.left_out:
        lines.append(f"left out {found.left_out} whose box leaves the image")
    answer(asdict(found), lines, as_json)
