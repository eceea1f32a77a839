"""The command line: each verb reads its options, calls the library once, and prints.

Slow libraries are imported inside the verbs, so that ``modpose --help`` answers at once.  The
backspace character before examples keeps their line breaks.
"""
# ruff: noqa: D301

from __future__ import annotations

import errno
import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from modpose.errors import InputError, TrainingError

app = typer.Typer(
    name="modpose",
    help="Images modulo pose: learn what an object is, apart from its rotation and shift.",
    epilog="A first run:  modpose fit particles.star -o run && modpose report run",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
simulate_app = typer.Typer(help="Make data with known truth.")
app.add_typer(simulate_app, name="simulate")

EXPERIMENTS = {"spatial-vae": "spatial_vae"}
"""Name of an experiment and its module in :mod:`modpose.evaluate.experiments`."""

Input = Annotated[
    str | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="particles.star, .mrcs, .mrc, .cs, .npy, stack.npz:name, TIFF, or a folder of images.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--datadir", help="Folder that image paths inside a STAR or .cs start from."),
]
Index = Annotated[
    Path | None,
    typer.Option("--index", help="Use these images only: a .txt or .npy of 0-based positions."),
]
MaxMinutes = Annotated[
    float | None, typer.Option(help="Stop at the first step after so many minutes of training.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]


# --- fit and resume ---------------------------------------------------------------------------


@app.command()
def fit(
    source: Input = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="RUN", help="The run's folder, made here.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A published system by name; see: modpose recipes.")
    ] = None,
    z_dim: Annotated[int | None, typer.Option(help="Number of content dimensions.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    max_minutes: MaxMinutes = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|FILE", help="Known classes, to colour and score (never trained on)."
        ),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(min=2, help="Cluster the content into so many classes at the end.")
    ] = None,
    datadir: DataDir = None,
    index: Index = None,
    invert: Annotated[
        bool | None, typer.Option("--invert", help="Make dark particles bright.")
    ] = None,
    normalize: Annotated[str | None, typer.Option(help="none, image, background or range.")] = None,
    box: Annotated[int | None, typer.Option(help="Fourier-crop to this many pixels.")] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="YAML of options, laid over the recipe.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Any other option; may be repeated."),
    ] = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run instead.")
    ] = None,
) -> None:
    """Learn a model of the images in INPUT and save everything in RUN.

    Options come from the recipe, then --config, then the flags, then --set; the resolved whole
    is saved as RUN/config.yaml.  Without --recipe the best one for the data is used, and named.

    \b
    modpose fit particles.star -o run --z-dim 2 --max-minutes 10
    modpose fit mnist.npz:x_train -o digits --recipe vae --set train.beta.end=4
    modpose fit --resume run
    """
    flags: dict[str, tuple[str, object]] = {
        "--z-dim": ("model.z_dim", z_dim),
        "--epochs": ("train.epochs", epochs),
        "--seed": ("seed", seed),
        "--batch-size": ("train.batch_size", batch_size),
        "--lr": ("train.lr", lr),
        "--invert": ("data.invert", invert),
        "--normalize": ("data.normalize", normalize),
        "--box": ("data.box", box),
    }
    if resume is not None:
        given = {flag: value for flag, (_, value) in flags.items() if flag != "--epochs"}
        given |= {"INPUT": source, "--out": out, "--recipe": recipe, "--labels": labels}
        given |= {"--clusters": clusters, "--datadir": datadir, "--index": index}
        given |= {"--config": config_file, "--set": assignments, "--overwrite": overwrite or None}
        for flag, value in given.items():
            if value is not None:
                expected = "only --epochs or --max-minutes beside it"
                raise InputError.of("--resume", flag, "given too", expected)
        resume_verb(resume, epochs=epochs, max_minutes=max_minutes)
        return
    if source is None or out is None:
        missing = "INPUT" if source is None else "-o RUN"
        raise InputError(f"fit: {missing} is missing, expected modpose fit INPUT -o RUN")
    from modpose.fit import fit_run
    from modpose.options import configure

    opened, config, sentence = configure(
        source,
        recipe=recipe,
        file=config_file,
        flags=flags,
        assignments=assignments or [],
        datadir=datadir,
        index=index,
    )
    typer.echo(sentence, err=True)
    with _resumable(out):
        run = fit_run(
            opened,
            config,
            out,
            datadir=datadir,
            index=index,
            labels=labels,
            clusters=clusters,
            max_minutes=_positive(max_minutes),
            overwrite=overwrite,
        )
    typer.echo(f"saved {run.path}; next: modpose report {run.path}")


@app.command("resume")
def resume_verb(
    run: RunFolder,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="New total of passes over the images.")
    ] = None,
    max_minutes: MaxMinutes = None,
) -> None:
    """Go on with a run from its last completed epoch, to the numbers it would have had.

    With --epochs a finished run, too, is trained for longer.

    \b
    modpose resume run
    modpose resume run --epochs 200
    """
    from modpose.fit import resume_run

    with _resumable(run):
        resumed = resume_run(run, epochs=epochs, max_minutes=_positive(max_minutes))
    typer.echo(f"saved {resumed.path}; next: modpose report {resumed.path}")


