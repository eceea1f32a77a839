"""Fourier coefficients of volumes: what is joined is what was there, held once."""

from __future__ import annotations

import weakref

import torch

from modpose.fourier.coefficients import coefficients_of, half_sphere, joined, white_noise
from modpose.observe.wedge import wedge_mask

BOX, LIMIT = 12, 0.4
NOISE = white_noise(BOX, 1.0)


def volumes(n: int) -> torch.Tensor:
    return torch.randn(n, BOX, BOX, BOX, generator=torch.Generator().manual_seed(n))


def mask(low: float, high: float) -> torch.Tensor:
    return wedge_mask(torch.tensor([[low, high]]), (BOX,) * 3).float()


def test_volumes_with_wedges_of_their_own_are_joined_as_they_are() -> None:
    masks = [mask(-60.0, 60.0), mask(-40.0, 50.0)]
    parts = [
        coefficients_of(volumes(n), seen, NOISE, LIMIT)
        for n, seen in zip((3, 2), masks, strict=True)
    ]
    values = torch.cat([part.value for part in parts])
    transfers = torch.cat([part.transfer.expand(len(part), -1) for part in parts])
    frequency, _ = half_sphere(BOX, LIMIT)
    seen = transfers.amax(0) > 0
    assert 0 < int((~seen).sum()) < len(seen)  # both wedges hide the same few
    last = weakref.ref(parts[-1])
    whole = joined(parts)
    assert parts == [] and last() is None
    assert torch.equal(whole.frequency, frequency[seen])
    assert torch.equal(whole.value, values[:, seen])
    assert torch.equal(whole.transfer, transfers[:, seen])


def test_a_wedge_that_all_share_is_kept_once() -> None:
    shared = mask(-60.0, 60.0)
    whole = joined([coefficients_of(volumes(n), shared, NOISE, LIMIT) for n in (3, 2)])
    assert whole.shared and len(whole) == 5
    assert whole.transfer.shape == (1, len(whole.frequency))
    again = joined([coefficients_of(volumes(3), shared, NOISE, LIMIT)])
    assert torch.equal(whole.value[:3], again.value)
