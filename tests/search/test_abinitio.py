"""Maps and poses of projections without poses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import starfile
import torch
from torch import Tensor
from typer.testing import CliRunner

from modpose.backprojection.halves import half_of
from modpose.cli import app
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.mrc import open_mrc
from modpose.data.source import Source, open_source
from modpose.errors import InputError
from modpose.evaluate.metrics import hungarian_accuracy
from modpose.fourier.coefficients import phases
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.grids import lattice
from modpose.geometry.groups import so3_grid, symmetry_group
from modpose.geometry.rotations import haar_rotations
from modpose.search.abinitio.checks import (
    ONE_VIEW,
    covered_directions,
    memory_needed,
    warn_of_far_shifts,
)
from modpose.search.abinitio.finer import at_finer_shifts
from modpose.search.abinitio.images import SearchImages, disc, read_images
from modpose.search.abinitio.one_view import explained_by_one_average
from modpose.search.abinitio.refine import Refined, _Work, refine
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.saved import Saved, Unfinished
from modpose.search.abinitio.scores import (
    Poses,
    _apart,
    best_poses,
    draw_from_scores,
    draw_poses,
    highest_scores,
    likely_maps,
    scores_by_map,
)
from modpose.search.abinitio.settings import AbInitioSettings, RefinePlan, StartPlan
from modpose.search.abinitio.similar import SHARPNESS, Division, agreed, similar_states
from modpose.search.abinitio.start import Start, best_start
from modpose.search.abinitio.state import Found, Refining
from modpose.search.abinitio.symmetry import Frame, in_frame, symmetrised
from modpose.simulate.conformations import Conformer, built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
PROJECTIONS = ProjectionSettings(
    n=500,
    box=32,
    pixel_size=5.0,
    snr=1.0,
    hinge_range_deg=None,
    ctf=True,
    shift_std_px=0.7,
    seed=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 500 projections of one rigid molecule."""
    made = simulate_projections(
        PROJECTIONS, [Conformer("rigid", built_in_conformers(1)[0].molecule, None)]
    )
    out = tmp_path_factory.mktemp("projections")
    write_projections(made, out)
    return out


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return open_source(folder / "particles.star")


@pytest.fixture(scope="module")
def images(source: Source) -> SearchImages:
    dataset = Dataset(source, DataConfig(val_fraction=0), seed=0, ctf=True)
    return read_images(dataset, 14.0, quiet=True)


def true_rotation(source: Source) -> torch.Tensor:
    truth = source.particles.truth()
    names = [f"r{i}{j}" for i in range(3) for j in range(3)]
    return torch.tensor(truth[names].to_numpy().reshape(-1, 3, 3)).float()


