"""Content of each half of the images from maps of the other, in turn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modpose.content_maps import ContentMapSettings
from modpose.content_maps.alternation import Alternation, Half
from modpose.content_maps.equations import Equations
from modpose.content_maps.fit import _Fitting
from modpose.content_maps.inference import Compared
from modpose.content_maps.posterior import Landmarks
from modpose.progress import Progress
from tests.content_maps.small_sets import ball, opened, simulated


@pytest.fixture
def begun():
    """Images with noisy content, measured; and the first content of a fit."""
    made = simulated(400, 1.0)
    hinge = made.truth["hinge_deg"].to_numpy()
    rng = np.random.default_rng(0)
    z = np.stack([hinge / 15 + 0.6 * rng.standard_normal(400), rng.standard_normal(400)], 1)
    std = np.tile([0.6, 1.0], (400, 1))
    settings = ContentMapSettings(landmarks=30, rounds=3)
    fitting = _Fitting(opened(made), z, std, ball(), settings, None, None)
    with Progress("test", 1, quiet=True) as progress:
        fitting.images.measure(fitting.some, progress)
        yield hinge, fitting, progress


def alternation(fitting: _Fitting, **changed: int) -> Alternation:
    settings = ContentMapSettings(**{"landmarks": 30, "rounds": 3, **changed})
    return Alternation(fitting.regression, fitting.rounds.inference, settings, fitting.some)


def half_of(values: torch.Tensor, maps: torch.Tensor) -> Half:
    landmarks = Landmarks.of(values[:7])
    return Half(values, 2 * maps, maps, Compared(np.zeros((7, 1)), landmarks, [maps] * 4))


def test_maps_as_amounts_of_other_functions_show_images_the_same():
    """Functions that are turned among themselves; maps of nuisances stay."""
    generator = torch.Generator().manual_seed(0)
    values = torch.linalg.qr(torch.randn(50, 4, generator=generator))[0] * 50**0.5
    turned = values @ torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    maps = torch.randn(6, 2, 2, 2, generator=generator)
    rough, found = half_of(values, maps).at(turned)
    before, after = (torch.tensordot(v, m[:4], 1) for v, m in ((values, maps), (turned, found)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert torch.equal(found[4:], maps[4:])
    torch.testing.assert_close(rough, 2 * found, rtol=1e-4, atol=1e-4)


def test_fewer_functions_keep_the_first_maps_and_all_nuisances():
    maps = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 2, 2, 2)
    few = half_of(torch.ones(50, 4), maps).fewer(2)
    assert few.values.shape == (50, 2)
    assert few.maps[:, 0, 0, 0].tolist() == [0, 1, 4, 5]
    assert few.compared.landmarks.values.shape == (7, 2)
    assert all(one is few.maps for one in few.compared.maps)


def test_content_gets_nearer_to_the_truth_and_stays_there(begun):
    hinge, fitting, progress = begun
    found = [fitting.first]
    for rounds in (1, 3):
        found.append(alternation(fitting, rounds=rounds).run(fitting.first, 3, 5, progress)[0])

    def unexplained(z: np.ndarray) -> float:
        columns = np.concatenate([np.ones((len(z), 1)), z, z**2], 1)
        return float(np.linalg.lstsq(columns, hinge)[1][0] / len(z) / hinge.var())

    start, once, often = (unexplained(one.z) for one in found)
    assert once < 0.7 * start
    assert often < 1.1 * once
    # the axes are those of before
    assert np.corrcoef(found[2].z[:, 0], hinge)[0, 1] > 0.8
    np.testing.assert_array_equal(found[2].unit, fitting.first.unit)


def test_content_of_an_image_does_not_come_from_its_own_half(begun):
    """Images of one half may be anything: the other's maps tell nothing of them."""
    _, fitting, progress = begun
    one = alternation(fitting)
    halves, _ = one._begun(fitting.first, 3, progress)
    known = one._told(fitting.first, halves[0], one.rows[1], progress)
    mine = np.isin(np.arange(400), one.rows[1])
    assert np.array_equal(known.z[~mine], fitting.first.z[~mine])
    assert not np.isclose(known.z[mine, 0], fitting.first.z[mine, 0]).any()
    nothing = half_of(halves[0].values, 0 * halves[0].maps)
    assert one._told(fitting.first, nothing, one.rows[1], progress) is fitting.first


def test_the_last_content_of_a_quarter_comes_from_the_three_others(begun, monkeypatch):
    _, fitting, progress = begun
    one, first = alternation(fitting), fitting.first
    halves, consensus = one._begun(first, 3, progress)
    cells = one._cells(first, one._functions(first, 3))
    quarters = [fitting.regression.sums(cells, number, 4, progress) for number in range(4)]
    solved, real = [], Equations.solve

    def solve(self, spectrum, amplitude, steps, start=None):
        solved.append((self.right.clone(), self.kernels.clone(), start))
        return real(self, spectrum, amplitude, steps, start)

    monkeypatch.setattr(Equations, "solve", solve)
    found = one._from_three_quarters(first, 3, halves, consensus, progress)
    assert len(solved) == 4
    for number, (*equations, start) in zip((1, 2, 3, 0), solved, strict=True):
        others = [quarter for k, quarter in enumerate(quarters) if k != number]
        for kind, values in zip(("right", "kernels"), equations, strict=True):
            expected = sum(getattr(other, kind) for other in others)
            error = (values - expected).abs().max()
            assert error < 1e-4 * expected.abs().max()
        # maps that did not see the images of this quarter, of the same functions
        torch.testing.assert_close(start, halves[1 - number // 2].maps, rtol=1e-3, atol=1e-3)
    assert not np.isclose(found.z[:, 0], first.z[:, 0]).any()


def test_a_half_may_have_no_image_that_judges_and_a_quarter_none_at_all(begun) -> None:
    _, fitting, progress = begun
    one = alternation(fitting)
    halves, _ = one._begun(fitting.first, 3, progress)
    one.some = [fitting.some[:0], fitting.some]
    assert one._judged(halves, None, progress).shape[0] == len(fitting.some)
    assert one._told(fitting.first, halves[0], np.arange(0), progress) is fitting.first


def test_maps_that_do_not_help_leave_content_as_it_was(begun, monkeypatch):
    _, fitting, progress = begun
    monkeypatch.setattr(Alternation, "gain", lambda *_: -1.0)
    found, _ = alternation(fitting).run(fitting.first, 3, 5, progress)
    assert found is fitting.first


def test_the_number_of_functions_is_the_fewest_that_predict_as_well_as_more(begun, monkeypatch):
    """Not fewer than maps of quarters have."""
    _, fitting, progress = begun
    asked = []

    def judged(self, halves, counts, progress):
        asked.append(counts)
        score = torch.zeros(10, len(counts), 5)
        score[:, counts.index(5) :] = 1.0
        return score

    monkeypatch.setattr(Alternation, "_judged", judged)
    one = alternation(fitting)
    halves, _ = one._begun(fitting.first, 9, progress)
    found, score = one._chosen(halves, 3, progress)
    assert asked == [(3, 5, 9)]
    assert [half.values.shape[1] for half in found] == [5, 5]
    assert score.shape == (10, 5)
    assert score.min() == 1
    set_by_user = alternation(fitting, functions=9)
    assert set_by_user._chosen(halves, 3, progress)[0][0].values.shape[1] == 9
