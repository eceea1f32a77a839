"""Posed coefficients as a sparse matrix: what it reads, what it puts back, what is solved for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modpose.fourier.coefficients import Coefficients, half_sphere
from modpose.fourier.insertion import averages, insert, insert_slices
from modpose.fourier.reference import corners, make_references, read, sample, turned
from modpose.geometry.grids import soft_sphere
from modpose.geometry.rotations import haar_rotations
from modpose.search.motion import agreed_variance, power_of, prior_variance
from modpose.search.placed import NormalEquations, PlacedBlocks, SliceOperator, halved, table_of

BOX, LIMIT = 16, 0.4


def drawn(n: int, seed: int = 0) -> tuple[Coefficients, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frequency, _ = half_sphere(BOX, LIMIT)
    value = torch.randn(n, len(frequency), dtype=torch.complex64, generator=generator)
    transfer = torch.rand(n, len(frequency), generator=generator)
    shift = torch.randn(n, 3, generator=generator)
    rotation = haar_rotations(n, generator=generator)
    return Coefficients(frequency, value, transfer, BOX), rotation, shift


def blobs(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(BOX) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centre = 2.5 * torch.randn(count, 3, generator=generator)
    parts = [(a - c[:, None, None, None]) ** 2 for a, c in zip((x, y, z), centre.T, strict=True)]
    return torch.exp(-(parts[0] + parts[1] + parts[2]) / 4)


def test_predictions_are_the_references_read_at_turned_frequencies() -> None:
    data, rotation, shift = drawn(5)
    maps = blobs(3)
    found = SliceOperator(data, rotation, shift).predictions(table_of(maps, float(data.radius[-1])))
    references = make_references(maps, float(data.radius[-1]))
    for j in range(3):
        which = torch.full((5,), j)
        read = sample(references, which, turned(data.frequency, rotation)) * data.transfer
        torch.testing.assert_close(found[:, j], read, rtol=1e-4, atol=1e-5)


def test_what_is_put_back_is_what_averages_sum() -> None:
    data, rotation, shift = drawn(7)
    weight = torch.rand(7)
    equations = NormalEquations(1)
    equations.add(SliceOperator(data, rotation, shift), weight[:, None], weight[:, None, None])
    found = equations.first()
    asked = insert_slices(data, torch.zeros(7, dtype=torch.int64), 1, rotation, shift, weight)
    torch.testing.assert_close(found.value, asked.value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.weight, asked.weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("box", [15, 16])
def test_sums_of_all_frequencies_are_a_map_also_for_an_odd_box(box: int) -> None:
    limit = (box / 2 - 0.5) / box
    frequency, _ = half_sphere(box, limit)
    axis = torch.arange(box) - box // 2
    squared = axis.square()[:, None, None] + axis.square()[:, None] + (axis - 2).square()
    blob = torch.exp(-squared / 8.0)
    rotation = haar_rotations(40, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(40, len(frequency))
    data = Coefficients(frequency, ones.to(torch.complex64), ones, box)
    references, first = make_references(blob[None], limit), torch.zeros(40).long()
    seen = sample(references, first, turned(frequency, rotation))
    placed = SliceOperator(replace(data, value=seen), rotation, torch.zeros(40, 3))
    equations = NormalEquations(1)
    equations.add(placed, torch.ones(40, 1), torch.ones(40, 1, 1))
    found = averages(equations.first(), box, soft_sphere(box, box - 3.0))[0]
    wanted = blob * soft_sphere(box, box - 3.0)
    found, wanted = (part - part.mean() for part in (found, wanted))
    assert (found * wanted).sum() / (found.norm() * wanted.norm()) > 0.99


def test_mixtures_of_maps_are_taken_apart() -> None:
    maps, mask = blobs(3, seed=1), soft_sphere(BOX, BOX - 2)
    data, rotation, shift = drawn(400)
    amount = torch.cat([torch.ones(400, 1), torch.randn(400, 2)], 1)
    table = table_of(maps, float(data.radius[-1]))
    blocks = PlacedBlocks(data, rotation, torch.zeros_like(shift))
    seen = torch.cat(
        [
            torch.einsum("nj,njk->nk", amount[rows].to(torch.complex64), placed.predictions(table))
            for _, rows, placed in blocks
        ]
    )
    clean = Coefficients(data.frequency, seen, data.transfer, BOX)
    second = amount[:, :, None] * amount[:, None]
    halves = halved(PlacedBlocks(clean, rotation, torch.zeros_like(shift)), amount, second)
    loose = 1e6 * torch.ones(3, BOX // 2 + 1)
    halves[0].join(halves[1])
    found = halves[0].solve(mask, loose)
    low = power_of(maps, found) / (power_of(maps) * power_of(found)).sqrt()
    assert (low[:, 1 : int(LIMIT * BOX)] > 0.99).all()  # the origin is left out


def test_halves_agree_on_signal_and_not_on_noise() -> None:
    data, rotation, shift = drawn(300, seed=2)
    maps, mask = blobs(1, seed=3), soft_sphere(BOX, BOX - 2)
    table = table_of(maps, float(data.radius[-1]))
    placed = SliceOperator(data, rotation, torch.zeros_like(shift))
    value = data.value + 3 * placed.predictions(table)[:, 0]
    noisy = Coefficients(data.frequency, value, data.transfer, BOX)
    content = torch.randn(300, 1)  # of a direction that is not there
    amount = torch.cat([torch.ones(300, 1), content], 1)
    blocks = PlacedBlocks(noisy, rotation, torch.zeros_like(shift))
    halves = halved(blocks, amount, amount[:, :, None] * amount[:, None])
    power = 9 * power_of(maps)[0]
    found = agreed_variance(halves, mask, prior_variance(power, 1))
    low = slice(1, 4)
    shared = power_of(*(half.solve(mask, 1e6 * torch.ones(2, BOX // 2 + 1)) for half in halves))
    torch.testing.assert_close(shared[0, low], power[low], rtol=0.3, atol=0.0)
    assert (found[1, low] < 0.05 * power[low]).all()


def test_a_set_is_placed_the_same_way_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data, rotation, shift = drawn(9)
    table = table_of(blobs(2), float(data.radius[-1]))
    whole = SliceOperator(data, rotation, shift).predictions(table)
    for kept in (0, 1 << 30):  # made again each time, and held
        monkeypatch.setattr("modpose.search.placed.KEPT_POINTS", kept)
        blocks = PlacedBlocks(data, rotation, shift)
        for _ in range(2):
            parts = [(rows, placed.predictions(table)) for _, rows, placed in blocks]
            torch.testing.assert_close(torch.cat([part for _, part in parts]), whole)
            assert torch.equal(torch.cat([rows for rows, _ in parts]), torch.arange(9))
            assert len(parts) >= 2


def test_insertion_is_the_transpose_of_reading() -> None:
    """<read(table), values> is <table, insert(values)>, to float32 sums of 8 terms a point."""
    generator = torch.Generator().manual_seed(0)
    frequency = torch.rand(4, 30, 3, generator=generator) - 0.5
    index, share = corners(frequency, 33, 32)
    table, values = (torch.randn(k, 3, generator=generator) for k in (33**3, 120))
    one = (read(index, share, table) * values).double().sum()
    total = torch.zeros(33**3, values.shape[1])
    insert(index, share, values, total)
    other = (table * total).double().sum()
    assert one == pytest.approx(float(other), abs=1e-4)