def angles_to_truth(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Errors (degrees) after one global rotation, of the hand that fits better."""

    def of(true: torch.Tensor) -> torch.Tensor:
        change = true.transpose(1, 2) @ found
        some = change[:100]
        trace = torch.einsum("nij,mij->nm", some, change)
        near = (trace > 1 + 2 * np.cos(np.deg2rad(25))).sum(1)
        mean = some[near.argmax()]
        for _ in range(5):
            trace = torch.einsum("ij,mij->m", mean, change)
            u, _, v = torch.linalg.svd(change[trace > 1 + 2 * np.cos(np.deg2rad(25))].mean(0))
            mean = u @ torch.diag(torch.tensor([1, 1, float(torch.det(u @ v))])) @ v
        trace = torch.einsum("ij,mij->m", mean, change)
        return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))

    both = [of(truth), of(MIRROR @ truth @ MIRROR)]
    return min(both, key=lambda angle: float((angle > 20).float().mean()))


def correlation(first: Tensor, second: Tensor) -> float:
    """Correlation of two maps."""
    return float(torch.cosine_similarity(first.flatten(), second.flatten(), 0))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make searches short: four rounds of a start, two of the refinement."""
    start = replace(StartPlan(), rounds=4, images=50, rotations=(288, 288))
    monkeypatch.setattr("modpose.search.abinitio.run.StartPlan", lambda: start)
    monkeypatch.setattr(
        "modpose.search.abinitio.run.RefinePlan",
        lambda last_radius: RefinePlan(
            last_radius=last_radius, rounds=2, searches=(0,), rotations=288
        ),
    )


# --- parts ------------------------------------------------------------------------------------


def test_noise_is_measured_in_the_corners(images):
    # the noise of the simulation has unit variance; 500 images, some 20 numbers per shell
    assert images.noise[4:14].numpy() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("tile", [1 << 18, 1000])
def test_scores_of_half_a_grid_are_those_of_all_poses(images, monkeypatch, tile):
    monkeypatch.setattr("modpose.search.abinitio.scores.TILE", tile)
    generator = torch.Generator().manual_seed(0)
    box = 16
    maps = torch.randn(2, box, box, box, generator=generator)
    data = images.coefficients(torch.arange(5), 6.0, box)
    grid, shifts = so3_grid(24).float()[:20], disc(2.0, 1.0)
    found = best_poses(data, maps, grid, shifts, 1)
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    rotations = torch.cat([grid, turn @ grid])
    references = make_references(maps, float(data.radius[-1]))
    flat = torch.cat([shifts, torch.zeros(len(shifts), 1)], 1)
    best = torch.full((5,), -1.0)
    for which in range(2):
        rows = torch.full((len(rotations),), which)
        slices = sample(references, rows, turned(data.frequency, rotations))
        for i in range(5):
            model = slices[:, None] * data.transfer[i] * phases(data.frequency, flat)
            inner = 2 * (model.conj() * data.value[i]).real.sum(-1)
            norm = 2 * model.abs().square().sum(-1)
            score = (inner.clamp(min=0).square() / (2 * norm)).max()
            best[i] = max(best[i], score)
    torch.testing.assert_close(found.score[:, 0], best, rtol=1e-4, atol=1e-4)


def test_only_likely_maps_are_compared_with_an_image(images):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 16, 16, 16, generator=generator)
    data = images.coefficients(torch.arange(6), 6.0, 16)
    grid, shifts = so3_grid(24).float()[:20], disc(2.0, 1.0)
    each = scores_by_map(data, maps, grid, shifts)
    likely = torch.rand(6, 3, generator=generator) < 0.5
    likely[:, 1] |= ~likely.any(1)
    found = best_poses(data, maps, grid, shifts, 1, likely=likely)
    allowed = each.masked_fill(~likely, -torch.inf)
    assert torch.equal(found.class_index[:, 0], allowed.argmax(1))
    torch.testing.assert_close(found.score[:, 0], allowed.amax(1))
    for coarse in (grid, grid[::2]):
        assert likely_maps(data, maps, coarse, shifts).any(1).all()


@pytest.mark.parametrize("rows", [20, 100, 1000])
def test_highest_scores_and_draws_do_not_depend_on_blocks(rows):
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(rows, 5, generator=generator)
    for count in (1, 7):
        assert torch.equal(highest_scores(score, count), score.topk(count, dim=0).indices.T)
    drawn = draw_from_scores(score, 20_000, generator)
    share = torch.stack([torch.bincount(one, minlength=rows) for one in drawn]) / 20_000
    # a binomial share has a standard deviation of at most 0.0035
    assert (share - score.softmax(0).T).abs().max() < 0.018


def test_poses_are_drawn_as_often_as_they_are_probable(images):
    generator = torch.Generator().manual_seed(0)
    box = 16
    maps = 0.02 * torch.randn(1, box, box, box, generator=generator)
    data = images.coefficients(torch.arange(1), 6.0, box)
    grid = so3_grid(24).float()[:6]
    still = torch.zeros(1, 2)
    drawn = draw_poses(data, maps, grid, still, 20_000, generator)
    scores, counts = np.unique(drawn.score.numpy().round(4), return_counts=True)
    expected = np.exp(scores - scores.max())
    share = counts / counts.sum()
    # a binomial share of 20,000 has a standard deviation of at most 0.0035
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)


def test_a_pose_between_shifts_of_the_lattice_is_drawn_at_its_own_shift(images):
    generator = torch.Generator().manual_seed(0)
    box, step = 16, 1.0
    maps = torch.randn(1, box, box, box, generator=generator)
    data, grid = images.coefficients(torch.arange(3), 6.0, box), so3_grid(24).float()[:3]
    true = torch.tensor([[0.5, 0.5, 0.0], [-0.5, 0.0, 0.0], [0.0, 1.5, 0.0]])  # half a step off
    references, which = make_references(maps, data.limit), torch.zeros(3, dtype=torch.int64)
    seen = sample(references, which, turned(data.frequency, grid)) * data.transfer
    data = replace(data, value=seen * phases(data.frequency, true))
    drawn = draw_poses(data, maps, grid, disc(2.0, step), 64, generator)
    finer = at_finer_shifts(data, maps, drawn, step, 16, generator)
    assert torch.equal(finer.shift, true[:, None, :2].expand(-1, 16, -1))
    torch.testing.assert_close(finer.rotation, grid[:, None].expand(-1, 16, -1, -1))
    # a noiseless image is as likely as its energy says
    energy = data.value.abs().square().sum(1)
    torch.testing.assert_close(finer.score, energy[:, None].expand(-1, 16), rtol=1e-4, atol=0)


