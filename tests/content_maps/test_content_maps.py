"""Sharp maps of content: the functions, the sums, the solution; against direct computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.focus import around_arm, explained, motions, two_arms
from modpose.backprojection.halves import open_posed
from modpose.config import SpectralConfig
from modpose.content_maps import ContentBasis, ContentMapSettings, fit_content_maps
from modpose.content_maps.alternation import Alternation
from modpose.content_maps.boxes import in_box, resampled
from modpose.content_maps.cells import EACH, Cells, groups_of
from modpose.content_maps.choice import last_telling
from modpose.content_maps.equations import Equations, MaskBox
from modpose.content_maps.fit import _Fitting
from modpose.content_maps.focus import Focus, check_focus, focused
from modpose.content_maps.images import ImagesOnLattice, quarters_of
from modpose.content_maps.inference import variance_between
from modpose.content_maps.lattice import HalfLattice, points
from modpose.content_maps.model_maps import ModelMaps
from modpose.content_maps.poses import corrected, improved
from modpose.content_maps.posterior import (
    Landmarks,
    Likelihood,
    Marginal,
    gaussian_amounts,
    likelihood,
    mixed,
    posterior,
)
from modpose.content_maps.regression import FOR_CONTENT, Regression
from modpose.content_maps.rounds import MARGIN, Rounds
from modpose.content_maps.spectra import consensus_spectrum
from modpose.content_maps.sums import CellSums
from modpose.data.particles import Particles
from modpose.data.source import Source
from modpose.data.stack import ArrayStack
from modpose.errors import InputError
from modpose.fit import fit_run
from modpose.fourier.fsc import fsc
from modpose.fourier.projection import Projection
from modpose.geometry.windows import soft_window
from modpose.jobs.symmetry import expanded
from modpose.options import configure
from modpose.outputs.content_maps import content_maps_of
from modpose.progress import Progress
from modpose.search.projections import ImageReader
from modpose.simulate.conformations import Conformer, built_in_conformers
from modpose.simulate.projection_files import star_tables, write_projections
from modpose.simulate.projections import ProjectionSettings, simulate_projections
from tests.content_maps.small_sets import BOX, ball, opened, simulated

# --- functions of content ---------------------------------------------------------------------


def circle(n: int) -> np.ndarray:
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_functions_are_orthonormal_and_the_first_is_one():
    z = circle(800)
    basis = ContentBasis.fit(z, np.full(z.shape[1], 0.1), 7)
    values = basis(z)
    np.testing.assert_allclose(values.T @ values / len(z), np.eye(7), atol=1e-8)
    np.testing.assert_allclose(values[:, 0], 1, atol=1e-12)


def test_functions_of_a_circle_are_its_harmonics():
    z = circle(1500)
    basis = ContentBasis.fit(z, np.full(z.shape[1], 0.1), 5)
    angle = np.arctan2(z[:, 1], z[:, 0])
    harmonics = np.stack([f(k * angle) for k in (1, 2) for f in (np.cos, np.sin)], 1)
    values = basis(z)[:, 1:]
    explained = values @ np.linalg.lstsq(values, harmonics, rcond=None)[0]
    # the sample is random: its density mixes neighbouring harmonics
    assert 1 - ((harmonics - explained) ** 2).mean() / (harmonics**2).mean() > 0.9


def test_functions_do_not_depend_on_the_unit_of_content():
    z = circle(300)
    one = ContentBasis.fit(z, np.full(z.shape[1], 0.1), 5)(z)
    other = ContentBasis.fit(100 * z, np.full(z.shape[1], 10.0), 5)(100 * z)
    np.testing.assert_allclose(np.abs(one.T @ other / len(z)).sum(0), 1, atol=1e-5)


def test_content_far_away_gets_the_functions_of_the_nearest_landmark():
    z = circle(300)
    basis = ContentBasis.fit(z, np.full(z.shape[1], 0.1), 5)
    assert np.isfinite(basis(np.array([[1e3, 0.0]]))).all()


def test_content_that_no_image_tells_has_one_function():
    z = 1e-9 * circle(200)
    assert len(ContentBasis.fit(z, np.ones(z.shape[1]), 5)) == 1


def states(sizes: list[int]) -> np.ndarray:
    """Content of states far apart, each with a little spread."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(len(sizes)), sizes)
    return 50.0 * np.eye(len(sizes))[number] + 0.01 * rng.standard_normal((len(number), len(sizes)))


