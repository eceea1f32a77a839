"""Looking at files and using a run: inspect, report, recipes, encode, export, select."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import (
    Axes,
    CtfFile,
    DataDir,
    Device,
    Index,
    InputAgain,
    Inputs,
    Overwrite,
    Partial,
    PosesFile,
    RunFolder,
    WedgeGiven,
    app,
)
from modpose.cli.lazily import lazily
from modpose.cli.tilts import Grouped, Tomograms
from modpose.cli.whole import whole_run
from modpose.errors import InputError
from modpose.limits import MOST_COPIES, check_whole

with lazily():
    from modpose import config as configs
    from modpose import estimator, options
    from modpose import recipes as known_recipes
    from modpose import run as runs
    from modpose.data import inputs
    from modpose.data import inspect as inspection
    from modpose.data import source as sources
    from modpose.evaluate import placing, recovery
    from modpose.files import marker, writing
    from modpose.infer import encoded as encoded_images
    from modpose.infer import latents as tables
    from modpose.outputs import classes as of_classes
    from modpose.outputs import export as exports
    from modpose.outputs import select as selection
    from modpose.outputs import selected
    from modpose.report import build as pages
    from modpose.report import gather as gathered
    from modpose.run import inputs as run_inputs

if TYPE_CHECKING:
    from modpose.evaluate.recovery import Recovery
    from modpose.run import Run

# --- looking ----------------------------------------------------------------------------------


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Any input of fit, or a run.")],
    datadir: DataDir = None,
    axes: Axes = None,
    as_json: Json = False,
) -> None:
    """Describe a file: particles, optics groups, pixel size, poses, CTF, what is missing.

    Of the folder of a run: recipe, images, epochs, whether it is finished, and its alarms.

    \b
    modpose inspect particles.star
    modpose inspect run --json
    """
    if marker.is_run(Path(file)):
        found = runs.Run.open(file).describe()
    else:
        found = inspection.describe(file, datadir, axes or "auto")
    answer(asdict(found), [str(found)], as_json)


@app.command()
def report(
    run: RunFolder,
    moved: InputAgain = None,
    datadir: DataDir = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write RUN/report: one self-contained index.html, and its figures as PNG files.

    If the data have a known truth, prints how well it was recovered.

    \b
    modpose report run
    """
    page = pages.build_report(run, input=moved, datadir=datadir, device=device)
    found = _recovery(runs.Run.open(run, input=moved, datadir=datadir))
    lines = [] if found is None else found.lines()
    facts = {"report": page, "truth": None if found is None else found.to_dict()}
    answer(facts, [*lines, f"report: {page}"], as_json)