def test_poses_that_are_kept_are_apart():
    generator = torch.Generator().manual_seed(0)
    rotation = haar_rotations(300, generator).reshape(3, 100, 3, 3)
    score = torch.rand(3, 100, generator=generator)
    many = Poses(rotation, torch.zeros(3, 100, 2), torch.zeros(3, 100, dtype=torch.int64), score)
    kept = _apart(many, 4, 30.0)
    trace = torch.einsum("bmij,bnij->bmn", kept.rotation, kept.rotation)
    angle = torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))
    assert (angle + 1000 * torch.eye(4) > 30.0).all()
    assert torch.equal(kept.score[:, 0], score.amax(1))


@pytest.mark.parametrize("name", ["C4", "D3", "O"])
def test_symmetrised_maps_do_not_change_under_the_group(name):
    generator = torch.Generator().manual_seed(0)
    box, group = 24, symmetry_group(name).float()
    coarse = torch.randn(1, 1, 6, 6, 6, generator=generator)
    maps = torch.nn.functional.interpolate(coarse, (box,) * 3, mode="trilinear")[0]
    axis = (torch.arange(box) - box // 2).float()
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    maps = maps * torch.exp(-((radius / 4) ** 2))
    once = symmetrised(maps, group)
    for turn in group[1:4]:
        again = symmetrised(once, torch.stack([torch.eye(3), turn]))
        # interpolation on a lattice three times finer than the transform's
        assert float((again - once).norm() / once.norm()) < 0.02


def test_a_map_is_moved_into_the_frame_of_a_group():
    generator = torch.Generator().manual_seed(0)
    box, count = 32, 20
    place = 3.5 * torch.randn(count, 3, generator=generator)
    frame = Frame(haar_rotations(1, generator)[0], torch.tensor([1.3, -0.7, 0.4]))
    axis = (torch.arange(box) - box // 2).float()
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")

    def drawn(place: torch.Tensor) -> torch.Tensor:
        away = torch.stack([x, y, z], -1)[..., None, :] - place
        return torch.exp(-away.square().sum(-1) / (2 * 1.5**2)).sum(-1)[None]

    moved = drawn((place - frame.centre) @ frame.rotation)
    found = in_frame(drawn(place), frame)
    assert float((found - moved).norm() / moved.norm()) < 0.01


def test_views_of_one_direction_cover_little():
    angle = torch.linspace(0, 6, 200)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(200)
    one = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], 1).view(-1, 3, 3)
    whole = torch.eye(3)[None]
    assert covered_directions(one, whole) < 0.05
    assert covered_directions(haar_rotations(5000), whole) > 0.95
    # a map with symmetry is seen from every view that its group makes of one
    tilted = torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0], [-0.8, 0.0, 0.6]])
    ring = covered_directions(one @ tilted, whole)
    assert covered_directions(one @ tilted, symmetry_group("D7").float()) > 5 * ring


# --- recovery ---------------------------------------------------------------------------------


def test_maps_that_images_are_compared_with_hold_no_noise_around_the_molecule(
    source, images, monkeypatch
):
    rigid = Conformer("rigid", built_in_conformers(1)[0].molecule, None)
    volume = torch.from_numpy(simulate_projections(PROJECTIONS, [rigid]).volume(0)).float()
    count, box = 100, PROJECTIONS.box
    truth = source.particles.truth()[["shift_x", "shift_y"]].to_numpy()[:count]
    one, none = torch.eye(3)[None], torch.zeros(count)
    shift = torch.tensor(truth).float()
    found = Found(true_rotation(source)[:count], shift, none.long(), none, none.bool())
    settings, half = AbInitioSettings(box=box), torch.arange(count) % 2
    some = images.some(torch.arange(count))
    work = _Work(some, half, settings, one, RefinePlan(), box, torch.Generator())
    state = work.maps(found, 12.0)[3]
    monkeypatch.setattr("modpose.search.abinitio.refine.without_solvent", lambda maps, _: maps)
    noisy = work.maps(found, 12.0)[3]
    away = volume.abs() < 1e-3 * volume.amax()
    for whole, maps in zip(noisy, state, strict=True):
        noise, left = (float(each[0][away].square().mean()) for each in (whole, maps))
        assert left < 0.2 * noise
        assert correlation(maps[0], volume) > correlation(whole[0], volume)


