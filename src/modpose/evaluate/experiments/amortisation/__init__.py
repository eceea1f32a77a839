"""The studies of Edelberg & Lederman 2023: whether an encoder is needed, and amortises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modpose.evaluate.experiments.amortisation import digits, particles
from modpose.evaluate.experiments.amortisation.budgets import PLANS, Plan
from modpose.evaluate.experiments.amortisation.common import Setting
from modpose.evaluate.experiments.conduct import Experiment, Study, machine
from modpose.evaluate.experiments.study import Budget

TITLE = "Explicit latent variables: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "moves": particles.prepare_moves,
    "controls": particles.prepare_controls,
    "digits": digits.prepare,
}
"""Name for ``only``, and what prepares the study."""


def run(
    budget: Budget,
    out: str | Path,
    seed: int = 0,
    *,
    data: str | Path | None = None,
    only: str | None = None,
    minutes_per_fit: float | None = None,
) -> Path:
    """Repeat the studies and write ``index.md``, ``tables/``, ``figures/`` and ``runs/``.

    Started again with the same arguments it continues: finished fits are kept.

    Parameters
    ----------
    budget
        ``smoke`` (seconds), ``scaled`` (under two hours on two cores) or ``full`` (the paper's).
    out
        The experiment's folder.
    seed
        Of everything random.
    data
        Folder with ``mnist.npz``; characters of a font are drawn in its place.
    only
        One study: moves, controls or digits.
    minutes_per_fit
        Training time of every fit, in place of the budget's own.

    Returns
    -------
    Path
        ``index.md``.

    Raises
    ------
    InputError
        If an argument is out of range, or the folder holds something else.
    TrainingError
        If a fit failed; the others are done, and the page says so.
    """
    return EXPERIMENT.run(budget, out, seed, data, only, minutes_per_fit)


def _said(plan: Plan, command: str, budget: Budget) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    return [
        "Edelberg & Lederman, *Using VAEs to Learn Latent Variables: Observations on Applications "
        "in cryo-EM*, 2023. Every fit is a run folder in `runs/` (`modpose report DIR/runs/NAME`).",
        f"Made by `{command}` on {machine()}.",
    ]


EXPERIMENT = Experiment("amortisation", TITLE, PLANS, STUDIES, _said)
