"""What align refuses before it reads images, and what it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modpose.cli.averaging import _check_sizes
from modpose.data.mrc import write_mrcs
from modpose.data.source import Source, open_source
from modpose.errors import InputError
from modpose.search.classes2d.run import classify_images
from modpose.search.classes2d.settings import Classes2dSettings


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Open ten images of 32 pixels, 0.85 Å each; the header holds a little less."""
    images = np.random.default_rng(0).random((10, 32, 32)).astype(np.float32)
    write_mrcs(tmp_path / "p.mrcs", images, 0.85)
    return open_source(tmp_path / "p.mrcs")


def test_a_table_that_is_read_is_not_removed(source: Source, tmp_path: Path) -> None:
    """Tables of an earlier search are removed, but not one that these images need."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "settings.json").write_text('{"classes": 1, "seed": 0}')
    (out / "particles.cs").write_text("")
    read = replace(source, others=(out / "particles.cs",))
    with pytest.raises(InputError, match=r"particles\.cs"):
        classify_images(read, out, Classes2dSettings(classes=1), overwrite=True)


def test_a_mask_as_wide_as_the_box_is_taken(source: Source) -> None:
    _check_sizes(source, None, 27.2, None)
    with pytest.raises(InputError, match="--mask-diameter is 28 Å, expected at most the box"):
        _check_sizes(source, None, 28.0, None)