def test_maps_and_poses_are_found_from_nothing(images, source, monkeypatch):
    searched, search = [], _Work._searched

    def counted(work: _Work, maps: Tensor, rows: Tensor, *rest: object) -> object:
        searched.append(len(rows))
        return search(work, maps, rows, *rest)

    monkeypatch.setattr(_Work, "_searched", counted)
    settings = AbInitioSettings(starts=2, box=28, max_shift=0.08)
    group = torch.eye(3)[None]
    start = replace(StartPlan(), rounds=30, images=400, rotations=(1152, 2304))
    plan = RefinePlan(
        last_radius=12.0, first_radius=10.0, rounds=4, searches=(0, 1, 2), rotations=2304
    )
    best, scores = best_start(images, settings, group, start, quiet=True)
    assert len(scores) == 2
    assert (best.maps != 0).float().mean() < 0.3  # 0.38 of the box is in the ball
    half = torch.arange(len(images)) % 2
    found = refine(images, best.maps, half, settings, group, plan, quiet=True)
    angle = angles_to_truth(found.rotation, true_rotation(source))
    assert float((angle > 20).float().mean()) < 0.05
    assert float(angle.median()) < 5.0
    assert found.fsc[0, 1:8].min() > 0.8
    first, second, third = (sum(searched[n : n + 2]) for n in (0, 2, 4))
    assert first == second == len(images)
    assert third < 0.5 * first  # a pose that was found again is not searched any more


