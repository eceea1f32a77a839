"""Some of many volumes are aligned before a training of modpose-3d; the others are encoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modpose import fit_run, open_source
from modpose.config import merge, parse_config
from modpose.data.source import Source
from modpose.recipes import recipe_config
from modpose.simulate.species import built_in_species
from modpose.simulate.subtomogram_files import write_subtomograms
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms
from modpose.train import adapt
from modpose.train.checkpoint import read_weights

QUICK = {"rounds": 1, "refine_rounds": 1, "rotations": 60, "motions": 0}
START = {"start": QUICK, "epochs": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("subtomograms")
    settings = SubtomogramSettings(n=24, box=16, pixel_size=12.0, snr=2.0)
    star = write_subtomograms(simulate_subtomograms(settings, built_in_species(1)), folder)
    return open_source(star, kind="volumes")


def test_some_volumes_are_aligned_and_trained_on(source: Source, tmp_path: Path) -> None:
    values = merge(recipe_config("modpose-3d"), {"train": START})
    config = parse_config(merge(values, {"train": {"start": {"volumes": 10}}}), "test")
    run = fit_run(source, config, tmp_path / "run", quiet=True)
    dataset = run.dataset()
    assert len(dataset.train) == 10 and not set(dataset.train) & set(dataset.val)
    weights = torch.zeros(24, dtype=torch.bool)
    weights[torch.from_numpy(dataset.train)] = True
    rotation = read_weights(run.path / "checkpoints" / "best.safetensors")["searched.rotation"]
    turned = (rotation - torch.eye(3)).flatten(1).abs().amax(1) > 1e-3
    assert torch.equal(turned, weights)
    assert len(run.latents()) == 24


def test_a_short_fit_of_many_volumes_aligns_some(
    source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(adapt, "ALL_ALIGNED", 20)
    monkeypatch.setattr(adapt, "LEAST_ALIGNED", 12)
    monkeypatch.setattr(adapt, "VOXELS_A_SECOND", 16.0**3 / 3)
    config = parse_config(recipe_config("modpose-3d"), "test")

    def chosen(minutes: float | None) -> int | None:
        start = adapt.in_time(config, source, minutes).train.start
        assert start is not None and start.kind == "alignment"
        return start.volumes

    assert chosen(None) is None
    assert chosen(1e-6) == 16  # twice eight for a class
    assert chosen(100.0) == 20  # 3000 seconds, fifty rounds of three seconds
    assert chosen(1000.0) is None
    assert "20 of 24 volumes, chosen at random, are aligned" in caplog.text
