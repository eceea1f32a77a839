"""The sections on symmetry and equivariance: models whose answer is known, and real tiny runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modpose import Run, fit_run, open_source
from modpose.config import merge, parse_config
from modpose.data.batches import Batch
from modpose.evaluate.equivariance import Followed, Move, follow, infer_batch
from modpose.evaluate.symmetry import SAME
from modpose.model.build import build_vae
from modpose.model.latents import Latents
from modpose.model.vae import Vae
from modpose.plot import figures
from modpose.plot.figures import DisplayStyle
from modpose.recipes import recipe_config
from modpose.report import build_report, gather
from modpose.report.equivariance import equivariance, moved, shift_of
from modpose.report.material import ReportData
from modpose.report.probe import Probe, choose_probe, classes_of, spread_rows
from modpose.report.symmetry import find_modes, most_ambiguous, second_way_up, symmetry

SIDE = 24
ASYMMETRIC = ((0.45, 0.0, 1.0), (-0.15, 0.3, 0.8), (-0.1, -0.35, 0.6))
TWOFOLD = ((0.4, 0.1, 1.0), (-0.4, -0.1, 1.0), (0.0, 0.0, 0.5))
THREEFOLD = tuple((0.4 * math.cos(a), 0.4 * math.sin(a), 1.0) for a in (0.3, 2.3944, 4.4888))
DISC = ((0.0, 0.0, 2.0),)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw at a low resolution, which is quick."""
    monkeypatch.setattr(figures, "DPI", 30)


class Blobs(nn.Module):
    """An analytic field: Gaussian blobs (x, y, height)."""

    def __init__(self, blobs: tuple[tuple[float, ...], ...]) -> None:
        super().__init__()
        self.blobs = torch.tensor(blobs)

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        away = (u[..., None, :] - self.blobs[:, :2]).square().sum(-1)
        bumps = (self.blobs[:, 2] * (-away / (2 * 0.15**2)).exp()).sum(-1, keepdim=True)
        return bumps.expand(len(z), *bumps.shape[1:])


def model(blobs: tuple[tuple[float, ...], ...], noise: float = 0.3, **sections: Any) -> Vae:
    """A model whose field is known; its encoder knows nothing."""
    values = {
        "z_dim": 1,
        "encoder": {"hidden": 8},
        "field": {"hidden": 4},
        "shift": {"std_px": 2.0},
        "likelihood": {"kind": "gaussian", "noise": "fixed", "std": noise},
    }
    config = merge(recipe_config("spatial-vae"), {"model": merge(values, sections)})
    vae = build_vae(parse_config(config, "test"), shape=(SIDE, SIDE), channels=1, n_images=8).eval()
    vae.field = Blobs(blobs)
    return vae


def observed(vae: Vae, n: int, noise: float = 0.3, shift_std: float = 1.5) -> ReportData:
    """Images that the model itself drew, in random poses, with what an encoder might say."""
    generator = torch.Generator().manual_seed(3)
    angle = math.pi * (2 * torch.rand(n, generator=generator) - 1)
    shift = shift_std * torch.randn(n, 2, generator=generator)
    cell = torch.zeros(n, 1, dtype=torch.int64)
    with torch.no_grad():
        prediction = vae.predict(
            Latents(torch.zeros(n, 1, 1), angle[:, None], shift[:, None], cell), None
        )
    image = vae.likelihood.mean(prediction)[:, 0].reshape(n, 1, SIDE, SIDE)
    image = image + noise * torch.randn(image.shape, generator=generator)
    rows = np.arange(n)
    probe = Probe(vae, Batch(torch.arange(n), image), rows, np.full(n, "all images"))
    pictures = image[:, 0].numpy()
    return ReportData(
        look=DisplayStyle((-1.0, 2.0), (0.0, 1.0), "lower"),
        decode=lambda z: np.zeros((len(z), SIDE, SIDE)),
        z=np.zeros((n, 1)),
        elbo=np.zeros(n),
        index=rows,
        rows=rows,
        images=pictures,
        posed=pictures[:0],
        metrics={},
        angle_deg=np.zeros(n),
        shift_px=np.zeros((n, 2)),
        probe=probe,
    )


