"""The studies of Edelberg & Lederman 2023: whether an encoder is needed, and amortises.

The folder of real data may hold ``mnist.npz``; characters of a font are drawn in its place.
"""

from __future__ import annotations

from collections.abc import Callable

from studies.amortisation import digits, generalisation, particles, ranking
from studies.amortisation.budgets import PLANS, Plan
from studies.amortisation.common import Setting
from studies.common.conduct import Experiment, Study, machine
from studies.common.study import Budget

TITLE = "Explicit latent variables: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "moves": particles.prepare_moves,
    "controls": particles.prepare_controls,
    "digits": digits.prepare,
    "ranking": ranking.prepare,
    "generalisation": generalisation.prepare,
}
"""Name for ``only``, and what prepares the study."""


def _said(plan: Plan, command: str, budget: Budget) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    return [
        "Edelberg & Lederman, *Using VAEs to Learn Latent Variables: Observations on Applications "
        "in cryo-EM*, 2023. Every fit is a run folder in `runs/` (`modpose report DIR/runs/NAME`).",
        f"Made by `{command}` on {machine()}.",
    ]


EXPERIMENT = Experiment("amortisation", TITLE, PLANS, STUDIES, _said)
run = EXPERIMENT.run
