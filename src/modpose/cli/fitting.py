"""Learning: fit and resume."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import (
    Axes,
    CtfFile,
    DataDir,
    Device,
    Devices,
    Index,
    InputAgain,
    InputsOrNone,
    MaxMinutes,
    Nodes,
    Overwrite,
    Partial,
    PosesFile,
    RunFolder,
    app,
)
from modpose.cli.lazily import lazily
from modpose.cli.processes import launched
from modpose.cli.signals import resumable
from modpose.cli.tilts import Grouped, Tomograms
from modpose.errors import InputError
from modpose.files.text import in_shell
from modpose.limits import check_minutes

with lazily():
    from modpose import fit as fits
    from modpose import options, ranks
    from modpose import run as runs
    from modpose.run import folder as run_folder

if TYPE_CHECKING:
    from modpose.run import Run


@app.command()
def fit(
    context: typer.Context,
    source: InputsOrNone = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="RUN", help="Folder of the run to write.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Name of a recipe; see: modpose recipes.")
    ] = None,
    z_dim: Annotated[int | None, typer.Option(help="Number of content dimensions.")] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes that a search before training finds.")
    ] = None,
    group: Annotated[
        int | None,
        typer.Option(metavar="N", help="Rotations of the encoder's kernels, such as 4, 8 or 16."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of passes over the images.")] = None,
    max_minutes: MaxMinutes = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    device: Device = None,
    devices: Devices = None,
    nodes: Nodes = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="32-true|bf16-mixed",
            help="Numbers of the training: float32, or bfloat16 for products of matrices.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|FILE",
            help="Known classes, for colours and scores; used in training only with --affinity.",
        ),
    ] = None,
    affinity: Annotated[
        str | None,
        typer.Option(
            metavar="CSV|METRIC",
            help="Similarities of the classes of --labels: a matrix, or a metric.",
        ),
    ] = None,
    sample_affinity: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|METRIC",
            help="Similarities of images, for those without a class: CSV, NPY or a metric.",
        ),
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Weight of the affinity term at the end of its schedule.")
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option(min=2, help="Cluster the content into this many classes at the end."),
    ] = None,
    datadir: DataDir = None,
    index: Index = None,
    poses: PosesFile = None,
    ctf: CtfFile = None,
    partial: Partial = False,
    tomograms: Tomograms = None,
    grouped: Grouped = False,
    wedge: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH|FILE|auto",
            help="Tilts of subtomograms in degrees, wedge masks, or auto (from the table).",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="MRC",
            help="Region of the molecule, 0 to 1, for projections; default: found in the data.",
        ),
    ] = None,
    invert: Annotated[
        bool | None, typer.Option("--invert", help="Make dark particles bright.")
    ] = None,
    normalize: Annotated[str | None, typer.Option(help="none, image, background or range.")] = None,
    box: Annotated[int | None, typer.Option(help="Fourier-crop to this many pixels.")] = None,
    axes: Axes = None,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", help="YAML file of options, which override the recipe."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Set any option; may be repeated."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run instead.")
    ] = None,
) -> None:
    """Learn a model of the images in INPUT and save everything in RUN.

    Options come from the recipe, then --config, then command-line options, then --set; later ones
    override earlier ones.  RUN/config.yaml holds the final values.  Without --recipe, modpose
    chooses a recipe for the data and says which.

    \b
    modpose fit particles.star -o run --z-dim 2 --max-minutes 10
    modpose fit mnist.npz:x_train -o digits --recipe vae --set train.beta.end=4
    modpose fit mnist.npz:x_train -o digits --recipe target-vae --group 16
    modpose fit volumes.mrcs -o map --recipe affinity-vae --labels class.txt --affinity a.csv
    modpose fit subtomograms.star -o run --classes 4
    modpose fit --resume run
    """
    if _elsewhere(devices, nodes):
        return
    if resume is not None:
        _refuse_beside_resume(context)
        resume_verb(
            resume,
            epochs=epochs,
            max_minutes=max_minutes,
            datadir=datadir,
            device=device,
            as_json=as_json,
        )
        return
    check_minutes(max_minutes)
    if not source or out is None:
        missing = "-o RUN" if source else "INPUT"
        raise InputError(f"fit: {missing} is missing, expected modpose fit INPUT -o RUN")
    flags: dict[str, tuple[str, object]] = {
        "--z-dim": ("model.z_dim", z_dim),
        "--classes": ("train.start.classes", classes),
        "--group": ("model.encoder.rotations", group),
        "--epochs": ("train.epochs", epochs),
        "--seed": ("seed", seed),
        "--batch-size": ("train.batch_size", batch_size),
        "--lr": ("train.lr", lr),
        "--device": ("train.accelerator", device),
        "--precision": ("train.precision", precision),
        "--wedge": ("model.wedge", _absolute(wedge)),
        "--mask": ("model.field.mask", None if mask is None else str(mask.absolute())),
        "--gamma": ("train.gamma.end", gamma),
        "--invert": ("data.invert", invert),
        "--normalize": ("data.normalize", normalize),
        "--box": ("data.box", box),
        "--axes": ("data.kind", axes),
    }
    opened, config, sentence = options.configure(
        source,
        recipe=recipe,
        file=config_file,
        flags=flags,
        assignments=assignments or [],
        datadir=datadir,
        index=index,
        poses=poses,
        ctf=ctf,
        partial=partial,
        tomograms=tomograms,
        tilt_series=grouped,
    )
    typer.echo(sentence, err=True)
    with resumable(lambda: _how(out)):
        run = fits.fit_run(
            opened,
            config,
            out,
            datadir=datadir,
            index=index,
            poses=poses,
            ctf=ctf,
            partial=partial,
            tomograms=tomograms,
            tilt_series=grouped,
            labels=labels,
            affinity=affinity,
            sample_affinity=sample_affinity,
            clusters=clusters,
            max_minutes=max_minutes,
            overwrite=overwrite,
        )
    _end(run, as_json)


def _refuse_beside_resume(context: typer.Context) -> None:
    """Refuse arguments that a run to be continued has already, such as --lr."""
    allowed = {"resume", "quiet", *inspect.signature(resume_verb).parameters}
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            flag = parameter.opts[-1] if parameter.param_type_name == "option" else "INPUT"
            expected = (
                "only --epochs, --max-minutes, --device, --devices, --nodes, --datadir or --quiet"
            )
            raise InputError.of("--resume", flag, "given too", expected)


@app.command("resume")
def resume_verb(
    run: RunFolder,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="New total number of passes over the images.")
    ] = None,
    max_minutes: MaxMinutes = None,
    moved: InputAgain = None,
    datadir: DataDir = None,
    device: Device = None,
    devices: Devices = None,
    nodes: Nodes = None,
    as_json: Json = False,
) -> None:
    """Continue a run from its last checkpoint; the result is as without interruption.

    With --epochs a finished run is trained for longer.  If the images were moved, give their new
    place with --input and --datadir; the run records it.

    \b
    modpose resume run
    modpose resume run --epochs 200
    """
    if _elsewhere(devices, nodes):
        return
    with resumable(lambda: _how(run)):
        resumed = fits.resume_run(
            run,
            epochs=epochs,
            max_minutes=max_minutes,
            input=moved,
            datadir=datadir,
            device=device,
        )
    _end(resumed, as_json)


def _elsewhere(devices: int | None, nodes: int | None) -> bool:
    """Return whether other processes do the work, or this one followed the one that leads."""
    if launched(devices, nodes):
        return True
    if not ranks.leads():
        fits.follow()
    return not ranks.leads()


def _end(run: Run, as_json: bool) -> None:
    """Print where the run is, and its alarms."""
    alarms = {alarm.name: alarm.of(run.path) for alarm in run.alarms}
    lines = [f"saved {run.path}; next: modpose report {in_shell(run.path)}"]
    facts = {
        "run": run.path,
        "recipe": run.config.recipe,
        "images": run.environment["n"],
        "last_epoch": run.epochs()[-1],
        "alarms": alarms,
    }
    answer(facts, lines + [f"alarm: {sentence}" for sentence in alarms.values()], as_json)


def _absolute(wedge: str | None) -> str | None:
    """Return the absolute path of a file; return tilts and ``auto`` unchanged."""
    return str(Path(wedge).absolute()) if wedge is not None and Path(wedge).exists() else wedge


def _how(run: Path) -> str:
    """Say how a fit can continue."""
    if _was_begun(run):
        return f"continue with: modpose fit --resume {in_shell(run)}"
    return "nothing of a new run was written yet"


def _was_begun(folder: Path) -> bool:
    """Return whether there is a run to continue."""
    try:
        run = runs.Run.open(folder)
        return run_folder.staged(folder) is not None or not run.finished
    except InputError:
        return False
