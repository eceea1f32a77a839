"""The octahedral encoder: exact turns, proposals, what it draws; truth recovered by all of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose import InputError, PoseModel, open_source
from modpose.affinity import Affinity
from modpose.config import (
    BasisFieldConfig,
    ModelConfig,
    OctahedralEncoderConfig,
    merge,
    parse_config,
)
from modpose.data.batches import Batch
from modpose.evaluate.pose_errors import pose_errors
from modpose.fit import fit_run, resume_run
from modpose.fourier.coefficients import (
    Coefficients,
    half_sphere,
    map_coefficients,
    phases,
    transform,
)
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.groups import nearest, octahedral
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import geodesic, haar_rotations, rotation_of_vector
from modpose.model.build import build_vae
from modpose.model.codebook import Codebook, RankedPoses, centres_of
from modpose.model.encoders.cube import cell_rotations, permutations
from modpose.model.encoders.octahedral import OctahedralEncoder, PoseProposal, measured
from modpose.model.fields.basis import BasisField
from modpose.model.posterior import LatentLayout
from modpose.model.settings import SearchSettings, SpaceSearch
from modpose.outputs.export import export_run
from modpose.recipes import recipe_config
from modpose.run import Run
from modpose.simulate.species import built_in_species
from modpose.simulate.subtomogram_files import write_subtomograms
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import Subtomograms, simulate_subtomograms
from modpose.suggest import suggest
from modpose.train.starts.alignment import ContentLayout

BOX = 16


def turned_exactly(volume: Tensor, turn: Tensor) -> Tensor:
    """v(G^T x) about index n // 2 of an even box whose first planes are zero, voxel by voxel."""
    inside = volume[1:, 1:, 1:]  # odd: its middle is the centre
    middle = inside.shape[0] // 2
    axes = torch.arange(inside.shape[0]) - middle
    z, y, x = torch.meshgrid(axes, axes, axes, indexing="ij")
    u = torch.stack([x, y, z], -1) @ turn.round().long() + middle  # rows times G are G^T x
    out = torch.zeros_like(volume)
    out[1:, 1:, 1:] = inside[u[..., 2], u[..., 1], u[..., 0]]
    return out


def a_volume(seed: int = 0) -> Tensor:
    volume = torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(seed))
    volume[0], volume[:, 0], volume[:, :, 0] = 0, 0, 0
    return volume


def an_encoder(z_dim: int = 2, pictures: int = 3, **options: object) -> OctahedralEncoder:
    config = OctahedralEncoderConfig(**{"hidden": 32, "cells": 5, "codebook": 2} | options)  # type: ignore[arg-type]
    model = ModelConfig(z_dim=z_dim, encoder=config)
    return OctahedralEncoder(
        model,
        config,
        layout=LatentLayout(model, 3, BOX),
        pictures=pictures,
        channels=1,
        shape=(BOX,) * 3,
    )


def a_field(pictures: Tensor, z_dim: int = 2) -> BasisField:
    config = BasisFieldConfig(count=len(pictures), hidden=8)
    field = BasisField(config, z_dim, 1, (BOX,) * 3)
    field.set_pictures(pictures[:, None])
    return field


