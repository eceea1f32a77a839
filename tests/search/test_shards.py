"""An alignment in parts that are files gives what one process gives; wrong parts are refused."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
import torch

from modpose import AlignSettings, InputError, Shard, Waiting, align_subtomograms, open_source
from modpose.cli import main
from modpose.data.source import Source
from modpose.data.tilt_series import open_tilt_series
from modpose.fourier.coefficients import Coefficients, Make, on_disk
from modpose.search import pipeline
from modpose.search import run as run_module
from modpose.search.alignment import Alignment
from modpose.search.tilts import parts as tilt_parts
from modpose.search.tilts.align import align_tilt_series
from modpose.simulate.species import built_in_species
from modpose.simulate.subtomogram_files import write_subtomograms
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms
from modpose.simulate.tilt_settings import TiltSettings
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import simulate_tilts

QUICK = AlignSettings(rounds=1, refine_rounds=1, rotations=60)
WORDS = ["--rounds", "1", "--refine-rounds", "1", "--rotations", "60"]


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subtomograms")
    settings = SubtomogramSettings(n=20, box=16, pixel_size=9.0, snr=1.0, max_shift_px=1.0)
    return write_subtomograms(simulate_subtomograms(settings, built_in_species(1)), folder)


def step(source: Source, out: Path, number: int, settings: AlignSettings = QUICK) -> Alignment:
    return align_subtomograms(source, out, settings, shard=Shard(number, 2), quiet=True)


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    return int(leaving.value.code or 0)


def test_two_shards_find_what_one_process_finds(
    star: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = align_subtomograms(open_source(star), tmp_path / "whole", QUICK, quiet=True)
    out = tmp_path / "parts"
    for _ in range(30):
        for number in (1, 2):
            assert run("align", star, "-o", out, *WORDS, "--shard", f"{number}/2") == 0
        assert run("merge", out) == 0
        if (out / "particles.star").is_file():
            break
    assert "wrote" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )
    # sums in another order; few steps of an optimisation amplify it
    table = starfile.read(out / "particles.star", always_dict=True)["particles"]
    assert table["modposeScore"].to_numpy() == pytest.approx(
        whole.assignment.score.numpy(), rel=1e-3
    )
    found = open_source(out / "class001.mrc", kind="volumes").stack.read(np.arange(1))
    assert np.abs(found[0] - whole.maps.combined[0].numpy()).max() < 1e-3 * np.abs(found).max()
    assert run("align", star, "-o", out, *WORDS, "--shard", "1/2") == 2
    assert "there is an alignment already" in capsys.readouterr().err


def test_shards_of_tilt_series_hold_only_their_particles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tilt_parts, "NOISE_FROM", 8)
    monkeypatch.setattr(run_module, "write_page", lambda *_: None)
    settings = TiltSettings(n=16, tomograms=2, tilts=3, box=24, pixel_size=10.0, snr=2.0)
    table = write_tilts(simulate_tilts(settings, built_in_species(1)), tmp_path, poses=False)
    series, quick = open_tilt_series(table), dataclasses.replace(QUICK, motions=0)
    whole = align_tilt_series(series, tmp_path / "whole", quick, quiet=True)
    held: list[int] = []
    align = run_module.align

    def watched(data: Coefficients, *args: Any, **how: Any) -> Alignment:
        held.append(len(data.value))
        return align(data, *args, **how)

    monkeypatch.setattr(run_module, "align", watched)
    out = tmp_path / "parts"
    found: Alignment | None = None
    for _ in range(40):
        for number in (1, 2, 0):
            with suppress(Waiting):
                shard = Shard(number, 2)
                found = align_tilt_series(series, out, quick, shard=shard, quiet=True)
        if (out / "particles.star").is_file():
            break
    assert found is not None and set(held) == {8, 1}  # one for the process that adds up
    assert found.assignment.score.numpy() == pytest.approx(whole.assignment.score.numpy(), rel=1e-3)
    largest = whole.maps.combined.abs().max()
    assert (found.maps.combined - whole.maps.combined).abs().max() < 1e-3 * largest


def test_each_shard_holds_only_its_volumes(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[int, int]] = []

    def seen(source: Source, *rest: object, **more: object) -> None:
        data = read(source, *rest, **more)  # type: ignore[arg-type]
        held.append((len(data), len(data.value)))
        raise RuntimeError

    read = run_module.coefficients_of_source
    source, out = open_source(star), tmp_path / "out"
    for number in (1, 2):
        with pytest.raises(Waiting, match=f"shard {number} of 2 has done its part of step start-0"):
            step(source, out, number)
    monkeypatch.setattr(run_module, "coefficients_of_source", seen)
    for number in (1, 2, 0):
        with pytest.raises(RuntimeError):
            step(source, out, number)
    assert held == [(20, 10), (20, 10), (20, 1)]


def test_options_of_shards_without_a_shard_or_with_devices_are_refused(
    star: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("align", star, "-o", tmp_path / "out", "--wait", "2") == 2
    assert "--wait is given without --shard" in capsys.readouterr().err
    assert run("align", star, "-o", tmp_path / "out", "--shard", "1/2", "--devices", "2") == 2
    assert "--shard is given with --devices or --nodes" in capsys.readouterr().err


def test_what_does_not_belong_together_is_refused(star: Path, tmp_path: Path) -> None:
    source, out = open_source(star), tmp_path / "out"
    with pytest.raises(InputError, match="no shard of an alignment has begun"):
        step(source, out, 0)
    with pytest.raises(Waiting):
        step(source, out, 1)
    with pytest.raises(InputError, match="start-001, the parts of these shards are missing: 2"):
        step(source, out, 0)
    with pytest.raises(InputError, match="seed to continue is 5, expected 0"):
        step(source, out, 2, dataclasses.replace(QUICK, seed=5))
    with pytest.raises(InputError, match="shards to continue is 3, expected 2"):
        align_subtomograms(source, out, QUICK, shard=Shard(2, 3), quiet=True)
    given = np.repeat([[9.0, 30000, 30000, 0, 300, 2.7, 0.1, 0, 0]], source.n, axis=0)
    particles = dataclasses.replace(source.particles, given_ctf=given)
    with pytest.raises(InputError, match="the CTF is not that of its start"):
        step(dataclasses.replace(source, particles=particles), out, 2)
    with pytest.raises(InputError, match="the volumes are not those of its start"):
        step(source.subset(np.arange(20)[::-1].copy()), out, 2)
    with pytest.raises(Waiting):
        step(source, out, 2)
    parts = sorted((out / "shards").glob("start-*"))
    parts[1].write_bytes(parts[1].read_bytes()[:50])
    with pytest.raises(InputError, match="damaged, expected a part of an alignment"):
        step(source, out, 0)


def test_a_part_of_another_alignment_is_refused(star: Path, tmp_path: Path) -> None:
    source = open_source(star)
    for name, seed in (("a", 0), ("b", 1)):
        for number in (1, 2):
            with pytest.raises(Waiting):
                step(source, tmp_path / name, number, dataclasses.replace(QUICK, seed=seed))
    stray = next((tmp_path / "a" / "shards").glob("start-*2of2*"))
    stray.replace(tmp_path / "b" / "shards" / stray.name)
    with pytest.raises(InputError, match="a part of another alignment"):
        step(source, tmp_path / "b", 0, dataclasses.replace(QUICK, seed=1))


@pytest.mark.parametrize(
    "change",
    [{"options": {}}, {"from": 3}, {"options": {"colour": "red"}}],
)
def test_damaged_options_are_refused(
    change: dict[str, Any], star: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "parts"
    assert run("align", star, "-o", out, *WORDS, "--shard", "1/2") == 0
    path = out / "shards" / "options.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    capsys.readouterr()
    assert run("merge", out) == 2
    assert "options.json: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["3", "3/2", "1/0", "a/2", "-1/2"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="K/N with 1 <= K <= N"):
        Shard.parse(text)


def test_single_processes_need_no_files(star: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not with --overwrite or --resume"):
        align_subtomograms(
            open_source(star), tmp_path, QUICK, shard=Shard(1, 2), overwrite=True, quiet=True
        )


def test_coefficients_may_be_in_a_file(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, held = open_source(star), []
    read = pipeline.align

    def seen(data: Coefficients, *rest: Any, **more: Any) -> Alignment:
        held.append(data)
        return read(data, *rest, **more)

    def noted(folder: Path | None) -> Make:
        folders.append(folder)
        return on_disk(folder)

    folders: list[Path | None] = []
    monkeypatch.setattr(pipeline, "on_disk", noted)
    monkeypatch.setattr(run_module, "align", seen)
    inside = align_subtomograms(source, tmp_path / "memory", QUICK, quiet=True)
    monkeypatch.setattr(pipeline, "IN_MEMORY", 0.0)
    outside = align_subtomograms(source, tmp_path / "file", QUICK, quiet=True)
    assert folders == [tmp_path]
    assert torch.equal(held[0].value, held[1].value)
    assert torch.equal(held[0].transfer, held[1].transfer)
    assert torch.equal(inside.maps.combined, outside.maps.combined)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "memory"]