# --- symmetry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blobs", "group", "column", "places"),
    [
        (TWOFOLD, "C2", "order 2", 2),
        (THREEFOLD, "C3", "order 3", 3),
    ],
)
def test_the_group_of_a_known_object(
    blobs: tuple[tuple[float, ...], ...], group: str, column: str, places: int
) -> None:
    made = observed(model(blobs), 12)
    section = symmetry(made)
    assert section is not None
    row = dict(zip(section.header, section.table[0], strict=True))
    assert len(section.table) == 1
    assert row["class"] == "all images" and row["images"] == "12"
    assert row["symmetry group"] == group
    assert int(row[column].removesuffix(" %")) > 80
    weights = [int(w.removesuffix(" %")) for w in row["mean weight of each mode"].split(" + ")]
    assert len(weights) == places and sum(weights) >= 95
    assert weights == sorted(weights, reverse=True)
    names = {picture.name for picture in section.pictures}
    assert names == {"symmetry.png", "ambiguous.png"}


def test_an_object_without_symmetry_takes_three_lines() -> None:
    section = symmetry(observed(model(ASYMMETRIC), 12))
    assert section is not None
    assert section.caption.startswith("None: each of 12 images")
    assert not section.pictures and not section.table and not section.good
    lost = int(section.caption.split("It loses ")[1].split(" %")[0])
    assert lost > 100 * SAME  # a symmetry loses less, a turn by an average angle 100 %


def test_a_disc_prefers_no_angle() -> None:
    section = symmetry(observed(model(DISC), 8))
    assert section is not None
    row = dict(zip(section.header, section.table[0], strict=True))
    assert row["symmetry group"].startswith("none found")
    assert row["round"] == "100 %"


def test_classes_are_told_apart_and_the_most_ambiguous_come_first() -> None:
    two, one = observed(model(TWOFOLD), 6), observed(model(ASYMMETRIC), 6)
    assert two.probe is not None and one.probe is not None
    images = torch.cat([two.probe.batch.image, one.probe.batch.image])
    # The model draws the two-fold object, and of one class there is only a half of it.
    images[6:, :] *= 0
    half = observed(model(TWOFOLD[:1]), 6)
    assert half.probe is not None
    images[6:] = half.probe.batch.image
    names = np.array(["S"] * 6 + ["F"] * 6)
    probe = replace(two.probe, batch=Batch(torch.arange(12), images), rows=np.arange(12),
                    classes=names, kind="label")  # fmt: skip
    made = replace(two, z=np.zeros((12, 1)), angle_deg=np.zeros(12),
                   shift_px=np.zeros((12, 2)), probe=probe)  # fmt: skip
    section = symmetry(made)
    assert section is not None
    assert section.header[0] == "label"
    assert [row[0] for row in section.table] == ["S", "F"]
    assert section.table[0][section.header.index("symmetry group")] == "C2"
    modes = find_modes(made, probe)
    assert np.allclose(modes.weight.sum(1), 1) and (np.diff(modes.weight, axis=1) <= 1e-9).all()
    chosen = most_ambiguous(modes, 4)
    second = second_way_up(modes)[chosen]
    ratio = modes.weight[chosen, second] / modes.weight[chosen, 0]
    assert (np.diff(ratio) <= 0).all() and len(chosen) == 4
    assert np.abs(np.abs(modes.relative[chosen, second]) - 180).max() < 15


# --- equivariance -----------------------------------------------------------------------------


