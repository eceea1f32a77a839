"""Several poses of an image: kept by a search, and taken by a model that is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modpose.config import parse_config
from modpose.data.dataset import dataset_of
from modpose.data.source import Source, open_source
from modpose.geometry.rotations import haar_rotations, rotation_of_vector
from modpose.options import merge
from modpose.recipes import recipe_config
from modpose.search.abinitio.moving import nearly_as_probable
from modpose.search.so3_climb import PosedVolumes
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings
from modpose.train.kept_poses import take_best_poses
from modpose.train.session import start


def test_poses_that_are_nearly_as_probable_are_kept_once():
    generator = torch.Generator().manual_seed(0)
    far = haar_rotations(3, generator)
    near = rotation_of_vector(torch.tensor([[0.03, 0.0, 0.0]]))[0] @ far[0]  # 1.7 degrees away
    rotation = torch.stack([far[1], near, far[0], far[2]])
    score = torch.tensor([8.0, 9.5, 10.0, 2.0])
    shift = torch.arange(12.0).view(4, 3)
    one = PosedVolumes(rotation, shift, score, score, torch.zeros(4, 6, 6))
    found = nearly_as_probable(one, 4)
    assert found.number.tolist() == [2]
    torch.testing.assert_close(found.rotation[0, :2], torch.stack([far[0], far[1]]))
    torch.testing.assert_close(found.shift[0, :2], shift[[2, 0], :2])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    settings = ProjectionSettings(n=200, box=24, pixel_size=6.7, snr=1.0, ctf=True)
    folder: Path = tmp_path_factory.mktemp("kept")
    write_projections(simulate_projections(settings, built_in_conformers(1)), folder)
    return open_source(folder / "particles.star")


def test_a_model_takes_the_pose_that_explains_an_image(source):
    # every fifth image comes with a wrong pose first and the right one second
    own = {"model": {"z_dim": 1, "kept_poses": 4, "field": {"motions": 2, "cycles": 5}}}
    config = parse_config(merge(recipe_config("modpose-posed"), own), "test")
    right = dataset_of(source, config)
    assert right.rotation is not None
    assert right.translation is not None
    wrong = torch.arange(len(right.rotation)) % 5 == 0
    rotation, shift = torch.from_numpy(right.rotation), torch.from_numpy(right.translation)
    other = torch.where(
        wrong[:, None, None], rotation @ haar_rotations(1, torch.Generator()), rotation
    )
    kept = torch.zeros(len(rotation), 4, 3, 3), torch.zeros(len(rotation), 4, 2)
    kept[0][:, 0], kept[0][:, 1] = other, rotation
    kept[1][:, :2] = shift[:, None]
    given = dataset_of(source.with_poses(other.numpy(), shift.numpy()), config)
    given.kept = (*kept, 1 + wrong.long())
    learner, _ = start(given, config, max_minutes=None, quiet=True)
    assert learner.vae.kept is not None
    take_best_poses(learner, given)
    chosen = learner.vae.kept.chosen
    assert not chosen[~wrong].any()
    assert chosen[wrong].float().mean() > 0.9
    batch = given.batch(np.arange(20))
    taken = learner.vae.given_pose(batch)
    expected = torch.where(chosen[:20, None, None] == 1, rotation[:20], other[:20])
    torch.testing.assert_close(taken.rotation, expected)
    # images that the model was not fitted to have the pose that they came with
    torch.testing.assert_close(
        learner.vae.given_pose(replace(batch, fitted=False)).rotation, other[:20]
    )
