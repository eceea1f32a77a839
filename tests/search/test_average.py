"""Averages with wedges compensated, correlations of halves, classes from nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from modpose.evaluate.metrics import hungarian_accuracy
from modpose.evaluate.pose_bound import pose_bound
from modpose.evaluate.pose_errors import pose_errors
from modpose.evaluate.pose_recovery import recover_poses
from modpose.fourier.coefficients import (
    Coefficients,
    coefficients_of,
    joined,
    phases,
    white_noise,
)
from modpose.fourier.fsc import fsc_of_classes, resolution_shell
from modpose.fourier.insertion import averages, half_averages, insert_slices
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.grids import bright_centre, centre_of_mass, soft_sphere
from modpose.geometry.groups import symmetry_group
from modpose.geometry.rotations import (
    geodesic,
    haar_rotations,
    rotation_of_vector,
    vector_of_rotation,
)
from modpose.observe.wedge import wedge_mask
from modpose.search.classify import Schedule, classify
from modpose.search.motion import principal_motions
from modpose.search.refine import refine, split_in_halves
from modpose.search.so3_climb import climb
from modpose.simulate.molecules import blob_assembly, density, hinged_molecule
from modpose.simulate.species import Species, built_in_species, hinged_species
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import Subtomograms, simulate_subtomograms

BOX = 24
MASK = soft_sphere(BOX, 19)


def made(n: int, snr: float, kinds: int = 1, seed: int = 0) -> Subtomograms:
    settings = SubtomogramSettings(n=n, box=BOX, pixel_size=8.0, snr=snr, seed=seed)
    return simulate_subtomograms(settings, built_in_species(kinds))


def taken(simulated: Subtomograms, limit: float, clean: bool = False) -> Coefficients:
    volumes = torch.from_numpy(simulated.clean() if clean else simulated.volumes())
    mask = wedge_mask(torch.tensor([[-60.0, 60.0]]), (BOX,) * 3)
    return joined([coefficients_of(volumes, mask, white_noise(BOX, 1.0), limit)])


def true_poses(simulated: Subtomograms) -> tuple[Tensor, Tensor]:
    truth = simulated.truth
    entries = truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(np.float32)
    shift = truth[["shift_x", "shift_y", "shift_z"]].to_numpy(np.float32)
    return torch.tensor(entries).reshape(-1, 3, 3), torch.tensor(shift)


def test_the_average_at_the_true_poses_is_the_template() -> None:
    simulated = made(80, 0.5)
    template = torch.from_numpy(simulated.templates())
    data = taken(simulated, 0.4, clean=True)
    slot = torch.arange(80) % 2
    sums = insert_slices(data, slot, 2, *true_poses(simulated))
    volumes, fsc = half_averages(
        sums.slots(torch.tensor([0])), sums.slots(torch.tensor([1])), BOX, MASK
    )
    wanted = (template * MASK - (template * MASK).mean()).flatten()
    found = (volumes - volumes.mean()).flatten()
    likeness = (wanted @ found) / (wanted.norm() * found.norm())
    assert likeness > 0.99
    assert fsc[0, 1:8].min() > 0.99


def test_wedges_are_compensated() -> None:
    """All volumes alike but for their pose: the average has no direction of its own."""
    simulated = made(80, 0.5)
    data = taken(simulated, 0.3, clean=True)
    rotation, shift = true_poses(simulated)
    sums = insert_slices(data, torch.zeros(80, dtype=torch.int64), 1, rotation, shift)
    compensated = averages(sums, BOX, MASK)
    template = torch.from_numpy(simulated.templates()) * MASK
    band = fsc_of_classes(compensated, template)[0, 1:6]
    assert band.min() > 0.98


def test_volumes_can_be_weighted_and_left_out() -> None:
    simulated = made(6, 0.5)
    data, poses = taken(simulated, 0.2), true_poses(simulated)
    slot = torch.tensor([0, 0, 0, 0, -1, -1])
    weight = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    some = insert_slices(data, slot, 1, *poses, weight=weight)
    first = torch.arange(2)
    only = insert_slices(data.rows(first), first * 0, 1, poses[0][:2], poses[1][:2])
    torch.testing.assert_close(some.value, only.value, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(some.weight, only.weight, atol=1e-5, rtol=1e-4)


def test_correlation_of_noise_is_nothing_and_of_a_copy_everything() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, BOX, BOX, BOX, generator=generator)
    assert fsc_of_classes(noise[:1], noise[1:])[0, 3:].abs().max() < 0.25
    copied = fsc_of_classes(noise, 3 * noise)
    assert copied == pytest.approx(torch.ones(2, BOX // 2 + 1), abs=1e-5)
    curve = torch.tensor([[1.0, 0.9, 0.5, 0.1, 0.8]])
    assert resolution_shell(curve).tolist() == [2]
    assert resolution_shell(torch.ones(1, 5)).tolist() == [4]


def test_centre_of_mass_is_where_the_object_is() -> None:
    ball = soft_sphere(BOX, 6).roll((2, -1, 3), (0, 1, 2))[None]
    found = centre_of_mass(ball, torch.tensor([0.2]))[0]
    torch.testing.assert_close(bright_centre(3 * ball)[0], found)
    assert found.tolist() == pytest.approx([3, -1, 2], abs=0.05)


def test_halves_are_even_in_every_class() -> None:
    class_index = torch.tensor([0] * 11 + [1] * 8)
    half = split_in_halves(class_index, torch.Generator().manual_seed(0))
    assert half[class_index == 0].sum() == 5
    assert half[class_index == 1].sum() == 4


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2"])
def test_pose_errors_forget_the_frame_and_the_symmetry(symmetry: str) -> None:
    generator = torch.Generator().manual_seed(0)
    group = symmetry_group(symmetry)
    true = haar_rotations(100, generator, torch.float64)
    true_shift = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    frame = haar_rotations(1, generator, torch.float64)[0]
    offset = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
    image = group[torch.randint(len(group), (100,), generator=generator)]
    noise = torch.randn(100, 3, generator=generator, dtype=torch.float64) * 0.02
    upright = true @ image
    found = upright @ frame @ rotation_of_vector(noise)
    shift = true_shift + upright @ offset
    found[:5] = haar_rotations(5, generator, torch.float64)  # some are lost
    errors = pose_errors(found, shift, true, true_shift, group)
    assert errors.angle_deg[5:].max() < 8
    expected = torch.rad2deg(noise.norm(dim=1))[5:].median().item()
    assert errors.angle_deg[5:].median().item() == pytest.approx(expected, rel=0.1)
    assert errors.raw_deg.median() > 30
    assert errors.shift_px[5:].median() < 0.05 if symmetry == "C1" else True
    if symmetry != "C1":
        assert errors.aligned_deg.median() > 30


def test_pose_errors_forget_a_frame_that_goes_with_a_motion() -> None:
    generator = torch.Generator().manual_seed(0)
    true = haar_rotations(120, generator, torch.float64)
    hinge = 40 * torch.rand(120, generator=generator, dtype=torch.float64) - 20
    noise = torch.randn(120, 3, generator=generator, dtype=torch.float64) * 0.01
    axis = torch.tensor([0.002, -0.001, 0.005], dtype=torch.float64)  # radians a degree
    found = true @ haar_rotations(1, generator, torch.float64)[0]
    found = found @ rotation_of_vector(hinge[:, None] * axis + noise)
    along = torch.tensor([0.03, 0.0, -0.02], dtype=torch.float64)
    shift = torch.einsum("nij,nj->ni", true, hinge[:, None] * along + 0.5)
    found[:6] = haar_rotations(6, generator, torch.float64)  # some are lost
    plain = pose_errors(found, shift, true, torch.zeros_like(shift))
    errors = pose_errors(found, shift, true, torch.zeros_like(shift), motion=hinge)
    expected = torch.rad2deg(noise.norm(dim=1))[6:].median().item()
    assert plain.angle_deg.median().item() > 3 * expected
    assert errors.angle_deg[6:].median().item() == pytest.approx(expected, rel=0.1)
    assert plain.shift_px.median() > 0.2
    assert errors.shift_px[6:].max() < 1e-6
    assert torch.equal(errors.raw_deg, plain.raw_deg)


def test_the_bound_is_what_maximum_likelihood_reaches() -> None:
    simulated = made(150, 0.4)
    data, (rotation, shift) = taken(simulated, 0.45), true_poses(simulated)
    template = torch.from_numpy(simulated.templates())
    references = make_references(template, 0.45, slopes=True)
    owner, which = torch.arange(150), torch.zeros(150, dtype=torch.int64)
    bound = pose_bound(data, template[0], rotation, shift)
    drawn = replace(data, value=drawn_from_model(data, template, (rotation, shift)))
    top = climb(drawn, references, owner, which, rotation, shift, steps=6, normalised=False)
    angle = torch.rad2deg(geodesic(top.rotation, rotation))
    rms = angle.square().mean().sqrt().item()
    turning, shifting = bound.covariance[:, :3, :3], bound.covariance[:, 3:, 3:]
    expected = bound.angle_rms_deg.square().mean().sqrt().item()
    assert rms == pytest.approx(expected, rel=4 * error_of_rms(turning))
    moved = (top.shift - shift).square().sum(1).mean().sqrt().item()
    expected = bound.shift_rms_px.square().mean().sqrt().item()
    assert moved == pytest.approx(expected, rel=4 * error_of_rms(shifting))
    # the median of 150 is known to 4 % (errors alike along three axes) to 9 % (along one)
    assert angle.median().item() == pytest.approx(bound.angle_median_deg, rel=0.25)


def test_the_bound_with_an_unknown_hinge_is_what_maximum_likelihood_reaches() -> None:
    """Poses from the best of templates at several amounts of the motion, read between them."""
    settings = SubtomogramSettings(n=150, box=BOX, pixel_size=8.0, snr=0.4, seed=0)
    simulated = simulate_subtomograms(settings, hinged_species())
    data, (rotation, shift) = taken(simulated, 0.3), true_poses(simulated)
    maps = torch.from_numpy(np.concatenate([simulated.templates(h) for h in (-5.0, 0.0, 5.0)]))
    motion = (maps[2] - maps[0]) / 2  # of five degrees
    bound = pose_bound(data, maps[1], rotation, shift, motion[None])
    drawn = replace(data, value=drawn_from_model(data, maps[1:2], (rotation, shift), 0.3))
    steps = torch.tensor([-1.0, 0.0, 1.0])
    references = make_references(maps[1] + steps[:, None, None, None] * motion, 0.3, slopes=True)
    owner = torch.arange(150)
    scores, errors = [], []
    for k in range(3):
        which = torch.full_like(owner, k)
        top = climb(drawn, references, owner, which, rotation, shift, steps=6, normalised=False)
        scores.append(top.score.double())
        turn = vector_of_rotation(rotation.mT @ top.rotation)
        errors.append(torch.cat([turn, top.shift - shift], 1).double())
    curve = scores[0] - 2 * scores[1] + scores[2]
    best = (0.5 * (scores[0] - scores[2]) / curve)[:, None]
    error = errors[1] + best * (errors[2] - errors[0]) / 2
    error = error + best.square() * (errors[0] - 2 * errors[1] + errors[2]) / 2
    known = pose_bound(data, maps[1], rotation, shift)
    # the mean of 150 chi-squares of 6 is known to sqrt(2 * 6 / 150) = 0.28; which noise is drawn
    # depends on the machine, that sorts frequencies of one length in an order of its own
    found = mahalanobis(error, bound.covariance)
    assert found == pytest.approx(6, abs=4 * 0.28)
    assert mahalanobis(error, known.covariance) > 1.12 * found


def error_of_rms(covariance: Tensor) -> float:
    """Standard error, relative, of the root mean square of errors with these (N, 3, 3)."""
    square = torch.einsum("nii->", covariance).item()
    variance = 2 * torch.einsum("nij,nji->", covariance, covariance).item()
    return 0.5 * variance**0.5 / square


def mahalanobis(error: Tensor, covariance: Tensor) -> float:
    """Mean square of errors (N, 6) in units of what was expected; 6 where that was right."""
    solved = torch.linalg.solve(covariance, error[..., None]).squeeze(-1)
    return (error * solved).sum(1).mean().item()


def drawn_from_model(
    data: Coefficients, template: Tensor, poses: tuple[Tensor, Tensor], limit: float = 0.45
) -> Tensor:
    """Draw coefficients of the bound's own model: the wedge acts in the box itself."""
    which = torch.zeros(len(data), dtype=torch.int64)
    references = make_references(template, limit)
    signal = sample(references, which, turned(data.frequency, poses[0]))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(*signal.shape, 2, generator=generator) * 0.5**0.5
    signal = signal * data.transfer * phases(data.frequency, poses[1])
    return signal + data.transfer * torch.view_as_complex(noise)


