"""A mask of the molecule from a file: its refusals, and what it does to the maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from modpose import PoseModel
from modpose.cli import main
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.geometry.grids import lattice
from modpose.search.solvent import check_fit, read_mask
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import ProjectionSettings, simulate_projections

BOX, SIZE = 24, 6.7


def ball(
    radius: float, box: int = BOX, centre: tuple[float, ...] = (0, 0, 0)
) -> NDArray[np.float32]:
    distance = (lattice((box,) * 3) - torch.tensor(centre)).norm(dim=-1).reshape((box,) * 3)
    return np.asarray(((radius + 1 - distance).clamp(0, 1)).numpy(), np.float32)


def written(path: Path, mask: NDArray[np.float32], size: float | None = SIZE) -> Path:
    write_mrcs(path, mask[None], size)
    return path


def test_a_mask_is_read_as_it_stands(tmp_path: Path) -> None:
    path = written(tmp_path / "mask.mrc", ball(7))
    assert np.array_equal(read_mask(path, BOX, SIZE * 1.001).numpy(), ball(7))
    read_mask(path, BOX)


@pytest.mark.parametrize(
    ("mask", "size", "message"),
    [
        (ball(7, 20), SIZE, "the box is 20 x 20 x 20, expected 24 x 24 x 24"),
        (ball(7), 5.0, r"the pixel size is 5 A, expected 6.7 A"),
        (0 * ball(7), SIZE, "the mask is empty"),
        (0 * ball(7) + 1, SIZE, "the mask is full"),
        (2 * ball(7), SIZE, "outside 0 to 1"),
        (np.full((BOX,) * 3, np.nan, np.float32), SIZE, "outside 0 to 1"),
    ],
)
def test_a_wrong_mask_is_one_sentence(
    mask: NDArray[np.float32], size: float, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read_mask(written(tmp_path / "mask.mrc", mask, size), BOX, SIZE)


def test_a_mask_of_the_other_hand_or_beside_the_molecule_is_refused() -> None:
    mask = torch.from_numpy(ball(4, centre=(0, 0, 5)))
    check_fit(mask, 3 * mask, "mask.mrc")
    with pytest.raises(InputError, match="other hand"):
        check_fit(torch.from_numpy(ball(4, centre=(0, 0, -5))), mask, "mask.mrc")
    with pytest.raises(InputError, match="holds 0% of the power"):
        check_fit(torch.from_numpy(ball(4, centre=(8, 0, 0))), mask, "mask.mrc")
    whole = torch.from_numpy(ball(9))
    check_fit(whole, whole, "mask.mrc")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_whose_mirror_misses_much_less_is_told(
    axis: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A small part that is far from every mirror plane holds a few per cent of the power."""
    centre = (4.0, 5.0, 6.0)
    place = centre[::-1][axis]
    small = 0.6 * ball(2, centre=centre)
    other = 0.6 * ball(2, centre=tuple(-c if c == place else c for c in centre))
    whole = torch.from_numpy(ball(4) + small)
    right = torch.from_numpy(((ball(5) + ball(3, centre=centre)) > 0).astype(np.float32))
    mirrored = right.flip(axis).roll(1, axis)
    assert (torch.from_numpy(other) * mirrored).sum() == pytest.approx(other.sum())
    check_fit(right, whole, "mask.mrc")
    belt = 0.3 * torch.from_numpy(ball(9) - ball(7))  # outside of a mask that is right
    check_fit(right, whole + belt, "mask.mrc")
    assert not caplog.records
    check_fit(mirrored, whole, "mask.mrc")
    (record,) = caplog.records
    along = "zyx"[axis]
    assert f"and mirrored along {along} 100%: it may be of the other hand" in record.message


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ProjectionSettings(
        n=120, box=BOX, pixel_size=SIZE, snr=0.5, hinge_range_deg=(-30.0, 30.0)
    )
    folder = tmp_path_factory.mktemp("masked")
    write_projections(simulate_projections(settings, built_in_conformers(1)), folder)
    return folder / "particles.star"


@pytest.mark.parametrize("box", [BOX, 20])
def test_maps_are_zero_outside_the_mask(particles: Path, tmp_path: Path, box: int) -> None:
    path = written(tmp_path / "mask.mrc", ball(8))
    options = {
        "data": {"box": box},
        "model": {"z_dim": 1, "field": {"motions": 1, "mask": str(path)}},
        "train": {"epochs": 1},
    }
    model = PoseModel("modpose-posed", options=options, quiet=True).fit(open_source(particles))
    outside = torch.from_numpy(ball(11 * box / BOX, box)) == 0
    field = model.vae.field
    assert (field.volumes[:, outside].abs() < 1e-2 * field.volumes.abs().max()).all()
    assert model.decode(np.zeros((1, 1), np.float32)).std() > 0


def test_the_command_line_refuses_it_before_the_sums(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "mask.mrc", ball(7, 20))
    for extra, message in (
        ([], "the box is 20 x 20 x 20"),
        (["--recipe", "cryodrgn"], "there is no option"),
    ):
        with pytest.raises(SystemExit) as leaving:
            main(["fit", str(particles), "-o", str(tmp_path / "run"), "--mask", str(path), *extra])
        assert leaving.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
