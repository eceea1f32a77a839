"""The alphanumeric set: what it holds, against scipy's rotation of the same glyphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import rotate
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.simulate.characters import (
    CHARACTERS,
    SEEN,
    UNSEEN,
    CharacterSettings,
    simulate_alphanumeric,
)
from modpose.simulate.digits import glyphs


def test_the_characters_are_those_of_the_paper() -> None:
    assert set(CHARACTERS) == set("aebdpijz2kxu")
    assert set(SEEN) | set(UNSEEN) <= set(CHARACTERS)
    assert not set(SEEN) & set(UNSEEN)


def test_angles_are_whole_degrees_smaller_than_45() -> None:
    truth = simulate_alphanumeric(CharacterSettings(n=2400, box=16, max_shift_px=1.5)).truth
    assert truth["angle_deg"].min() == -44
    assert truth["angle_deg"].max() == 44
    assert (truth["angle_deg"] % 1 == 0).all()
    assert (truth["class"].value_counts() == 200).all()
    assert (np.array(list(CHARACTERS))[truth["class"]] == truth["template"]).all()
    assert 1.4 < truth[["shift_x", "shift_y"]].abs().to_numpy().max() <= 1.5


def test_images_are_the_glyphs_turned() -> None:
    settings = CharacterSettings(n=24, box=65, binary=False, seed=3)
    made = simulate_alphanumeric(settings)
    size = 49  # three quarters of the box
    for image, row in zip(made.images[:8], made.truth.itertuples(), strict=False):
        upright = np.pad(glyphs(str(row.template), size)[0], 8)
        turned = rotate(upright, -row.angle_deg, reshape=False)  # its rows run upward
        assert np.corrcoef(image.ravel(), turned.ravel())[0, 1] > 0.99


def test_images_are_binary_unless_grey_and_the_same_for_a_seed() -> None:
    one, two = (simulate_alphanumeric(CharacterSettings(n=12)).images for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert set(np.unique(one)) == {0.0, 1.0}
    assert one.shape == (12, 64, 64)
    lit = np.argwhere(one.max(0))
    assert lit.min() > 5 and lit.max() < 58  # nothing is cut off


def test_the_command_writes_images_and_truth(tmp_path: Path) -> None:
    out = tmp_path / "set"
    options = ["--images", "9", "--box", "32", "--characters", "2xp"]
    result = CliRunner().invoke(app, ["simulate", "alphanumeric", "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    source = open_source(out / "particles.star")
    assert source.stack.shape == (32, 32)
    assert sorted(source.particles.column("modposeTruthTemplate")) == sorted(["2", "x", "p"] * 3)
    assert np.abs(source.particles.column("modposeTruthAngle")).max() < 45


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"characters": "aa"}, "characters is 'aa', expected characters that differ"),
        ({"characters": "a "}, "a character is ' ', expected one with ink"),
        ({"n": 3}, "n is 3, expected at least one of each character"),
        ({"box": 8}, "box is 8, expected at least 16"),
        ({"max_angle_deg": 0}, "max_angle_deg is 0, expected 1 to 180"),
        ({"max_shift_px": -1.0}, "max_shift_px is -1.0, expected 0 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        CharacterSettings(**settings)
