"""Starts of models whose parts need a search before the first training step."""

from __future__ import annotations

from modpose.config import AlignmentStartConfig, Config, SubspacesStartConfig
from modpose.data.dataset import Dataset
from modpose.devices import computing_on
from modpose.model.fields.principal import PrincipalField
from modpose.model.vae import Vae
from modpose.train.starts.alignment import start_aligned
from modpose.train.starts.principal import start_motions
from modpose.train.starts.subspaces import start_subspaces


def prepare(vae: Vae, dataset: Dataset, config: Config, quiet: bool = False) -> None:
    """Give a new model the start that its parts need.

    Parameters
    ----------
    vae
        Changed in place.
    dataset
        Its training part is used; an alignment also uses held-out volumes, since it needs no
        labels.
    config
        The run's configuration.
    quiet
        No progress bar.
    """
    with computing_on("--device (train.accelerator)", config.train.accelerator):
        if isinstance(vae.field, PrincipalField):
            start_motions(vae, dataset, config, quiet)
        start = config.train.start
        if isinstance(start, AlignmentStartConfig):
            start_aligned(vae, dataset, start, seed=config.seed, quiet=quiet)
        if isinstance(start, SubspacesStartConfig):
            start_subspaces(vae, dataset, config, start, quiet=quiet)
