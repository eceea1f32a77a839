"""Models of volumes: what the instrument does, the published field, fits, export, report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from modpose import PoseModel
from modpose.config import FrontedFieldConfig, ShiftConfig, merge, parse_config
from modpose.data.batches import Batch
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.data.wedges import wedges_asked_for
from modpose.errors import InputError
from modpose.evaluate.recovery import recover
from modpose.fit import fit_run
from modpose.geometry.rotations import haar_rotations
from modpose.model.build import assemble, build_vae
from modpose.model.fields.fronted import CoordConvField
from modpose.model.latents import Latents
from modpose.model.vae import Vae
from modpose.observe.ctf import ctf_3d
from modpose.observe.observation import Observation
from modpose.observe.wedge import wedge_mask
from modpose.outputs.export import export_run, with_poses
from modpose.recipes import recipe_config
from modpose.report.build import build_report
from modpose.simulate.species import built_in_species
from modpose.simulate.subtomogram_files import write_subtomograms
from modpose.simulate.subtomograms import Subtomograms, SubtomogramSettings, simulate_subtomograms

SIDE = 10
SMALL: dict[str, Any] = {
    "model": {"z_dim": 2, "encoder": {"hidden": 8}, "field": {"hidden": 8}},
    "train": {"epochs": 2, "batch_size": 8, "pixels": 50},
}


def small_vae(recipe: str = "3d-spvae", **model: Any) -> Vae:
    values = merge(merge(recipe_config(recipe), SMALL), {"model": model})
    return build_vae(parse_config(values, recipe), shape=(SIDE,) * 3, channels=1, n_images=4)


def some_volumes(n: int = 4, **settings: Any) -> Subtomograms:
    asked = {"n": n, "box": SIDE, "pixel_size": 18.0, "snr": 1.0} | settings
    return simulate_subtomograms(SubtomogramSettings(**asked), built_in_species(2))


# --- the instrument ---------------------------------------------------------------------------


def test_observation_multiplies_the_transform_by_ctf_and_wedge() -> None:
    signal = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    wedge = wedge_mask(torch.tensor([[-60.0, 60.0], [-40.0, 50.0]]), (8, 8, 8))
    row = torch.tensor([7.0, 40000.0, 30000.0, 0.0, 300.0, 2.7, 0.1, 0.0, 0.0]).expand(2, 9)
    transfer = {
        "wedge": (Observation(wedge=wedge), wedge),
        "ctf": (Observation(ctf=row), ctf_3d(row, (8, 8, 8))),
        "both": (Observation(row, wedge), wedge * ctf_3d(row, (8, 8, 8))),
    }
    for observation, expected in transfer.values():
        spectrum = np.fft.rfftn(signal.numpy(), axes=(2, 3, 4)) * expected[:, None].numpy()
        filtered = np.fft.irfftn(spectrum, s=(8, 8, 8), axes=(2, 3, 4))
        found = observation.apply(signal)
        np.testing.assert_allclose(found.numpy(), filtered, atol=1e-5)
        torch.testing.assert_close(observation.at(slice(1)).apply(signal[:1]), found[:1])


def test_likelihood_compares_the_prediction_behind_the_wedge() -> None:
    vae = small_vae(wedge="-60,60", likelihood={"noise": "fixed", "std": 0.7})
    made = some_volumes()
    image = torch.from_numpy(made.volumes())[:, None]
    wedge = wedge_mask(torch.tensor([[-60.0, 60.0]]), (SIDE,) * 3).expand(4, -1, -1, -1)
    batch = Batch(torch.arange(4), image, wedge=wedge)
    latents = vae.posterior(batch).sample(2, torch.Generator().manual_seed(0))
    found = vae.log_likelihood(batch, latents, pixels=7)  # a wedge needs the whole box
    clean = vae.predict(latents).signal[..., 0].reshape(4, 2, SIDE, SIDE, SIDE)
    seen = torch.fft.irfftn(torch.fft.rfftn(clean, dim=(2, 3, 4)) * wedge[:, None], dim=(2, 3, 4))
    expected = torch.distributions.Normal(seen, 0.7).log_prob(image).sum((2, 3, 4))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)
    found.sum().backward()


def test_prediction_is_the_field_at_posed_coordinates() -> None:
    vae = small_vae("vae-3d", rotation={"prior": "uniform"}, shift={"prior": "gaussian"})
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # a quarter about z: x to y
    zero = torch.zeros(1, 1, 3)
    still = Latents(torch.zeros(1, 1, 2), zero, zero, torch.zeros(1, 1).long())
    upright = vae.predict(still).signal.reshape(SIDE, SIDE, SIDE)
    moved = still._replace(centre=turn[None, None], shift=torch.tensor([[[1.0, 0, 2]]]))
    posed = vae.predict(moved).signal.reshape(SIDE, SIDE, SIDE)
    # an object point (x, y, z) appears at (-y + 1, x, z + 2); arrays are [z, y, x] about SIDE // 2
    c = SIDE // 2
    for x, y, z in [(0, 0, 0), (2, -1, 1), (-3, 2, -2)]:
        before = upright[z + c, y + c, x + c]
        torch.testing.assert_close(posed[z + 2 + c, x + c, -y + 1 + c], before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6)])
def test_fronted_field_is_the_printed_stack_of_layers(shape: tuple[int, ...]) -> None:
    config = FrontedFieldConfig(hidden=7, channels=(5, 4))
    field = CoordConvField(config, z_dim=3, n_outputs=2, shape=shape).double()
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, math.prod(shape), len(shape), generator=generator, dtype=torch.float64)
    z = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    assert field.from_content is not None
    picture = field.from_coordinates(u) + field.from_content(z)[:, None]
    printed = field.rest(field.first(picture.transpose(1, 2).reshape(2, 7, *shape)))
    torch.testing.assert_close(field(u, z), printed.flatten(2).transpose(1, 2))


def test_shift_prior_in_units_of_the_box() -> None:
    assert ShiftConfig(std_box=0.14).std(28) == pytest.approx(3.92)
    assert small_vae().layout.shift.std == pytest.approx(1.4)


def test_a_batch_comes_in_chunks() -> None:
    batch = Batch(torch.arange(7), torch.randn(7, 1, 2, 2))
    parts = list(batch.chunks(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    torch.testing.assert_close(torch.cat([part.image for part in parts]), batch.image)
    assert [len(part) for part in batch.chunks(None)] == [7]


def test_published_sizes() -> None:
    for name, outputs in (("vae-3d", 100), ("3d-spvae", 112), ("3d-spvae++", 112)):
        config = parse_config(recipe_config(name), name)
        with torch.device("meta"):
            vae = assemble(config, shape=(28, 28, 28), channels=1, n_images=1)
        layers = [m for m in vae.encoder.modules() if isinstance(m, torch.nn.Linear)]
        sizes = [(m.in_features, m.out_features) for m in layers]
        assert sizes == [(21952, 1000), (1000, 1000), (1000, outputs)]
        assert config.train.batch_size == 128 and config.train.lr == 1e-4
        assert config.train.epochs == 400 and config.model.rotation.std_deg == 90


# --- fits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["vae-3d", "3d-spvae", "3d-spvae++"])
def test_a_model_of_an_array_of_volumes(recipe: str, tmp_path: Path) -> None:
    volumes = some_volumes(12).volumes()
    options = merge(SMALL, {"train": {"chunk": 3}})
    model = PoseModel(recipe, options=options, quiet=True).fit(volumes)
    found = model.encode(volumes)
    inferred = recipe != "vae-3d"
    assert found.rotation.shape == (12, 3, 3) and found.shift.shape == (12, 3)
    turned = np.einsum("nij,nkj->nik", found.rotation, found.rotation)
    np.testing.assert_allclose(turned, np.broadcast_to(np.eye(3), (12, 3, 3)), atol=1e-5)
    columns = set(found.to_dataframe())
    assert ({"r00", "r22", "rotation_std_deg", "shift_z", "shift_z_std"} <= columns) == inferred
    assert model.reconstruct(volumes).shape == model.decode(found.z).shape == volumes.shape
    model.save(tmp_path / "run")
    again = PoseModel.load(tmp_path / "run").encode(volumes)
    np.testing.assert_allclose(again.elbo, found.elbo, rtol=1e-5)


def test_fit_report_and_export_of_a_star_file(tmp_path: Path) -> None:
    star = write_subtomograms(some_volumes(12), tmp_path / "data")
    values = merge(merge(recipe_config("3d-spvae"), SMALL), {"model": {"wedge": "auto"}})
    uniform = {"model": {"rotation": {"prior": "uniform"}}}
    config = parse_config(merge(values, uniform), "test")
    run = fit_run(open_source(star), config, tmp_path / "run", quiet=True)
    page = build_report(run.path, quiet=True)
    assert (page.parent / "pose-walk.png").is_file() and (page.parent / "average.png").is_file()
    assert "rotation in space" in page.read_text()
    export_run(run, tmp_path / "out.star")
    table = starfile.read(tmp_path / "out.star")["particles"]
    angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    theirs = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)
    latents = run.latents()
    ours = latents[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy()
    np.testing.assert_allclose(theirs.reshape(-1, 9), ours, atol=1e-4)
    np.testing.assert_allclose(table["rlnOriginZAngst"], -18.0 * latents["shift_z"], atol=1e-4)


def test_exported_poses_average_to_a_sharp_map(tmp_path: Path) -> None:
    """Written, re-read and applied by other programs: starfile, scipy's rotations, ndimage."""
    made = simulate_subtomograms(
        SubtomogramSettings(n=40, box=20, pixel_size=10.0, snr=1.0), built_in_species(1)
    )
    source = made.source()
    table = with_poses(source.particles, made.truth.rename(columns={"class": "cluster"}))
    write_star(tmp_path / "posed.star", table.table, source.particles.optics, False)
    read = starfile.read(tmp_path / "posed.star")["particles"]
    angles = read[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    origins = read[[f"rlnOrigin{a}Angst" for a in "XYZ"]].to_numpy() / 10.0
    total, plain = np.zeros((2, 20, 20, 20))
    for volume, angle, origin in zip(made.volumes(), angles, origins, strict=True):
        turn = Rotation.from_euler("ZYZ", angle, degrees=True).as_matrix().T  # map to volume
        back = turn[::-1, ::-1]  # on (z, y, x)
        offset = 10 - origin[::-1] - back @ np.full(3, 10.0)
        total += affine_transform(volume, back, offset, order=1)
        plain += volume
    template = made.templates()[0]
    sharp = np.corrcoef(total.ravel(), template.ravel())[0, 1]
    assert sharp > 0.9 > np.corrcoef(plain.ravel(), template.ravel())[0, 1] + 0.1


def test_recovery_of_poses_in_space_takes_off_one_frame_a_class() -> None:
    truth = some_volumes(60).truth
    latents = truth.drop(columns="class").copy()
    names = [f"r{i}{j}" for i in range(3) for j in range(3)]
    frame = haar_rotations(2, torch.Generator().manual_seed(0), torch.float64).numpy()
    true = truth[names].to_numpy().reshape(-1, 3, 3)
    latents[names] = (true @ frame[truth["class"]]).reshape(-1, 9)
    found = recover(latents, truth)
    assert found.rotation_median_deg == pytest.approx(0, abs=1e-3)
    assert found.shift_median_px == pytest.approx(0, abs=1e-6)
    assert found.rotation_median_raw_deg is not None and found.rotation_median_raw_deg > 5
    assert any("rotation in space" in line for line in found.lines())


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("60,-60", "a wedge that hides everything"),
        ("-60,0,60", "two tilts, as -60,60"),
        ("low,high", "numbers in brackets"),
        ("nowhere.mrc", "no such file of wedge masks"),
    ],
)
def test_bad_wedges_are_named(asked: str, said: str) -> None:
    source = open_source(some_volumes(4).volumes())
    with pytest.raises(InputError, match=said):
        wedges_asked_for(source, asked, (SIDE,) * 3, 1.0)


def test_auto_needs_something_to_find() -> None:
    with pytest.raises(InputError, match="it gives no missing wedge"):
        wedges_asked_for(open_source(some_volumes(4).volumes()), "auto", (SIDE,) * 3, 1.0)


@pytest.mark.parametrize(
    ("recipe", "model", "said"),
    [
        ("target-vae", {}, "octahedral, mlp, conv or table for volumes"),
        ("spatial-vae-paper", {}, "uniform, gaussian or none"),
        ("3d-spvae", {"wedge": "auto", "likelihood": {"kind": "bernoulli"}}, "to apply a wedge"),
    ],
)
def test_what_volumes_cannot_have(recipe: str, model: dict[str, Any], said: str) -> None:
    config = parse_config(merge(recipe_config(recipe), {"model": model}), recipe)
    with pytest.raises(InputError, match=said):
        build_vae(config, shape=(SIDE,) * 3, channels=1, n_images=4)


def test_images_have_no_wedge() -> None:
    config = parse_config(merge(recipe_config("vae"), {"model": {"wedge": "-60,60"}}), "vae")
    with pytest.raises(InputError, match="off for images"):
        build_vae(config, shape=(SIDE, SIDE), channels=1, n_images=4)