def test_functions_of_separate_states_are_orthonormal_beside_the_constant():
    z = states([100, 140, 180])
    basis = ContentBasis.fit(z, np.ones(z.shape[1]), 9)
    values = basis(z)
    assert len(basis) == 3
    np.testing.assert_allclose(values.T @ values / len(z), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(values[:, 0], 1, atol=1e-12)


def test_a_rare_state_has_its_function():
    sizes = [20, 400, 500]  # 2 % of the images
    values = ContentBasis.fit(states(sizes), np.ones(3), 9)(states(sizes))
    rare = np.arange(920) < 20
    fitted = values @ np.linalg.lstsq(values, rare.astype(float), rcond=None)[0]
    np.testing.assert_allclose(fitted, rare, atol=1e-3)


def test_content_that_does_not_vary_is_refused():
    with pytest.raises(InputError, match="same content"):
        ContentBasis.fit(np.ones((50, 2)), np.ones(2), 5)
    with pytest.raises(InputError, match="number of images is 9, expected at least 10"):
        ContentBasis.fit(np.random.default_rng(0).normal(size=(9, 2)), np.ones(2), 5)


def test_cells_hold_images_of_like_content():
    z = circle(2000)
    basis = ContentBasis.fit(z, np.full(z.shape[1], 0.1), 9)
    values = basis(z)
    cells = Cells.of([z], [values], seed=0)
    (label,) = cells.labels
    assert len(cells) == 9 * EACH
    held = cells.values.numpy()
    for cell in range(len(cells)):
        np.testing.assert_allclose(held[cell], values[label == cell].mean(0), rtol=1e-5, atol=1e-6)
    # arcs of 1/36 of the circle: the fourth harmonic loses (4 * 2 pi / 36)^2 / 12 of its variance
    lost = ((values - held[label]) ** 2).mean(0) / values.var(0).clip(1e-9)
    assert lost[1:].max() < 2 * (4 * 2 * np.pi / 36) ** 2 / 12


def test_two_contents_of_an_image_share_cells():
    z = circle(400)
    basis = ContentBasis.fit(z, np.full(z.shape[1], 0.1), 5)
    cells = Cells.of([z, z[::-1]], [basis(z), basis(z[::-1])], seed=0)
    np.testing.assert_array_equal(cells.labels[0], cells.labels[1][::-1])


def test_few_different_contents_are_cells_of_their_own():
    z = np.repeat([[0.0], [1.0], [5.0]], 40, axis=0)
    amounts = np.concatenate([np.ones((120, 1)), z, z**2], 1)
    cells = Cells.of([z], [amounts], seed=0)
    assert len(cells) == 3
    np.testing.assert_allclose(cells.values[cells.labels[0]], amounts)


def test_groups_of_images_have_the_amounts_of_their_states():
    rng = np.random.default_rng(0)
    states = rng.standard_normal((4, 3)) * 5
    std = np.tile([0.1, 0.2, 0.4], (400, 1))
    mean = np.repeat(states, 100, axis=0) + std * rng.standard_normal((400, 3))
    centres, values = groups_of(mean, std, 4, seed=0)
    order = ((values[:, None, 1:] - states) ** 2).sum(2).argmin(0)
    assert sorted(order) == [0, 1, 2, 3]
    assert (np.abs(values[order, 1:] - states) < 5 * std[0] / 10).all()
    np.testing.assert_array_equal(values[:, 0], 1)
    spread = centres.std(0)
    assert (np.diff(spread) < 0).all()
    # a turn of the amounts in units of their errors: distances stay
    apart = np.linalg.norm((values[0] - values[1])[1:] / std[0])
    assert np.linalg.norm(centres[0] - centres[1]) == pytest.approx(apart)


# --- sums on the lattice ----------------------------------------------------------------------


def placed_images(n: int = 12):
    dataset = opened(simulated(n, 1.0))
    reader = ImageReader(Projection(SpectralConfig(), BOX), BOX / 2 - 0.5)
    images = reader.images(dataset.batch(np.arange(n)), torch.ones(BOX))
    lattice = HalfLattice(BOX, reader.limit)
    return lattice, lattice.place(images), reader


def blob(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BOX, BOX, BOX, generator=generator) * ball()


def equations_of(lattice: HalfLattice, box: MaskBox, placed, amount: torch.Tensor) -> Equations:
    """Equations of images, each a cell of its own, with amounts (B, J) of the maps."""
    sums = CellSums(lattice, box, amount)
    sums.add(placed, np.arange(len(amount)))
    return sums.equations()


def test_adding_images_is_the_transpose_of_reading_maps():
    lattice, placed, _ = placed_images()
    volume = blob(0)
    read = mixed(lattice.read(placed, lattice.table(volume[None])), torch.ones(len(placed), 1))
    sums = lattice.zeros(3)
    lattice.add(sums, placed)
    back = lattice.backward(torch.complex(sums[:, 0], sums[:, 1]), BOX)
    # a coefficient and its conjugate: twice the real part
    expected = 2 * (read.conj() * placed.value).real.sum()
    assert float((back * volume).sum()) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("box", "limit"), [(BOX, 0.5), (18, 0.31), (8, 0.05)])
def test_the_points_of_a_lattice_are_counted_without_it(box: int, limit: float):
    assert points(box, limit) == len(HalfLattice(box, limit))


def test_the_lattice_takes_and_gives_the_middle_of_the_box_alone():
    lattice, placed, _ = placed_images()
    middle, volume = (slice(4, BOX - 4),) * 3, torch.zeros(BOX, BOX, BOX)
    volume[middle] = inside = blob(4)[middle]
    whole = lattice.table(volume[None])
    torch.testing.assert_close(lattice.table(inside[None]), whole, atol=2e-6, rtol=1e-4)
    sums = lattice.zeros(3)
    lattice.add(sums, placed)
    total = torch.complex(sums[:, 0], sums[:, 1])
    found, expected = lattice.backward(total, len(inside)), lattice.backward(total, BOX)
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected[middle], atol=1e-5 * size, rtol=1e-4)


def test_the_kernel_gives_the_energy_of_a_map_in_the_images():
    lattice, placed, reader = placed_images()
    volume = blob(1)
    box = MaskBox(ball(), reader.limit)
    equations = equations_of(lattice, box, placed, torch.ones(len(placed), 1))
    inside = box.cut(volume)[None]
    spectrum = box.forward_seen(inside)
    equations._convolve(spectrum)
    applied = box.backward_seen(spectrum)
    found = float((inside * applied).sum())
    energy = 2 * float(lattice.read(placed, lattice.table(volume[None])).abs().square().sum())
    # trilinear interpolation on a lattice twice as fine: a few per cent of noise at Nyquist
    assert found == pytest.approx(energy, rel=0.03)


