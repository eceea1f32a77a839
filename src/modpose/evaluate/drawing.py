"""Whether a model draws pictures or volumes."""

from __future__ import annotations

from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.run import Run


def check_draws_volumes(run: Run, model: PoseModel) -> None:
    """Raise InputError where the model of a run draws pictures."""
    if model.vae.imaging.shown_in != 3:
        raise InputError(
            f"{run.path}: the model of recipe {run.config.recipe} draws pictures, expected one of "
            "volumes (projections with given poses, or subtomograms)"
        )
