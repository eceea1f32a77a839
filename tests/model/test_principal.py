"""Principal motions: the field, the exact posterior that the encoder starts from, the start."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from modpose import PoseModel
from modpose.config import PrincipalFieldConfig, SpectralConfig, merge, parse_config
from modpose.content.clustering import cluster
from modpose.data.batches import Batch
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.evaluate.metrics import ari, spearman
from modpose.fourier.amplitudes import AmplitudeSums
from modpose.fourier.fsc import read_map
from modpose.fourier.projection import Projection
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import haar_rotations
from modpose.model.build import build_vae
from modpose.model.fields.principal import PrincipalField
from modpose.model.imaging import PrincipalSlices
from modpose.model.latents import Latents
from modpose.options import configure
from modpose.recipes import recipe_config
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import ProjectionSettings, simulate_projections

BOX = 16


def some_volumes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(BOX) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volumes = torch.zeros(count, BOX, BOX, BOX)
    for _ in range(4):
        c = 1.5 * torch.randn(count, 3, generator=generator)
        weight = torch.randn(count, generator=generator)
        parts = [(a - c[:, i, None, None, None]) ** 2 for i, a in enumerate((x, y, z))]
        volumes += weight[:, None, None, None] * torch.exp(-(parts[0] + parts[1] + parts[2]) / 4)
    return volumes


def field_of(volumes: torch.Tensor, z_dim: int = 1) -> PrincipalField:
    field = PrincipalField(PrincipalFieldConfig(motions=len(volumes) - 1), z_dim, BOX)
    field.set_volumes(volumes)
    return field


def test_the_field_is_the_transform_of_its_volumes() -> None:
    volumes = some_volumes(3)
    field = field_of(volumes)
    u = 0.9 * (torch.rand(1, 40, 3) - 0.5)
    axis = torch.arange(BOX).float() - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    place = torch.stack([x, y, z], -1).reshape(-1, 3)
    wave = torch.exp(-1j * math.pi * (u[0] @ place.T))  # u is in units of half a cycle per pixel
    asked = (wave @ volumes.flatten(1).T.to(wave.dtype)) / BOX  # as an orthonormal slice has it
    found = torch.view_as_complex(field.components(u)[0].transpose(1, 2).contiguous())
    torch.testing.assert_close(found, asked, rtol=0.05, atol=0.03 * float(asked.abs().max()))


def test_content_mixes_the_volumes_and_starts_along_the_first_motions() -> None:
    field = field_of(some_volumes(4), z_dim=2)
    u, z = torch.rand(2, 5, 3) - 0.5, torch.randn(2, 2)
    torch.testing.assert_close(field.amplitudes(z), torch.cat([z, torch.zeros(2, 1)], 1))
    parts = field.components(u)
    asked = parts[..., 0] + parts[..., 1] * z[:, None, :1] + parts[..., 2] * z[:, None, 1:]
    torch.testing.assert_close(field(u, z), asked)


def test_a_field_of_large_images_keeps_small_volumes() -> None:
    """Box of 40 pixels, drawn to 6 cycles: the same transform to there, nothing beyond."""
    field = PrincipalField(PrincipalFieldConfig(motions=1, drawn=6), 1, 40)
    assert field.volumes.shape == (2, BOX, BOX, BOX)
    volumes = some_volumes(2)
    field.set_volumes(volumes)
    small, z = field_of(volumes), torch.randn(1, 1)
    cycles = 8 * (2 * torch.rand(1, 30, 3) - 1)
    found = field(cycles / 20, z)
    asked = small(cycles / 8, z)
    inside = cycles.norm(dim=-1) <= 8
    torch.testing.assert_close(found[inside], asked[inside])
    assert (found[~inside] == 0).all() and inside.any() and not inside.all()


def test_new_volumes_are_read_after_loading() -> None:
    first, second = field_of(some_volumes(2)), field_of(some_volumes(2, seed=1))
    u, z = torch.rand(1, 5, 3) - 0.5, torch.randn(1, 1)
    asked = second(u, z)
    assert not torch.allclose(first(u, z), asked)
    first.load_state_dict(second.state_dict())
    torch.testing.assert_close(first(u, z), asked)


def test_the_field_passes_gradients_to_the_pose() -> None:
    field = field_of(some_volumes(2))
    u = (0.5 * torch.rand(1, 6, 3) + 0.1).double().float().requires_grad_()
    z = torch.randn(1, 1)
    (gradient,) = torch.autograd.grad(field(u, z).square().sum(), u)
    step = 1e-3
    for axis in range(3):
        moved = torch.zeros(3)
        moved[axis] = step
        with torch.no_grad():
            rise = field(u + moved, z).square().sum() - field(u - moved, z).square().sum()
        found = float(gradient[..., axis].sum())
        assert found == pytest.approx(float(rise) / (2 * step), rel=0.1, abs=0.05)


def posed_batch(n: int, ctf: bool) -> Batch:
    generator = torch.Generator().manual_seed(3)
    row = torch.tensor([4.0, 9000.0, 8000.0, 30.0, 300.0, 2.7, 0.1, 0.0, 0.0])
    pose = Pose(haar_rotations(n, generator=generator), torch.randn(n, 2, generator=generator))
    image = torch.randn(n, 1, BOX, BOX, generator=generator)
    return Batch(torch.arange(n), image, row.expand(n, 9) if ctf else None, pose)


@pytest.mark.parametrize("ctf", [False, True])
def test_what_images_say_of_motions_is_their_likelihood(ctf: bool) -> None:
    """Differences of slope.a - a.precision.a / 2 are those of the log likelihood, for any a."""
    field, batch = field_of(some_volumes(4), z_dim=3), posed_batch(5, ctf)
    projection = Projection(SpectralConfig(), BOX)
    projection.log_variance.copy_(torch.linspace(-1, 1, len(projection.log_variance)))
    precision, slope = projection.amplitude_sums(field.components, batch, BOX / 2).of_motions(0.0)
    assert batch.pose is not None
    a = torch.randn(2, 5, 3)
    with torch.no_grad():
        found = [
            projection.log_likelihood(field, batch, one.unsqueeze(1), batch.pose)[:, 0] for one in a
        ]
    said = [
        (slope * one).sum(1) - 0.5 * torch.einsum("bi,bij,bj->b", one, precision, one) for one in a
    ]
    torch.testing.assert_close(said[1] - said[0], found[1] - found[0], rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("ctf", [False, True])
@pytest.mark.parametrize("contrast", [0.0, 0.3])
def test_sums_tell_all_that_images_tell(ctf: bool, contrast: float) -> None:
    """Likelihood and contrast from sums of the images are those from the images."""
    model = {"ctf": "auto" if ctf else "off", "z_dim": 2, "field": {"motions": 3, "drawn": 5}}
    model["likelihood"] = {"contrast": contrast}
    vae = build_vae(config_of(model=model), shape=(BOX, BOX), channels=1, n_images=5)
    field, batch = vae.field, posed_batch(5, ctf)
    assert isinstance(field, PrincipalField) and batch.pose is not None
    field.set_volumes(some_volumes(4)[(..., *(slice((BOX - field.box) // 2, -1),) * 3)])
    assert isinstance(vae.imaging, PrincipalSlices) and field.volumes.shape[-1] < BOX
    projection = vae.imaging.projection
    projection.log_variance.copy_(torch.linspace(-1, 1, len(projection.log_variance)))
    z = torch.randn(5, 3, 2)
    still = torch.zeros(5, 3, 2)
    latents = Latents(z, still[..., 0], still, still[..., 0].long())
    sums = vae.imaging.amplitude_sums(vae, batch).packed()
    summed = replace(batch, image=torch.empty(5, 0), sums=sums)
    with torch.no_grad():
        asked = projection.log_likelihood(field, batch, z, batch.pose)
        for one in (batch, summed):
            found = vae.log_likelihood(one, latents)
            torch.testing.assert_close(found, asked, rtol=1e-5, atol=1e-3)
        if contrast:
            about = vae.imaging.contrast(vae, summed, latents)
            assert about is not None
            for one, other in zip(
                about, projection.contrast(field, batch, z[:, :1], batch.pose), strict=True
            ):
                torch.testing.assert_close(one, other[:, 0], rtol=1e-4, atol=1e-4)


def test_packed_sums_are_unpacked() -> None:
    models = torch.randn(3, 4, 50)
    sums = AmplitudeSums.of(models, torch.randn(3, 60), torch.tensor(2.0))
    for one, other in zip(AmplitudeSums.unpacked(sums.packed(), 4), sums, strict=True):
        torch.testing.assert_close(one, other)


def test_the_noise_that_maps_leave_is_measured() -> None:
    """Projections in noise of known spectrum: the power left is that, whatever is assumed."""
    field = field_of(some_volumes(3), z_dim=2)
    projection = Projection(SpectralConfig(contrast=0.0), BOX)
    true = torch.linspace(-1, 1, len(projection.log_variance)).exp()
    batch = posed_batch(400, ctf=False)
    assert batch.pose is not None
    seen = projection.predict(field, torch.randn(400, 1, 2), batch.pose, None)[:, 0].detach()
    white = torch.randn(len(seen), BOX, BOX)
    noise = projection.transform(white[:, None]) * true.sqrt()[projection.shell]
    image = projection.picture(5 * seen + noise)[:, None]
    field.set_volumes(5 * field.volumes)
    left = projection.power_left(field.components, replace(batch, image=image), BOX / 2)
    found = (left * projection.log_variance.exp())[1:]
    torch.testing.assert_close(found, true[1:], rtol=0.1, atol=0.0)


def config_of(**sections: Any) -> Any:
    return parse_config(merge(recipe_config("modpose-posed"), sections), "modpose-posed")


def test_the_encoder_starts_at_the_exact_linear_posterior() -> None:
    config = config_of(model={"z_dim": 2, "ctf": "off", "field": {"motions": 3}})
    vae = build_vae(config, shape=(BOX, BOX), channels=1, n_images=5)
    assert isinstance(vae.field, PrincipalField) and vae.projection is not None
    vae.field.set_volumes(some_volumes(4))
    batch = posed_batch(5, ctf=False)
    precision, slope = vae.amplitude_likelihood(batch)
    covariance = np.linalg.inv(precision.double().numpy() + np.eye(3))
    mean = np.einsum("bij,bj->bi", covariance, slope.double().numpy())
    with torch.no_grad():
        content = vae.posterior(batch).content
    np.testing.assert_allclose(content.mean[:, 0], mean[:, :2], rtol=1e-3, atol=1e-4)
    std = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))[:, :2]
    np.testing.assert_allclose(content.log_std[:, 0].exp(), std, rtol=1e-3)


def test_content_stays_when_an_image_moves_with_its_pose() -> None:
    """Turned by a quarter and shifted by a pixel, pose and all: the same content."""
    config = config_of(model={"z_dim": 1, "ctf": "off"}, data={"window": None})
    vae = build_vae(config, shape=(BOX, BOX), channels=1, n_images=5)
    assert isinstance(vae.field, PrincipalField)
    vae.field.set_volumes(some_volumes(7))
    with torch.no_grad():
        for value in vae.encoder.parameters():
            value.add_(0.1 * torch.randn_like(value))
        batch = posed_batch(5, ctf=False)
        assert batch.pose is not None
        before = vae.posterior(batch).content.mean
        shift = batch.pose.shift + torch.tensor([1.0, 0.0])
        moved = Batch(batch.index, batch.image.roll(1, -1), None, batch.pose._replace(shift=shift))
        torch.testing.assert_close(vae.posterior(moved).content.mean, before, rtol=1e-3, atol=1e-4)


# --- the start --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hinged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ProjectionSettings(
        n=600, box=24, pixel_size=6.7, snr=0.5, hinge_range_deg=(-30.0, 30.0), shift_std_px=0.5
    )
    simulated = simulate_projections(settings, built_in_conformers(1))
    folder = tmp_path_factory.mktemp("hinged")
    write_projections(simulated, folder)
    return folder / "particles.star"


def test_a_hinge_is_found_in_seconds_and_by_new_images(hinged: Path) -> None:
    source = open_source(hinged)
    options = {"model": {"z_dim": 1, "field": {"motions": 3}}, "train": {"epochs": 4}}
    model = PoseModel("modpose-posed", options=options, quiet=True)
    model.fit(source.subset(np.arange(400)))
    truth = source.particles.truth()
    assert truth is not None
    hinge = truth["hinge_deg"].to_numpy()
    assert abs(spearman(model.latents()["z_0"].to_numpy(), hinge[:400])) > 0.85
    new = model.encode(source.subset(np.arange(400, 600)))
    assert abs(spearman(new.z[:, 0], hinge[400:])) > 0.85


def test_the_start_is_the_same_every_time(hinged: Path) -> None:
    source = open_source(hinged).subset(np.arange(100))
    options = {"model": {"z_dim": 1, "field": {"motions": 2}}, "train": {"epochs": 1}}
    found = [
        PoseModel("modpose-posed", options=options, quiet=True).fit(source).latents()["z_0"]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_contrast_is_no_motion_where_it_is_modelled(spread: float, tmp_path: Path) -> None:
    """Images whose contrast varies by 20 % and whose arm moves: content is the arm."""
    settings = ProjectionSettings(
        n=500, box=24, pixel_size=6.7, snr=0.5, hinge_range_deg=(-30.0, 30.0), contrast=0.2
    )
    simulated = simulate_projections(settings, built_in_conformers(1))
    options = {
        "model": {"z_dim": 2, "field": {"motions": 2}, "likelihood": {"contrast": spread}},
        "train": {"epochs": 1},
    }
    write_projections(simulated, tmp_path)
    source = open_source(tmp_path / "particles.star")
    model = PoseModel("modpose-posed", options=options, quiet=True).fit(source)
    table, truth = model.latents(), source.particles.truth()
    assert truth is not None
    contrast = truth["contrast"].to_numpy()
    of_contrast = max(abs(np.corrcoef(table[name], contrast)[0, 1]) for name in ("z_0", "z_1"))
    hinge = max(
        abs(spearman(table[name].to_numpy(), truth["hinge_deg"].to_numpy()))
        for name in ("z_0", "z_1")
    )
    if not spread:  # it is the first motion
        assert of_contrast > 0.6 and "contrast" not in table
        return
    assert of_contrast < 0.2 and hinge > 0.8
    assert np.corrcoef(table["contrast"], contrast)[0, 1] > 0.8
    error = (table["contrast"] - contrast) / table["contrast_std"]
    assert 0.7 < error.std() < 1.5


def test_amplitudes_of_a_clear_image_do_not_depend_on_its_contrast() -> None:
    generator = torch.Generator().manual_seed(0)
    models = torch.randn(3, 4, 50, generator=generator)
    a = torch.randn(3, 3, generator=generator)
    factor = torch.tensor([0.7, 1.0, 1.3])[:, None]
    image = factor * (models[:, 0] + torch.einsum("bj,bjp->bp", a, models[:, 1:]))
    sums = AmplitudeSums.of(1e3 * models, 1e3 * image, torch.zeros(()))
    precision, slope = sums.of_motions(0.2)
    found = torch.linalg.solve(precision + torch.eye(3), slope.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, a, rtol=1e-2, atol=1e-2)


@pytest.mark.shared
def test_two_stages_of_a_ribosome_are_told_apart(shared_data: Path) -> None:
    """Noisy projections of EMPIAR-10076 classes D and E, eight or ten of each particle."""
    folder = shared_data / "spa_sim" / "10076_DE"
    source = open_source(folder / "10076_both_32_sim.star")
    options = {
        "data": {"invert": True},
        "model": {"z_dim": 1, "field": {"motions": 3}},
        "train": {"epochs": 4},
    }
    model = PoseModel("modpose-posed", options=options, quiet=True).fit(source)
    is_e = np.array(["classE" in str(name) for name in source.particles.column("rlnImageName")])
    group = source.particles.column("rlnGroupName")
    particle = [f"{name}{e}" for name, e in zip(group, is_e, strict=True)]
    mean = model.latents()[["z_0"]].assign(e=is_e).groupby(particle).mean()
    assert ari(mean["e"], cluster(mean[["z_0"]].to_numpy(), 2, "kmeans", 0)) > 0.75
    z = model.latents()["z_0"].to_numpy()
    for of, other, rows in (("D", "E", ~is_e), ("E", "D", is_e)):
        drawn = model.decode(np.array([[z[rows].mean()]]))[0].ravel()
        own, wrong = (
            np.corrcoef(drawn, read_map(folder / f"10076_class{name}_32.mrc")[0].ravel())[0, 1]
            for name in (of, other)
        )
        assert own > 0.78 and own > wrong


def test_options_are_those_of_the_recipe_that_the_data_choose(hinged: Path, tmp_path: Path) -> None:
    chosen = configure(str(hinged), assignments=["model.field.motions=3"])[1]
    assert chosen.recipe == "modpose-posed" and chosen.model.field.kind == "principal"
    file = tmp_path / "options.yaml"
    file.write_text("model: {field: {motions: 4}}\ndata: {invert: true}\n")
    chosen = configure(str(hinged), file=file)[1]
    assert isinstance(chosen.model.field, PrincipalFieldConfig)
    assert chosen.model.field.motions == 4 and chosen.data.invert
    with pytest.raises(InputError, match=r"--set model\.field\.angles=3: there is no option"):
        configure(str(hinged), assignments=["model.field.angles=3"])
    with pytest.raises(InputError, match=r"data\.box"):
        configure(str(hinged), assignments=["data.box=-1"])


def test_too_few_images_and_too_much_content_are_refused(hinged: Path) -> None:
    source = open_source(hinged)
    with pytest.raises(InputError, match="more than 12"):
        PoseModel("modpose-posed", quiet=True).fit(source.subset(np.arange(8)))
    wide = {"model": {"z_dim": 9, "field": {"motions": 2}}}  # needs nine motions
    with pytest.raises(InputError, match=r"more than 18, two for each of model\.field\.motions"):
        PoseModel("modpose-posed", options=wide, quiet=True).fit(source.subset(np.arange(18)))
    field: dict[str, Any] = {"model": {"field": {"kind": "slices"}}}
    with pytest.raises(InputError, match=r"model\.field\.kind"):
        build_vae(config_of(**field), shape=(BOX, BOX), channels=1, n_images=5)


def test_rotations_of_scipy_are_those_of_the_field() -> None:
    """A volume rotated by SciPy's matrix projects to what the field says at that pose."""
    volumes = some_volumes(2)
    field, projection = field_of(volumes), Projection(SpectralConfig(), BOX)
    matrix = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    pose = Pose(torch.tensor(matrix).float()[None], torch.zeros(1, 2))
    with torch.no_grad():
        seen = projection.predict(field, torch.zeros(1, 1, 1), pose, None)[:, 0]
    flat = volumes[0].sum(0)  # the sum along z, seen from above
    turned = torch.rot90(flat, -1, (0, 1)).roll(1, 1)  # x to y, about n // 2 of an even box
    largest = float(turned.abs().max())
    torch.testing.assert_close(projection.picture(seen)[0], turned, rtol=0.0, atol=0.05 * largest)
