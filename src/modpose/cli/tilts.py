"""Opening tilt series: what the commands that take them share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modpose.cli.lazily import lazily
from modpose.errors import InputError

with lazily():
    from modpose.data import tilt_series

if TYPE_CHECKING:
    from modpose.data.tilt_series import TiltSeries

Tomograms = Annotated[
    Path | None,
    typer.Option(metavar="STAR", help="List of tomograms, for a table of tilt series."),
]
Grouped = Annotated[
    bool,
    typer.Option(
        "--tilt-series",
        help="Images of one rlnGroupName are the tilts of one particle (M).  Tables of RELION 5 "
        "and WarpTools are recognised without this.",
    ),
]


def opened_tilts(
    command: str,
    inputs: Sequence[str],
    tomograms: Path | None,
    grouped: bool,
    datadir: Path | None,
    *others: object,
) -> TiltSeries | None:
    """Open tilt series; None where the input is none.

    Parameters
    ----------
    command
        Named in messages.
    inputs
        What the user named.
    tomograms, grouped
        Options that say that these are tilt series.
    datadir
        Where the stacks are looked for first.
    others
        Options that tilt series do not take; None where they were not given.

    Raises
    ------
    InputError
        If there are several inputs, or options that tilt series do not take.
    """
    series = tilt_series.opened_tilts(list(inputs), tomograms, grouped, datadir)
    if series is not None and any(given is not None for given in others):
        options = "--poses, --ctf, --index or --wedge"
        raise InputError.of(command, options, "given", "none of them for tilt series")
    return series