def test_maps_solve_the_equations_of_their_images():
    """Images of two known maps, mixed in known amounts."""
    made = simulated(240, 1.0, moves=False)
    dataset = opened(made)
    reader = ImageReader(Projection(SpectralConfig(), BOX), BOX / 2 - 0.5)
    lattice, box = HalfLattice(BOX, reader.limit), MaskBox(ball(), reader.limit)
    # smooth, so that it has no details beyond the last shell
    kernel = torch.from_numpy(soft_window((BOX,) * 3, 0.2, 0.7))
    maps = torch.stack(
        [
            torch.fft.ifftn(torch.fft.fftn(blob(k)) * torch.fft.ifftshift(kernel)).real * ball()
            for k in (2, 3)
        ]
    )
    amount = torch.stack([torch.ones(240), torch.linspace(-1, 1, 240)], 1)
    placed = lattice.place(reader.images(dataset.batch(np.arange(240)), torch.ones(BOX)))
    models = lattice.read(placed, lattice.table(maps))
    value = mixed(models, amount)
    placed = replace(placed, value=value)
    equations = equations_of(lattice, box, placed, amount)
    inside = box.cut(maps)
    spectrum = box.forward_seen(inside)
    equations._convolve(spectrum)
    applied = box.backward_seen(spectrum)
    wrong = (applied - equations.right).square().sum() / equations.right.square().sum()
    assert wrong < 0.01  # the same interpolation as above, squared
    landmarks = Landmarks.of(torch.tensor([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]))
    told = posterior(likelihood(models, value), landmarks)
    assert told[0, 0] > 0.99
    assert told[-1, 2] > 0.99


def test_the_order_of_blocks_and_cells_does_not_matter():
    """A cell that ends and comes again, as with two contents of each image."""
    lattice, placed, reader = placed_images(12)
    box = MaskBox(ball(), reader.limit)
    amount = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    cell = np.repeat([0, 1, 2], 4)
    together = CellSums(lattice, box, amount)
    together.add(placed, cell)
    apart = CellSums(lattice, box, amount)
    for number in (4, 0, 8, 2, 10, 6):
        rows = slice(number, number + 2)
        apart.add(placed.rows(rows), cell[rows])
    one, other = together.equations(), apart.equations()
    scale = float(one.right.abs().max())
    torch.testing.assert_close(one.right, other.right, atol=1e-4 * scale, rtol=1e-4)
    scale = float(one.kernels.abs().max())
    torch.testing.assert_close(one.kernels, other.kernels, atol=1e-4 * scale, rtol=1e-4)


def test_a_map_that_is_expected_to_vanish_does_not_slow_down_the_others():
    """As many steps as content is inferred from give nearly the solution."""
    made = simulated(240, 1.0)
    dataset = opened(made)
    reader = ImageReader(Projection(SpectralConfig(), BOX), BOX / 2 - 0.5)
    lattice, box = HalfLattice(BOX, reader.limit), MaskBox(ball(), reader.limit)
    hinge = torch.tensor(made.truth["hinge_deg"].to_numpy(np.float32))
    noise = torch.randn(240, generator=torch.Generator().manual_seed(0))
    amount = torch.stack([torch.ones(240), hinge / hinge.std(), noise], 1)
    placed = lattice.place(reader.images(dataset.batch(np.arange(240)), torch.ones(BOX)))
    equations = equations_of(lattice, box, placed, amount)
    falling = torch.exp(-torch.arange(len(box.count)) / 2.0)
    spectrum = torch.stack([falling, 0.02 * falling, 1e-3 * falling]) * 10
    strength = ball()[box._cut].expand(3, -1, -1, -1).sqrt()
    soon, late = (equations.solve(spectrum, strength, steps)[1] for steps in (FOR_CONTENT, 300))
    assert (soon - late).norm() < 0.2 * late.norm()


def test_a_solution_goes_on_from_maps(monkeypatch):
    """A solution stays, and nothing but a few steps away from it is much of the way."""
    made = simulated(240, 1.0)
    dataset = opened(made)
    reader = ImageReader(Projection(SpectralConfig(), BOX), BOX / 2 - 0.5)
    lattice, box = HalfLattice(BOX, reader.limit), MaskBox(ball(), reader.limit)
    hinge = torch.tensor(made.truth["hinge_deg"].to_numpy(np.float32))
    amount = torch.stack([torch.ones(240), hinge / hinge.std()], 1)
    placed = lattice.place(reader.images(dataset.batch(np.arange(240)), torch.ones(BOX)))
    equations = equations_of(lattice, box, placed, amount)
    falling = torch.exp(-torch.arange(len(box.count)) / 2.0)
    given = torch.stack([falling, 0.1 * falling]) * 10, ball()[box._cut][None].sqrt()
    monkeypatch.setattr("modpose.content_maps.equations.TOLERANCE", 1e-7)
    solved = equations.solve(*given, 300)
    kept = solved.clone()
    again = equations.solve(*given, 0, solved)
    assert (again - solved).norm() < 1e-2 * solved.norm()  # faint voxels are set to 0
    assert torch.equal(solved, kept)
    near = 0.9 * solved
    from_nothing, from_near = (equations.solve(*given, 2, start) for start in (None, near))
    assert (from_near - solved).norm() < 0.5 * (from_nothing - solved).norm()


def test_a_low_shell_without_precision_has_that_of_few_images():
    """What a kernel that is cut leaks into the lowest shells may be negative."""
    box = MaskBox(ball(), 0.45)
    shell = box.shell[box.seen]
    kernel = torch.where(shell < 3, -0.1, 1.0) * torch.where(shell > 6, 1e-7, 1.0)
    equations = Equations(box, torch.zeros(1, 1, 1, 1), kernel[None], torch.ones(1, 1))
    found = equations.precision()[0]
    torch.testing.assert_close(found[:3], torch.full((3,), 1e-3))
    torch.testing.assert_close(found[3:7], torch.ones(4))
    torch.testing.assert_close(found[7:9], torch.full((2,), 1e-7))  # high ones are as they are


