"""What runs on a device finds there what it finds on the CPU.

    MODPOSE_TEST_DEVICE=cuda pytest -m device

Without the variable the device is made up (:mod:`tests.another_device`); it refuses to mix tensors.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from modpose import PoseModel, open_source
from modpose.backprojection import check_poses, reconstruct_halves
from modpose.backprojection.halves import open_posed
from modpose.config import merge, parse_config
from modpose.data.batches import Batch
from modpose.data.mrc import write_mrcs
from modpose.evaluate.placing import place_images
from modpose.explore.folder import write_folder
from modpose.fourier.coefficients import map_coefficients
from modpose.fourier.fsc import read_map
from modpose.fourier.reference import make_references
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import haar_rotations
from modpose.jobs.subtract import subtract
from modpose.model.build import build_vae
from modpose.model.vae import Vae
from modpose.outputs.analyze import analyze_run
from modpose.outputs.content_maps import content_maps_of
from modpose.outputs.export import export_run
from modpose.outputs.volumes import along_component, write_volumes
from modpose.pick.images import pick_images
from modpose.recipes import recipe_config
from modpose.report.build import build_report
from modpose.run import Run
from modpose.search.so3_climb import climb
from modpose.search.so3_search import search, shift_grid
from tests.model.test_devices import FAMILIES

pytestmark = pytest.mark.device

STORED = Path(__file__).parent / "stored_runs"
CTF = [1.0, 15000.0, 15000.0, 0.0, 300.0, 2.7, 0.1, 0.0, 0.0]
CLOSE = 2e-3
"""Relative to the largest number: float32 sums of another order, a few thousand terms."""
AMPLIFIED = 0.03
"""The same, of poses and maps that are refined with each other: rounding grows in each round."""


def assert_close(here: Any, there: Any, close: float = CLOSE) -> None:
    one, other = np.asarray(here, float), np.asarray(there, float)
    assert one.shape == other.shape
    assert np.abs(one - other).max(initial=0) <= close * max(np.abs(one).max(initial=0), 1e-6)


def built(recipe: str, shape: tuple[int, ...]) -> Vae:
    config = parse_config(merge(recipe_config(recipe), {}), "test")
    return build_vae(config, shape=shape, channels=1, n_images=6)


def images(shape: tuple[int, ...], known: tuple[str, ...], count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pose = Pose(haar_rotations(count, generator), torch.zeros(count, len(shape)))
    return Batch(
        index=torch.arange(count),
        image=torch.randn(count, 1, *shape, generator=generator),
        ctf=torch.tensor([CTF]).expand(count, -1) if "ctf" in known else None,
        pose=pose if "pose" in known else None,
        wedge=torch.ones(count, *shape[:-1], shape[-1] // 2 + 1) if "wedge" in known else None,
    )


@pytest.mark.parametrize(("recipe", "shape", "known"), FAMILIES)
def test_a_step_has_the_bound_and_gradients_of_the_cpu(
    device: str, recipe: str, shape: tuple[int, ...], known: tuple[str, ...]
) -> None:
    here, batch = built(recipe, shape).train(), images(shape, known)
    there = deepcopy(here).to(device)

    def step(vae: Vae, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        value = vae(batch, generator=torch.Generator().manual_seed(0)).value()
        value.sum().backward()
        return value.detach(), [p.grad for p in vae.parameters() if p.grad is not None]

    (bound, gradients), (again, moved) = step(here, batch), step(there, batch.to(device))
    assert again.device.type == torch.device(device).type
    assert_close(bound, again.cpu())
    for gradient, other in zip(gradients, moved, strict=True):
        assert_close(gradient.to_dense(), other.to_dense().cpu())


def test_a_turned_image_has_the_same_content_and_a_turned_pose(device: str) -> None:
    vae, batch = built("target-vae", (15, 15)).eval().to(device), images((15, 15), ()).to(device)
    with torch.no_grad():
        one = vae.posterior(batch).best()
        turned = vae.posterior(batch.with_image(torch.rot90(batch.image, 1, (2, 3)))).best()
    assert_close(one.z.cpu(), turned.z.cpu())
    angle = (turned.angle - one.angle).cpu().rad2deg()
    assert_close(angle.abs() % 180, torch.full_like(angle, 90.0))


def test_a_search_finds_the_poses_of_the_cpu(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 12, 12, 12, generator=generator)
    grid = haar_rotations(200, generator)

    def found(maps: Tensor, grid: Tensor) -> list[Tensor]:
        data = map_coefficients(maps, 0.3)
        coarse = search(data, make_references(maps, 0.3), grid, shift_grid(1.0, 1.0), top=1)
        slopes = make_references(maps, 0.3, slopes=True)
        which, rotation = torch.arange(2, device=maps.device), coarse.rotation.reshape(2, -1, 3, 3)
        fine = climb(
            data,
            slopes,
            which,
            which,
            rotation[:, 0],
            coarse.shift.reshape(2, -1, 3)[:, 0],
            steps=2,
        )
        return [part.cpu() for part in (*coarse, *fine)]

    for one, other in zip(found(maps, grid), found(maps.to(device), grid.to(device)), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    ("run", "data"),
    [
        ("modpose", "pictures"),
        ("target-vae", "pictures"),
        ("modpose-posed", "posed"),
        ("cryodrgn", "posed"),
        ("affinity-vae", "blocks"),
        ("modpose-3d", "volumes"),
    ],
)
@pytest.mark.parametrize("how", [{}, {"search": True}])
def test_images_are_encoded_as_on_the_cpu(
    device: str, run: str, data: str, how: dict[str, bool]
) -> None:
    if how and run in ("target-vae", "affinity-vae", "cryodrgn"):
        pytest.skip("searched by the same code as others, or not at all")
    source = open_source(STORED / data / "particles.star")
    here, there = (
        PoseModel.load(STORED / run, device=name).encode(source, rows=np.arange(6), **how)
        for name in ("cpu", device)
    )
    for field in fields(here):
        one, other = getattr(here, field.name), getattr(there, field.name)
        assert (one is None) == (other is None)
        if one is not None and "std" not in field.name:
            assert_close(one, other)


def test_maps_from_poses_are_those_of_the_cpu(device: str) -> None:
    dataset = open_posed(open_source(STORED / "posed" / "particles.star"))
    both = "cpu", device
    here, there = (check_poses(dataset, quiet=True, device=name).agreement for name in both)
    assert_close(list(here.values()), list(there.values()))
    one, other = (reconstruct_halves(dataset, quiet=True, device=name) for name in both)
    assert_close(one.first, other.first)
    assert_close(one.second, other.second)


# --- verbs that use a run ---------------------------------------------------------------------


def opened(folder: Path, name: str, data: str) -> Run:
    shutil.copytree(STORED / name, folder / name)
    return Run.open(folder / name, input=STORED / data / "particles.star")


def sharp(out: Path, device: str) -> list[Any]:
    run = opened(out, "modpose-posed", "posed")
    made = content_maps_of(run, functions=2, refine_poses=True, quiet=True, device=device)
    return [made.bands[0].maps, *made.bands[0].halves, made.z]


def volumes(out: Path, device: str) -> list[Any]:
    run = opened(out, "modpose-posed", "posed")
    stops = along_component(run.content(), 1, 2)
    write_volumes(run, stops, out / "volumes", quiet=True, device=device)
    return [read_map(path)[0] for path in sorted((out / "volumes").glob("*.mrc"))]


def analysis(out: Path, device: str) -> list[Any]:
    run = opened(out, "modpose-posed", "posed")
    analyze_run(run, out / "analysis", k=2, quiet=True, device=device)
    return [read_map(out / "analysis" / "variance.mrc")[0]]


def placed(out: Path, device: str) -> list[Any]:
    run = opened(out, "affinity-vae", "blocks")
    table = place_images(run, open_source(STORED / "blocks" / "particles.star"), device=device)
    return [table.select_dtypes("number").to_numpy()]


def exported(out: Path, device: str) -> list[Any]:
    run = opened(out, "modpose", "pictures")
    export_run(run, out / "exported", ["mrcs"], device=device)
    return [open_source(path).stack.read(np.arange(3)) for path in sorted(out.glob("*/*.mrcs"))]


def picked(out: Path, device: str) -> list[Any]:
    noise = np.random.default_rng(0).standard_normal((1, 96, 96)).astype(np.float32)
    write_mrcs(out / "field.mrc", noise, None)
    run = opened(out, "modpose", "pictures")
    where = {"scale": 1.0, "threshold": 3.0, "angles": 8, "device": device}
    pick_images(out / "field.mrc", out / "picks.csv", run=run.path, **where)
    return [pd.read_csv(out / "picks.csv").select_dtypes("number").to_numpy()]


def subtracted(out: Path, device: str) -> list[Any]:
    ball = np.zeros((2, 16, 16, 16), np.float32)
    ball[0, 5:11, 5:11, 5:11] = 1
    for name, volume in zip(("map.mrc", "mask.mrc"), ball, strict=True):
        write_mrcs(out / name, volume[None], 10.0)
    source = open_source(STORED / "posed" / "particles.star")
    given = {"scale": 0.5, "quiet": True, "device": device}
    subtract(source, out / "map.mrc", out / "mask.mrc", out / "rest", **given)
    return [open_source(path).stack.read(np.arange(3)) for path in out.glob("rest/*.mrcs")]


VERBS = (sharp, volumes, analysis, placed, exported, picked, subtracted)


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_give_the_results_of_the_cpu(
    device: str, verb: Callable[[Path, str], list[Any]], tmp_path: Path
) -> None:
    found = []
    for place, name in (("here", "cpu"), ("there", device)):
        (tmp_path / place).mkdir()
        found.append(verb(tmp_path / place, name))
    assert found[0]
    for one, other in zip(*found, strict=True):
        assert_close(one, other, AMPLIFIED if verb is sharp else CLOSE)


def test_pages_are_drawn_on_the_device(device: str, tmp_path: Path) -> None:
    run = opened(tmp_path, "modpose", "pictures")
    assert build_report(run.path, input=run.input, quiet=True, device=device).is_file()
    assert write_folder([run], tmp_path / "page", quiet=True, device=device).is_file()
