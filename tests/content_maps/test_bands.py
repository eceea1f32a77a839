"""Maps of few shells and many functions, drawn into maps of all shells and few functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from content_maps.small_sets import BOX, ball, opened, simulated
from modpose.content_maps import ContentMaps, ContentMapSettings, fit_content_maps
from modpose.content_maps.bands import SOFT, joined, joined_errors
from modpose.content_maps.boxes import resampled
from modpose.content_maps.files import read_content_maps, write_content_maps
from modpose.content_maps.fit import _Fitting
from modpose.content_maps.images import LEAST_SHELLS
from modpose.content_maps.regression import Regression
from modpose.fourier.fsc import fsc
from modpose.geometry.windows import soft_window
from modpose.progress import Progress
from modpose.simulate.projections import Projections

SIDE, SMALL = 20, 12
LAST = 5
MANY = ContentMapSettings(functions=9, rounds=0)


def noise(side: int, seed: int) -> torch.Tensor:
    return torch.randn(side, side, side, generator=torch.Generator().manual_seed(seed))


def spectrum(volume: torch.Tensor) -> torch.Tensor:
    """Unitary coefficients."""
    return torch.fft.fftn(torch.fft.ifftshift(volume)) / len(volume) ** 1.5


def radius(side: int) -> torch.Tensor:
    axis = torch.fft.fftfreq(side) * side
    return (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()


def test_shells_of_the_same_map_change_nothing():
    fine = noise(SIDE, 0)
    coarse = resampled(fine[None], SMALL)[0]
    torch.testing.assert_close(joined([fine, coarse], [8, LAST]), fine, rtol=0, atol=1e-5)


def test_low_shells_are_those_of_the_coarse_map_and_high_ones_those_of_the_fine():
    fine, coarse = noise(SIDE, 0), noise(SMALL, 1)
    made = spectrum(joined([fine, coarse], [8, LAST]))
    wide, shell = spectrum(resampled(coarse[None], SIDE)[0]), radius(SIDE)
    low, high = shell <= LAST + 1 - SOFT, shell >= LAST + 1
    torch.testing.assert_close(made[low], wide[low], rtol=0, atol=1e-5)
    torch.testing.assert_close(made[high], spectrum(fine)[high], rtol=0, atol=1e-5)


def test_each_band_draws_into_the_finer_ones():
    fine, middle, coarse = noise(SIDE, 0), noise(16, 1), noise(SMALL, 2)
    every = joined([fine, middle, coarse], [8, 7, 4])
    torch.testing.assert_close(
        every, joined([joined([fine, middle], [8, 7]), coarse], [8, 4]), rtol=0, atol=1e-5
    )


def test_errors_are_in_the_unit_of_the_finest_box():
    """The error of a coefficient is the power that noise of the small box has in the large one."""
    power = torch.stack(
        [spectrum(resampled(noise(SMALL, seed)[None], SIDE)[0]).abs() ** 2 for seed in range(20)]
    ).mean(0)
    low = radius(SIDE) <= LAST + 1 - SOFT
    fine, coarse = torch.full((11,), 7.0), torch.ones(7)
    found = joined_errors([fine, coarse], [8, LAST], [SIDE, SMALL])
    # 33 coefficients, most of them twice, of 20 volumes
    assert float(power[low].mean()) == pytest.approx(float(found[1]), rel=0.25)
    assert found[LAST + 1 :].tolist() == [7.0] * 5
    assert found[0] == found[2] == pytest.approx(SMALL / SIDE)


@pytest.fixture(scope="module")
def made() -> Projections:
    return simulated(300, 2.0)


def memory_for(most: int) -> Callable[[Regression], int]:
    return lambda regression: most if regression.images.box == BOX else 9


class Counted(Progress):
    """Progress that keeps its totals and counts."""

    every: ClassVar[list[Counted]] = []

    def __init__(self, label: str, images: int, *, quiet: bool = False) -> None:
        super().__init__(label, images, quiet=True)
        self.label, self.total, self.counted = label, images, 0
        self.every.append(self)

    def advance(self, images: int, seconds: float) -> None:
        self.counted += images


def fitted(made: Projections, most: int) -> ContentMaps:
    """Fit with memory for so many functions in the box of the images, and for nine in less."""
    z = made.truth["hinge_deg"].to_numpy()[:, None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Regression, "most", memory_for(most))
        return fit_content_maps(opened(made), z, np.ones_like(z), ball(), MANY, quiet=True)


@pytest.fixture(scope="module")
def banded(made: Projections) -> ContentMaps:
    return fitted(made, 2)


def test_each_band_has_a_bar_that_ends_at_its_total(
    made: Projections, monkeypatch: pytest.MonkeyPatch
):
    Counted.every.clear()
    monkeypatch.setattr("modpose.content_maps.fit.Progress", Counted)
    found = fitted(made, 2)
    content, *bands = Counted.every
    assert content.counted == content.total == 300  # the power of the images alone
    sides = [len(band.mask) for band in found.bands]
    assert len(set(sides)) == 2
    assert [band.label for band in bands] == [f"maps, {side} pixels" for side in sides]
    assert [band.counted for band in bands] == [band.total for band in bands]


def test_the_coarser_band_has_the_functions_that_do_not_fit(banded: ContentMaps):
    fine, coarse = banded.bands
    assert (len(fine.maps), len(coarse.maps)) == (2, len(banded.basis))
    assert len(coarse.maps) > 4
    assert len(coarse.mask) < len(fine.mask) == BOX
    assert coarse.last < fine.last


def test_maps_are_sharper_than_those_of_few_functions(made: Projections, banded: ContentMaps):
    """But not as sharp as those of all functions in all shells: the finest has many of these."""
    alone, every = replace(banded, bands=banded.bands[:1]), fitted(made, 9)
    hinge, mask, areas = made.truth["hinge_deg"].to_numpy(), ball().numpy(), []
    for maps in (alone, banded, every):
        assert len(maps.bands) == 1 or maps is banded
        drawn = [maps.draw(maps.z[row]) for row in range(0, 300, 30)]
        true = [made.volume(0, float(hinge[row])) for row in range(0, 300, 30)]
        volumes = [
            fsc(one.volume, other, mask).area() for one, other in zip(drawn, true, strict=True)
        ]
        areas.append((np.mean(volumes), np.mean([one.curve.area() for one in drawn])))
    few, both, all_shells = np.array(areas)
    # of the maps, and of their halves
    assert ((both - few) > 0.1 * (all_shells - few)).all()
    assert (all_shells > both).all() and (both > few).all()


def test_content_is_told_by_shells_that_take_enough_functions(
    made: Projections, monkeypatch: pytest.MonkeyPatch
):
    z = made.truth["hinge_deg"].to_numpy()[:, None]
    work = _Fitting(opened(made), z, np.ones_like(z), ball(), MANY, None, None)
    monkeypatch.setattr(Regression, "most", memory_for(5))
    assert work.rounds._within_memory(5) is work.images
    found = work.rounds._within_memory(6)
    assert found is work.regression.images is work.rounds.inference.images
    assert found.box < BOX == work.images.box
    monkeypatch.setattr(Regression, "most", lambda _: 1)  # memory takes nothing: few shells
    assert int(work.rounds._within_memory(6).reader.shell.max()) < LEAST_SHELLS


def test_the_variance_is_that_of_the_joined_maps(banded: ContentMaps):
    amounts = banded.basis(banded.z)
    last = [band.last for band in banded.bands]

    def drawn(amount: np.ndarray) -> torch.Tensor:
        parts = (torch.from_numpy(band.every(amount))[None] for band in banded.bands)
        whole = [band.box.whole(p)[0] for band, p in zip(banded.bands, parts, strict=True)]
        return joined(whole, last)

    expected = torch.stack([drawn(amount) for amount in amounts]).var(0, unbiased=False).numpy()
    np.testing.assert_allclose(banded.variance(), expected, atol=1e-3 * expected.max())


def test_a_focus_counts_the_same_in_each_band(banded: ContentMaps):
    for band in banded.bands:
        every, whole = band.errors(None), band.errors(np.ones((BOX,) * 3, np.float32))
        torch.testing.assert_close(every[1:], whole[1:], rtol=0.05, atol=1e-6)
        ball_within = soft_window((BOX,) * 3, 0.3, 0.5)
        some = band.errors(ball_within)
        torch.testing.assert_close(some[0], every[0])
        seen = slice(1, band.last + 1)
        assert (some[1:, seen] > every[1:, seen]).all()  # the same power in a smaller region


def test_all_bands_are_kept(banded: ContentMaps, tmp_path: Path):
    path = tmp_path / "maps.safetensors"
    write_content_maps(banded, path, {"latents": "x"})
    again = read_content_maps(path)
    assert len(again.bands) == 2
    one, other = (maps.draw(maps.z[7]) for maps in (banded, again))
    for name in ("volume", "first", "second"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_single_band_is_kept_as_it_was(banded: ContentMaps, tmp_path: Path):
    """Files with one box of maps came first, and are read."""
    path = tmp_path / "maps.safetensors"
    write_content_maps(replace(banded, bands=banded.bands[:1]), path, {})
    arrays = load_file(path)
    names = {"mask", "maps", "half1", "half2", "noise", "moment", "z", "std", "half", "numbers"}
    assert names == {name for name in arrays if not name.startswith("basis.")}
    assert arrays["numbers"].tolist() == [banded.basis.width, banded.bands[0].limit, 8.0]
