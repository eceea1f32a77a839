"""What align refuses before it reads images, and what it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.source import Source, open_source
from modpose.data.stack import ArrayStack
from modpose.errors import InputError
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.classes2d.run import classify_images
from modpose.search.classes2d.settings import Classes2dSettings
from modpose.search.run import align_subtomograms
from modpose.search.settings import AlignSettings
from modpose.search.sizes import check_sizes


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
    check_sizes(source, diameter_px=27.2 / 0.85)
    with pytest.raises(InputError, match=r"--mask-diameter is 28 Å, expected at most the box, 27"):
        check_sizes(source, 16, 14.0 / 0.85)
    unknown = replace(source, stack=ArrayStack(source.stack.read(np.arange(2))[:, 0]))
    with pytest.raises(InputError, match="--mask-diameter is 17 pixels, expected at most the box"):
        check_sizes(unknown, 16, 17.0)


BOX = "--box is 40, expected at most 32, the side of the images"
SHIFT = "--max-shift is 33, expected at most the 32 pixels of the box"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Classes2dSettings(classes=1, box=40), BOX),
        (Classes2dSettings(classes=1, max_shift_px=33), SHIFT),
        (Classes2dSettings(classes=1, mask_diameter_px=40), "--mask-diameter is 34 Å"),
    ],
)
def test_classes_refuse_sizes_without_the_command_line(
    source: Source, tmp_path: Path, settings: Classes2dSettings, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        classify_images(source, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (AlignSettings(box=40), BOX),
        (AlignSettings(max_shift_px=33), SHIFT),
        (AlignSettings(mask_diameter_px=40), "--mask-diameter is 34 Å"),
    ],
)
def test_align_refuses_sizes_without_the_command_line(
    tmp_path: Path, settings: AlignSettings, said: str
) -> None:
    volumes = np.random.default_rng(0).random((12, 32, 32, 32)).astype(np.float32)
    source = Source(ArrayStack(volumes, "volumes", pixel_size=0.85), Particles(pd.DataFrame()))
    with pytest.raises(InputError, match=said):
        align_subtomograms(source, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_maps_refuse_a_box_larger_than_the_images_unless_it_is_the_usual_one(
    source: Source,
) -> None:
    many = source.subset(np.arange(10).repeat(10))
    with pytest.raises(InputError, match=BOX):
        find_maps(many, None, AbInitioSettings(box=40))
    assert AbInitioSettings().box_given is None
