"""The studies of Edelberg & Lederman 2023: whether an encoder is needed, and amortises."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from modpose.errors import InputError
from modpose.evaluate.experiments.amortisation import digits, particles
from modpose.evaluate.experiments.amortisation.budgets import PLANS, Plan
from modpose.evaluate.experiments.amortisation.common import Setting
from modpose.evaluate.experiments.conduct import Conduct
from modpose.evaluate.experiments.spatial_vae import machine
from modpose.evaluate.experiments.spatial_vae.common import Study
from modpose.evaluate.experiments.study import Budget, open_folder

TITLE = "Explicit latent variables: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study]] = {
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
    plan = _plan(budget, minutes_per_fit)
    if only is not None and only not in STUDIES:
        raise InputError.of("experiment", "--only", only, f"one of {', '.join(STUDIES)}")
    folder, real = Path(out), None if data is None else Path(data).absolute()
    if real is not None and not real.is_dir():
        raise InputError(f"{data}: no such folder, expected the data sets that --data names")
    record = {
        "experiment": "amortisation",
        "budget": budget,
        "seed": seed,
        "minutes_per_fit": minutes_per_fit,
        "data": None if real is None else str(real),
    }
    open_folder(folder, record)
    whole = folder.absolute()
    setting = Setting(plan, whole / "data", whole / "runs", real, seed)
    # One after the other: a table that starts from an encoder's content needs it finished.
    conduct = Conduct("amortisation", TITLE, folder, 1, _said(budget, record), list(STUDIES))
    return conduct.carry_out(setting, STUDIES if only is None else {only: STUDIES[only]})


def _plan(budget: Budget, minutes_per_fit: float | None) -> Plan:
    if budget not in PLANS:
        raise InputError.of("experiment", "--budget", budget, f"one of {', '.join(PLANS)}")
    if minutes_per_fit is None:
        return PLANS[budget]
    if not minutes_per_fit > 0:
        raise InputError.of("experiment", "--minutes-per-fit", minutes_per_fit, "more than zero")
    return PLANS[budget].lasting(minutes_per_fit)


def _said(budget: Budget, record: Mapping[str, object]) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    options = ["--budget", budget, "--seed", str(record["seed"]), "-o", "DIR"]
    for name, flag in (("data", "--data"), ("minutes_per_fit", "--minutes-per-fit")):
        if record[name] is not None:
            options += [flag, "DATA" if name == "data" else str(record[name])]
    return [
        "Edelberg & Lederman, *Using VAEs to Learn Latent Variables: Observations on Applications "
        "in cryo-EM*, 2023. Every fit is a run folder in `runs/` (`modpose report DIR/runs/NAME`).",
        f"Made by `modpose experiment amortisation {shlex.join(options)}` on {machine()}.",
    ]
