"""Poses of a structure that moves: several maps in one frame, motions beside every pose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modpose.data.source import Source, open_source
from modpose.errors import InputError
from modpose.fourier.coefficients import Coefficients, map_coefficients
from modpose.fourier.reference import make_references
from modpose.geometry.rotations import geodesic, haar_rotations, rotation_of_vector
from modpose.search.abinitio.frames import MIRROR, common_frames
from modpose.search.abinitio.moving import MotionPlan
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.scores import Poses, _apart
from modpose.search.abinitio.settings import AbInitioSettings, RefinePlan, StartPlan
from modpose.search.so3_climb import _real, climb_with_motions, predicted
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.molecules import blob_assembly, density
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

BOX, PIXEL, LIMIT = 24, 8.0, 0.3


def posed(number: int, rotation: Tensor, shift: Tensor) -> Tensor:
    """Evaluate an assembly at poses, exactly."""
    one = blob_assembly(number)
    centers = one.centers[None].repeat(len(rotation), 0)
    at = (rotation.double().numpy(), shift.double().numpy(), BOX, PIXEL)
    return torch.from_numpy(density(centers, one.sigmas, one.masses, *at)).float() / 1e-4


def upright(number: int) -> Tensor:
    return posed(number, torch.eye(3)[None], torch.zeros(1, 3))


@pytest.fixture(scope="module")
def moving() -> tuple[Coefficients, Tensor, Tensor, Tensor]:
    """Return six noisy mixtures of a mean and two motions, their maps, rotations and amounts."""
    generator = torch.Generator().manual_seed(3)
    maps = 10 * torch.cat(
        [upright(0), 0.4 * (upright(1) - upright(0)), 0.3 * (upright(2) - upright(0))]
    )
    seen = map_coefficients(maps[:1], LIMIT)
    rotation = haar_rotations(6, generator)
    amount = torch.cat([torch.ones(6, 1), torch.randn(6, 2, generator=generator)], 1)
    references = make_references(maps, seen.limit, slopes=True)
    blank = replace(seen, value=torch.zeros(6, seen.width, dtype=torch.complex64))
    still = torch.zeros(6, 3)
    models = [
        predicted(blank, references, torch.full((6,), j), rotation, still)[0] for j in range(3)
    ]
    real = torch.einsum("nj,jnk->nk", amount, torch.stack(models)) / 2**0.5
    value = torch.complex(real[:, : seen.width], real[:, seen.width :])
    noise = torch.randn(6, seen.width, 2, generator=generator) / 2**0.5
    return replace(blank, value=value + torch.view_as_complex(noise)), maps, rotation, amount


def test_the_likelihood_with_motions_is_the_integral_over_their_amounts(moving):
    data, maps, rotation, _ = moving
    data = data.within(0.12)
    references = make_references(maps, data.limit, slopes=True)
    owner, shift = torch.arange(6), torch.zeros(6, 3)
    found = climb_with_motions(data, references, owner, rotation, shift, contrast=0.2, steps=0)
    each = [predicted(data, references, owner * 0 + j, rotation, shift)[0] for j in range(3)]
    models = torch.stack(each, 1).double()  # (6, 3, 2 K)
    target = _real(data.value[..., None])[..., 0].double()
    spread = torch.tensor([0.04, 1.0, 1.0], dtype=torch.float64)
    unit = torch.eye(target.shape[1], dtype=torch.float64)
    covariance = unit + torch.einsum("njk,j,njl->nkl", models, spread, models)
    of_object = torch.distributions.MultivariateNormal(models[:, 0], covariance)
    of_none = torch.distributions.MultivariateNormal(torch.zeros_like(target), unit)
    expected = of_object.log_prob(target) - of_none.log_prob(target)
    torch.testing.assert_close(found.score.double(), expected, rtol=1e-3, atol=1e-2)


def test_a_climb_with_motions_finds_pose_and_amounts(moving):
    data, maps, rotation, amount = moving
    references = make_references(maps, data.limit, slopes=True)
    generator = torch.Generator().manual_seed(5)
    wrong = rotation @ rotation_of_vector(0.1 * torch.randn(6, 3, generator=generator))
    owner = torch.arange(6)
    top = climb_with_motions(
        data, references, owner, wrong, torch.full((6, 3), 0.3), contrast=0.2, steps=8
    )
    # some 0.3 degrees is the s.d. that the information leaves of the worst of these
    assert torch.rad2deg(geodesic(top.rotation, rotation)).max() < 1.5
    assert top.shift.abs().max() < 0.1
    assert (top.amplitude - amount).abs().max() < 0.25


def test_maps_of_one_structure_come_into_one_frame_and_hand():
    generator = torch.Generator().manual_seed(1)
    turns, moves = haar_rotations(3, generator), torch.rand(3, 3, generator=generator) * 2 - 1
    turns[0], moves[0] = torch.eye(3), 0.0
    maps = torch.cat([posed(0, turns[k : k + 1], moves[k : k + 1]) for k in range(3)])
    maps[2] = maps[2].flip(0).roll(1, 0)  # of the other hand
    frames = common_frames(maps)
    assert frames.mirrored.tolist() == [False, False, True]
    assert torch.rad2deg(geodesic(frames.rotation, turns)).max() < 1.0
    assert (BOX * frames.shift - moves).abs().max() < 0.1
    # an image of map k at a pose is one of the first map at the composed pose
    rotation, shift = haar_rotations(3, generator), torch.rand(3, 2, generator=generator)
    found, moved = frames.of(torch.arange(3), rotation, shift, BOX)
    own = torch.where((torch.arange(3) == 2)[:, None, None], MIRROR @ rotation @ MIRROR, rotation)
    assert torch.rad2deg(geodesic(found, own @ turns)).max() < 1.0
    expected = shift + torch.einsum("nij,nj->ni", own, moves)[:, :2]
    assert (moved - expected).abs().max() < 0.1


def test_poses_with_different_maps_can_be_kept_apart():
    near = rotation_of_vector(torch.tensor([[0.0, 0.0, angle] for angle in (0.0, 0.05, 1.0)]))
    which = torch.tensor([[0, 1, 1]])
    poses = Poses(near[None], torch.zeros(1, 3, 2), which, torch.tensor([[3.0, 2.0, 1.0]]))
    assert _apart(poses, 2, 15.0, any_map=False).score.tolist() == [[3.0, 2.0]]
    assert _apart(poses, 2, 15.0, any_map=True).score.tolist() == [[3.0, 1.0]]


# --- the whole search -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    settings = ProjectionSettings(n=240, box=24, pixel_size=6.7, snr=0.5, ctf=True)
    folder = tmp_path_factory.mktemp("hinge")
    write_projections(simulate_projections(settings, built_in_conformers(1)), folder)
    return open_source(folder / "particles.star")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make searches short."""
    start = replace(StartPlan(), rounds=2, images=100, rotations=(288, 288))
    monkeypatch.setattr("modpose.search.abinitio.run.StartPlan", lambda: start)
    monkeypatch.setattr(
        "modpose.search.abinitio.run.RefinePlan",
        lambda last_radius: RefinePlan(last_radius=last_radius, rotations=288),
    )
    monkeypatch.setattr(
        "modpose.search.abinitio.run.MotionPlan",
        lambda: MotionPlan(rounds=2, radius=8.0, search_radius=6.0, rotations=288),
    )


