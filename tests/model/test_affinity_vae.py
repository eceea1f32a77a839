"""affinity-VAE: affinity term, convolutional networks, pose channel, rotated images, recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from modpose import InputError, PoseModel, Run, fit_run, open_source, resume_run
from modpose.affinity import Affinity
from modpose.affinity.known import KnownAffinity, known_affinity
from modpose.config import AugmentConfig, Schedule, merge, parse_config
from modpose.data.batches import Batch
from modpose.geometry.grids import lattice
from modpose.geometry.groups import octahedral
from modpose.geometry.pose import Pose, sample_images
from modpose.model.build import build_vae
from modpose.model.fields.conv import Patches
from modpose.model.terms.affinity import AffinityTerm
from modpose.model.vae import Vae
from modpose.nn.conv import TRANSPOSED
from modpose.recipes import recipe_config
from modpose.train.augment import augmented, exactly_turned

NAMES = ("a", "b", "c")
MATRIX = Affinity(np.array([[1.0, 0.5, -0.2], [0.5, 1.0, 0.1], [-0.2, 0.1, 1.0]]), NAMES)
SMALL: dict[str, Any] = {
    "model": {
        "z_dim": 3,
        "encoder": {"kind": "conv", "channels": 4, "depth": 2},
        "field": {"kind": "conv", "channels": 4, "depth": 2},
    },
    "train": {"epochs": 2, "batch_size": 8, "lr": 3e-3, "warmup_steps": 0},
}


def config(recipe: str = "affinity-vae", **over: Any) -> Any:
    values = merge(merge(recipe_config(recipe), SMALL), over)
    return parse_config(values, recipe)


def images(n: int = 30, box: int = 12, dim: int = 2, seed: int = 0) -> NDArray[np.float32]:
    """Bars, squares and dots in noise, in turn."""
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.random((n, *[box] * dim)).astype(np.float32)
    middle = [slice(4, 8)] * dim
    for i in range(n):
        kind = [[slice(2, 10), *middle[1:]], middle, [slice(5, 7)] * dim][i % 3]
        x[(i, *kind)] += 0.8
    return x


def classes(n: int = 30) -> NDArray[np.str_]:
    return np.array([NAMES[i % 3] for i in range(n)])


def batch_of(label: list[int]) -> Batch:
    n = len(label)
    return Batch(torch.arange(n), torch.zeros(n, 0), label=torch.tensor(label))


# --- the term ---------------------------------------------------------------------------------


def equation_3(content: Tensor, affinity: NDArray[np.float64], label: list[int]) -> float:
    """Sum over ordered pairs of |A - cosine| over N, pair by pair."""
    total = 0.0
    for i, a in enumerate(label):
        for j, b in enumerate(label):
            z, w = content[i].double(), content[j].double()
            total += abs(affinity[a, b] - float(z @ w / (z.norm() * w.norm())))
    return total / len(label)


@given(seed=st.integers(0, 1000), n=st.integers(2, 9))
def test_term_is_equation_3_and_pair_mean_its_mean_over_pairs(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(n, 4, generator=generator)
    label = torch.randint(3, (n,), generator=generator).tolist()
    known = KnownAffinity(np.array(label), MATRIX)
    expected = equation_3(content, MATRIX.values, label)
    found = AffinityTerm(known)(content, batch_of(label)).mean()
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    pairs = AffinityTerm(known, "pair-mean")(content, batch_of(label)).mean()
    # the diagonal is zero, so N S / (N (N - 1)) is the mean over pairs
    assert float(pairs) == pytest.approx(expected / (n - 1), rel=1e-4, abs=1e-5)


def test_images_without_a_class_take_no_part() -> None:
    content = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    known = KnownAffinity(np.array([0, 1, -1, 2, -1, 0]), MATRIX)
    term = AffinityTerm(known)(content, batch_of([0, 1, -1, 2, -1, 0])).mean()
    labelled = [0, 1, 3, 5]
    alone = equation_3(content.detach()[labelled], MATRIX.values, [0, 1, 2, 0])
    assert term.item() == pytest.approx(alone, rel=1e-5)
    term.backward()  # type: ignore[no-untyped-call]
    assert content.grad is not None
    assert (content.grad[[2, 4]] == 0).all() and (content.grad[labelled] != 0).any(1).all()


def test_samples_tell_what_classes_do_not() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    samples = rows @ rows.T
    label = [0, -1, 1, -1, 2]
    known = KnownAffinity(np.array(label), MATRIX, samples.astype(np.float32))
    mixed = samples.copy()
    has = np.array([0, 2, 4])
    mixed[np.ix_(has, has)] = MATRIX.values
    content = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    found = AffinityTerm(known)(content, batch_of(label)).mean()
    assert float(found) == pytest.approx(equation_3(content, mixed, [0, 1, 2, 3, 4]), rel=1e-4)
    only = KnownAffinity(np.full(5, -1), None, samples.astype(np.float32))
    met = AffinityTerm(only)(torch.as_tensor(rows), batch_of([-1] * 5))
    assert met.abs().max() < 1e-5  # the vectors that the affinities came from


def test_expected_value_is_the_mean_over_random_batches() -> None:
    generator = torch.Generator().manual_seed(3)
    content = torch.randn(40, 4, generator=generator)
    label = torch.randint(-1, 3, (40,), generator=generator)
    for form in ("ordered-pairs", "pair-mean"):
        term = AffinityTerm(KnownAffinity(label.numpy(), MATRIX), form)  # type: ignore[arg-type]
        whole = Batch(torch.arange(40), torch.zeros(40, 0), label=label)
        expected = float(term.expected(content, whole, 16))
        drawn = []
        for _ in range(400):
            rows = torch.randperm(40, generator=generator)[:16]
            drawn.append(float(term(content[rows], whole.rows(rows)).mean()))
        error = np.std(drawn) / np.sqrt(len(drawn))
        assert abs(np.mean(drawn) - expected) < 5 * error + 0.02 * expected


def test_schedules_rise_as_published() -> None:
    def weights(kind: str, steps: list[int]) -> list[float]:
        schedule = Schedule(kind=kind, start=1.0, end=3.0, steps=8)  # type: ignore[arg-type]
        return [schedule.at(step) for step in steps]

    assert weights("flat", [0, 5]) == [3.0, 3.0]
    assert weights("ramp", [0, 4, 8, 20]) == pytest.approx([1, 2, 3, 3])
    for kind in ("cyclic-linear", "cyclic-sigmoid", "cyclic-cosine"):
        # the middle of a rise is half way up for all three; the second half of a cycle is flat
        assert weights(kind, [0, 2, 4, 7, 8, 10]) == pytest.approx([1, 2, 3, 3, 1, 2])
    quarter = weights("cyclic-cosine", [1])[0]
    assert quarter == pytest.approx(1 + 2 * (0.5 - 0.5 * np.cos(np.pi / 4)))
    logistic = 1 / (1 + np.exp(-6 * (2 * 0.25 - 1)))
    low = 1 / (1 + np.exp(6.0))
    stretched = (logistic - low) / (1 - 2 * low)
    assert weights("cyclic-sigmoid", [1])[0] == pytest.approx(1 + 2 * stretched)


# --- networks ---------------------------------------------------------------------------------


def built(shape: tuple[int, ...], channels: int = 1, **over: Any) -> Vae:
    return build_vae(config(**over), shape=shape, channels=channels, n_images=4).eval()


@pytest.mark.parametrize(
    ("shape", "channels"), [((12, 12), 1), ((13, 9), 3), ((7, 10, 12), 1), ((5, 5), 1)]
)
@pytest.mark.parametrize("kernel", [3, 4])
def test_convolutions_take_any_box(shape: tuple[int, ...], channels: int, kernel: int) -> None:
    for patch in (1, 2, 4):
        parts = {"channels": 4, "patch": patch}
        pictures = built(shape, channels, model={"field": parts}).field.picture(torch.randn(2, 6))  # type: ignore[operator,union-attr]
        assert pictures.shape == (2, channels, *shape)
    encoder = {"widths": [4, 6, 8], "kernel": kernel, "hidden": 10, "normalize": "group"}
    field = {"widths": [8, 6, 4], "hidden": 10, "normalize": "group"}
    vae = built(shape, channels, model={"encoder": encoder, "field": field})
    image = torch.rand(2, channels, *shape)
    found = vae(Batch(torch.arange(2), image))
    assert torch.isfinite(found.value()).all()
    latents = vae.posterior(Batch(torch.arange(2), image)).best()
    assert latents.z.shape == (2, 1, 3) and latents.decoded.shape == (2, 1, 6)


def test_patches_are_a_transposed_convolution_whose_kernel_is_its_stride() -> None:
    for dim in (2, 3):
        layer = Patches(5, 2, 3, dim)
        reference = TRANSPOSED[dim](5, 2, 3, stride=3)
        weight = layer.map.weight.reshape(2, *[3] * dim, 5).movedim(-1, 0)
        reference.weight.data.copy_(weight)
        coarse = torch.randn(2, 5, *[2, 4, 3][:dim])
        bias = layer.map(torch.zeros_like(coarse))  # of every voxel of a patch its own
        plain = layer(coarse) - layer(torch.zeros_like(coarse))
        expected = reference(coarse) - reference(torch.zeros_like(coarse))
        assert bias.shape[1] == 2 * 3**dim and torch.allclose(plain, expected, atol=1e-5)


def test_picture_is_read_as_posed_coordinates_would_read_it() -> None:
    for kind in ({"kind": "conv", "channels": 4}, {"kind": "dense", "hidden": 8}):
        vae = built((6, 9, 8), model={"field": kind, "pose_channel": 2})
        latents = vae.posterior(Batch(torch.arange(3), torch.rand(3, 1, 6, 9, 8))).best()
        pixels = torch.tensor([0, 17, 100, 431])
        cheap = vae.predict(latents, pixels=pixels).signal[:, 0]
        u = vae.coordinates[pixels] / 4.5
        slow = vae.field(u.expand(3, -1, -1), latents.decoded[:, 0])
        assert vae.upright and torch.allclose(cheap, slow, atol=1e-5)


def test_squared_error_is_the_published_loss() -> None:
    vae = built((8, 8))
    batch = Batch(torch.arange(2), torch.rand(2, 1, 8, 8))
    best = vae.posterior(batch).best()
    error = (batch.image.flatten(1) - vae.predict(best).signal[:, 0, :, 0]).square().sum(1)
    constant = 0.5 * 64 * np.log(np.pi)
    assert torch.allclose(vae.log_likelihood(batch, best)[:, 0], -error - constant, atol=1e-4)


def test_pose_channel_is_decoded_and_free() -> None:
    vae = built((8, 8), model={"pose_channel": 2})
    batch = Batch(torch.arange(2), torch.rand(2, 1, 8, 8))
    posterior = vae.posterior(batch)
    assert posterior.channel is not None and posterior.channel.shape == (2, 1, 2)
    moved = posterior._replace(channel=posterior.channel + 3.0)
    assert torch.equal(moved.kl(exact=True).content, posterior.kl(exact=True).content)
    same = vae.predict(posterior.best()).signal
    assert not torch.allclose(vae.predict(moved.best()).signal, same, atol=1e-4)
    with pytest.raises(InputError, match="pose_channel"):
        built((8, 8), model={"rotation": {"prior": "uniform"}})


# --- rotated images ----------------------------------------------------------------------------


def test_quarter_turns_are_the_rotations_of_the_group() -> None:
    volume = torch.rand(1, 1, 5, 5, 5, dtype=torch.float64)  # odd: both centres agree
    x = lattice((5, 5, 5)).double()
    for rotation in octahedral():
        pose = Pose(rotation[None], torch.zeros(1, 3, dtype=torch.float64))
        expected = sample_images(volume, pose.to_object(x))[..., 0].reshape(volume.shape)
        assert torch.allclose(exactly_turned(volume, rotation), expected, atol=1e-9)


def test_turning_keeps_what_turns_with_it() -> None:
    generator = torch.Generator().manual_seed(0)
    for dim in (2, 3):
        x, side = lattice([17] * dim), [17] * dim
        ball = torch.exp(-x.square().sum(1) / 8).reshape(1, 1, *side).repeat(5, 1, *[1] * dim)
        bar = (x[:, 0].abs() < 1).float().reshape(1, 1, *side).expand_as(ball)
        batch = Batch(torch.arange(5), ball)
        for how in (AugmentConfig(rotate="quarter-turns"), AugmentConfig(rotate="any")):
            assert torch.allclose(augmented(batch, how, generator).image, ball, atol=0.1)
            other = augmented(batch.with_image(bar), how, generator).image
            assert not torch.allclose(other, bar)
    for how in (AugmentConfig(), AugmentConfig(rotate="encoder-input")):
        assert augmented(batch, how, generator) is batch


def test_shifts_are_whole_and_reach_every_pixel_of_their_range() -> None:
    generator = torch.Generator().manual_seed(0)
    for dim in (2, 3):
        point = torch.zeros(400, 1, *[9] * dim)
        point[(slice(None), 0, *[4] * dim)] = 1.0
        batch = Batch(torch.arange(400), point)
        shifted = augmented(batch, AugmentConfig(shift_px=1), generator).image
        assert torch.equal(shifted.flatten(1).sum(1), torch.ones(400))
        hit = torch.nonzero(shifted.sum(0)[0]) - 4
        assert len(hit) == 3**dim and int(hit.abs().max()) == 1


# --- fits -------------------------------------------------------------------------------------


def test_run_keeps_what_it_was_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images())
    labels = classes().astype("<U2")
    labels[4] = "-1"
    options = config(train={"augment": {"rotate": "quarter-turns"}, "gamma": {"end": 5.0}})
    source = open_source(tmp_path / "x.npy")
    run = fit_run(source, options, tmp_path / "run", labels=labels, affinity=MATRIX, quiet=True)
    rows = run.epochs()
    assert rows[0]["gamma"] == 5.0 and {"affinity", "val_affinity"} <= rows[0].keys()
    for row in rows:  # gamma is no part of the bound
        bound = row["recon"] - row["kl_pose"] - row["kl_content"]
        assert row["elbo"] == pytest.approx(bound)
    assert {"pose_0", "pose_1", "pose_2", "label"} <= set(run.latents().columns)
    model = PoseModel.load(run.path)
    encoded = model.encode(images())
    assert encoded.pose_channel is not None and encoded.pose_channel.shape == (30, 3)
    upright = model.decode(encoded.z[:2])
    there = model.decode(encoded.z[:2], encoded.pose_channel[:2])
    assert upright.shape == there.shape == (2, 12, 12) and not np.allclose(upright, there)
    assert np.allclose(there, model.reconstruct(images())[:2], atol=1e-5)
    copied = model.save(tmp_path / "copy").known_affinity()
    assert copied is not None and copied.classes is not None
    assert np.array_equal(copied.classes.values, MATRIX.values) and copied.label[4] == -1


def test_resume_continues_to_the_same_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images(dim=3, n=12))
    options = config(
        train={"epochs": 3, "augment": {"rotate": "any"}, "schedule": "constant"},
    )

    def fit(out: str, epochs: int) -> Run:
        train = options.train.model_copy(update={"epochs": epochs})
        return fit_run(
            open_source(tmp_path / "x.npy"),
            options.model_copy(update={"train": train}),
            tmp_path / out,
            sample_affinity="fsc",
            quiet=True,
        )

    whole = fit("whole", 3)
    resumed = resume_run(fit("part", 1).path, epochs=3, quiet=True)
    skip = {"seconds", "images_per_second"}
    for row, other in zip(whole.epochs(), resumed.epochs(), strict=True):
        assert {k: v for k, v in row.items() if k not in skip} == {
            k: v for k, v in other.items() if k not in skip
        }
    kept = [c for c in whole.latents().columns if c.startswith(("z_", "pose_"))]
    assert whole.latents()[kept].equals(resumed.latents()[kept])


def test_term_brings_cosines_to_the_affinities() -> None:
    options = {"train": {"epochs": 40, "gamma": {"end": 20.0}}}
    model = PoseModel("affinity-vae", options=merge(SMALL, options), quiet=True)
    model.fit(images(60), classes(60), affinity=MATRIX)
    z = model.encode(images(30, seed=1)).z
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    target = MATRIX.values[np.ix_(np.arange(30) % 3, np.arange(30) % 3)]
    assert np.abs(unit @ unit.T - target).mean() < 0.15
    plain = PoseModel("conv-vae", options=merge(SMALL, {"train": {"epochs": 20}}), quiet=True)
    w = plain.fit(images(60)).encode(images(30, seed=1)).z
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    assert np.abs(w @ w.T - target).mean() > 0.3


def test_term_works_on_a_model_with_a_real_pose() -> None:
    model = PoseModel(
        "modpose",
        options={"train": {"epochs": 1, "gamma": {"end": 3.0}, "batch_size": 10}},
        quiet=True,
    )
    model.fit(images(20), classes(20), affinity=MATRIX)
    assert model.metrics()["affinity"].iloc[0] > 0


# --- bad input --------------------------------------------------------------------------------


def said(call: Any) -> str:
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    return text


def test_bad_affinities_are_one_sentence(tmp_path: Path) -> None:
    source = open_source(images(9))
    np.save(tmp_path / "s.npy", np.eye(4))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"classes": MATRIX}, "labels are missing"),
        ({"classes": MATRIX, "labels": np.array(["a"] * 8 + ["q"])}, "no class 'q', which 1 of"),
        ({"classes": MATRIX, "labels": np.array(["-1"] * 9)}, "no image has a label"),
        ({"classes": "fsc", "labels": np.array([np.nan] * 9)}, "no image has a label"),
        ({"classes": tmp_path / "none.csv", "labels": classes(9)}, "no such file"),
        ({"samples": tmp_path / "s.npy"}, "4 x 4, expected 9 x 9"),
        ({"samples": tmp_path / "no.npy"}, "no such file"),
        ({"samples": np.ones((9, 9)) * 2}, "1 on the diagonal"),
    ]
    for given_, expected in cases:
        assert expected in said(lambda g=given_: known_affinity(source, **g))
    options = {"train": {"epochs": 1}}
    missing = said(lambda: PoseModel("affinity-vae", options=options, quiet=True).fit(images(9)))
    assert "affinity matrix is missing" in missing and "--gamma 0" in missing
    unused = PoseModel("conv-vae", options=options, quiet=True)
    assert "--gamma" in said(lambda: unused.fit(images(9), classes(9), affinity=MATRIX))
    table = PoseModel(
        "conv-vae",
        options={
            "model": {"encoder": {"kind": "table"}},
            "train": {"augment": {"rotate": "any"}},
            "data": {"val_fraction": 0.0},
        },
        quiet=True,
    )
    assert "train.augment" in said(lambda: table.fit(images(9)))


def test_classes_can_be_compared_by_a_metric() -> None:
    labels = np.array([0.0, 1.0, 2.0] * 3)
    labels[5] = np.nan
    known = known_affinity(open_source(images(9)), labels, "fsc")
    assert known.classes is not None and known.classes.names == ("0", "1", "2")
    assert known.label.tolist() == [0, 1, 2, 0, 1, -1, 0, 1, 2]


# --- the reference program's own data -----------------------------------------------------------


def test_characters_with_the_reference_matrix(some_data: Path, tmp_path: Path) -> None:
    with np.load(some_data / "affinity" / "alphanumeric_64.npz") as file:
        x, names = file["images"], file["name"]
    labels = np.array([str(name).split("_")[0] for name in names])
    options = {"data": {"box": 32}, "train": {"epochs": 2}}
    model = PoseModel("affinity-vae", options=options, quiet=True)
    model.fit(x, labels, affinity=some_data / "affinity" / "affinity_alphanumeric.csv")
    metrics = model.metrics()
    assert metrics["affinity"].iloc[1] < metrics["affinity"].iloc[0]
    copied = model.save(tmp_path / "run").known_affinity()
    assert copied is not None and copied.classes is not None and len(copied.classes.names) == 36
    assert set(np.array(copied.classes.names)[copied.label]) == set(labels)


def test_volumes_compared_by_their_power_spectra(some_data: Path) -> None:
    with np.load(some_data / "affinity" / "affinity_volumes_64.npz") as file:
        x, labels = file["volumes"].astype(np.float32), file["cls"].astype("<U4")
    labels[::5] = "-1"
    options = {"data": {"box": 24}, "train": {"epochs": 1, "augment": {"rotate": "quarter-turns"}}}
    model = PoseModel("affinity-vae", options=options, quiet=True)
    model.fit(x, labels, affinity="power-spectrum", sample_affinity="power-spectrum")
    assert np.isfinite(model.metrics()["affinity"]).all()
    assert model.encode(x[:3]).z.shape == (3, 8)
