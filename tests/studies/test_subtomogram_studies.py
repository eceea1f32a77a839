"""The studies of the 3D-SpVAE paper, in small."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from modpose.config import parse_config
from modpose.errors import InputError
from modpose.simulate.species import built_in_species, species_of_files
from studies import subtomograms
from studies.common.null import LABEL
from studies.subtomograms.budgets import COMPARED, MODELS, PLANS
from studies.subtomograms.sets import (
    FIELD_OF_VIEW,
    MOLECULES,
    RESOLUTION,
    clean_volumes,
    make_set,
)
from studies.subtomograms.studies import SNRS, Setting, make_fit


def test_smoke(tmp_path: Path) -> None:
    page = subtomograms.run("smoke", tmp_path / "study")
    text = page.read_text()
    for part in ("Table 1", "Table 2", "figure-2.png", "figure-3-3d-spvae.png"):
        assert part in text
    with (tmp_path / "study" / "tables" / "table-1.csv").open() as file:
        rows = list(csv.DictReader(file))
    models = (LABEL, *COMPARED, "modpose-3d, by search")
    assert [(r["model"], r["SNR"]) for r in rows] == [(m, f"{s:g}") for s in SNRS for m in models]
    for row in rows:
        null = row["model"] == LABEL
        assert np.isfinite(float(row["ELBO"])) and (float(row["KL"]) > 0) != null
        assert (float(row["over null"]) == 0) == null
        assert bool(row["rotation (°)"]) == (row["model"] != "vae-3d" and not null)
    with (tmp_path / "study" / "tables" / "table-2.csv").open() as file:
        domains = {r["model"]: r for r in csv.DictReader(file)}
    assert list(domains) == [*MODELS, LABEL]
    of_s = {r["model"]: r["ELBO"] for r in rows if r["SNR"] == "0.1"}
    assert all(domains[m]["S→S"] == of_s[m] for m in MODELS)  # one fit serves both tables
    assert all(np.isfinite(float(v)) for r in domains.values() for k, v in r.items() if "→" in k)
    with (tmp_path / "study" / "tables" / "collapse.csv").open() as file:
        followed = [(r["SNR"], r["model"]) for r in csv.DictReader(file)]
    assert followed == [(s, m) for s in ("0.1", "10") for m in (LABEL, "vae-3d", "3d-spvae")]


def test_sets_differ_in_molecules_and_instrument(tmp_path: Path) -> None:
    sets = {
        name: make_set(
            tmp_path, name, snr=None, per_class=4, held_out=0.25, box=12, data=None, seed=0
        )
        for name in ("S", "R")
    }
    assert sets["S"].sample.open_train().n == 24 and sets["R"].sample.open_train().n == 2
    templates = {n: set(s.sample.truth_of_test()["template"]) for n, s in sets.items()}
    assert not templates["S"] & templates["R"]
    clean = clean_volumes(sets["S"], np.arange(8))
    noisy = sets["S"].sample.open_test().stack.read(np.arange(8))[:, 0]
    noise = noisy - clean
    assert clean.var() / noise.var() == pytest.approx(0.1, rel=0.5)
    assert abs(np.corrcoef(clean.ravel(), noise.ravel())[0, 1]) < 0.05


def test_built_in_molecules_fit_into_the_box() -> None:
    for one in built_in_species(8):
        assert 2 * one.radius(np.zeros(1), 1.0) <= FIELD_OF_VIEW, one.name


@pytest.mark.shared
def test_real_molecules_fit_into_the_box(shared_data: Path) -> None:
    for files, _ in MOLECULES.values():
        paths = [shared_data / "pdb" / file for file in files.split()]
        for one in species_of_files(paths, RESOLUTION):
            assert 2 * one.radius(np.zeros(1), 1.0) <= FIELD_OF_VIEW, one.name


@pytest.mark.parametrize("budget", ["scaled", "full"])
def test_every_configuration_is_valid(budget: str, tmp_path: Path) -> None:
    plan = PLANS[budget]  # type: ignore[index]
    one = make_set(tmp_path, "R", snr=None, per_class=4, held_out=0.25, box=12, data=None, seed=0)
    for model in COMPARED:
        config = make_fit(Setting(plan, tmp_path, None, 0), model, one).config()
        assert parse_config(config.model_dump(mode="json"), model) == config
        if budget == "full" and model in MODELS:
            assert (config.train.epochs, config.train.batch_size, config.train.lr) == (
                400,
                128,
                1e-4,
            )


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one of noise, domains"):
        subtomograms.run("smoke", tmp_path, only="digits")
    with pytest.raises(InputError, match="more than zero"):
        subtomograms.run("smoke", tmp_path, minutes_per_fit=0)
