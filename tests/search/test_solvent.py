"""The mask of a molecule: it keeps what is there, and little else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from modpose.fourier.fsc import fsc
from modpose.geometry.grids import lattice, soft_sphere
from modpose.search.solvent import molecule_mask

BOX = 32
DIAMETER = BOX - 4.0


def ball(centre: tuple[float, float, float], radius: float) -> Tensor:
    away = (lattice((BOX,) * 3) - torch.tensor(centre)).norm(dim=-1).reshape((BOX,) * 3)
    return torch.sigmoid(2 * (radius - away))


def noise(count: int, level: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(count, BOX, BOX, BOX, generator=generator)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("level", [0.0, 0.1, 0.3, 0.6])
def test_a_molecule_is_kept_and_solvent_is_not(sign: float, level: float) -> None:
    molecule = ball((3.0, -2.0, 1.0), 5.0) + ball((-4.0, 3.0, 0.0), 3.5)
    mask = molecule_mask(sign * molecule[None] + noise(1, level), DIAMETER)
    assert mask.min() >= 0 and mask.max() <= 1
    assert (mask * molecule).sum() > 0.99 * molecule.sum()
    assert mask.sum() < 0.35 * soft_sphere(BOX, DIAMETER).sum()


def test_what_only_moves_is_kept_too() -> None:
    """A part that is there in few states is weak in the mean and strong in a motion."""
    molecule, part = ball((4.0, 0.0, 0.0), 5.0), ball((-7.0, 0.0, 0.0), 2.5)
    volumes = torch.stack([molecule + 0.02 * part, 0.3 * part]) + noise(2, 0.05)
    mask = molecule_mask(volumes, DIAMETER)
    assert (mask * part).sum() > 0.95 * part.sum()
    assert (molecule_mask(volumes[:1], DIAMETER) * part).sum() < 0.5 * part.sum()


def test_one_that_fills_the_sphere_is_kept() -> None:
    molecule = ball((0.0, 0.0, 0.0), 12.0) * (1 + 0.2 * noise(1, 1.0)[0])
    mask = molecule_mask(molecule[None], DIAMETER)
    assert (mask * molecule).sum() > 0.95 * molecule.sum()


def test_a_noisy_map_comes_nearer_to_the_truth() -> None:
    molecule = ball((3.0, -2.0, 1.0), 5.0) * (1 + 0.5 * noise(1, 1.0, 1)[0])
    noisy = molecule + noise(1, 0.5)[0]
    truth = molecule.numpy()
    kept = (molecule_mask(noisy[None], DIAMETER) * noisy).numpy().astype(np.float32)
    assert fsc(kept, truth).area() > fsc(noisy.numpy(), truth).area() + 0.1
