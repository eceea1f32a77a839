"""The benchmarks that compare with the poses of a table run, and say how far off they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import abinitio_table, tilt_series
from modpose.data.mrc import write_mrcs
from modpose.search.abinitio.settings import RefinePlan, StartPlan
from modpose.search.tilts import run
from modpose.simulate.conformations import Conformer, built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings
from modpose.simulate.species import built_in_species
from modpose.simulate.tilt_settings import TiltSettings
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import simulate_tilts


def test_a_map_to_start_from_gives_the_poses_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = replace(StartPlan(), rounds=4, images=50, rotations=(288, 288))
    monkeypatch.setattr("modpose.search.abinitio.run.StartPlan", lambda: start)
    monkeypatch.setattr(
        "modpose.search.abinitio.run.RefinePlan",
        lambda last_radius: RefinePlan(last_radius=last_radius, rounds=2, searches=(0,)),
    )
    settings = ProjectionSettings(n=120, box=32, pixel_size=5.0, snr=4.0, shift_std_px=0.7)
    rigid = [Conformer("rigid", built_in_conformers(1)[0].molecule, None)]
    write_projections(simulate_projections(settings, rigid), tmp_path, maps=1)
    true = next((tmp_path / "maps").glob("*.mrc"))
    abinitio_table.main([str(tmp_path / "particles.star"), "--map", str(true), "--starts", "1"])
    said = capsys.readouterr().out
    found = re.search(r"class 1: rotation ([\d.]+)° median, ([\d.]+) % lost", said)
    assert found is not None, said
    assert float(found[1]) < 5 and float(found[2]) < 20  # by chance: 120 degrees, nearly all
    with pytest.raises(SystemExit, match="it has no poses to compare with"):
        abinitio_table.main([str(tmp_path / "particles.mrcs")])


def test_real_tilt_series_are_compared_with_their_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = replace(run.FROM_MAP, rounds=2, rotations=1000, refine_rounds=2)
    monkeypatch.setattr(run, "FROM_MAP", few)
    monkeypatch.setattr(tilt_series, "FROM_MAP", few)
    settings = TiltSettings(n=24, tomograms=2, tilts=7, box=24, pixel_size=10.0, snr=2.0)
    made = simulate_tilts(settings, built_in_species(1))
    table = write_tilts(made, tmp_path / "tilts")
    true = tilt_series.template(made, 0)
    for name, volume in (("true", true), ("mirror", true.flip(1).roll(1, 1))):
        write_mrcs(tmp_path / f"{name}.mrc", volume.numpy(), settings.pixel_size)
    for words in (["true.mrc"], ["mirror.mrc", "--mirror"]):
        start = [str(tmp_path / words[0]), *words[1:]]
        tilt_series.main(["--real", str(table), "--map", *start])
        said = capsys.readouterr().out
        assert f"of {settings.n} poses found are more than" in said
        assert "processor seconds" in said and "nan" not in said
        found = re.search(r"rotation ([\d.]+)° median, ([\d.]+) % lost", said)
        assert found is not None, said
        assert float(found[1]) < 5 and float(found[2]) < 20