# --- the whole --------------------------------------------------------------------------------


def test_quarters_keep_the_halves_of_the_table_and_the_rows_of_a_particle():
    made = simulated(40, 1.0)
    table, optics = star_tables(made)
    table["rlnRandomSubset"] = np.where(np.arange(40) < 20, 1, 2)
    stack = ArrayStack(made.images, pixel_size=8.0)
    poses = made.rotation, made.shift
    source = Source(stack, Particles(table, optics, "star", "p.star", given_poses=poses))
    quarter = quarters_of(open_posed(source))
    assert set(quarter[:20]) == {0, 1}
    assert set(quarter[20:]) == {2, 3}


def test_the_copies_of_an_expanded_particle_are_in_one_quarter():
    made = simulated(24, 1.0)
    table, optics = star_tables(made)
    poses = made.rotation, made.shift
    many = expanded(Particles(table, optics, "star", "p.star", given_poses=poses), "D2")
    stack = ArrayStack(np.repeat(made.images, 4, 0), pixel_size=8.0)
    quarter = quarters_of(open_posed(Source(stack, many))).reshape(24, 4)
    assert (quarter == quarter[:, :1]).all()
    assert np.bincount(quarter[:, 0]).tolist() == [6, 6, 6, 6]


SMALL = ContentMapSettings(functions=5, landmarks=30, rounds=2)


@pytest.fixture(scope="module")
def moving():
    made = simulated(400, 1.0)
    dataset = opened(made)
    hinge = made.truth["hinge_deg"].to_numpy()
    rng = np.random.default_rng(0)
    z = np.stack([hinge / 15 + 0.6 * rng.standard_normal(400), rng.standard_normal(400)], 1)
    std = np.tile([0.6, 1.0], (400, 1))
    return made, dataset, z, std, fit_content_maps(dataset, z, std, ball(), SMALL, quiet=True)


def test_maps_are_sharper_than_the_consensus_and_say_so(moving):
    made, dataset, z, std, found = moving
    one = ContentMapSettings(functions=1, rounds=0)
    consensus = fit_content_maps(dataset, z, std, ball(), one, quiet=True)
    hinge = made.truth["hinge_deg"].to_numpy()
    gains = []
    for angle in (-25.0, 25.0):
        row = int(np.abs(hinge - angle).argmin())
        true, mask = made.volume(0, float(hinge[row])), ball().numpy()
        drawn = found.draw(found.z[row])
        ours = fsc(drawn.volume, true, mask).area()
        gains.append(ours - fsc(consensus.volume(z[row]), true, mask).area())
        assert drawn.curve.area() > 0.5
        assert 20 < drawn.images < 400
    assert min(gains) > 0.005


def test_content_is_better_than_it_was(moving):
    made, _, z, _, found = moving
    hinge = made.truth["hinge_deg"].to_numpy()
    before, after = (abs(np.corrcoef(one[:, 0], hinge)[0, 1]) for one in (z, found.z))
    assert after > before
    assert (found.std > 0).all()


def test_maps_are_of_functions_of_the_inferred_content(moving):
    *_, found = moving
    values = found.basis(found.z)
    np.testing.assert_allclose(values.T @ values, found.moment, atol=1e-6 * len(values))
    # the functions are orthonormal over content that was inferred from half as many images
    np.testing.assert_allclose(found.moment, len(values) * np.eye(5), atol=0.2 * len(values))


def test_content_is_inferred_from_the_shells_that_tell_it():
    gain = torch.zeros(4, 12)
    gain[:, 1:6] = 1.0
    gain[0, 9] = 0.2  # one in a hundred of the whole
    assert last_telling(gain) == 5
    gain[:, 9] = 0.2  # one in 25
    assert last_telling(gain) == 9
    assert last_telling(torch.zeros(4, 12)) == 11


def test_images_within_a_shell_have_the_same_coefficients():
    """And maps give the same in them, in a smaller box."""
    made = simulated(8, 1.0)
    images = ImagesOnLattice(opened(made), None)
    images.variance = torch.ones(1, BOX)
    fewer = images.within(6)
    (one,), (other,) = (list(every.blocks(np.arange(8))) for every in (images, fewer))
    count = other.placed.value.shape[1]
    assert 0 < count < one.placed.value.shape[1]
    assert fewer.reader.shell.max() == 6
    torch.testing.assert_close(other.placed.value, one.placed.value[:, :count])
    assert fewer.box < BOX
    volume = torch.from_numpy(made.volume())[None].float()
    asked, found = (
        lattice.read(block.placed, lattice.table(resampled(volume, lattice.box)))[:, :count]
        for lattice, block in ((images.lattice, one), (fewer.lattice, other))
    )
    assert (found - asked).norm() < 0.03 * asked.norm()


def test_a_smaller_box_and_back_loses_high_frequencies_alone():
    volume = blob(0)[None]
    low = resampled(resampled(volume, 12), BOX)
    torch.testing.assert_close(resampled(resampled(low, 12), BOX), low)
    left = torch.fft.fftn(volume - low)[0].abs()
    axis = (torch.fft.fftfreq(BOX) * BOX).abs() < 6
    inside = axis[:, None, None] & axis[:, None] & axis
    assert left[inside].max() < 1e-4 * left.max()