def test_the_command_writes_maps_and_a_table_with_poses_and_halves(folder, tmp_path, monkeypatch):
    quick = replace(StartPlan(), rounds=3, images=100, rotations=(288, 576))
    monkeypatch.setattr("modpose.search.abinitio.run.StartPlan", lambda: quick)
    monkeypatch.setattr(
        "modpose.search.abinitio.run.RefinePlan",
        lambda last_radius: RefinePlan(
            last_radius=last_radius, rounds=2, searches=(0,), rotations=576
        ),
    )
    command = ["abinitio", str(folder / "particles.star"), "-o", str(tmp_path / "maps")]
    command += ["--starts", "1", "--box", "28", "--classes", "2", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert any("the hand of the maps is not determined" in line for line in answer["lines"])
    assert sum(one["images"] for one in answer["classes"]) == open_source(command[1]).n
    before = starfile.read(folder / "particles.star", always_dict=True)["particles"]
    after = starfile.read(tmp_path / "maps" / "particles.star", always_dict=True)["particles"]
    assert after["rlnImageName"].tolist() == before["rlnImageName"].tolist()
    assert set(after["rlnClassNumber"]) <= {1, 2}
    assert set(after["rlnRandomSubset"]) == {1, 2}
    assert {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst"} <= set(after.columns)
    for kind in ("", "_sharpened", "_half1", "_half2", "_mask"):
        stack = open_mrc(tmp_path / "maps" / f"class002{kind}.mrc", "volumes")
        assert stack.shape == (28, 28, 28)
        assert stack.pixel_size == pytest.approx(5.0 * 32 / 28, rel=1e-5)
    told = json.loads((tmp_path / "maps" / "settings.json").read_text())
    measured = [factor for factor in told["b_factors"] if factor]
    assert measured  # a class without images has none
    said = "".join(answer["lines"])
    assert all(f"B-factor of {factor:.0f} Å²" in said for factor in measured)
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, InputError)
    own = ["--map", str(tmp_path / "maps" / "class002.mrc"), "--overwrite"]
    refused = CliRunner().invoke(app, [*command[:4], "--box", "28", *own])
    assert "class002.mrc: is an input" in str(refused.exception)
    for extra, said in ((["--box", "48"], "--box is 48, expected at most 32"), (own, "--starts")):
        refused = CliRunner().invoke(app, [*command[:6], *extra])
        assert said in str(refused.exception)
    fewer = CliRunner().invoke(app, [*command[:-3], "--classes", "1", "--overwrite"])
    assert fewer.exit_code == 0, fewer.output
    left = sorted(path.name for path in (tmp_path / "maps").glob("class*.mrc"))
    assert len(left) == 5 and all(name.startswith("class001") for name in left)


def test_half_sets_of_the_input_are_kept(source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "modpose.search.abinitio.run.StartPlan",
        lambda: replace(StartPlan(), rounds=1, images=100, rotations=(288, 288)),
    )
    monkeypatch.setattr(
        "modpose.search.abinitio.run.RefinePlan",
        lambda last_radius: RefinePlan(
            last_radius=last_radius, rounds=1, searches=(0,), rotations=288
        ),
    )
    subset = np.random.default_rng(0).integers(1, 3, source.n)
    table = source.particles.table.assign(rlnRandomSubset=subset)
    told = replace(source, particles=replace(source.particles, table=table))
    found = find_maps(told, tmp_path, AbInitioSettings(starts=1, box=24), quiet=True)
    np.testing.assert_array_equal(found.half, subset - 1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"classes": 9}, "is 500, expected at least 900"),
        ({"symmetry": "C0"}, "C0"),
        ({"max_shift": 0.0}, "max_shift"),
        ({"box": 8}, "box"),
    ],
)
def test_what_cannot_be_done_is_said(source, tmp_path, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        find_maps(source, tmp_path, AbInitioSettings(**settings), quiet=True)
    assert not list(tmp_path.iterdir())


def test_one_map_to_start_from_cannot_separate_structures(source, tmp_path):
    with pytest.raises(InputError, match="cannot separate structures"):
        find_maps(source, tmp_path, AbInitioSettings(classes=2), start_map="a.mrc", quiet=True)


def test_memory_that_will_not_suffice_is_said_before_images_are_read(source, monkeypatch):
    assert 1.8e9 < memory_needed(100_000, 31.0, 1) < 2.5e9
    monkeypatch.setattr("modpose.search.abinitio.run.memory_needed", lambda *_: 2**50)
    monkeypatch.setattr("modpose.search.abinitio.run.read_images", None)
    with pytest.raises(InputError, match="does not fit: it needs 1,048,576 GiB of memory"):
        find_maps(source, None, AbInitioSettings(), quiet=True)


@pytest.mark.parametrize(
    ("covered", "alike", "words"),
    [
        (0.12, 0.9, "may show one view only"),
        (0.12, 0.6, "smeared"),
        (0.78, 0.9, "may show one view only"),  # found so where images tell little
        (0.78, 0.6, None),
    ],
)
def test_few_views_are_said_before_the_refinement(
    source, monkeypatch, caplog, covered, alike, words
):
    def start(*_):
        return Start(torch.zeros(1, 24, 24, 24), 10.0, covered), [10.0]

    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr("modpose.search.abinitio.run.best_start", start)
    monkeypatch.setattr("modpose.search.abinitio.run.explained_by_one_average", lambda *_: alike)
    monkeypatch.setattr("modpose.search.abinitio.run.refine", stop)
    with pytest.raises(InterruptedError):
        find_maps(source, None, AbInitioSettings(), quiet=True)
    if words is None:
        assert "views" not in caplog.text
        return
    limit = f"views cover at most {100 * covered:.0f} % of the directions"
    assert f"after the random starts, {limit}" in caplog.text
    assert f"explains {100 * alike:.0f} % of what the map explains" in caplog.text
    assert words in caplog.text


def test_one_average_explains_images_of_one_view_but_not_of_many(images, tmp_path):
    write_projections(
        simulate_projections(
            replace(PROJECTIONS, n=300, views=(1.0, 3.0)),
            [Conformer("rigid", built_in_conformers(1)[0].molecule, None)],
        ),
        tmp_path,
    )
    source = open_source(tmp_path / "particles.star")
    one = read_images(Dataset(source, DataConfig(val_fraction=0), seed=0, ctf=True), 14.0, True)
    settings, none = AbInitioSettings(starts=1), torch.eye(3)[None]
    plan = replace(StartPlan(), rounds=20, images=300, memory=0.45, rotations=(1152, 1152))
    alike = []
    for each in (one, images):
        start, _ = best_start(each, settings, none, plan, quiet=True)
        alike.append(explained_by_one_average(each, settings, start.score))
    assert alike[0] > ONE_VIEW > alike[1] + 0.1


@pytest.mark.parametrize(("column", "value"), [("rlnDefocusU", 1e9), ("rlnDefocusV", 1.5)])
def test_a_ctf_that_no_microscope_has_is_refused(source, column, value):
    table = source.particles.table.assign(**{column: value, "rlnDefocusU": value})
    told = replace(source, particles=replace(source.particles, table=table))
    with pytest.raises(InputError, match=r"efocus.*expected"):
        find_maps(told, None, AbInitioSettings(), quiet=True)


def test_shifts_beyond_those_searched_are_said(caplog):
    shift = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    warn_of_far_shifts(shift, 3.0, "stack")  # 6 % beyond 2.4 standard deviations
    assert not caplog.text
    warn_of_far_shifts(shift * (1.5 / shift.norm(dim=1, keepdim=True)).clamp(max=1), 1.5, "stack")
    assert "stack: " in caplog.text and "% of the particles were found near" in caplog.text
    assert "--max-shift" in caplog.text


def test_a_ctf_of_other_images_is_said_before_the_search(source, monkeypatch, caplog):
    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr("modpose.search.abinitio.run.read_images", stop)
    table = source.particles.table
    for order, warned in ((np.arange(source.n), False), (np.arange(source.n)[::-1], True)):
        columns = {c: table[c].to_numpy()[order] for c in ("rlnDefocusU", "rlnDefocusV")}
        told = replace(source.particles, table=table.assign(**columns))
        with pytest.raises(InterruptedError):
            find_maps(replace(source, particles=told), None, AbInitioSettings(), quiet=True)
        assert ("do not follow their CTF" in caplog.text) is warned


def test_half_sets_of_cryosparc_are_kept(source):
    split = np.random.default_rng(0).integers(0, 2, source.n)
    without = source.particles.table.drop(columns="rlnRandomSubset", errors="ignore")
    table = without.assign(**{"alignments3D/split": split})
    told = replace(source, particles=replace(source.particles, table=table))
    dataset = Dataset(told, DataConfig(val_fraction=0), seed=0)
    np.testing.assert_array_equal(half_of(dataset, np.arange(source.n)), split)


def test_shifts_of_images_that_are_not_square_are_in_their_pixels(source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "modpose.search.abinitio.run.StartPlan",
        lambda: replace(StartPlan(), rounds=1, images=100, rotations=(288, 288)),
    )
    monkeypatch.setattr(
        "modpose.search.abinitio.run.RefinePlan",
        lambda last_radius: RefinePlan(
            last_radius=last_radius, rounds=1, searches=(0,), rotations=288
        ),
    )
    images = source.stack.read(np.arange(200))[:, 0]
    tall = open_source(np.pad(images, ((0, 0), (4, 4), (0, 0)), mode="wrap"))
    found = find_maps(tall, tmp_path, AbInitioSettings(starts=1, box=24), quiet=True)
    assert found.binning == 1.0


def test_volumes_and_masked_images_are_refused(tmp_path, source):
    volumes = open_source(np.zeros((200, 8, 8, 8), np.float32), kind="volumes")
    with pytest.raises(InputError, match="for volumes, use align"):
        find_maps(volumes, tmp_path, quiet=True)
    flat = open_source(np.ones((200, 32, 32), np.float32))
    with pytest.raises(InputError):
        find_maps(flat, tmp_path, quiet=True)


# --- interruption -----------------------------------------------------------------------------


@pytest.fixture
def saving_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modpose.search.abinitio.saved.EVERY", 0.0)
    monkeypatch.setattr("modpose.search.abinitio.refine.AT_ONCE", 150)


@pytest.mark.usefixtures("quick", "saving_each_round")
def test_a_search_that_was_interrupted_anywhere_goes_on_with_the_same_numbers(
    source, tmp_path, monkeypatch
):
    settings = AbInitioSettings(starts=2, box=24, classes=2)
    whole = find_maps(source, tmp_path / "whole", settings, quiet=True)
    out, written, write = tmp_path / "parts", [0], Saved.write

    def interrupted(saved: Saved, values: dict[str, torch.Tensor]) -> None:
        write(saved, values)
        written[0] += bool(saved.read())  # the average in the plane is not saved
        if saved.read() and written[0] % stops_after == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Saved, "write", interrupted)
    stops_after, found, interruptions = 3, None, 0
    while found is None:
        try:
            found = find_maps(source, out, settings, quiet=True, resume=interruptions > 0)
        except KeyboardInterrupt:
            interruptions += 1
            assert {path.name for path in out.iterdir()} == {"unfinished"}
    # two starts of two rounds, the end of the best, and two rounds of four parts: 15 states
    assert interruptions == 5
    assert torch.equal(found.refined.maps, whole.refined.maps)
    assert torch.equal(found.refined.halves, whole.refined.halves)
    assert torch.equal(found.refined.rotation, whole.refined.rotation)
    assert found.start_scores == whole.start_scores
    files = [{path.name for path in part.iterdir()} for part in (out, tmp_path / "whole")]
    assert files[0] == files[1]


