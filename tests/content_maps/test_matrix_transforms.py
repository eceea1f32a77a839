"""Transforms by matrices, against fast ones of padded volumes."""

from __future__ import annotations

import pytest
import torch

from modpose.content_maps.transforms import MatrixTransform

PERIOD = 24


@pytest.mark.parametrize("first", [0, -5])
def test_frequencies_are_those_of_the_padded_volume(first: int) -> None:
    volume = torch.randn(10, 10, 10, generator=torch.Generator().manual_seed(0))
    places = torch.arange(10) + first
    transform = MatrixTransform(places, 7, PERIOD, torch.device("cpu"))
    wide = torch.zeros(3 * (PERIOD,))
    wide[tuple(torch.meshgrid(places, places, places, indexing="ij"))] = volume
    expected = torch.fft.fftn(wide)
    found = transform.forward(volume)
    assert len(found) == len(transform)
    for z, y, x in ((0, 0, 0), (3, -7, 5), (-2, 6, 0), (7, 7, 7)):
        number = transform.number(torch.tensor(z), torch.tensor(y), torch.tensor(x))
        assert abs(found[number] - expected[z, y, x]) < 1e-4 * expected.abs().max()


def test_waves_are_summed_up_with_those_of_the_opposite_frequencies() -> None:
    """The sum is the adjoint of the transform, twice: once for k and once for -k."""
    generator = torch.Generator().manual_seed(1)
    transform = MatrixTransform(torch.arange(8) - 4, 5, PERIOD, torch.device("cpu"))
    volume = torch.randn(8, 8, 8, generator=generator)
    table = torch.randn(len(transform), dtype=torch.complex64, generator=generator)
    axis = torch.arange(-5, 6)
    z, y = torch.meshgrid(axis, axis, indexing="ij")
    count = torch.full((len(transform),), 2.0)
    count[transform.number(z, y, torch.zeros_like(z)).flatten()] = 1.0
    one = (transform.backward(table) * volume).sum()
    other = (count * (table.conj() * transform.forward(volume)).real).sum()
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-2)