def test_maps_are_poor_in_the_outermost_shells_that_they_are_solved_in():
    """But as good as from all shells where a margin of shells is beside."""
    made = simulated(400, 0.5, moves=False)
    images = ImagesOnLattice(opened(made), None)
    images.variance = torch.ones(1, BOX)
    used = 5

    def solved(shell: int) -> torch.Tensor:
        regression = Regression(images.within(shell), ball(), None, 0, 0)
        cells = Cells([np.zeros(400, np.int64)], torch.ones(1, 1))
        with Progress("test", 400, quiet=True) as progress:
            halves = [regression.sums(cells, half, 2, progress) for half in range(2)]
        spectrum = consensus_spectrum(halves)[None]
        box = regression.box
        found = halves[0].add(halves[1]).solve(spectrum, box.mask[None], 20)
        return torch.fft.rfftn(resampled(box.whole(found), BOX)[0])

    every, alone, beside = (solved(shell) for shell in (9, used, used + MARGIN))
    axis = torch.fft.fftfreq(BOX) * BOX
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis[: BOX // 2 + 1] ** 2).sqrt()
    outermost = (radius - used).abs() < 0.5
    lost, left = (
        float((one - every)[outermost].norm() / every[outermost].norm()) for one in (alone, beside)
    )
    assert left < 0.5 * lost


def test_the_number_of_functions_is_limited_by_the_memory_of_their_sums(monkeypatch):
    regression = Regression(ImagesOnLattice(opened(simulated(8, 1.0)), None), ball(), None, 0, 0)
    assert regression.most() == 100
    cell, sums = 4 * len(regression.box.seen), 8 * len(regression.images.lattice)
    monkeypatch.setattr("modpose.content_maps.regression.BYTES", 4 * 9 * cell + 9 * sums)
    assert regression.most() == 9
    monkeypatch.setattr("modpose.content_maps.regression.BYTES", 4 * 9 * cell + 9 * sums - 1)
    assert regression.most() == 5


def test_a_mask_keeps_its_place_in_a_smaller_box():
    axis = torch.arange(BOX).float() - BOX // 2
    z, y, x = torch.meshgrid(axis - 2, axis + 1, axis, indexing="ij")
    mask = (1.5 * torch.exp(-(z**2 + y**2 + x**2) / 18)).clamp(max=1)
    small = in_box(mask, 16)
    assert small.min() >= 0 and small.max() <= 1
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        places = [
            float((one.sum(others) * (torch.arange(n) - n // 2)).sum() / one.sum() / n)
            for one, n in ((mask, BOX), (small, 16))
        ]
        assert places[0] == pytest.approx(places[1], abs=0.3 / BOX)


def test_shifts_of_corrections_are_pixels_of_the_images_box():
    made = simulated(8, 1.0)
    images = ImagesOnLattice(opened(made), None, refine_poses=True)
    images.variance = torch.ones(1, BOX)
    assert images.pose is not None
    images.pose[:, 3] = 2.0
    fewer = images.within(6)
    (one,), (other,) = (list(every.blocks(np.arange(8))) for every in (images, fewer))
    count = other.placed.value.shape[1]
    torch.testing.assert_close(other.placed.value, one.placed.value[:, :count])


def test_more_functions_than_half_the_images_are_refused_before_the_sums(moving, monkeypatch):
    _, dataset, z, std, _ = moving
    monkeypatch.setattr(_Fitting, "run", lambda *_: pytest.fail("summed"))
    many = ContentMapSettings(functions=201)
    with pytest.raises(InputError, match="number of images is 400, expected at least 402"):
        fit_content_maps(dataset, z, std, ball(), many, quiet=True)


def test_the_first_content_is_kept_where_the_new_does_not_predict_better(moving, monkeypatch):
    _, dataset, z, std, once = moving
    monkeypatch.setattr(Rounds, "gain", lambda *_: torch.tensor([-2.0, 1.0]))
    found = fit_content_maps(dataset, z, std, ball(), SMALL, quiet=True)
    assert np.array_equal(found.z, z)
    assert np.array_equal(found.std, std)
    assert not np.array_equal(once.z, z)
    values = found.basis(z)
    np.testing.assert_allclose(values.T @ values, found.moment, atol=1e-6 * len(values))


def test_half_maps_take_content_that_other_coefficients_tell(moving, monkeypatch):
    """Also where the only round, with few shells, did not help."""
    _, dataset, z, std, _ = moving
    contents, real = [], Regression.cells

    def cells(self, basis, given, *args):
        contents.append(given)
        return real(self, basis, given, *args)

    monkeypatch.setattr(Regression, "cells", cells)
    monkeypatch.setattr(Rounds, "gain", lambda *_: torch.tensor([-2.0, 1.0]))
    monkeypatch.setattr("modpose.content_maps.rounds.last_telling", lambda _: 2)
    few = ContentMapSettings(functions=2, landmarks=10, rounds=1)
    found = fit_content_maps(dataset, z, std, ball(), few, quiet=True)
    assert np.array_equal(found.z, z)
    even, odd = contents[-2]
    assert not np.array_equal(even, odd)


def test_a_number_of_functions_that_is_set_is_taken_where_content_gets_wider(monkeypatch):
    """The first content has fewer: it is one of two states."""
    made = simulated(60, 1.0)
    z = np.sign(made.truth["hinge_deg"].to_numpy()[:, None])
    monkeypatch.setattr(Rounds, "gain", lambda *_: torch.tensor([2.0, 1.0]))
    counts, real = [], Rounds.basis

    def basis(self, content, most):
        counts.append(most)
        return real(self, content, most)

    monkeypatch.setattr(Rounds, "basis", basis)
    few = ContentMapSettings(functions=7, landmarks=10, rounds=1)
    fit_content_maps(opened(made), z, np.zeros_like(z), ball(), few, quiet=True)
    assert counts[:2] == [7, 7] and set(counts) == {7}


def test_all_shells_tell_content_where_few_do_not_help(moving, monkeypatch):
    made, dataset, z, std, _ = moving
    monkeypatch.setattr("modpose.content_maps.rounds.last_telling", lambda _: 2)
    found = fit_content_maps(dataset, z, std, ball(), SMALL, quiet=True)
    hinge = made.truth["hinge_deg"].to_numpy()
    before, after = (abs(np.corrcoef(one[:, 0], hinge)[0, 1]) for one in (z, found.z))
    assert after > before


def test_a_set_without_motion_gives_the_consensus():
    made = simulated(300, 0.3, moves=False)
    rng = np.random.default_rng(0)
    z = 0.3 * rng.standard_normal((300, 2))
    std, mask = np.ones_like(z), ball().numpy()
    few = ContentMapSettings(landmarks=30)
    found = fit_content_maps(opened(made), z, std, ball(), few, quiet=True)
    one = ContentMapSettings(functions=1, rounds=0)
    alone = fit_content_maps(opened(made), z, std, ball(), one, quiet=True)
    true = made.volume()
    ours, mean = (fsc(each.volume(z[0]), true, mask).area() for each in (found, alone))
    assert ours > mean - 0.01


def test_maps_of_three_states_are_not_below_the_consensus():
    settings = ProjectionSettings(n=400, box=BOX, pixel_size=8.0, snr=1.0, ctf=True)
    made = simulate_projections(settings, built_in_conformers(3))
    state = made.truth["class"].to_numpy(int)
    angle = 2 * np.pi * state / 3
    rng = np.random.default_rng(0)
    z = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.6 * rng.standard_normal((400, 2))
    given = opened(made), z, np.full_like(z, 0.6), ball()
    found = fit_content_maps(*given, ContentMapSettings(landmarks=60), quiet=True)
    assert len(found.basis) > 1
    one = ContentMapSettings(functions=1, rounds=0)
    consensus = fit_content_maps(*given, one, quiet=True)
    mask = ball().numpy()
    for number in range(3):
        row = int(np.flatnonzero(state == number)[0])
        drawn = (found.volume(found.z[row]), consensus.volume(z[row]))
        ours, mean = (fsc(volume, made.volume(number), mask).area() for volume in drawn)
        assert ours > mean


def test_half_maps_of_a_set_without_motion_do_not_agree_beyond_the_mean(tmp_path, monkeypatch):
    """Content that noise tells, by motions that both halves share.

    Maps of halves tell that images are alike: fewer functions are left.
    """
    star = write_projections(simulated(600, 0.3, moves=False), tmp_path)
    flags = {"--epochs": ("train.epochs", 1)}
    source, config, _ = configure(str(star), recipe="modpose-posed", flags=flags)
    run = fit_run(source, config, tmp_path / "run", quiet=True)
    assert len(content_maps_of(run, functions=5, quiet=True).basis) < 5
    monkeypatch.setattr(Alternation, "run", lambda _, content, *__: (content, 5))
    found = content_maps_of(run, functions=5, overwrite=True, quiet=True)
    first, second = (half[1:].ravel().astype(float) for half in found.bands[0].halves)
    assert len(found.basis) > 1
    # few images and few shells: not 0; 0.8 where an image's content is told by all of it
    assert first @ second < 0.6 * np.sqrt((first @ first) * (second @ second))


def test_half_maps_of_noise_do_not_agree():
    """The sign of the noise of one half changes that of its maps, and nothing of the other half.

    So the correlation of the halves changes its sign: it is 0 on average.
    """
    made = simulated(80, 1.0, moves=False)
    rng = np.random.default_rng(0)
    noise, z = rng.standard_normal(made.images.shape), rng.standard_normal((80, 1))
    sign = np.where(quarters_of(opened(made)) < 2, 1.0, -1.0)[:, None, None]
    few = ContentMapSettings(functions=3, rounds=0)
    one, other = (
        fit_content_maps(opened(replace(made, images=images)), z, np.ones_like(z), ball(), few)
        for images in (noise.astype(np.float32), (sign * noise).astype(np.float32))
    )
    size = np.abs(one.bands[0].halves).max()
    np.testing.assert_allclose(other.bands[0].halves[0], one.bands[0].halves[0], atol=1e-3 * size)
    np.testing.assert_allclose(other.bands[0].halves[1], -one.bands[0].halves[1], atol=1e-3 * size)


def test_the_images_of_a_run_are_taken_without_their_window(tmp_path, monkeypatch):
    """A window makes the noise of neighbouring coefficients alike."""
    star = write_projections(simulated(60, 1.0), tmp_path)
    flags = {"--epochs": ("train.epochs", 1)}
    source, config, _ = configure(str(star), recipe="modpose-posed", flags=flags)
    run = fit_run(source, config, tmp_path / "run", quiet=True)
    seen = []
    monkeypatch.setattr(
        "modpose.outputs.content_maps.fit_content_maps",
        lambda dataset, *args, **options: (
            seen.append(dataset) or fit_content_maps(dataset, *args, **options)
        ),
    )
    content_maps_of(run, functions=1, quiet=True)
    windowed, rows = run.dataset(), np.arange(3)
    whole = seen[0].batch(rows).image.numpy()
    assert np.abs(whole[..., 0, 0]).min() > 0
    np.testing.assert_allclose(
        whole * windowed.window, windowed.batch(rows).image.numpy(), atol=1e-6
    )


def test_contrast_of_images_is_not_that_of_the_maps():
    made = simulated(60, 1.0, moves=False)
    z = np.random.default_rng(0).normal(size=(60, 1))
    one = ContentMapSettings(functions=1, rounds=0)
    given = opened(made), z, np.ones_like(z), ball(), one
    plain = fit_content_maps(*given, quiet=True).volume(z[0])
    twice = fit_content_maps(*given, contrast=np.full(60, 2.0), quiet=True).volume(z[0])
    # iterations end at a residual of 1e-3, amplified by the conditioning
    assert np.linalg.norm(2 * twice - plain) < 0.02 * np.linalg.norm(plain)


def test_masks_that_do_not_fit_are_refused():
    dataset = opened(simulated(20, 1.0))
    z = np.random.default_rng(0).normal(size=(20, 1))
    for mask, said in (
        (torch.zeros(BOX, BOX, BOX), "the mask is empty"),
        (torch.ones(BOX, BOX, BOX), "the mask is full"),
        (torch.ones(8, 8, 8), "the box is 8 x 8 x 8, expected 20 x 20 x 20"),
        (2 * ball(), "outside 0 to 1"),
    ):
        with pytest.raises(InputError, match=said):
            fit_content_maps(dataset, z, np.ones_like(z), mask, quiet=True)


# --- a focus, poses, groups -------------------------------------------------------------------


def test_nuisances_are_integrated_out_exactly():
    """Against a fine sum over the amount of one nuisance."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(1, 3, 6, generator=generator)
    seen = Likelihood(root @ root.transpose(1, 2), torch.randn(1, 3, generator=generator))
    landmarks = Landmarks.of(torch.tensor([[1.0, -1.0], [1.0, 0.5]]))
    found = Marginal.of(seen, 1)
    n = torch.linspace(-12, 12, 4001)
    joint = torch.stack(
        [torch.cat([row.expand(len(n), 2), n[:, None]], 1) for row in landmarks.values]
    )
    log = 2 * joint @ seen.slope[0] - ((joint @ seen.precision[0]) * joint).sum(-1) - n**2 / 2
    told = log.logsumexp(1)
    ours = found.likelihood.of(landmarks)[0]
    assert float(ours[1] - ours[0]) == pytest.approx(float(told[1] - told[0]), abs=1e-3)
    weight = log.flatten().softmax(0)
    every = joint.flatten(0, 1)
    probability = posterior(found.likelihood, landmarks)
    expected = found.joined(probability @ landmarks.values)
    torch.testing.assert_close(expected[0], weight @ every, atol=1e-3, rtol=1e-3)


def test_amounts_are_those_of_a_regression_with_a_ridge():
    """The image is a sum of maps and noise of complex variance 1; amounts are N(0, 1) before."""
    generator = torch.Generator().manual_seed(0)
    models = torch.randn(4, 3, 30, dtype=torch.complex64, generator=generator) / 5
    value = torch.randn(4, 30, dtype=torch.complex64, generator=generator)
    parts = torch.view_as_real(models).permute(0, 2, 3, 1)
    mean, std = gaussian_amounts(likelihood(parts, value))
    for one in range(4):
        stacked = torch.view_as_real(models[one]).flatten(1).double() * 2**0.5
        target = torch.view_as_real(value[one]).flatten().double() * 2**0.5
        covariance = torch.linalg.inv(stacked[1:] @ stacked[1:].T + torch.eye(2))
        expected = covariance @ (stacked[1:] @ (target - stacked[0]))
        torch.testing.assert_close(mean[one].double(), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            std[one].double(), covariance.diagonal().sqrt(), rtol=1e-4, atol=0
        )


def test_the_variance_between_centres_is_that_of_even_contents():
    """On a line with a point every 0.3, a content is anywhere up to 0.15 from the nearest."""
    centres = np.stack([np.arange(0, 3, 0.3), np.zeros(10)], 1)
    even = np.random.default_rng(0).uniform(-0.15, 0.15, 100_000).var()
    found = variance_between(centres)
    np.testing.assert_allclose(found[:, 0], even, rtol=0.02)
    assert not found[:, 1].any() and not variance_between(centres[:1]).any()


def test_a_pose_that_is_a_little_wrong_is_corrected():
    made = simulated(60, 3.0, moves=False)
    dataset = opened(made)
    reader = ImageReader(Projection(SpectralConfig(), BOX), BOX / 2 - 0.5)
    lattice = HalfLattice(BOX, reader.limit)
    true = torch.from_numpy(made.volume()).float()
    table = lattice.table(true[None])
    images = reader.images(dataset.batch(np.arange(60)), torch.ones(BOX))
    generator = torch.Generator().manual_seed(0)
    error = torch.randn(60, 5, generator=generator) * torch.tensor([0.05] * 3 + [0.7] * 2)
    wrong = corrected(images, error)
    pose, spread = torch.zeros(60, 5), torch.tensor([0.05] * 3 + [0.7] * 2)
    for _ in range(3):
        pose, variance = improved(lattice, wrong, table, torch.ones(60, 1), pose, spread)
    left = (pose + error).square().mean(0).sqrt()
    before = error.square().mean(0).sqrt()
    assert (left < 0.7 * before).all()
    assert (variance > 0).all()


@pytest.mark.parametrize("better", [True, False])
def test_corrections_of_poses_are_those_of_the_last_round_that_helped(monkeypatch, better):
    """And the last content, from maps of the other half, leaves them."""
    made = simulated(200, 1.0)
    hinge = made.truth["hinge_deg"].to_numpy()
    z = hinge[:, None] / 15 + 0.6 * np.random.default_rng(0).standard_normal((200, 1))
    contents, real = [], Rounds.stage

    def stage(self, content, *args):
        contents.append(content)
        return real(self, content, *args)

    monkeypatch.setattr(Rounds, "stage", stage)
    monkeypatch.setattr(Rounds, "gain", lambda *_: torch.tensor([2.0, 1.0]) * (2 * better - 1))
    few = ContentMapSettings(functions=2, landmarks=10, rounds=1, refine_poses=True)
    given = opened(made), z, np.full_like(z, 0.6), ball()
    found = fit_content_maps(*given, few, quiet=True)
    first, *_, second = (content.corrections.pose.numpy() for content in contents)
    assert not first.any()
    assert second.any()
    np.testing.assert_array_equal(found.pose, second if better else first)
    assert not np.array_equal(found.z, contents[-1].z)


def test_small_optics_groups_share_their_noise(monkeypatch):
    monkeypatch.setattr("modpose.content_maps.images.OWN_NOISE", 10)
    made = simulated(40, 1.0)
    table, optics = star_tables(made)
    table["rlnOpticsGroup"] = [1] * 20 + [2] * 5 + [3] * 15
    optics = optics.loc[[0, 0, 0]].assign(rlnOpticsGroup=[1, 2, 3])
    stack = ArrayStack(made.images, pixel_size=8.0)
    poses = made.rotation, made.shift
    source = Source(stack, Particles(table, optics, "star", "p.star", given_poses=poses))
    found = ImagesOnLattice(open_posed(source), None)
    assert list(found.group) == [0] * 20 + [2] * 5 + [1] * 15
    with Progress("noise", 40, quiet=True) as progress:
        found.measure(np.arange(40), progress)
    assert found.variance.shape[0] == 3
    assert sorted(found.group[found.some(6, 0)]) == [0, 0, 1, 1, 2, 2]


def test_a_focus_learns_one_motion_and_treats_the_other_as_a_nuisance():
    settings = ProjectionSettings(n=600, box=BOX, pixel_size=8.0, snr=0.5, ctf=True)
    made = simulate_projections(settings, two_arms())
    number = made.truth["hinge_deg"].to_numpy(float)
    both = motions(number)
    rng = np.random.default_rng(0)
    mixed = both / both.std(0) @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    z, std = mixed + 0.3 * rng.standard_normal(mixed.shape), np.full_like(mixed, 0.3)
    some = rng.choice(600, 20, replace=False)
    maps = (torch.from_numpy(made.volume(0, float(number[k]))).float() for k in some)
    slopes = ModelMaps.of(maps, mixed[some]).slopes
    region = torch.from_numpy(around_arm(BOX, 8.0))
    check_focus(region, ball(), "focus.mrc")
    content, deviation, focus = focused(z, std, slopes, region, ball())
    assert (explained(content[:, :1], both) > [0.8, -0.1]).all()
    few = ContentMapSettings(functions=5, landmarks=40, rounds=1)
    found = fit_content_maps(opened(made), content, deviation, ball(), few, focus=focus, quiet=True)
    inside, outside = explained(found.z, both)
    assert inside > 0.8
    assert outside < 0.1
    ends = [found.volume(found.z[row]) for row in (both[:, 0].argmin(), both[:, 0].argmax())]
    change = (ends[1] - ends[0]) ** 2
    assert (change * region.numpy()).sum() > 0.9 * change.sum()


def test_a_focus_outside_the_mask_or_as_large_as_it_is_refused():
    beside = torch.zeros(BOX, BOX, BOX)
    beside[:2] = 1.0
    with pytest.raises(InputError, match="the focus inside the mask is"):
        check_focus(beside, ball(), "arm.mrc")
    small = torch.zeros(BOX, BOX, BOX)
    small[8:12, 8:12, 8:12] = 1.0
    half = torch.zeros(BOX, BOX, BOX)
    half[..., BOX // 2 :] = 1.0
    check_focus(half, small, "arm.mrc")  # with much solvent
    with pytest.raises(InputError, match="holds the whole mask"):
        check_focus(ball(), ball(), "arm.mrc")


def test_a_symmetry_is_imposed_and_makes_maps_better():
    """Half a turn about z; the molecule is joined with its own copy."""
    half = np.diag([-1.0, -1.0, 1.0])
    one = built_in_conformers(1)[0].molecule
    twice = {name: np.concatenate([getattr(one, name)] * 2) for name in ("sigmas", "masses", "arm")}
    both = replace(one, centers=np.concatenate([one.centers, one.centers @ half]), **twice)
    settings = ProjectionSettings(n=120, box=BOX, pixel_size=8.0, snr=0.1, ctf=True)
    made = simulate_projections(settings, [Conformer("twice", both)])
    z = np.random.default_rng(0).normal(size=(120, 1))
    given = opened(made), z, np.ones_like(z), ball()
    area = {}
    for group in ("C1", "C2"):
        few = ContentMapSettings(functions=1, rounds=0, symmetry=group)
        found = fit_content_maps(*given, few, quiet=True)
        area[group] = fsc(found.volume(z[0]), made.volume(), ball().numpy()).area()
    # the copy about n // 2: the first row has no partner
    inner = found.volume(z[0])[1:, 1:, 1:]
    turned = inner[:, ::-1, ::-1]
    assert np.linalg.norm(inner - turned) < 0.02 * np.linalg.norm(inner)
    assert area["C2"] > area["C1"] + 0.01


def test_a_symmetry_beside_a_focus_is_refused():
    made = simulated(20, 1.0)
    z = np.random.default_rng(0).normal(size=(20, 1))
    focus = Focus(ball(), np.zeros((20, 1)))
    two = ContentMapSettings(symmetry="C2")
    with pytest.raises(InputError, match="symmetry C2 beside a focus, expected one of the two"):
        fit_content_maps(opened(made), z, z, ball(), two, focus=focus, quiet=True)


def test_a_fit_of_given_poses_without_a_ctf_says_so(tmp_path, caplog):
    settings = ProjectionSettings(n=20, box=BOX, pixel_size=8.0, snr=1.0)
    star = write_projections(simulate_projections(settings), tmp_path)
    source, config, _ = configure(
        str(star), recipe="modpose-posed", flags={"--epochs": ("train.epochs", 1)}
    )
    fit_run(source, config, tmp_path / "run", quiet=True)
    assert "it gives no CTF, so maps are made without" in caplog.text
