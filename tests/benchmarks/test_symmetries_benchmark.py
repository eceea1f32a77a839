"""The benchmark of symmetries: its molecules have their symmetry, and it counts right."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import symmetries
from modpose.geometry.groups import symmetry_group
from modpose.geometry.rotations import haar_rotations


def distance_when_turned(group: str, without: int) -> float:
    """Largest distance (Å) from a blob to the nearest one after any rotation of the group."""
    centers = symmetries.assembly(group, 3, without).centers
    turn = haar_rotations(1, torch.Generator().manual_seed(3))[0].double().numpy()
    own = centers @ turn
    turned = own @ symmetry_group(group).numpy().transpose(0, 2, 1)
    gap = np.linalg.norm(turned[:, :, None] - own[None, None], axis=-1).min(2)
    return float(gap.max())


@pytest.mark.parametrize("group", ["C5", "D3", "T"])
def test_an_assembly_has_its_symmetry_and_loses_it_with_a_chain(group):
    assert distance_when_turned(group, 0) < 1e-4  # float32 rotations over 75 Å
    assert distance_when_turned(group, 1) > 1.0


def test_right_groups_are_counted(monkeypatch, capsys):
    found = SimpleNamespace(symmetry="C3", verdicts=[])
    monkeypatch.setattr(symmetries, "find_maps", lambda *_, **__: found)
    symmetries.main(["--images", "2", "--only", "C1", "C3", "D2"])
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "right 1 of 5; C1 called symmetric 3 of 3"


def test_images_of_all_groups_fit_into_the_box():
    settings = symmetries.settings_of(2, 0.1, 4.0, 0)
    for case in symmetries.built_in_cases(0):
        reach = case.conformer.molecule.radius(np.zeros(1))
        assert reach < 0.45 * settings.box * settings.pixel_size, case.conformer.name
