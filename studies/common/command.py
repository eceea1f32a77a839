"""The command line that every study has: ``python -m studies.NAME --budget scaled -o DIR``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modpose.cli import run_and_exit
from studies.common.conduct import Experiment
from studies.common.study import Budget


def run_command(experiment: Experiment[Any]) -> None:
    """Read the options, repeat the studies of ``experiment``, and leave with an exit code.

    Exit codes are those of ``modpose``: 0, 1 (a fit failed), 2 (bad input), 130 (Ctrl-C).
    """

    def command(
        out: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables and figures.")],
        budget: Annotated[
            Budget,
            typer.Option(
                help="Seconds for a trial, hours on two cores, the paper's recipes, limited, or "
                "its own sizes."
            ),
        ] = "scaled",
        seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
        data: Annotated[
            Path | None, typer.Option(help="Folder of the real data sets that the studies use.")
        ] = None,
        only: Annotated[
            str | None, typer.Option(help=f"One study: {', '.join(experiment.studies)}.")
        ] = None,
        minutes_per_fit: Annotated[
            float | None, typer.Option(help="Training time of every fit, instead of the budget's.")
        ] = None,
        jobs: Annotated[
            int | None, typer.Option(min=1, help="Fits in parallel, instead of the budget's.")
        ] = None,
    ) -> None:
        page = experiment.run(
            budget,
            out,
            seed,
            data=data,
            only=only,
            minutes_per_fit=minutes_per_fit,
            jobs=jobs,
        )
        typer.echo(f"experiment: {page}")

    command.__doc__ = f"{experiment.title}.  Started again, it goes on where it was interrupted."
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command)
    run_and_exit(app, prog_name=f"python -m studies.{experiment.name.replace('-', '_')}")