@pytest.mark.usefixtures("quick", "saving_each_round")
def test_an_interrupted_search_goes_on_only_with_its_settings_and_images(
    source, tmp_path, monkeypatch
):
    settings = AbInitioSettings(starts=1, box=24)
    with pytest.raises(InputError, match="no interrupted search"):
        find_maps(source, tmp_path, settings, quiet=True, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr("modpose.search.abinitio.run.refine", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            find_maps(source, tmp_path, settings, quiet=True)
    with pytest.raises(InputError, match="--resume goes on"):
        find_maps(source, tmp_path, settings, quiet=True)
    with pytest.raises(InputError, match=r"seed to continue is 1, expected 0 as at the start"):
        find_maps(source, tmp_path, replace(settings, seed=1), quiet=True, resume=True)
    some = source.subset(np.arange(400))
    with pytest.raises(InputError, match="not those of the start"):
        find_maps(some, tmp_path, settings, quiet=True, resume=True)
    given = np.repeat([[2.0, 9000, 9000, 0, 300, 2.7, 0.1, 0, 0]], source.n, axis=0)
    other = replace(source, particles=replace(source.particles, given_ctf=given))
    with pytest.raises(InputError, match="the CTF is not that of the start"):
        find_maps(other, tmp_path, settings, quiet=True, resume=True)
    find_maps(source, tmp_path, settings, quiet=True, resume=True)
    assert not (tmp_path / "unfinished").exists()


def test_starts_and_rounds_that_an_older_version_saved_are_begun_again_or_searched(
    images, tmp_path
):
    settings, none = AbInitioSettings(starts=1), torch.eye(3)[None]
    plan = replace(StartPlan(), rounds=2, images=100, rotations=(288, 288))
    unfinished = Unfinished(tmp_path)
    unfinished.step("start1").write({"maps": torch.ones(1), "score": torch.tensor(1e9)})
    start, scores = best_start(images, settings, none, plan, True, unfinished)
    again, others = best_start(images, settings, none, plan, quiet=True)
    assert torch.equal(start.maps, again.maps)
    assert scores == others
    now = Refining(1, 9.0, [torch.ones(1), torch.ones(1)], None, Found.empty(3), 1)
    values = now.values()
    del values["made.settled"]
    assert not Refining.of_values(values).made.settled.any()


# --- similar states ---------------------------------------------------------------------------


def test_similar_states_are_told_apart_at_the_poses_of_one_map(tmp_path):
    made = simulate_projections(
        ProjectionSettings(
            n=400, box=32, pixel_size=5.0, snr=1.0, hinge_range_deg=None, ctf=True, seed=3
        ),
        [Conformer(one.name, one.molecule, None) for one in built_in_conformers(2)],
    )
    write_projections(made, tmp_path)
    source = open_source(tmp_path / "particles.star")
    truth = source.particles.truth()
    images = read_images(Dataset(source, DataConfig(val_fraction=0), seed=0, ctf=True), 14.0, True)
    shift = torch.tensor(truth[["shift_x", "shift_y"]].to_numpy()).float()
    consensus = Refined(
        true_rotation(source),
        shift,
        torch.zeros(400, dtype=torch.int64),
        torch.zeros(400),
        halves=torch.zeros(2, 1, 28, 28, 28),
        maps=torch.zeros(1, 28, 28, 28),
        fsc=torch.ones(1, 13),
        start_radius=9.0,
        noise=images.noise,
    )
    settings = AbInitioSettings(classes=2, similar=True, box=28)
    found = similar_states(images, consensus, settings, Saved(), quiet=True)
    right, _ = hungarian_accuracy(truth["class"].to_numpy(), found.class_index.numpy())
    assert right > 0.9
    plan = RefinePlan(last_radius=12.0, first_radius=10.0, rounds=2, searches=())
    poses = (consensus.rotation, consensus.shift, found.class_index)
    half, group = torch.arange(400) % 2, torch.eye(3)[None]
    divide = Division(settings, found.radius)
    refined = refine(images, found.maps, half, settings, group, plan, True, None, poses, divide)
    again, _ = hungarian_accuracy(truth["class"].to_numpy(), refined.class_index.numpy())
    assert again > 0.9
    assert float(angles_to_truth(refined.rotation, consensus.rotation).median()) < 3.0


def test_the_own_noise_of_an_image_does_not_keep_it_in_its_class(tmp_path, monkeypatch):
    monkeypatch.setattr("modpose.search.abinitio.similar.AGAIN", 1)
    made = simulate_projections(
        ProjectionSettings(n=300, box=32, pixel_size=5.0, snr=0.2, hinge_range_deg=None, seed=3),
        [Conformer("whole", built_in_conformers(1)[0].molecule, None)],
    )
    write_projections(made, tmp_path)
    source = open_source(tmp_path / "particles.star")
    truth = source.particles.truth()
    images = read_images(Dataset(source, DataConfig(val_fraction=0), seed=0), 14.0, True)
    shift = torch.tensor(truth[["shift_x", "shift_y"]].to_numpy()).float()
    given = torch.randint(0, 2, (300,), generator=torch.Generator().manual_seed(1))
    divide = Division(AbInitioSettings(classes=2, similar=True, box=28), 9.0)
    found = divide(images, true_rotation(source), shift, given)
    # by chance half of them; 0.12 is four standard deviations
    assert abs(float((found == given).float().mean()) - 0.5) < 0.12


def test_a_difference_is_kept_where_its_halves_agree():
    generator = torch.Generator().manual_seed(0)
    x = lattice((24,) * 3)
    blob = torch.exp(-(x - torch.tensor([5.0, 0.0, 0.0])).square().sum(1) / 18).view(1, 24, 24, 24)
    noise = 0.1 * torch.randn(2, 1, 24, 24, 24, generator=generator)
    first, second = blob + noise[0], blob + noise[1]
    both = (first + second) / 2
    kept = agreed(first, second, both)
    before, after = (float((part - blob).square().sum()) for part in (both, kept))
    assert after < before / 4
    assert float((kept * blob).sum() / blob.square().sum()) > 0.8
    assert (
        agreed(noise[0], noise[1], noise.mean(0)).square().sum() < noise.mean(0).square().sum() / 20
    )


def test_a_sharp_weight_keeps_a_small_difference_better(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = lattice((24,) * 3)
    blob = torch.exp(-(x - torch.tensor([5.0, 0.0, 0.0])).square().sum(1) / 18).view(1, 24, 24, 24)
    first, second = blob + 0.1 * torch.randn(2, 1, 24, 24, 24, generator=generator)
    error = {}
    for power in (1, SHARPNESS):
        monkeypatch.setattr("modpose.search.abinitio.similar.SHARPNESS", power)
        kept = agreed(first, second, (first + second) / 2)
        error[power] = float((kept - blob).square().sum())
    assert error[SHARPNESS] < 0.9 * error[1]


@pytest.mark.usefixtures("quick", "saving_each_round")
def test_similar_states_find_one_map_first_and_go_on_where_they_were(source, tmp_path, monkeypatch):
    settings = AbInitioSettings(starts=1, box=24, classes=2, similar=True)
    with monkeypatch.context() as patch:
        patch.setattr("modpose.search.abinitio.run.similar_states", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            find_maps(source, tmp_path, settings, quiet=True)
    assert {path.stem for path in (tmp_path / "unfinished").glob("*.safetensors")} == {
        "start1",
        "start",
        "consensus",
    }
    found = find_maps(source, tmp_path, settings, quiet=True, resume=True)
    assert found.refined.maps.shape == (2, 24, 24, 24)
    assert (tmp_path / "class002.mrc").is_file()
    with pytest.raises(InputError, match="2 or more states with --similar"):
        AbInitioSettings(similar=True)
