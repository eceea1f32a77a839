"""The studies of the 3D-SpVAE paper (Yi et al. 2021).

The folder of real data may hold ``pdb/``; built-in assemblies stand in for molecules that are not
there.
"""

from __future__ import annotations

from collections.abc import Callable

from studies.common.conduct import Experiment, Study, machine
from studies.common.study import Budget
from studies.subtomograms import collapse
from studies.subtomograms.budgets import PLANS, Plan
from studies.subtomograms.studies import (
    Setting,
    prepare_domains,
    prepare_noise,
    prepare_null,
)

TITLE = "3D-SpVAE: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "noise": prepare_noise,
    "domains": prepare_domains,
    "collapse": collapse.prepare,
    "null": prepare_null,
}
"""Name for ``only``, and what prepares the study."""


def _said(plan: Plan, command: str, budget: Budget) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    return [
        "Yi, Pang, Zhang, Zeng & Xu, *Disentangling semantic features of macromolecules in "
        "cryo-electron tomography*, 2021. Every fit is a run folder in `runs/` "
        "(`modpose report DIR/runs/NAME`).",
        f"Made by `{command}` on {machine()}. Of each "
        "fit the epoch with the best validation ELBO is kept (5 % of the volumes that are fitted); "
        "scores are of other volumes, which were never seen.",
    ]


EXPERIMENT = Experiment("subtomograms", TITLE, PLANS, STUDIES, _said)
run = EXPERIMENT.run
