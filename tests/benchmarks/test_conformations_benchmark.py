"""The benchmark of conformations: errors of poses apart, and what true maps can tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import conformations
from benchmarks.abinitio import MIRROR
from modpose.geometry.rotations import haar_rotations, rotation_of_vector
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

DEGREE = np.pi / 180


def test_a_frame_that_follows_the_angle_is_told_apart_from_error() -> None:
    truth = haar_rotations(600, torch.Generator().manual_seed(0))
    angle = np.linspace(-24, 24, 600)
    along = torch.from_numpy(angle).float()[:, None] * torch.tensor([0.0, 0.0, DEGREE])
    found = MIRROR @ (truth @ rotation_of_vector(along)) @ MIRROR
    one, own, other = conformations.pose_errors(found, truth, angle)
    assert float(one.median()) == pytest.approx(12, abs=1)  # the frames are 12 degrees off
    assert float(own.median()) < 2  # a twelfth spans 4 degrees, so half of them are within 1
    assert float((other > 20).float().mean()) > 0.9  # it is the mirrored hand that fits


def test_true_maps_tell_the_angle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = simulate_projections(ProjectionSettings(n=40, box=32, pixel_size=5.0, snr=10.0, seed=1))
    write_projections(made, tmp_path, maps=21)
    conformations.main([str(tmp_path / "particles.star"), "--limit", "40"])
    lines = capsys.readouterr().out.splitlines()
    given, fitted = (float(line.split(": ")[1].split("°")[0]) for line in lines[1:3])
    half_step = 60 / 21 / 2  # between maps: at this SNR the nearest one is taken
    assert max(given, fitted) < half_step
    assert lines[3].startswith("ratio: ")