class Moments(nn.Module):
    """Inference by moments, exactly equivariant but for sampling: mass, centre, angle.

    The angle is that of Σ m r³ e^{iθ} about the centre of mass; ``lag`` makes it fall behind.
    """

    whole_batch = 7
    shape = (48, 48)

    def __init__(self, lag: float = 1.0, rotation: str = "uniform", std: float | None = 2.0):
        super().__init__()
        self.lag, self.encoder = lag, SimpleNamespace(sees_pixels=True)
        turns, moves = (SimpleNamespace(inferred=on) for on in (rotation != "none", bool(std)))
        self.layout = SimpleNamespace(rotation=turns, shift=moves, z_dim=2)

    def posterior(self, batch: Batch) -> SimpleNamespace:
        image = (batch.image if batch.twin is None else batch.twin)[:, 0]
        place = torch.arange(image.shape[-1]) - image.shape[-1] // 2
        x, y = place[None, None, :], place[None, :, None]
        mass = image.sum((1, 2))
        centre = torch.stack([(image * x).sum((1, 2)), (image * y).sum((1, 2))], -1) / mass[:, None]
        away = torch.complex((x - centre[:, 0, None, None]).expand(image.shape),
                             (y - centre[:, 1, None, None]).expand(image.shape))  # fmt: skip
        angle = (image * away * away.abs() ** 2).sum((1, 2)).angle()
        z = torch.stack([mass, mass**2 / 100], -1)
        best = Latents(z[:, None], self.lag * angle[:, None], centre[:, None], batch.index[:, None])
        return SimpleNamespace(best=lambda: best)


def moments_material(vae: Any, n: int = 9) -> ReportData:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-24:24, -24:24]
    images = np.zeros((n, 48, 48))
    for image in images:
        for px, py, height in ((5, 0, 1.0), (-2, 4, 0.7), (-3, -4, 0.4)):
            image += height * np.exp(
                -((x - px) ** 2 + (y - py) ** 2) / (2 * rng.uniform(1.6, 2.2) ** 2)
            )
    batch = Batch(torch.arange(n), torch.tensor(images[:, None], dtype=torch.float32))
    base = observed(model(DISC), 2)
    return replace(base, probe=Probe(vae, batch, np.arange(n), np.full(n, "all images")))


def followed(probe: Probe, ways: list[Move]) -> Followed:
    still = infer_batch(probe.vae, probe.batch)
    return follow(still, ways, lambda way: infer_batch(probe.vae, moved(probe, way)))


def test_moments_follow_every_move() -> None:
    made = moments_material(Moments())
    assert made.probe is not None
    ways = [(70.0, (0.0, 0.0)), (0.0, (8.0, 0.0)), (200.0, (-3.0, 5.0))]
    found = followed(made.probe, ways)
    assert found.angle_deg.shape == found.content.shape == (3, 9)
    assert np.abs(found.angle_deg).max() < 0.5
    assert found.shift_length.max() < 0.02
    assert found.content.max() < 0.05


def test_the_section_gives_the_numbers() -> None:
    section = equivariance(moments_material(Moments()))
    assert section is not None
    rows = {row[0]: row[1:] for row in section.table}
    assert float(rows["error of the angle, median"][0].removesuffix("°")) < 0.5
    assert rows["resultant length of the errors"][:2] == ("1.000", "1.000")
    assert float(rows["error of the shift, RMSE"][1].removesuffix(" px")) < 0.05
    assert float(rows["change of content, mean"][0].removesuffix(" %")) <= 5
    assert rows["all images"][0].startswith("C1, median 0.")
    assert all(row[-1] for row in section.table)  # every number is explained
    assert "rotated in steps of 10° and shifted by ±8 px" in section.caption
    assert [picture.name for picture in section.pictures] == ["equivariance.png"]


def test_a_shift_that_does_not_follow_has_the_error_of_the_move() -> None:
    class Still(Moments):
        def posterior(self, batch: Batch) -> SimpleNamespace:
            best = super().posterior(batch).best()
            fixed = best._replace(shift=torch.zeros_like(best.shift))
            return SimpleNamespace(best=lambda: fixed)

    material = moments_material(Still())
    for pixel_size, error in ((None, "8.00 px"), (1.5, "12.00 Å")):
        section = equivariance(replace(material, pixel_size=pixel_size))
        assert section is not None
        rows = {row[0]: row[1:] for row in section.table}
        assert rows["error of the shift, RMSE"][1] == error


