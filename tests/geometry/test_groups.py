"""Groups of rotations and even grids: closure, known angles, evenness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from modpose.errors import InputError
from modpose.geometry.groups import (
    cyclic,
    dihedral,
    grid_spacing,
    icosahedral,
    nearest,
    octahedral,
    so3_grid,
    symmetry_group,
    tetrahedral,
)
from modpose.geometry.rotations import geodesic, haar_rotations

SCIPYS = {"C1": 1, "C5": 5, "D1": 2, "D7": 14, "T": 12, "O": 24, "I": 60}


@pytest.mark.parametrize(("name", "order"), SCIPYS.items())
def test_groups_are_closed_and_those_of_scipy(name: str, order: int) -> None:
    group = symmetry_group(name.lower())
    assert group.shape == (order, 3, 3)
    np.testing.assert_array_equal(group[0], np.eye(3))
    np.testing.assert_allclose(torch.linalg.det(group), 1, atol=1e-12)
    apart = geodesic(group[:, None], group) + 10 * torch.eye(order)
    assert apart.min() > 0.4 or order == 1
    products = (group[:, None] @ group).reshape(-1, 3, 3)
    assert geodesic(products, group[nearest(products, group)]).max() < 1e-7
    angles = np.sort(Rotation.create_group(name).magnitude())
    ours = np.sort(Rotation.from_matrix(group.numpy()).magnitude())
    np.testing.assert_allclose(ours, angles, atol=1e-7)


def test_the_octahedral_group_is_exact() -> None:
    group = octahedral()
    assert set(group.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (group.abs().sum(-1) == 1).all()


def test_axes_lie_where_they_are_said_to() -> None:
    for group in (tetrahedral(), octahedral(), icosahedral()):
        for half_turn in ([1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1]):
            wanted = torch.diag(torch.tensor(half_turn, dtype=torch.float64))
            assert geodesic(wanted, group[nearest(wanted, group)]) < 1e-7
    torch.testing.assert_close(
        cyclic(4)[1] @ torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.0, 1, 0]).double()
    )
    assert len(dihedral(3)) == 6


@pytest.mark.parametrize(
    ("grid", "mean", "largest"), [(octahedral(), 40, 62.8), (icosahedral(), 29, 44.5)]
)
def test_distance_to_the_nearest_element(grid: torch.Tensor, mean: float, largest: float) -> None:
    rotations = haar_rotations(20_000, torch.Generator().manual_seed(0), torch.float64)
    away = torch.rad2deg(geodesic(rotations, grid[nearest(rotations, grid)]))
    assert away.mean().item() == pytest.approx(mean, abs=1)
    assert largest - 3 < away.max() <= largest
    brute = torch.rad2deg(geodesic(rotations[:50, None], grid)).amin(1)
    torch.testing.assert_close(away[:50], brute)


@pytest.mark.parametrize("n", [100, 1000, 4000])
def test_grids_are_even(n: int) -> None:
    grid = so3_grid(n)
    generator = torch.Generator().manual_seed(n)
    probes = haar_rotations(3000, generator, torch.float64)
    spacing = grid_spacing(n)
    away = geodesic(probes, grid[nearest(probes, grid)])
    assert away.max() < spacing  # no hole as large as a cell is wide
    # the middle of a cubic cell is 0.48 of its side away from a point on average; random: 0.55
    assert away.mean() < 0.52 * spacing
    neighbours = (grid.flatten(1) @ grid.flatten(1).T).fill_diagonal_(-1).argmax(1)
    assert geodesic(grid, grid[neighbours]).min() > 0.5 * spacing
    # an even grid has the mean of the Haar measure
    assert grid.mean(0).abs().max() < 0.02
    count = torch.bincount(nearest(probes, octahedral()), minlength=24)
    mine = torch.bincount(nearest(grid, octahedral()), minlength=24) / n
    assert (mine - 1 / 24).abs().max() < 1.5 / 24 * max(0.1, (24 / n) ** 0.5)
    assert count.min() > 0


def test_refusals() -> None:
    with pytest.raises(InputError, match="the point group is 'X3', expected C1"):
        symmetry_group("X3")
    with pytest.raises(InputError, match="the order is 0"):
        cyclic(0)
    with pytest.raises(InputError, match="the number is 0"):
        so3_grid(0)
