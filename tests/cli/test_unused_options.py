"""An option that would have no effect is refused, before any file is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from modpose.cli import app
from modpose.errors import InputError


@pytest.mark.parametrize(
    ("words", "flag", "other"),
    [
        ("pick a.mrc -o p.star --radius 4 --contents 3", "--contents", "--run"),
        ("pick a.mrc -o p.star --coordinates c.star --false 0.1", "--false", "a search"),
        (
            "pick a.mrc -o p.star --radius 4 --threshold 5 --false 0.1",
            "--false",
            "a search without",
        ),
        ("explore run --export out --port 8800", "--port", "a page that is served"),
        ("explore run --export out --no-browser", "--no-browser", "a page that is served"),
        ("explore run --overwrite", "--overwrite", "--export"),
        ("abinitio p.star -o out --map m.mrc --starts 4", "--starts", "random starts, not --map"),
        ("simulate projections -o out --defocus 9000 9500", "--defocus", "--ctf"),
        ("simulate projections -o out --junk-kind noise", "--junk-kind", "--junk"),
        ("simulate projections -o out --resolution 20", "--resolution", "files of coordinates"),
        ("simulate subtomograms -o out --defocus 9000 9500", "--defocus", "--ctf"),
        (
            "simulate subtomograms -o out --hinge -9 9 --assemblies 2",
            "--assemblies",
            "neither files",
        ),
        ("simulate subtomograms -o out --noise none --snr 1", "--snr", "noise, not --noise none"),
        ("simulate tilt-series -o out --resolution 20", "--resolution", "files of coordinates"),
        ("fsc a.mrc b.mrc --cone-angle 30", "--cone-angle", "--cones"),
        ("affinity --matrix a.csv --metric fsc", "--metric", "INPUT"),
    ],
)
def test_an_option_without_effect_is_refused(
    words: str, flag: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words.split())
    assert isinstance(done.exception, InputError), done.output
    assert f"{flag} is given, expected it only with {other}" in str(done.exception)
    assert not any(tmp_path.iterdir())
