"""Axes along which density and paths of content are measured."""

from __future__ import annotations

import numpy as np

from modpose.content.few_axes import FewAxes


def test_axes_are_those_that_images_tell_best() -> None:
    """Content on half a circle, and two wider dimensions that an image hardly tells."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 1500)
    told = 1.4 * np.stack([np.cos(angle), np.sin(angle)], 1)
    z = np.concatenate([told, 1.5 * rng.standard_normal((1500, 2))], 1)
    few = FewAxes.of(z, np.tile([0.2, 0.2, 1.2, 1.2], (1500, 1)))
    assert len(few.axes) == 2
    assert np.abs(few.axes[:, 2:]).max() < 0.1
    ends = z[[angle.argmin(), angle.argmax()]]
    path, content = few.path(ends, 9, ("first", "last"))
    np.testing.assert_allclose(few.on(content), path.z, atol=1e-9)
    assert (np.linalg.norm(content[:, :2], axis=1) > 1.2).all()  # round, not across


def test_content_without_errors_keeps_its_unit() -> None:
    z = np.random.default_rng(0).standard_normal((100, 3)) * [3.0, 1.0, 0.5]
    few = FewAxes.of(z, np.zeros((100, 3)))
    assert (few.unit == 1).all()
    np.testing.assert_allclose(few.on(z).std(0, ddof=1)[0], 3.0, rtol=0.2)
