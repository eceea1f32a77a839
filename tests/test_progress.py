"""The time that a fit will take is said once, from the speed between two batches."""

from __future__ import annotations

import logging

import pytest

from modpose.progress import TIMED, Progress


def test_the_time_of_a_fit_is_told_after_some_batches(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "modpose"),
        Progress("fit", 100_000, quiet=True, foretell=True) as bar,
    ):
        for batch in range(1, 2 * TIMED[1]):
            bar.advance(100, 3.0 + 0.6 * batch)  # 100 images in 0.6 s, after a slow start
    assert caplog.messages == ["the training takes about 10 minutes at this speed"]


def test_a_fit_within_a_time_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "modpose"),
        Progress("fit", 100, seconds=60, quiet=True) as bar,
    ):
        for batch in range(1, 2 * TIMED[1]):
            bar.advance(1, 0.1 * batch)
    assert not caplog.messages