def test_the_bound_has_the_published_size() -> None:
    """RMS 2.2 degrees at 0.1 for blobs with a standard deviation of 1.5 voxels in a box of 28."""
    found = []
    for number in range(6):
        one = blob_assembly(number)
        sharp = replace(one, sigmas=np.full(14, 10.5))
        settings = SubtomogramSettings(n=24, box=28, snr=0.1)
        simulated = simulate_subtomograms(settings, [Species("blobs", sharp)])
        mask = wedge_mask(torch.tensor([[-60.0, 60.0]]), (28,) * 3)
        volumes = torch.from_numpy(simulated.clean())
        data = joined([coefficients_of(volumes, mask, white_noise(28, 1.0), 0.45)])
        template = torch.from_numpy(simulated.templates())[0]
        found.append(pose_bound(data, template, *true_poses(simulated)).angle_rms_deg.mean())
    assert torch.stack(found).mean().item() == pytest.approx(2.2, rel=0.25)


def test_two_molecules_are_told_apart_and_posed_from_nothing() -> None:
    simulated = made(64, 0.5, kinds=2)
    data = taken(simulated, 0.3)
    schedule = Schedule(
        rounds=8, limits=(0.1, 0.22), rotations=300, refine_rounds=1, refine_limit=0.3
    )
    rounds = []
    state = classify(data, 2, mask=MASK, reach=2.0, schedule=schedule, seed=0, report=rounds.append)
    assert [one.round for one in rounds] == list(range(1, 9))
    state, maps, half = refine(data, state, mask=MASK, reach=2.0, schedule=schedule, seed=0)
    classes = simulated.truth["class"].to_numpy()
    accuracy, _ = hungarian_accuracy(classes, state.assignment.class_index.numpy())
    assert accuracy > 0.95
    rotation, shift = true_poses(simulated)
    for number in range(2):
        mine = torch.from_numpy(classes == number)
        mine &= state.assignment.class_index == state.assignment.class_index[mine].mode().values
        here = (state.assignment.rotation[mine], state.assignment.shift[mine])
        errors = pose_errors(*here, rotation[mine], shift[mine])
        assert errors.angle_deg.median() < 5
        assert errors.shift_px.median() < 0.3
    assert maps.fsc[:, 4].min() > 0.8
    assert half.sum() == 32

    again = classify(data, 2, mask=MASK, reach=2.0, schedule=schedule, seed=0, start=rounds[-2])
    assert torch.equal(again.assignment.class_index, rounds[-1].assignment.class_index)