def test_errors_count_modulo_the_symmetry_of_the_class() -> None:
    """Of one class inference falls on either way up at random: half a turn is no error."""

    class Flips(Moments):
        def posterior(self, batch: Batch) -> SimpleNamespace:
            best = super().posterior(batch).best()
            rough = (1e4 * best.angle).long() % 2 == 0
            flip = rough & (batch.index[:, None] < 5)
            turned = best._replace(angle=best.angle + math.pi * flip)
            return SimpleNamespace(best=lambda: turned)

    made = moments_material(Flips())
    assert made.probe is not None
    classes = np.array(["S"] * 5 + ["F"] * 4)
    section = equivariance(replace(made, probe=replace(made.probe, classes=classes, kind="label")))
    assert section is not None
    rows = {row[0]: row[1:] for row in section.table}
    assert rows["label S"][0].startswith("C2, median 0.")
    assert rows["label F"][0].startswith("C1, median 0.")
    assert float(rows["error of the angle, RMSE"][0].removesuffix("°")) > 60
    modulo = rows["error of the angle modulo the symmetry, RMSE"]
    assert float(modulo[0].removesuffix("°")) < 1


def test_an_angle_that_does_not_follow_is_seen() -> None:
    section = equivariance(moments_material(Moments(lag=0.0)))
    assert section is not None
    rows = {row[0]: row[1:] for row in section.table}
    assert float(rows["error of the angle, median"][0].removesuffix("°")) == pytest.approx(90)
    assert float(rows["resultant length of the errors"][0]) < 0.05


def test_an_evil_twin_is_probed_with_its_twin() -> None:
    """Its encoder sees another image, which stays as it is: no angle follows."""
    made = moments_material(Moments())
    assert made.probe is not None
    twins = made.probe.batch.image.roll(1, 0)
    probe = replace(made.probe, batch=replace(made.probe.batch, twin=twins))
    found = followed(probe, [(70.0, (0.0, 0.0))])
    assert np.allclose(found.angle_deg, -70) and found.content.max() == 0


def test_a_model_without_rotation_is_only_shifted_and_one_without_shift_only_turned() -> None:
    section = equivariance(moments_material(Moments(rotation="none")))
    assert section is not None and section.pictures == []
    assert {row[1] for row in section.table} == {"–"}
    section = equivariance(moments_material(Moments(std=None)))
    assert section is not None
    assert not any("shift" in row[0] for row in section.table)
    assert equivariance(moments_material(Moments(rotation="none", std=None))) is None


def test_astigmatism_turns_along_and_masks_stay() -> None:
    made = moments_material(Moments())
    assert made.probe is not None
    ctf = torch.tensor([[4.0, 9000.0, 8000.0, 30.0, 300.0, 2.7, 0.1, 0.0, 0.0]]).repeat(9, 1)
    mask = np.zeros((48, 48), bool)
    mask[10:38, 10:38] = True
    batch = replace(made.probe.batch, ctf=ctf)
    found = moved(replace(made.probe, batch=batch, mask=mask), (25.0, (0.0, 0.0)))
    assert found.ctf is not None
    assert found.ctf[:, 3].tolist() == [55.0] * 9 and ctf[0, 3] == 30
    assert (found.image[:, 0, ~torch.from_numpy(mask)] == 0).all()
    assert found.image.abs().sum() > 0
    assert [shift_of(side) for side in (64, 40, 28, 3)] == [8.0, 8.0, 5.0, 1.0]


# --- the images that are examined -------------------------------------------------------------


def test_rows_are_spread_over_the_classes() -> None:
    classes = np.array(["b"] * 50 + ["10"] * 3 + ["9"] * 50 + [""] * 20)
    rows = spread_rows(classes, 30)
    assert len(set(rows.tolist())) == len(rows)
    assert classes[rows].tolist() == ["9"] * 10 + ["10"] * 3 + ["b"] * 10
    assert rows[0] == 53 and rows[9] == 102  # from the first to the last
    assert len(spread_rows(classes, 1)) == 3


