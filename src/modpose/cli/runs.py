"""Looking at files and using a run: inspect, report, recipes, encode, export, select."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modpose.cli.arguments import (
    Axes,
    CtfFile,
    DataDir,
    Index,
    InputAgain,
    Overwrite,
    Partial,
    PosesFile,
    RunFolder,
    WedgeGiven,
    app,
)
from modpose.limits import MOST_COPIES, check_whole

if TYPE_CHECKING:
    from modpose.run import Run

# --- looking ----------------------------------------------------------------------------------


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Anything that fit would take.")],
    datadir: DataDir = None,
    axes: Axes = None,
) -> None:
    """Say what a file is: particles, optics groups, pixel size, poses, CTF, what is missing.

    \b
    modpose inspect particles.star
    """
    from modpose.data.inspect import describe

    typer.echo(str(describe(file, datadir, axes or "auto")))


@app.command()
def report(run: RunFolder, moved: InputAgain = None, datadir: DataDir = None) -> None:
    """Draw RUN/report: one self-contained index.html, and its figures as PNG files.

    Prints how well a known truth was recovered, where the data carry one.

    \b
    modpose report run
    """
    from modpose.report.build import build_report
    from modpose.run import Run

    page = build_report(run, input=moved, datadir=datadir)
    for line in _recovery(Run.open(run, input=moved, datadir=datadir)):
        typer.echo(line)
    typer.echo(f"report: {page}")


def _recovery(run: Run) -> list[str]:
    """Say how well a known truth was recovered; nothing where none is known."""
    from modpose.evaluate.recovery import recover
    from modpose.report.build import known_truth

    truth = known_truth(run.dataset()) if run.has_images else None
    return [] if truth is None else recover(run.latents(), truth).lines()


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Print this one as YAML.")
    ] = None,
) -> None:
    """List the recipes, or print every option of one (a starting point for --config).

    \b
    modpose recipes
    modpose recipes spatial-vae > my.yaml
    """
    from modpose.config import dump_config
    from modpose.options import resolve
    from modpose.recipes import all_recipes, recipe_config

    if name is None:
        known = all_recipes()
        width = max(map(len, known))
        for key, recipe in known.items():
            typer.echo(f"{key:{width}}  {recipe.title}")
        return
    typer.echo(dump_config(resolve(recipe_config(name))), nl=False)


# --- using a run ------------------------------------------------------------------------------


@app.command()
def encode(
    run: RunFolder,
    source: Annotated[str, typer.Argument(metavar="INPUT", help="New images.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="latents.parquet or latents.csv, made here.")
    ],
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Search for every pose on a grid and refine by gradient: slower, more accurate.",
        ),
    ] = False,
    copies: Annotated[
        int,
        typer.Option(
            min=1,
            help="Read each image twice so many times, turned, and keep what most tell; odd.",
        ),
    ] = 1,
    datadir: DataDir = None,
    index: Index = None,
    poses: PosesFile = None,
    ctf: CtfFile = None,
    wedge: WedgeGiven = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
) -> None:
    """Infer content and pose of other images with a run's model.

    With --search the column elbo_gain says by how many nats the search improved on the encoder;
    with --copies the column pose_agreement says which share of the copies tell the pose.

    \b
    modpose encode run new.star -o latents.parquet
    modpose encode run new.star -o latents.parquet --search
    modpose encode run new.star -o latents.parquet --copies 5
    """
    from modpose.data.inputs import files_of_source
    from modpose.data.source import open_source
    from modpose.estimator import PoseModel
    from modpose.infer.encoded import gain_summary
    from modpose.outputs.export import check_table, write_latents
    from modpose.run import Run
    from modpose.run.inputs import files_of_run

    check_whole("--copies", "the number", copies, 1, MOST_COPIES)
    check_table(out, overwrite)
    opened_run = Run.open(run)
    images = open_source(
        source,
        kind=opened_run.config.data.kind,
        datadir=datadir,
        index=index,
        poses=poses,
        ctf=ctf,
        wedge=wedge,
        partial=partial,
    )
    check_table(out, overwrite, files_of_source(images, index, poses, ctf))
    check_table(out, overwrite, files_of_run(opened_run))
    encoded = PoseModel.load(opened_run.path).encode(images, search=search, copies=copies)
    write_latents(encoded.to_dataframe(), out, overwrite=overwrite)
    if search:
        typer.echo(gain_summary(encoded))
    typer.echo(f"wrote {out}")


@app.command("map")
def map_verb(
    run: RunFolder,
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Images, seen or unseen.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="placed.csv or .parquet, made here.")],
    distance: Annotated[
        Literal["euclidean", "cosine"] | None,
        typer.Option(help="Between contents; default: cosine if RUN was trained on an affinity."),
    ] = None,
    datadir: DataDir = None,
    index: Index = None,
    poses: PosesFile = None,
    ctf: CtfFile = None,
    wedge: WedgeGiven = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
) -> None:
    """Place images among the known classes of a run: nearest kin, how surely, and what is new.

    A row an image: the class that most of its 5 nearest neighbours have, the share of it and of
    the next class among 100 neighbours, the class within two standard deviations, and how far
    the image is from all that is known (about 1 for known kinds; new above 99 % of them).

    \b
    modpose map run new.mrcs -o placed.csv
    """
    from modpose.data.inputs import files_of_source
    from modpose.data.source import open_source
    from modpose.evaluate.placing import place_images, summary
    from modpose.outputs.export import check_table, write_latents
    from modpose.run import Run
    from modpose.run.inputs import files_of_run

    check_table(out, overwrite)
    opened = Run.open(run)
    images = open_source(
        source,
        kind=opened.config.data.kind,
        datadir=datadir,
        index=index,
        poses=poses,
        ctf=ctf,
        wedge=wedge,
        partial=partial,
    )
    check_table(out, overwrite, files_of_source(images, index, poses, ctf))
    check_table(out, overwrite, files_of_run(opened))
    table = place_images(opened, images, distance)
    write_latents(table, out, overwrite=overwrite)
    for line in summary(table):
        typer.echo(line)
    typer.echo(f"wrote {out}")


@app.command()
def export(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="A folder, or one file .star, .cs, .csv or .mrcs.")
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="star, cs, csv, mrcs or pkl; may be repeated; default: all that apply but pkl.",
        ),
    ] = None,
    moved: InputAgain = None,
    datadir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Write poses, classes and content for other programs.

    STAR keeps every column of the input and its version, and adds rlnAnglePsi, rlnOriginXAngst,
    rlnOriginYAngst, rlnClassNumber and modposeZ0...; .cs does the same for cryoSPARC and has its
    .csg beside it; CSV holds the latents; MRCS the images as the model saw them (cropped, scaled,
    inverted), turned upright, and the model's noise-free version of each; pkl the poses, the CTF
    and the choice of images for cryoDRGN.

    \b
    modpose export run -o particles_aligned.star
    modpose export run -o exported --format csv --format mrcs
    modpose export run -o for_cryodrgn --format pkl
    """
    from modpose.outputs.export import export_run
    from modpose.run import Run

    opened = Run.open(run, input=moved, datadir=datadir)
    written, notes = export_run(opened, out, formats, overwrite=overwrite)
    for note in notes:
        typer.echo(note, err=True)
    for path in written:
        typer.echo(f"wrote {path}")


