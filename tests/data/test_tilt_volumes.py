"""Tilt series as volumes with weights: what is read, fitted, and written back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from modpose.cli import app
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.inspect import describe
from modpose.data.source import open_source
from modpose.data.star import read_star, write_blocks
from modpose.errors import InputError
from modpose.geometry.rotations import geodesic
from modpose.run import Run
from modpose.simulate.molecules import density
from modpose.simulate.species import built_in_species
from modpose.simulate.tilt_settings import TiltSettings
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import SimulatedTilts, simulate_tilts

BOX = 24
ROWS = np.arange(8)


def simulated(snr: float, premultiplied: bool) -> SimulatedTilts:
    return simulate_tilts(
        TiltSettings(
            n=8, tomograms=2, tilts=15, box=BOX, snr=snr, seed=1, premultiplied=premultiplied
        )
    )


def whitened(path: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return transforms of the volumes as models see them, their factors, and the shells."""
    config = DataConfig(normalize="none", val_fraction=0)
    batch = Dataset(open_source(path), config, seed=0, wedge="auto").batch(ROWS)
    axes = (1, 2, 3)
    volumes = torch.fft.ifftshift(batch.image[:, 0], dim=axes)
    k = torch.fft.fftfreq(BOX) * BOX
    square = k[:, None, None] ** 2 + k[:, None] ** 2 + torch.arange(BOX // 2 + 1) ** 2
    assert batch.wedge is not None
    return (
        torch.fft.rfftn(volumes, dim=axes, norm="ortho"),
        batch.wedge,
        square.sqrt().round().long(),
    )


@pytest.mark.parametrize("premultiplied", [False, True])
def test_noise_is_white_where_something_was_measured(tmp_path, premultiplied):
    volume, factor, shell = whitened(write_tilts(simulated(1e-4, premultiplied), tmp_path))
    power = volume.abs().square()
    low = (shell > 0) & (shell < 9)
    sure, unsure = (
        power[:, low][where].mean()
        for where in (factor[:, low] > 1, (factor[:, low] > 0.3) & (factor[:, low] <= 1))
    )
    # some 10,000 coefficients each: 1 %; neighbours of unlike weight mix by the ends of the box
    assert float(sure / unsure) == pytest.approx(1, abs=0.15)
    assert power[:, low][factor[:, low] == 0].mean() < 0.3 * sure


@pytest.mark.parametrize("premultiplied", [False, True])
def test_signal_is_the_posed_molecule_times_the_factors(tmp_path, premultiplied):
    made = simulated(50.0, premultiplied)
    volume, factor, shell = whitened(write_tilts(made, tmp_path))
    molecule, size = made.species[0].molecule, made.settings.pixel_size
    centers, shift = molecule.conformations(np.zeros(1)), np.asarray(made.shift)
    upright = [
        density(centers, molecule.sigmas, molecule.masses, turn[None], by[None], BOX, size)[0]
        for turn, by in zip(made.rotation, shift, strict=True)
    ]
    true = torch.from_numpy(np.array(upright, np.float32))
    true = torch.fft.rfftn(torch.fft.ifftshift(true, dim=(1, 2, 3)), dim=(1, 2, 3)) * factor
    for number in (1, 3, 5):
        a, b = volume[:, shell == number], true[:, shell == number]
        found = (a * b.conj()).sum().real / (a.norm() * b.norm())
        assert found > 0.95, number


def test_rows_keep_their_volumes_and_weights(tmp_path):
    path = write_tilts(simulated(0.5, False), tmp_path)
    whole, some = open_source(path), open_source(path, index=np.array([5, 2]))
    assert some.particles.column("rlnTomoParticleName").tolist() == ["TS_02/6", "TS_01/3"]
    np.testing.assert_array_equal(some.stack.read(np.arange(2)), whole.stack.read(np.array([5, 2])))
    config = DataConfig(normalize="none", val_fraction=0)
    every, few = (
        Dataset(one, config, seed=0, wedge="auto").batch(rows)
        for one, rows in ((whole, np.array([5, 2])), (some, np.arange(2)))
    )
    torch.testing.assert_close(every.image, few.image)
    torch.testing.assert_close(every.wedge, few.wedge)
    np.testing.assert_allclose(some.particles.poses()[0], whole.particles.poses()[0][[5, 2]])


def test_what_tilt_series_do_not_take_is_refused(tmp_path):
    path = write_tilts(simulated(0.5, False), tmp_path)
    with pytest.raises(InputError, match="poses, ctf or wedge"):
        open_source(path, wedge=(-60.0, 60.0))
    with pytest.raises(InputError, match="number of inputs"):
        open_source([path, path])
    with pytest.raises(InputError, match="expected a table of tilt series"):
        open_source(np.zeros((3, 8, 8)), tilt_series=True)
    table = path.with_name("particles.star")
    moved = tmp_path / "elsewhere" / "p.star"
    moved.parent.mkdir()
    moved.write_bytes(table.read_bytes())
    with pytest.raises(InputError, match="list of tomograms is not known"):
        open_source(moved)
    assert "list of tomograms" in describe(moved).problems[-1]
    again = open_source(moved, tomograms=path.with_name("tomograms.star"))
    assert again.n == 8
    facts = describe(path).facts
    assert facts["tilts"].endswith("a particle, up to 60 degrees")
    assert not describe(table).problems


def invoked(command: str) -> str:
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output
    return done.output


def test_two_molecules_from_the_command_line_to_a_table(tmp_path):
    path = write_tilts(
        simulate_tilts(
            TiltSettings(n=48, tomograms=2, tilts=11, box=16, pixel_size=14.0, snr=2.0),
            built_in_species(2),
        ),
        tmp_path / "tilts",
        poses=False,
    )
    table, tomograms = path.with_name("particles.star"), path.with_name("tomograms.star")
    moved = table.replace(tmp_path / "tilts" / "stacks" / "particles.star")
    run, out = tmp_path / "run", tmp_path / "out"
    options = f"--tomograms {tomograms} --datadir {path.parent}"
    invoked(f"fit {moved} -o {run} {options} --recipe modpose-3d --classes 2 --epochs 1 --quiet")
    invoked(f"export {run} -o {out}")
    invoked(f"encode {run} {out}/particles.star {options} -o {out}/new.parquet")
    source = open_source(out / "particles.star", tomograms=tomograms, datadir=path.parent)
    fitted, new = (pd.read_parquet(f) for f in (run / "latents.parquet", out / "new.parquet"))
    truth = source.particles.truth()["class"].to_numpy()
    content = fitted[["z_0", "z_1"]].to_numpy()
    means = np.stack([content[truth == k].mean(0) for k in (0, 1)])
    nearest = np.linalg.norm(content[:, None] - means, axis=2).argmin(1)
    assert (nearest == truth).mean() > 0.8  # by chance 0.5, with a deviation of 0.07
    entries = fitted[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy()
    rotation, shift = source.particles.poses()
    np.testing.assert_allclose(rotation.reshape(-1, 9), entries, atol=1e-5)
    moves = fitted[["shift_x", "shift_y", "shift_z"]].to_numpy()
    np.testing.assert_allclose(shift, moves, atol=1e-4)
    assert new["name"].tolist() == fitted["name"].tolist()


@pytest.mark.parametrize("recipe", ["3d-spvae", "3d-spvae++", "affinity-vae"])
def test_published_volume_models_see_the_weights(tmp_path, recipe):
    path = write_tilts(
        simulate_tilts(TiltSettings(n=12, tomograms=1, tilts=7, box=8, pixel_size=28.0, snr=0.5)),
        tmp_path / "tilts",
    )
    run = tmp_path / "run"
    small = "--set model.z_dim=2 --gamma 0" if recipe == "affinity-vae" else "--z-dim 2"
    narrow = " --set model.field.hidden=8" if recipe == "3d-spvae" else ""
    invoked(f"fit {path} -o {run} --recipe {recipe} --epochs 1 --quiet {small}{narrow}")
    text = (run / "config.yaml").read_text()
    assert "wedge: auto" in text


def test_a_fit_starts_from_poses_and_classes_that_were_found(tmp_path):
    settings = TiltSettings(n=24, tomograms=2, tilts=7, box=16, pixel_size=14.0, snr=2.0)
    made = simulate_tilts(settings, built_in_species(2))
    table = write_tilts(made, tmp_path / "tilts").with_name("particles.star")
    blocks, run = read_star(table), tmp_path / "run"
    classes = made.truth["class"].to_numpy() + 1
    found = {"rlnClassNumber": classes, "modposeScore": 1.0}
    table = table.with_name("found.star")
    write_blocks(table, blocks | {"particles": blocks["particles"].assign(**found)})
    quick = "--epochs 1 --quiet --set train.start.refine_rounds=1 --set train.start.motions=0"
    done = CliRunner().invoke(
        app, f"fit {table} -o {run} --recipe modpose-3d --classes 3 {quick}".split()
    )
    assert "rlnClassNumber is 2, expected 3 (--classes)" in str(done.exception)
    invoked(f"fit {table} -o {run} --recipe modpose-3d {quick}")
    config = Run.open(run).config.train.start
    assert (config.poses, config.classes) == ("given", 2)
    latents = pd.read_parquet(run / "latents.parquet")
    entries = latents[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(copy=True)
    rotation, true = (
        torch.tensor(entries).float().view(-1, 3, 3),
        torch.tensor(made.rotation).float(),
    )
    error = geodesic(rotation, true)
    assert error.rad2deg().median() < 10  # in the frame of the table, which a search does not know
