"""Describe a run folder in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modpose.data.inspect import Description
from modpose.files.text import in_shell
from modpose.run.added import how_added
from modpose.run.folder import staged

if TYPE_CHECKING:
    from modpose.run import Run

ENDINGS = {
    "epochs": "after all epochs",
    "max-minutes": "at the limit of time (--max-minutes)",
    "validation": "because the validation ELBO no longer rose",
}
"""Why a training ended, by the word in ``environment.json``."""


def describe(run: Run) -> Description:
    """Describe a run: recipe, images, epochs, whether it is finished, alarms.

    Raises
    ------
    InputError
        If a file of the run is damaged.
    """
    environment, config = run.environment, run.config
    facts = {
        "recipe": config.recipe,
        "made by": f"modpose {environment['modpose']}",
        "input": _input(environment),
        "images": f"{environment['n']:,}",
        "box": " x ".join(str(side) for side in environment["shape"]) + " px",
        "latents": str(config.model.z_dim),
        "epochs": _epochs(run),
        "state": _state(run),
    }
    size = environment.get("pixel_size")
    if size is not None:
        facts["box"] += f" of {size:.4g} A"
    for name, how in how_added(run.path).items():
        facts[name] = f"an added column: {how}" if how else "an added column"
    if (run.path / "report" / "index.html").is_file():
        facts["report"] = str(run.path / "report" / "index.html")
    return Description(str(run.path), "a run", facts, [alarm.of(run.path) for alarm in run.alarms])


def _input(environment: dict[str, Any]) -> str:
    source = environment.get("input")
    files = source if isinstance(source, list) else [source or "an array in memory"]
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _epochs(run: Run) -> str:
    rows = run.epochs() if run.begun else []
    done = int(rows[-1]["epoch"]) if rows else 0
    best = run.environment.get("best_epoch")
    text = f"{done:,} of {run.config.train.epochs:,}"
    return f"{text}, the best is {best:,}" if best else text


def _state(run: Run) -> str:
    """Say whether the run is finished, and how to go on if it is not."""
    how = f"continue with: modpose resume {in_shell(run.path)}"
    if not run.finished:
        return f"not finished; {how}"
    if staged(run.path) is not None:
        return f"finished; an interrupted fit should replace it, {how}"
    environment = run.environment
    if run.partial:
        sample = f"{environment['encoded']:,} of {environment['n']:,} images are encoded"
        return f"finished; {sample}, encode the rest with: modpose resume {in_shell(run.path)}"
    on = f" on {environment['device']}" if environment.get("device") else ""
    return f"finished{on} {ENDINGS.get(environment.get('stopped', ''), '')}".rstrip()
