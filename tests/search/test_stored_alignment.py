"""A folder of alignment that version 0.1 wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modpose import AlignSettings, InputError, align_subtomograms, open_source

STORED = Path(__file__).parents[1] / "stored_runs"


def test_an_alignment_of_version_0_1_is_gone_on_with(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(STORED / "align", tmp_path / "align"))
    known = json.loads((folder / "settings.json").read_text())
    wanted = {name: known[name] for name in AlignSettings.__dataclass_fields__ if name in known}
    source = open_source(STORED / "volumes" / "particles.star")
    found = align_subtomograms(source, folder, AlignSettings(**wanted), resume=True, quiet=True)
    assert len(found.assignment.class_index) == source.n
    with pytest.raises(InputError, match="there is an alignment already"):
        align_subtomograms(source, folder, AlignSettings(**wanted), quiet=True)
