"""Scale bars: round lengths, the right number of pixels, at the lower left of the picture."""

from __future__ import annotations

import numpy as np
import pytest

from modpose.plot.figures import DisplayStyle, new_figure, sheet
from modpose.plot.scale_bar import in_words, round_length, scale_bar


@pytest.mark.parametrize(
    ("most", "length"), [(1.0, 1.0), (99.9, 50.0), (50.0, 50.0), (0.3, 0.2), (1234.0, 1000.0)]
)
def test_lengths_are_round(most: float, length: float) -> None:
    assert round_length(most) == pytest.approx(length)


def test_lengths_have_a_fitting_unit() -> None:
    assert [in_words(a) for a in (50, 1000, 200_000)] == ["50 Å", "100 nm", "20 µm"]


def test_a_bar_has_its_length_in_pixels() -> None:
    look = DisplayStyle((0, 1), (0, 1), "lower", 4.0)
    [axis] = sheet(np.zeros((6, 40, 40)), 3, look).axes
    x, y = axis.lines[0].get_data()
    assert np.ptp(x) * 4.0 == pytest.approx(50.0)  # of at most 0.45 x 40 x 4 = 72
    assert min(x) > 0 and max(x) < 40 and 30 < y[0] < 40
    assert [text.get_text() for text in axis.texts] == ["50 Å"]
    assert axis.get_xlim() == (-0.5, 40 * 3 + 2 - 0.5)


def test_rows_that_grow_upwards_have_it_at_the_bottom_too() -> None:
    axis = new_figure(2.0).subplots()
    axis.imshow(np.zeros((40, 40)), origin="lower")
    scale_bar(axis, 1.0, 40)
    assert axis.lines[0].get_ydata()[0] < 5


def test_the_words_fit_into_their_picture() -> None:
    """Forty columns on 9.6 inches are 17 points each; so are 80 of half that, and no words fit."""
    look = DisplayStyle((0, 1), (0, 1), "lower", 4.0)
    [axis] = sheet(np.zeros((40, 40, 40)), 40, look).axes
    [words] = axis.texts
    end = words.get_window_extent().x1
    assert end <= axis.transData.transform((40, 0))[0]
    [axis] = sheet(np.zeros((80, 40, 40)), 80, look).axes
    assert not axis.texts and not axis.lines


def test_nothing_is_drawn_where_the_size_is_unknown() -> None:
    [axis] = sheet(np.zeros((6, 40, 40)), 3, DisplayStyle((0, 1), (0, 1), "lower")).axes
    assert not axis.lines and not axis.texts
