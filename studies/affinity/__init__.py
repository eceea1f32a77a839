"""The studies of the affinity-VAE paper (Mirecka, Famili, Kotańska, Juraschko et al. 2022).

The folder of real data may hold proteins in ``pdb/``; without, assemblies of blobs are made in
their place.  Characters and tetrominoes are always made.
"""

from __future__ import annotations

from collections.abc import Callable

from studies.affinity import characters, proteins, tetrominoes
from studies.affinity.budgets import PLANS, Plan
from studies.affinity.common import Setting
from studies.common.conduct import Experiment, Study, machine
from studies.common.study import Budget

TITLE = "affinity-VAE: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "characters": characters.prepare,
    "beta": characters.prepare_beta,
    "gamma": characters.prepare_gamma,
    "soap": characters.prepare_similarity,
    "pose": characters.prepare_pose,
    "tetrominoes": tetrominoes.prepare,
    "gamma-3d": tetrominoes.prepare_gamma,
    "width": tetrominoes.prepare_width,
    "fsc": tetrominoes.prepare_similarity,
    "proteins": proteins.prepare,
    "descriptors": tetrominoes.prepare_descriptors,
    "posed": tetrominoes.prepare_posed,
}
"""Name for ``only``, and what prepares the study."""


def _said(plan: Plan, command: str, budget: Budget) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    how = f"in {plan.jobs} single-threaded processes" if plan.jobs > 1 else "one after the other"
    timed = plan.characters.minutes is not None
    ends = (
        "Fits end by time, so that a repetition gives nearly, not exactly, the same numbers."
        if timed
        else "Fits end after a number of epochs: a repetition on the same machine gives the same "
        "numbers."
    )
    return [
        "Mirecka, Famili, Kotańska, Juraschko et al., *Affinity-VAE for disentanglement, "
        "clustering and classification of objects in multidimensional image data*, 2022. Each "
        "section names the figures of the paper that it repeats; every fit is a run folder in "
        "`runs/` (`modpose report DIR/runs/NAME`). The paper's UMAP is t-SNE here.",
        f"Made by `{command}` on {machine()}, {how}. {ends} Of each fit the epoch with the best "
        "validation loss is kept (10 % of the images that are fitted, which are no part of the "
        "maps either); scores are of other images, which were never seen.",
    ]


EXPERIMENT = Experiment("affinity", TITLE, PLANS, STUDIES, _said)
run = EXPERIMENT.run