def _recovery(run: Run) -> Recovery | None:
    """Compare with the known truth; None without truth."""
    known = run.has_images and not run.partial
    truth = gathered.known_truth(run.dataset()) if known else None
    return None if truth is None else recovery.recover(run.latents(), truth)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Print this one as YAML.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or print every option of one (a starting point for --config).

    \b
    modpose recipes
    modpose recipes spatial-vae > my.yaml
    """
    if name is None:
        known = known_recipes.all_recipes()
        width = max(map(len, known))
        titles = {key: recipe.title for key, recipe in known.items()}
        answer(titles, [f"{key:{width}}  {title}" for key, title in titles.items()], as_json)
        return
    config = options.resolve(known_recipes.recipe_config(name))
    answer(config.model_dump(mode="json"), [configs.dump_config(config).rstrip("\n")], as_json)


# --- using a run ------------------------------------------------------------------------------


@app.command()
def encode(
    run: RunFolder,
    source: Inputs,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="latents.parquet or latents.csv to write.")
    ],
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Search poses on a grid and refine by gradient: slower, more accurate.",
        ),
    ] = False,
    copies: Annotated[
        int,
        typer.Option(
            min=1,
            help="Rotated copies to encode per image, best an odd number; the consensus is kept.",
        ),
    ] = 1,
    datadir: DataDir = None,
    index: Index = None,
    poses: PosesFile = None,
    ctf: CtfFile = None,
    wedge: WedgeGiven = None,
    partial: Partial = False,
    tomograms: Tomograms = None,
    grouped: Grouped = False,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Infer content and pose of other images with a run's model.

    With --search the column elbo_gain is the gain over the encoder in nats.  With --copies each
    image is encoded in two rounds of rotated copies; pose_agreement is the share of the copies
    that agree on the pose.

    \b
    modpose encode run new.star -o latents.parquet
    modpose encode run new.star -o latents.parquet --search
    modpose encode run new.star -o latents.parquet --copies 5
    """
    check_whole("--copies", "the number", copies, 1, MOST_COPIES)
    exports.check_table(out, overwrite)
    opened_run = runs.Run.open(run)
    about = {"datadir": datadir, "index": index, "poses": poses, "ctf": ctf}
    about["tomograms"] = tomograms
    images = _other_images(opened_run, source, out, overwrite, about, wedge, partial, grouped)
    model = estimator.PoseModel.load(opened_run.path, device=device)
    encoded = model.encode(images, search=search, copies=copies)
    table = tables.with_names(encoded.to_dataframe(), images)
    exports.write_latents(table, out, overwrite=overwrite)
    lines = [encoded_images.gain_summary(encoded)] if search else []
    facts = {"images": images.n, "elbo": encoded.elbo.mean(), "written": [out]}
    answer(facts, [*lines, f"wrote {out}"], as_json)


def _other_images(
    run: runs.Run,
    source: list[str],
    out: Path,
    overwrite: bool,
    about: dict[str, Path | None],
    wedge: str | None,
    partial: bool,
    grouped: bool,
) -> sources.Source:
    """Open images for a run's model; refuse an output that is also an input."""
    images = sources.open_source(
        source,
        kind=run.config.data.kind,
        wedge=wedge,
        partial=partial,
        tilt_series=grouped,
        **about,
    )
    tables = [path for name, path in about.items() if name != "datadir"]
    exports.check_table(out, overwrite, inputs.files_of_source(images, *tables))
    exports.check_table(out, overwrite, run_inputs.files_of_run(run))
    return images


