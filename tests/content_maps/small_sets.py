"""Small sets of posed projections."""

from __future__ import annotations

import torch

from modpose.backprojection.halves import open_posed
from modpose.data.dataset import Dataset
from modpose.data.particles import Particles
from modpose.data.source import Source
from modpose.data.stack import ArrayStack
from modpose.geometry.windows import soft_window
from modpose.simulate.conformations import Conformer, built_in_conformers
from modpose.simulate.projection_files import star_tables
from modpose.simulate.projections import Projections, ProjectionSettings, simulate_projections

BOX = 20


def simulated(n: int, snr: float, moves: bool = True, seed: int = 0) -> Projections:
    settings = ProjectionSettings(n=n, box=BOX, pixel_size=8.0, snr=snr, ctf=True, seed=seed)
    still = [Conformer("still", built_in_conformers(1)[0].molecule)]
    return simulate_projections(settings, None if moves else still)


def opened(made: Projections) -> Dataset:
    table, optics = star_tables(made)
    stack = ArrayStack(made.images, pixel_size=8.0)
    poses = made.rotation, made.shift
    return open_posed(Source(stack, Particles(table, optics, "star", "p.star", given_poses=poses)))


def ball() -> torch.Tensor:
    return torch.from_numpy(soft_window((BOX,) * 3, 0.75, 0.95))