def test_a_moving_part_is_found_and_its_angle_followed() -> None:
    settings = SubtomogramSettings(
        n=120, box=BOX, pixel_size=8.0, snr=0.4, hinge_range_deg=(-25.0, 25.0)
    )
    simulated = simulate_subtomograms(settings, hinged_species())
    data, poses = taken(simulated, 0.3), true_poses(simulated)
    sums = insert_slices(data, torch.zeros(120, dtype=torch.int64), 1, *poses)
    mean = averages(sums, BOX, MASK)[0]
    generator = torch.Generator().manual_seed(0)
    found = principal_motions(data, *poses, mean, MASK, count=2, generator=generator)
    correlation = spearmanr(found.z[:, 0], simulated.truth["hinge_deg"]).statistic
    assert abs(correlation) > 0.95
    strength = found.directions.flatten(1).norm(dim=1)
    assert strength[0] > 1.5 * strength[1]
    # The drawn ends differ as the object at both ends of the hinge does
    ends = found.volumes(torch.tensor([[-1.7, 0.0], [1.7, 0.0]]))
    one = hinged_molecule()
    blobs = one.conformations(np.array([-25.0, 25.0]))
    upright = (np.eye(3)[None].repeat(2, 0), np.zeros((2, 3)), BOX, 8.0)
    true = torch.from_numpy(density(blobs, one.sigmas, one.masses, *upright))
    change = ((true[1] - true[0]) * MASK).flatten()
    drawn = (ends[1] - ends[0]).flatten()
    likeness = (change @ drawn) / (change.norm() * drawn.norm())
    assert likeness.abs() > 0.8  # a straight line instead of an arc, to 0.3 cycles per voxel


def test_recovery_says_what_was_found() -> None:
    simulated = made(24, 1.0, kinds=2)
    rotation, shift = true_poses(simulated)
    classes = torch.tensor(simulated.truth["class"].to_numpy())
    swapped = 1 - classes
    swapped[(classes == 0).nonzero()[0]] = 0  # one volume in the wrong class
    found = recover_poses(rotation, shift, swapped, simulated.truth, bounds=[2.0, 2.0])
    assert found.accuracy == pytest.approx(23 / 24)
    assert [one.found for one in found.classes] == [11, 12]
    assert all(one.angle_median_deg < 0.1 and one.lost == 0 for one in found.classes)
    assert "95.8 %" in found.lines()[0]
    assert "× the bound" in found.lines()[1]
