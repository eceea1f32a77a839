"""The application, and the arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

import modpose
from modpose.cli.lazily import lazily
from modpose.errors import InputError

with lazily():
    from modpose import progress

JOBS = "modpose.cli.jobs"
"""Commands of this module form a separate group in the help."""


def _hide_bars(hidden: bool) -> None:
    progress.hide_bars(hidden)


Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Show no progress bars.", callback=_hide_bars, expose_value=False),
]


def _says_quiet(quiet: Quiet = False) -> None:
    pass


class Verbs(TyperGroup):
    """Commands that each take ``--quiet``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        template = typer.Typer(add_completion=False)
        template.command()(_says_quiet)
        for command in self.commands.values():
            if not hasattr(command, "commands"):
                command.params += get_command(template).params


class Groups(Verbs):
    """The commands, in two groups of the help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, group by group."""
        width = formatter.width - 6 - max(map(len, self.commands))
        for heading, wanted in (("Commands", False), ("Maps, stacks and tables", True)):
            rows = [
                (name, command.get_short_help_str(width))
                for name, command in self.commands.items()
                if (getattr(command.callback, "__module__", "") == JOBS) is wanted
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)


app = typer.Typer(
    name="modpose",
    cls=Groups,
    help="Images modulo pose: learn what an object is, apart from its rotation and shift.",
    epilog="A first run:  modpose fit particles.star -o run && modpose report run",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
simulate_app = typer.Typer(cls=Verbs, help="Make data with known truth.")
app.add_typer(simulate_app, name="simulate")


def _print_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        typer.echo(f"modpose {modpose.__version__}")
        raise typer.Exit


@app.callback()
def _general(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def was_given(context: typer.Context, option: str) -> bool:
    """Whether the user gave an option (its name in Python), and not its default alone."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def needs(context: typer.Context, option: str, other: str, there: bool) -> None:
    """Refuse an option (its name in Python) that the user gave, but has no effect without another.

    Parameters
    ----------
    context
        Of the command.
    option
        Its name among the parameters of the command.
    other
        What it needs, in words.
    there
        Whether that is there.
    """
    if not there and was_given(context, option):
        found = next(one for one in context.command.params if one.name == option)
        off = found.secondary_opts if context.params[option] is False else []
        flag = [*off, *found.opts][0]
        raise InputError.of(context.info_name or "modpose", flag, "given", f"it only with {other}")


Input = Annotated[
    str | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="particles.star, .mrcs, .mrc, .cs, .npy, stack.npz:name, TIFF, or a folder of images.",
    ),
]
KINDS_OF_INPUT = (
    "particles.star, .mrcs, .mrc, .cs, .csg, .npy, stack.npz:name, TIFF, a folder of images, or "
    "a .txt with one file per line; several are joined."
)
Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", show_default=False, help=KINDS_OF_INPUT)
]
InputsOrNone = Annotated[
    list[str] | None, typer.Argument(metavar="INPUT...", show_default=False, help=KINDS_OF_INPUT)
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--datadir", help="Base folder of the image paths inside a STAR or .cs."),
]
InputAgain = Annotated[
    str | None,
    typer.Option(
        "--input", metavar="INPUT", help="New place of the images of RUN, if they were moved."
    ),
]
Index = Annotated[
    Path | None,
    typer.Option(
        "--index",
        help="Use only these images: a .txt or .npy of positions from 0, or a .star or .cs.",
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        "--axes",
        metavar="LETTERS",
        help="Axes of an array, such as NCYX: image, channel, row, column (Z: section).",
    ),
]
Partial = Annotated[
    bool,
    typer.Option("--partial", help="Use only the images that the other tables list."),
]
WedgeGiven = Annotated[
    str | None,
    typer.Option(
        "--wedge",
        metavar="LOW,HIGH|FILE",
        help="Tilts of subtomograms in degrees, wedge masks, or a list of tomograms.",
    ),
]
PosesFile = Annotated[
    Path | None,
    typer.Option(
        "--poses", metavar="FILE", help="Poses of the images: a .star, a .cs, or cryoDRGN's .pkl."
    ),
]
CtfFile = Annotated[
    Path | None,
    typer.Option(
        "--ctf", metavar="FILE", help="CTF parameters: a .star, a .cs, or cryoDRGN's .pkl."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="auto|cpu|cuda|mps", help="Where to compute; auto: a GPU if there is one."
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Processes on each machine that share the work, one a device."
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Machines that share the work: in a job of SLURM, or see the docs."
    ),
]
MaxMinutes = Annotated[float | None, typer.Option(help="Stop after this many minutes of training.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]

# Of simulated data.
Folder = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")]
Images = Annotated[int, typer.Option(help="Number of images.")]
ImageBox = Annotated[int, typer.Option(help="Side of the images, pixels.")]
VolumeBox = Annotated[int, typer.Option(help="Side of the volumes, voxels.")]
Pixel = Annotated[float, typer.Option(help="Angstrom per pixel.")]
Snr = Annotated[float, typer.Option(help="var(signal) / var(noise) inside the box.")]
ShiftStd = Annotated[
    float, typer.Option(help="Standard deviation of the shift on each axis, pixels.")
]
MaxShift = Annotated[
    float, typer.Option(help="Shifts are uniform up to this on each axis, voxels.")
]
TiltRange = Annotated[
    tuple[float, float],
    typer.Option(help="Smallest and largest tilt, degrees; the rest is the missing wedge."),
]
AddCtf = Annotated[bool, typer.Option("--ctf", help="Filter by a microscope's CTF.")]
Defocus = Annotated[
    tuple[float, float], typer.Option(help="Smallest and largest defocus, angstrom.")
]
Resolution = Annotated[float, typer.Option(help="Resolution of the density from atoms, angstrom.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]


def abundances(text: str | None) -> tuple[float, ...] | None:
    """Read ``--abundance``."""
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        expected = "numbers, such as 3,1"
        raise InputError.of("--abundance", "the value", f"'{text}'", expected) from None
