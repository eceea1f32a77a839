"""Maps of a model, summed up one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modpose.content_maps.model_maps import ModelMaps


@pytest.mark.parametrize("count", [3, 40])
def test_the_summary_is_that_of_all_maps_at_once(count: int):
    """With fewer maps than dimensions, the slopes are the smallest that fit."""
    rng = np.random.default_rng(0)
    at = rng.standard_normal((count, 4)) + 2.0
    maps = rng.standard_normal((count, 5, 5, 5)) + 10.0
    found = ModelMaps.of((torch.from_numpy(one) for one in maps), at)
    centred = np.concatenate([np.ones((count, 1)), at - at.mean(0)], 1)
    slopes = np.linalg.lstsq(centred, maps.reshape(count, -1), rcond=None)[0][1:]
    np.testing.assert_allclose(found.mean, maps.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.spread, maps.std(0), rtol=1e-9)
    np.testing.assert_allclose(found.slopes.flatten(1), slopes, atol=1e-9)


def test_another_number_of_maps_than_contents_is_refused():
    with pytest.raises(ValueError, match="longer"):
        ModelMaps.of(iter(torch.ones(3, 2, 2, 2)), np.ones((4, 1)))