def _positive(minutes: float | None) -> float | None:
    """Refuse a time that is not one."""
    if minutes is not None and not minutes > 0:
        raise InputError.of("--max-minutes", "the time", minutes, "more than zero")
    return minutes


@contextmanager
def _resumable(run: Path) -> Iterator[None]:
    """Say how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; continue with: modpose fit --resume {run}", err=True)
        raise typer.Exit(130) from None


# --- looking ----------------------------------------------------------------------------------


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Anything that fit would take.")],
    datadir: DataDir = None,
) -> None:
    """Say what a file is: particles, optics groups, pixel size, poses, CTF, what is missing.

    \b
    modpose inspect particles.star
    """
    from modpose.data.inspect import describe

    typer.echo(str(describe(file, datadir)))


@app.command()
def report(run: RunFolder) -> None:
    """Draw RUN/report: one self-contained index.html, and its figures as PNG files.

    Prints how well a known truth was recovered, where the data carry one.

    \b
    modpose report run
    """
    from modpose.report.build import build_report

    page = build_report(run)
    for line in _recovery(run):
        typer.echo(line)
    typer.echo(f"report: {page}")


def _recovery(run: Path) -> list[str]:
    """Say how well a known truth was recovered; nothing where none is known."""
    from modpose.evaluate.recovery import recover
    from modpose.report.build import known_truth
    from modpose.run import Run

    opened = Run.open(run)
    fitted_to_array = opened.environment.get("input") is None
    truth = None if fitted_to_array else known_truth(opened.dataset())
    return [] if truth is None else recover(opened.latents(), truth).lines()


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
    from modpose.recipes import RECIPES, recipe_config

    if name is None:
        width = max(map(len, RECIPES))
        for key, recipe in RECIPES.items():
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
    datadir: DataDir = None,
    index: Index = None,
    overwrite: Overwrite = False,
) -> None:
    """Infer content and pose of other images with a run's model.

    \b
    modpose encode run new.star -o latents.parquet
    """
    from modpose.data.source import open_source
    from modpose.export import write_latents
    from modpose.run import Run

    opened_run = Run.open(run)
    images = open_source(source, kind=opened_run.config.data.kind, datadir=datadir, index=index)
    encoded = opened_run.model().encode(images)
    write_latents(encoded.to_dataframe(), out, overwrite=overwrite)
    typer.echo(f"wrote {out}")


@app.command()
def export(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="A folder, or one file .star, .csv or .mrcs.")
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="star, csv or mrcs; may be repeated; default: all."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write poses, classes and content for other programs.

    STAR keeps every column of the input and adds rlnAnglePsi, rlnOriginXAngst, rlnOriginYAngst,
    rlnClassNumber and modposeZ0...; CSV holds the latents; MRCS the images turned upright and
    the model's noise-free version of each.

    \b
    modpose export run -o particles_aligned.star
    modpose export run -o exported --format csv --format mrcs
    """
    from modpose.export import export_run
    from modpose.run import Run

    written, notes = export_run(Run.open(run), out, formats, overwrite=overwrite)
    for note in notes:
        typer.echo(note, err=True)
    for path in written:
        typer.echo(f"wrote {path}")


@app.command()
def select(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="selected.star, or .txt for a list of positions.")
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
    overwrite: Overwrite = False,
) -> None:
    """Keep some of a run's images: a STAR with the same rows, order and metadata.

    Conditions given together must all hold.  Expressions compare columns of latents.parquet
    (and of the STAR) with numbers, joined by and, or, not.

    \b
    modpose select run --cluster 1,3 -o good.star
    modpose select run --where 'elbo > -700 and z_0 < 1' -o good.star
    modpose select run --region -1,-1,0,2 -o corner.star
    """
    from modpose.export import export_selection
    from modpose.run import Run
    from modpose.select import choose

    opened = Run.open(run)
    mask = choose(opened, cluster=cluster, where=where, region=region)
    for note in export_selection(opened, mask, out, overwrite=overwrite):
        typer.echo(note, err=True)
    typer.echo(f"kept {int(mask.sum())} of {len(mask)} images; wrote {out}")


# --- simulating and measuring -----------------------------------------------------------------


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


# --- errors -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; leave with 0, 1 (training failed), 2 (bad input) or 130 (Ctrl-C)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with _notes_on_stderr():
            code = app(arguments or ["--help"], prog_name="modpose", standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:
        code, sentence = _explain(error)
        if sentence is None:
            raise
        print(f"modpose: {sentence}", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Show what the library has to say (a file unpacked, a path guessed)."""
    logger, handler = logging.getLogger("modpose"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _explain(error: Exception) -> tuple[int, str | None]:
    """Return the exit code and the sentence for a user; None where it is our own mistake."""
    if isinstance(error, typer.TyperException):
        return 2, error.format_message()
    if isinstance(error, InputError):
        return 2, str(error)
    if isinstance(error, TrainingError):
        return 1, str(error)
    if isinstance(error, typer.Abort):
        return 130, "interrupted"
    if isinstance(error, BrokenPipeError):
        return 1, "the reader of the output went away"
    full = "the disk is full, free some space and repeat"
    if "No space left on device" in str(error):  # writers other than Python's raise their own types
        return 2, full
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        quota = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return 2, f"{where}{full if quota else (error.strerror or 'cannot be used').lower()}"
    return 1, None