@app.command()
def select(
    run: RunFolder,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="selected.star or .cs, as INPUT was; or .txt, .npy, .pkl."
        ),
    ],
    cluster: Annotated[
        str | None, typer.Option(metavar="1,3", help="Keep the images of these clusters.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="EXPRESSION", help="Keep where this is true.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1|CSV", help="Keep what lies in a box or polygon of z_0, z_1."
        ),
    ] = None,
    moved: InputAgain = None,
    datadir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Keep some of a run's images: a STAR or .cs with the same rows, order and metadata.

    A .txt, .npy or .pkl holds their positions in the input, which --index takes (and cryoDRGN's
    --ind, the .pkl).

    Conditions given together must all hold.  Expressions compare columns of latents.parquet
    (and of the STAR) with numbers, joined by and, or, not.

    \b
    modpose select run --cluster 1,3 -o good.star
    modpose select run --where 'elbo > -700 and z_0 < 1' -o good.star
    modpose select run --region -1,-1,0,2 -o corner.star
    """
    from modpose.files.writing import check_outputs
    from modpose.outputs.select import choose
    from modpose.outputs.selected import export_selection
    from modpose.run import Run

    check_outputs([out], overwrite, [] if region is None else [Path(region)])
    opened = Run.open(run, input=moved, datadir=datadir)
    mask = choose(opened, cluster=cluster, where=where, region=region)
    for note in export_selection(opened, mask, out, overwrite=overwrite):
        typer.echo(note, err=True)
    typer.echo(f"kept {int(mask.sum())} of {len(mask)} images; wrote {out}")