def blobs(seed: int = 0, count: int = 5) -> Tensor:
    """Crooked, smooth, and centred."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.arange(BOX, dtype=torch.float32) - BOX // 2
    z, y, x = torch.meshgrid(axes, axes, axes, indexing="ij")
    out = torch.zeros(BOX, BOX, BOX)
    places = 6 * torch.rand(count, 3, generator=generator) - 3
    for a, b, c in places - places.mean(0):
        out += torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * 1.4**2))
    return out - out.mean()


def test_turns_of_the_cube_permute_coefficients() -> None:
    frequency, place = half_sphere(BOX, 0.25)
    index, sign = permutations(frequency, BOX)
    volume = a_volume()
    value = transform(volume[None], place)[0]
    for number, turn in enumerate(octahedral()):
        back = turned_exactly(volume, turn.T)
        expected = transform(back[None], place)[0]
        found = torch.complex(value.real[index[number]], value.imag[index[number]] * sign[number])
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_a_turned_volume_is_guessed_alike_in_turned_cells() -> None:
    encoder = an_encoder()
    _, place = half_sphere(BOX, encoder.config.limit)
    volume, turn = a_volume(), octahedral().float()[7]
    both = torch.stack([volume, turned_exactly(volume, turn)])
    guess = encoder.guess(transform(both, place))
    cells = encoder.config.cells
    moved = nearest(turn @ encoder.turns, encoder.turns)  # where each of the 24 goes
    where = (moved[:, None] * cells + torch.arange(cells)).flatten()
    torch.testing.assert_close(guess.logits[1][where], guess.logits[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(guess.turn[1][where], guess.turn[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(guess.shift[1][where], guess.shift[0], atol=1e-4, rtol=0)


def test_cells_are_spread_about_the_identity() -> None:
    cells = cell_rotations(6)
    turns = octahedral().float()
    assert (nearest(cells, turns) == nearest(torch.eye(3), turns)).all()
    apart = geodesic(cells[:, None], cells) + 10 * torch.eye(6)
    assert float(apart.min()) > math.radians(25)


def test_the_pose_proposed_is_the_one_of_greatest_density() -> None:
    encoder = an_encoder()
    generator = torch.Generator().manual_seed(3)
    shape = (4, len(encoder.rotations))
    guess = PoseProposal(
        5 * torch.randn(shape, generator=generator),
        0.05 * torch.randn(*shape, 3, generator=generator),
        torch.rand(*shape, 3, generator=generator),
    )
    best = Pose(*(part[:, 0] for part in encoder.proposed(guess, 1)))
    top = encoder.log_prob(guess, best)
    torch.testing.assert_close(
        top.detach(),
        guess.logits.log_softmax(-1).amax(-1)
        - 3 * float(encoder.log_std.detach().sum())
        - 3 * math.log(2 * math.pi),
    )
    other = Pose(best.rotation, best.shift + 0.5)
    assert (encoder.log_prob(guess, other) < top).all()
    turned = Pose(haar_rotations(4, generator), best.shift)
    assert (encoder.log_prob(guess, turned) < top).all()


def test_amounts_are_those_drawn_and_empty_pictures_have_none() -> None:
    """Least squares at the true pose, of volumes drawn without noise, but for the weak prior."""
    pictures = torch.stack([30 * blobs(0), 30 * blobs(1), torch.zeros(BOX, BOX, BOX)])
    encoder, field = an_encoder(limit=0.25, climb_limit=0.25).eval(), a_field(pictures)
    frequency, _ = half_sphere(BOX, 0.25)
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    clean = torch.ones(3, len(frequency))
    with torch.no_grad():
        strong, pose = encoder.draw(field, z, clean, torch.Generator().manual_seed(1))
        seen = Coefficients(frequency, strong, clean, BOX)
        found = encoder.amounts(seen, pose, field)
        expected = field.amounts(z)
    torch.testing.assert_close(found[:, :2], expected[:, :2], atol=0.05, rtol=0)
    assert found[:, 2].abs().max() < 1e-4


def test_frequencies_that_nothing_measured_are_left_out() -> None:
    encoder = an_encoder()
    wedge = torch.ones(2, BOX, BOX, BOX // 2 + 1)
    wedge[:, :, :, 3:] = 0
    seen = encoder.coefficients(
        Batch(torch.arange(2), torch.randn(2, 1, BOX, BOX, BOX), wedge=wedge)
    )
    kept = measured(seen)
    assert 0 < len(kept.frequency) < len(seen.frequency)
    assert (kept.frequency[:, 0].abs() * BOX < 2.5).all()


def test_a_few_steps_teach_poses_of_volumes_drawn() -> None:
    torch.manual_seed(0)
    encoder = an_encoder(limit=0.2, climb_limit=0.2, hidden=64, drawn=8, max_shift_px=1.0)
    field = a_field(40 * torch.stack([blobs(0)] * 3))
    frequency, _ = half_sphere(BOX, 0.2)
    ones, generator = torch.ones(8, len(frequency)), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    nats = []
    for _ in range(60):
        with torch.no_grad():
            value, pose = encoder.draw(field, torch.zeros(8, 2), ones, generator)
        seen = Coefficients(frequency, value, ones, BOX)
        taught = encoder.learn_poses(seen, pose, torch.zeros(8, 2), field, generator)
        optimizer.zero_grad()
        (-taught.mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        nats.append(float(taught.mean().detach()))
    assert np.mean(nats[-5:]) > np.mean(nats[:5]) + 1.5


def test_centres_stand_for_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (true[:, None] + torch.randn(3, 20, 2, generator=generator)).flatten(0, 1)
    centres, group = centres_of(points, 3)
    assert torch.cdist(true, centres).amin(1).max() < 1
    assert len(torch.unique(group[:20])) == 1
    assert len(centres_of(points[:2], 5)[0]) == 2


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_classes_lie_apart_and_motions_along_the_first_axes(classes: int) -> None:
    layout = ContentLayout.spread(classes, 1, 3, torch.Generator().manual_seed(0))
    assert layout.anchors.shape == (classes, 3)
    if classes > 1:
        assert float(torch.pdist(layout.anchors).min()) == pytest.approx(6 * layout.width)
        assert float(layout.anchors.square().mean()) == pytest.approx(1.0, rel=1e-4)
    class_index = torch.full((2,), classes - 1)
    z = layout.place(class_index, torch.tensor([[0.0], [2.0]]))
    moved = z[1] - z[0]
    torch.testing.assert_close(moved, torch.tensor([2 * layout.width, 0.0, 0.0]))


# --- bad configurations -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": {"field": {"kind": "dense"}}}, "model.field.kind is dense"),
        ({"model": {"rotation": {"prior": "gaussian"}}}, "model.rotation.prior is gaussian"),
        ({"train": {"start": None}}, "train.start.kind is null"),
        ({"model": {"encoder": {"kind": "mlp"}}}, "model.encoder.kind is mlp"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(change: dict[str, object], match: str) -> None:
    config = parse_config(merge(recipe_config("modpose-3d"), change), "the recipe")
    with pytest.raises(InputError, match=match):
        build_vae(config, shape=(BOX,) * 3, channels=1, n_images=4)


def test_images_and_boxes_that_are_no_cubes_are_refused() -> None:
    config = parse_config(recipe_config("modpose-3d"), "the recipe")
    with pytest.raises(InputError, match="expected volumes"):
        build_vae(config, shape=(BOX, BOX), channels=1, n_images=4)
    with pytest.raises(InputError, match="expected 1, cubes"):
        build_vae(config, shape=(BOX, BOX, BOX + 2), channels=1, n_images=4)


def test_climbing_twice_ends_where_climbing_on_all_frequencies_does() -> None:
    """And keeps as many poses as were shown, the best among them."""
    volumes = torch.stack([blobs(0), blobs(1)])
    book, n = Codebook.of(volumes, 0.2, 0.3), 12
    generator = torch.Generator().manual_seed(0)
    rotation = haar_rotations(n, generator)
    shift = 2 * torch.rand(n, 3, generator=generator) - 1
    which = torch.arange(n) % 2
    clean = map_coefficients(volumes, 0.3)
    signal = sample(make_references(volumes, 0.3), which, turned(clean.frequency, rotation))
    noise = torch.randn(*signal.shape, 2, generator=generator) * 0.02
    value = signal * phases(clean.frequency, shift) + torch.view_as_complex(noise)
    seen = replace(clean, value=value)
    off = rotation_of_vector(0.15 * torch.randn(n, 2, 3, generator=generator))
    shown = RankedPoses(
        rotation[:, None] @ off, shift[:, None].repeat(1, 2, 1), which[:, None].repeat(1, 2)
    )
    whole = book.climbed(seen, shown, 8, 3.0).score.reshape(n, 3).amax(1)
    found = book.climbed_twice(seen, shown, 0.2, (4, 2), 3.0)
    assert found.score.shape == (2 * n,)
    torch.testing.assert_close(found.score.reshape(n, 2).amax(1), whole, rtol=1e-3, atol=0)
    best = found.score.reshape(n, 2).argmax(1) + 2 * torch.arange(n)
    assert torch.rad2deg(geodesic(found.rotation[best], rotation)).max() < 1
    assert (found.shift[best] - shift).norm(dim=1).max() < 0.1


# --- all of it ----------------------------------------------------------------------------------

QUICK = {
    "model": {
        "wedge": "auto",
        "encoder": {"hidden": 64, "cells": 4, "drawn": 2, "codebook": 2, "hypotheses": 4},
        "field": {"count": 2, "hidden": 16},
    },
    "train": {
        "epochs": 2,
        "start": {"rounds": 12, "refine_rounds": 2, "rotations": 300},
    },
}
THOROUGH = SearchSettings(in_space=SpaceSearch(rotations=500, hypotheses=6, climb_steps=6))


def subtomograms(n: int, seed: int, molecules: int = 1) -> Subtomograms:
    settings = SubtomogramSettings(
        n=n, box=BOX, pixel_size=10.0, snr=2.0, max_shift_px=1.0, seed=seed
    )
    return simulate_subtomograms(settings, built_in_species(molecules))


@pytest.fixture(scope="module")
def made() -> Subtomograms:
    return subtomograms(40, 0)


@pytest.fixture(scope="module")
def run(made: Subtomograms, tmp_path_factory: pytest.TempPathFactory) -> Run:
    values = merge(recipe_config("modpose-3d"), QUICK)
    folder = tmp_path_factory.mktemp("runs")
    source = open_source(write_subtomograms(made, folder / "data"))
    return fit_run(source, parse_config(values, "the recipe"), folder / "run", quiet=True)


def errors_of(
    rotation: NDArray[np.float32], shift: NDArray[np.float32], *truths: pd.DataFrame
) -> tuple[float, float]:
    """Median error of rotation, degrees, and shift, voxels, after one rotation and one offset."""
    truth = pd.concat(truths)
    entries = truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(np.float64)
    errors = pose_errors(
        torch.tensor(rotation),
        torch.tensor(shift),
        torch.tensor(entries).reshape(-1, 3, 3),
        torch.tensor(truth[["shift_x", "shift_y", "shift_z"]].to_numpy(np.float64)),
    )
    return float(errors.angle_deg.median()), float(errors.shift_px.median())


def test_the_search_before_training_finds_poses(run: Run, made: Subtomograms) -> None:
    searched = PoseModel.load(run.path).vae.searched
    assert searched is not None
    angle, shift = errors_of(searched.rotation.numpy(), searched.shift.numpy(), made.truth)
    assert angle < 6
    assert shift < 0.4


def test_latents_of_the_volumes_fitted_to_have_the_poses_searched(
    run: Run, made: Subtomograms
) -> None:
    """However little the encoder has learned."""
    table = run.latents()
    rotation = table[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(np.float32)
    shift = table[["shift_x", "shift_y", "shift_z"]].to_numpy(np.float32)
    assert errors_of(rotation.reshape(-1, 3, 3), shift, made.truth)[0] < 6


def test_poses_of_new_volumes_are_found_in_the_frame_of_the_old(
    run: Run, made: Subtomograms
) -> None:
    """One rotation and one offset for both: that a new set had its own frame would not pass."""
    model, new = PoseModel.load(run.path), subtomograms(16, 1)
    found = model.encode(new.source(), search=THOROUGH)
    assert found.elbo_gain is not None
    assert (found.elbo_gain >= 0).all()
    assert errors_of(found.rotation, found.shift, new.truth)[0] < 8
    searched = model.vae.searched
    assert searched is not None
    rotation = np.concatenate([searched.rotation[:16].numpy(), found.rotation])
    shift = np.concatenate([searched.shift[:16].numpy(), found.shift])
    first = made.truth[:16]
    assert errors_of(rotation, shift, first, new.truth)[0] < 8
    assert {"r00", "shift_z", "rotation_std_deg"} <= set(found.to_dataframe().columns)


def test_a_run_goes_on_to_the_numbers_it_would_have_had(
    run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The state of a run holds the poses that were searched for: none is searched again."""
    longer = resume_run(run.path, epochs=3, quiet=True)
    rows = longer.epochs()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(row["pose_supervision"]) for row in rows)