def test_labels_are_classes_else_clusters_else_all_are_one() -> None:
    labels, clusters = np.array([1.0, 2.0, np.nan]), np.array([0, -1, 0])
    kind, names = classes_of({"label": labels, "cluster": clusters}, 3)
    assert kind == "label" and names.tolist() == ["1", "2", ""]
    kind, names = classes_of({"cluster": clusters}, 3)
    assert kind == "cluster" and names.tolist() == ["0", "", "0"]
    many = np.arange(100) / 7
    kind, names = classes_of({"label": many}, 100)
    assert kind == "" and set(names) == {"all images"}
    assert classes_of({"label": np.full(3, np.nan)}, 3)[0] == ""


# --- real runs --------------------------------------------------------------------------------

SMALL = {
    "train": {"epochs": 1, "batch_size": 20, "restarts": 1, "delay_z_steps": 0},
    "model": {"z_dim": 1, "encoder": {"kind": "mlp", "hidden": 16}, "field": {"hidden": 16}},
}


def fitted(
    images: np.ndarray, tmp_path: Path, recipe: str, kind: str = "images", **options: Any
) -> Run:
    np.save(tmp_path / "images.npy", images.astype(np.float32))
    source = open_source(tmp_path / "images.npy", kind=kind)  # type: ignore[arg-type]
    small = SMALL if "spatial" in recipe else {"train": SMALL["train"], "model": {"z_dim": 1}}
    values = merge(merge(recipe_config(recipe), small), {"data": {"kind": kind}})
    config = parse_config(merge(values, options), "test")
    labels = np.arange(len(images)) % 2
    return fit_run(source, config, tmp_path / "run", labels=labels, quiet=True)


def made_of(run: Run) -> tuple[bool, bool]:
    """Whether there is a section on symmetry, and one on equivariance."""
    material = gather.gather(run, run.latents())
    return symmetry(material) is not None, equivariance(material) is not None


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def test_both_sections_are_in_a_report(tmp_path: Path) -> None:
    page = build_report(fitted(noise(30, 16, 16), tmp_path, "spatial-vae").path, quiet=True)
    text = page.read_text()
    assert '<section id="symmetry">' in text and '<section id="equivariance">' in text
    assert "symmetry group" in text and "shifted by ±3 px" in text
    assert "<td>label 0</td>" in text and "<td>label 1</td>" in text
    assert {"symmetry.png", "equivariance.png"} <= {path.name for path in page.parent.glob("*.png")}


@pytest.mark.parametrize("z_dim", [0, 1])
def test_a_lookup_table_has_symmetry_but_no_equivariance(tmp_path: Path, z_dim: int) -> None:
    table = {"model": {"encoder": {"kind": "table"}, "z_dim": z_dim}, "data": {"val_fraction": 0}}
    run = fitted(noise(30, 12, 12), tmp_path, "spatial-vae", **table)
    assert made_of(run) == (True, False)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("vae", (False, False)),
        ("spatial-vae-translation", (False, True)),
        ("spatial-vae-rotation", (True, True)),
    ],
)
def test_sections_appear_where_the_model_infers_that(
    tmp_path: Path, recipe: str, expected: tuple[bool, bool]
) -> None:
    assert made_of(fitted(noise(30, 12, 12), tmp_path, recipe)) == expected


def test_nothing_of_volumes(tmp_path: Path) -> None:
    assert made_of(fitted(noise(20, 8, 8, 8), tmp_path, "vae", kind="volumes")) == (False, False)


def test_nothing_is_examined_without_pictures() -> None:
    made = replace(observed(model(DISC), 2), probe=None)
    assert symmetry(made) is None and equivariance(made) is None
    vae = SimpleNamespace(shape=(8, 8, 8))
    assert choose_probe(vae, SimpleNamespace(), {}, 9) is None  # type: ignore[arg-type]
    assert choose_probe(model(DISC), SimpleNamespace(), {}, 1) is None  # type: ignore[arg-type]