@app.command("map")
def map_verb(
    run: RunFolder,
    source: Inputs,
    out: Annotated[Path, typer.Option("-o", "--out", help="placed.csv or .parquet, made here.")],
    distance: Annotated[
        Literal["euclidean", "cosine"] | None,
        typer.Option(
            help="Distance of contents; default: cosine if RUN was trained on an affinity."
        ),
    ] = None,
    datadir: DataDir = None,
    index: Index = None,
    poses: PosesFile = None,
    ctf: CtfFile = None,
    wedge: WedgeGiven = None,
    partial: Partial = False,
    tomograms: Tomograms = None,
    grouped: Grouped = False,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Place images among the known classes of a run: nearest class, confidence, novelty.

    Writes one row per image: the majority class of its 5 nearest neighbours, the shares of this and
    the next class among 100 neighbours, the class within two standard deviations, and the distance
    from all known images (about 1 for known classes; "new" above 99 % of them).

    \b
    modpose map run new.mrcs -o placed.csv
    """
    exports.check_table(out, overwrite)
    opened = whole_run(run)
    about = {"datadir": datadir, "index": index, "poses": poses, "ctf": ctf}
    about["tomograms"] = tomograms
    images = _other_images(opened, source, out, overwrite, about, wedge, partial, grouped)
    table = placing.place_images(opened, images, distance, device=device)
    exports.write_latents(table, out, overwrite=overwrite)
    nearest = {str(name): int(count) for name, count in table["nearest"].value_counts().items()}
    facts = {"images": len(table), "nearest": nearest, "new": int(table["new"].sum())}
    answer(facts | {"written": [out]}, [*placing.summary(table), f"wrote {out}"], as_json)


@app.command()
def export(
    run: RunFolder,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="A folder, or one file .star, .cs, .csv, .h5ad or .mrcs."),
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="star, cs, csv, mrcs, h5ad or pkl; may be repeated; default: the first four.",
        ),
    ] = None,
    moved: InputAgain = None,
    datadir: DataDir = None,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write poses, classes and content for other programs.

    STAR keeps every column of the input and its version, and adds rlnAnglePsi, rlnOriginXAngst,
    rlnOriginYAngst, rlnClassNumber and modposeZ0...; .cs does the same for cryoSPARC, with a .csg.
    CSV has the latents; .h5ad (AnnData) has the content as X and all other columns in obs.  MRCS
    has the images as the model saw them (cropped, scaled, inverted), rotated upright, and the
    model's noise-free version of each.  pkl has the poses, the CTF and the choice of images for
    cryoDRGN.

    \b
    modpose export run -o particles_aligned.star
    modpose export run -o exported --format csv --format mrcs
    modpose export run -o for_cryodrgn --format pkl
    """
    opened = whole_run(run, moved, datadir)
    written, notes = exports.export_run(opened, out, formats, overwrite=overwrite, device=device)
    for note in notes:
        typer.echo(note, err=True)
    answer({"written": written}, [f"wrote {path}" for path in written], as_json)


@app.command()
def select(
    run: RunFolder,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="selected.star or .cs, like INPUT; .txt, .npy, .pkl; or .mrcs."
        ),
    ],
    cluster: Annotated[
        str | None, typer.Option(metavar="1,3", help="Keep the images of these clusters.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="Keep the images for which this is true."),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1|CSV", help="Keep the images in a box or polygon of z_0, z_1."
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="3,5,9",
            help="Keep the images of these classes; RUN is a folder of align or abinitio.",
        ),
    ] = None,
    moved: InputAgain = None,
    datadir: DataDir = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Select images of a run: write a STAR or .cs with their rows, order and metadata.

    A .txt, .npy or .pkl gets their positions in the input, for --index (the .pkl also for
    cryoDRGN's --ind).  A .mrcs gets the images themselves.

    If several conditions are given, all must hold.  Expressions compare columns of latents.parquet
    and of the input with numbers, joined by and, or, not; between, in and abs() are allowed.  Put
    a name such as `ctf/df1_A` in backticks.

    \b
    modpose select run --cluster 1,3 -o good.star
    modpose select run --where 'elbo > -700 and z_0 < 1' -o good.star
    modpose select run --where 'abs(z_1) < 2 and rlnDefocusU between 8e3 and 2e4' -o good.star
    modpose select run --region -1,-1,0,2 -o corner.star
    modpose select classes --class 3,5,9 -o good.star
    """
    if classes is not None:
        others = {
            "--cluster": cluster,
            "--where": where,
            "--region": region,
            "--input": moved,
            "--datadir": datadir,
        }
        for name, value in others.items():
            if value is not None:
                raise InputError(f"select: --class and {name} are given, expected one of the two")
        mask = of_classes.select_classes(run, classes, out, overwrite=overwrite)
        _say_kept(int(mask.sum()), len(mask), out, as_json)
        return
    writing.check_outputs([out], overwrite, [] if region is None else [Path(region)])
    opened = whole_run(run, moved, datadir)
    mask = selection.choose(opened, cluster=cluster, where=where, region=region)
    if not mask.any():
        raise selection.none_left(opened, where)
    for note in selected.export_selection(opened, mask, out, overwrite=overwrite):
        typer.echo(note, err=True)
    _say_kept(int(mask.sum()), len(mask), out, as_json)


def _say_kept(kept: int, n: int, out: Path, as_json: bool) -> None:
    facts = {"kept": kept, "images": n, "written": [out]}
    answer(facts, [f"kept {kept} of {n} images; wrote {out}"], as_json)