def test_known_classes_place_content() -> None:
    """The affinity term is climbed at the poses that were searched, too."""
    made = subtomograms(40, 0, molecules=2)
    known = np.array(["first", "second"])[made.truth["class"]]
    train = {"epochs": 6, "lr": 0.01, "warmup_steps": 0}
    weight = {"gamma": {"kind": "constant", "end": 1000.0}}
    model = PoseModel("modpose-3d", options=merge(QUICK, {"train": train | weight}), quiet=True)
    model.fit(made.source(), labels=known, affinity=Affinity(np.eye(2), ("first", "second")))
    terms = model.metrics()["affinity"]
    assert terms.iloc[-1] < 0.8 * terms.iloc[0]


def test_a_run_is_exported_and_decoded(run: Run, tmp_path: Path) -> None:
    written, _ = export_run(run, tmp_path / "posed.star", None)
    assert [path.name for path in written] == ["posed.star"]
    drawn = PoseModel.load(run.path).decode(np.zeros((1, 2)))
    assert drawn.shape == (1, BOX, BOX, BOX)
    assert drawn.std() > 0.02


def test_volumes_take_this_recipe_by_default(made: Subtomograms) -> None:
    name, options, sentence = suggest(made.source())
    assert name == "modpose-3d"
    assert options == {"model": {"wedge": "auto"}}
    assert "missing wedge" in sentence


def test_too_few_volumes_for_the_classes_are_refused() -> None:
    options = {"train": {"start": {"classes": 5}}}
    model = PoseModel("modpose-3d", options=options, quiet=True)
    with pytest.raises(InputError, match="the number of volumes is 12, expected at least 40"):
        model.fit(a_volume().repeat(12, 1, 1, 1) + torch.randn(12, BOX, BOX, BOX))


def test_a_box_too_small_to_align_is_refused() -> None:
    model = PoseModel("modpose-3d", quiet=True)
    with pytest.raises(InputError, match="side of the prepared box is 8, expected at least 16"):
        model.fit(torch.randn(12, 8, 8, 8))
