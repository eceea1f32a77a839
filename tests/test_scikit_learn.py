"""The interface of a scikit-learn estimator, by scikit-learn's own checks where images allow."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from modpose import InputError, PoseModel

TINY: dict[str, Any] = {
    "model": {"encoder": {"hidden": 8}, "field": {"hidden": 8}},
    "train": {"epochs": 1, "batch_size": 16, "pixels": 50},
}
WITHOUT_IMAGES = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimators_unfitted",
)
"""The checks that need no images: all others give the estimator a table of two dimensions."""


def tiny() -> PoseModel:
    return PoseModel("spatial-vae", z_dim=2, options=TINY, quiet=True)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(images: np.ndarray) -> PoseModel:
    return tiny().fit(images)


@pytest.mark.parametrize("check", WITHOUT_IMAGES)
def test_check_of_scikit_learn(check: str) -> None:
    getattr(checks, check)("PoseModel", PoseModel())


def test_tags_say_that_it_takes_images() -> None:
    tags = get_tags(PoseModel())
    assert tags.input_tags.three_d_array and not tags.input_tags.two_d_array


def test_use_before_a_fit_raises_the_error_of_scikit_learn(images: np.ndarray) -> None:
    with pytest.raises(NotFittedError):
        check_is_fitted(PoseModel())
    with pytest.raises(NotFittedError, match="not fitted yet: call fit") as raised:
        PoseModel().transform(images)
    assert isinstance(raised.value, InputError)


def test_fit_returns_self_and_changes_no_parameter(images: np.ndarray) -> None:
    model = tiny()
    before = copy.deepcopy(model.get_params())
    assert model.fit(images) is model
    assert model.get_params() == before
    check_is_fitted(model)


def test_transform_changes_nothing_and_repeats(fitted: PoseModel, images: np.ndarray) -> None:
    before = set(vars(fitted))
    first = fitted.transform(images)
    assert np.array_equal(first, fitted.transform(images))
    assert set(vars(fitted)) == before


def test_fits_of_one_seed_are_the_same(fitted: PoseModel, images: np.ndarray) -> None:
    assert np.array_equal(clone(fitted).fit(images).transform(images), fitted.transform(images))


def test_an_image_is_read_the_same_alone_and_in_any_order(
    fitted: PoseModel, images: np.ndarray
) -> None:
    whole = fitted.transform(images)
    rounding = 1e-5 * (1 + np.abs(whole).max())  # products are summed in another order
    assert np.allclose(fitted.transform(images[::-1])[::-1], whole, atol=rounding)
    assert np.allclose(fitted.transform(images[7:8]), whole[7:8], atol=rounding)


def test_images_that_may_not_be_written_are_read(fitted: PoseModel, images: np.ndarray) -> None:
    fixed = images.copy()
    fixed.flags.writeable = False
    assert np.array_equal(fitted.transform(fixed), fitted.transform(images))
    assert tiny().fit(fixed).transform(fixed).shape == (40, 2)


def test_columns_have_names(fitted: PoseModel, images: np.ndarray) -> None:
    assert fitted.get_feature_names_out().tolist() == ["z_0", "z_1"]
    table = clone(fitted).set_output(transform="pandas").fit(images).transform(images)
    assert list(table.columns) == ["z_0", "z_1"] and len(table) == 40


def test_a_pipeline_names_its_columns(images: np.ndarray) -> None:
    line = make_pipeline(FunctionTransformer(np.sqrt, feature_names_out=None), tiny())
    assert line.fit_transform(np.abs(images)).shape == (40, 2)
    assert line[-1:].get_feature_names_out().tolist() == ["z_0", "z_1"]


def test_the_time_is_checked_when_it_is_needed(images: np.ndarray) -> None:
    model = tiny().set_params(max_minutes=-1)
    with pytest.raises(InputError, match="minutes"):
        model.fit(images)
