"""Errors of poses modulo the symmetry that a molecule has."""

import torch

from benchmarks.abinitio import MIRROR, errors_deg, own_symmetry
from benchmarks.symmetries import assembly
from modpose.geometry.rotations import haar_rotations
from modpose.simulate.conformations import Conformer
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings


def _symmetry(group: str, without: int = 0) -> tuple[str, torch.Tensor]:
    """What is found of a molecule in a random frame."""
    molecule = assembly(group, 3, without)
    settings = ProjectionSettings(n=2, box=32, pixel_size=6.0, seed=0)
    made = simulate_projections(settings, [Conformer(group, molecule, None)])
    return own_symmetry(torch.from_numpy(made.volume(0)).float())


def test_poses_that_the_symmetry_calls_equal_are_no_errors():
    name, group = _symmetry("D3")
    assert name == "D3"
    generator = torch.Generator().manual_seed(0)
    truth = haar_rotations(400, generator)
    which = torch.randint(0, len(group), (400,), generator=generator)
    equal = truth @ group[which]
    other = equal @ haar_rotations(1, generator)
    # single precision: the angle whose cosine is 1 - 1e-6 is 0.08 degrees
    assert errors_deg(other, truth, group).max() < 0.3
    assert errors_deg(MIRROR @ other @ MIRROR, truth, group).max() < 0.3
    free = torch.eye(3)[None]
    assert (errors_deg(other, truth, free) > 20).float().mean() > 0.5


def test_a_molecule_that_lacks_a_chain_has_no_symmetry():
    assert _symmetry("D3", without=1)[0] == "C1"
