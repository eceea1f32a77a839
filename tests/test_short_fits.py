"""A short fit of many images encodes a sample; the rest is encoded when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modpose import InputError, PoseModel, Run, find_alarms, fit_run, open_source, resume_run
from modpose import fit as fits
from modpose.alarms import content as content_alarms
from modpose.cli import main
from modpose.config import merge, parse_config
from modpose.recipes import recipe_config
from modpose.report import build_report
from modpose.train import encoding, validation

N = 90
TINY: dict[str, Any] = {
    "model": {"z_dim": 1, "encoder": {"hidden": 8}, "field": {"hidden": 8}},
    "train": {"epochs": 2, "batch_size": 16, "pixels": 40},
}


@pytest.fixture(autouse=True)
def slow_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every encoding too slow for its fit, and numbers small."""
    monkeypatch.setattr(encoding, "SAMPLE", 20)
    monkeypatch.setattr(encoding, "TIMED", 4)
    monkeypatch.setattr(encoding, "BLOCK", 32)
    monkeypatch.setattr(fits, "LEAST_ENCODING", 0.0)


def fitted(folder: Path, minutes: float | None, clusters: int | None = 2, **options: Any) -> Run:
    folder.mkdir(exist_ok=True)
    path = folder / "stack.npy"
    images = np.random.default_rng(0).normal(size=(N, 12, 12)).astype(np.float32)
    np.save(path, images)
    values = merge(merge(recipe_config("spatial-vae"), TINY), options)
    labels = np.arange(N) % 3
    config = parse_config(values, "test")
    return fit_run(
        open_source(path), config, folder / "run", max_minutes=minutes, labels=labels,
        clusters=clusters, quiet=True,
    )  # fmt: skip


@pytest.fixture
def short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Run:
    run = fitted(tmp_path, 1e-6)
    assert "20 of them are encoded now" in caplog.text
    return run


def test_a_sample_is_as_large_as_there_is_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "LEAST", 6)
    assert fitted(tmp_path, 1e-6).environment["encoded"] == 6


def test_an_epoch_that_is_cut_short_is_judged_by_fewer_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "LEAST", 4)
    asked: list[int] = []
    evenly = validation._evenly
    monkeypatch.setattr(validation, "_evenly", lambda rows, n: asked.append(n) or evenly(rows, n))
    fitted(tmp_path, 1e-6, data={"val_fraction": 0.3})  # one batch of 16
    fitted(tmp_path / "whole", None, data={"val_fraction": 0.3}, train={"epochs": 1})
    assert asked == [4, 63 // 4]


def test_a_sample_is_encoded_and_nothing_takes_it_for_all(short: Run) -> None:
    assert short.finished and short.partial
    table = short.latents(partial=True)
    assert len(table) == 20 and table["index"].is_monotonic_increasing
    assert table["index"].max() > 20  # spread over the stack
    assert (table["label"] == table["index"] % 3).all()
    held = set(short.dataset().val.tolist())
    assert (table["split"] == ["val" if i in held else "train" for i in table["index"]]).all()
    with pytest.raises(InputError, match=r"only 20 of 90 images are encoded.*modpose resume"):
        short.latents()
    assert "20 of 90 images are encoded" in short.describe().facts["state"]
    assert len(PoseModel.load(short.path).latents()) == 20


def test_the_rest_has_the_content_that_the_model_gives(short: Run) -> None:
    sample = short.latents(partial=True)
    run = resume_run(short.path, quiet=True)
    assert not run.partial
    table = run.latents()
    assert table["index"].tolist() == list(range(N))
    assert table["label"].tolist() == [i % 3 for i in range(N)]
    assert (table["split"] == "val").sum() == len(run.dataset().val)
    whole = PoseModel.load(run.path).encode(run.dataset().source)
    assert np.allclose(table["z_0"], whole.z[:, 0], atol=1e-6)
    assert np.allclose(sample["z_0"], table["z_0"].to_numpy()[sample["index"]], atol=1e-6)
    assert not list((run.path / "checkpoints").glob("rest-*"))


def test_an_interrupted_encoding_goes_on_and_gives_the_same(
    short: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, done = encoding.encode_dataset, []

    def until_the_second(*given: Any, **named: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(named["rows"])
        return encode(*given, **named)

    monkeypatch.setattr(encoding, "encode_dataset", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        resume_run(short.path, quiet=True)
    assert short.partial and len(short.latents(partial=True)) == 20
    done.clear()
    again = resume_run(short.path, quiet=True).latents()
    assert [rows[0] for rows in done] == [64]
    pd.testing.assert_frame_equal(again, Run.open(short.path).latents())


def test_alarms_compare_an_image_with_its_own_content(
    short: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def explained(content: np.ndarray, _: np.ndarray) -> float:
        seen.append(content)
        return 0.0

    monkeypatch.setattr(content_alarms, "explained", explained)
    monkeypatch.setattr(content_alarms, "FEWEST", 1)
    monkeypatch.setattr(content_alarms, "USED", -1.0)
    table = short.latents(partial=True)
    for given in (table, table.sort_values("z_0")):  # joined by index, in any order
        seen.clear()
        find_alarms(short.dataset(), latents=given)
        assert seen and np.array_equal(seen[0][:, 0], table["z_0"].to_numpy(float))


def test_a_fit_without_a_limit_of_time_encodes_all(tmp_path: Path) -> None:
    run = fitted(tmp_path, None)
    assert not run.partial and len(run.latents()) == N


def test_rows_of_a_lookup_table_are_all_written(tmp_path: Path) -> None:
    table = {"model": {"encoder": {"kind": "table"}}, "data": {"val_fraction": 0}}
    assert not fitted(tmp_path, 1e-6, None, **table).partial


def test_the_report_shows_the_sample_and_says_so(short: Run) -> None:
    page = build_report(short.path, quiet=True).read_text()
    assert "Only 20 of 90 images are encoded" in page
    assert short.partial


def test_a_command_that_needs_all_encodes_the_rest(
    short: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept.txt"
    with pytest.raises(SystemExit, match="0"):
        main(["select", str(short.path), "--where", "elbo < 1e9", "-o", str(out)])
    assert "kept 90 of 90 images" in capsys.readouterr().out
    assert not Run.open(short.path).partial