@pytest.mark.usefixtures("quick")
def test_a_search_with_motions_goes_on_after_an_interruption(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AbInitioSettings(motions=2, starts=1, box=24)
    whole = find_maps(source, tmp_path / "whole", settings, quiet=True)
    assert len(whole.refined.maps) == 1 and set(whole.refined.class_index.tolist()) == {0}
    assert np.linalg.det(whole.poses[0]) == pytest.approx(1.0, abs=1e-4)
    write = Saved.write

    def interrupted(saved: Saved, values: dict[str, Tensor]) -> None:
        write(saved, values)
        if saved._path is not None and saved._path.stem == "motions1":
            raise KeyboardInterrupt

    out = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(Saved, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            find_maps(source, out, settings, quiet=True)
    with pytest.raises(InputError, match="motions to continue is 3, expected 2 as at the start"):
        find_maps(source, out, replace(settings, motions=3), quiet=True, resume=True)
    again = find_maps(source, out, settings, quiet=True, resume=True)
    torch.testing.assert_close(again.refined.rotation, whole.refined.rotation, rtol=0, atol=0)
    torch.testing.assert_close(again.refined.maps, whole.refined.maps, rtol=0, atol=0)


@pytest.mark.parametrize("other", [{"classes": 2}, {"symmetry": "C2"}, {"symmetry": "auto"}])
def test_motions_are_of_one_structure_without_symmetry(other: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected 0 with several classes or a symmetry"):
        AbInitioSettings(motions=2, **other)  # type: ignore[arg-type]
