"""Content that shows errors of poses is told from content that shows motion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from modpose.content_maps import ContentMapSettings, fit_content_maps
from modpose.content_maps.rigid import doubt_about_poses, rigid_share
from modpose.simulate.conformations import Conformer, built_in_conformers
from modpose.simulate.projections import ProjectionSettings, simulate_projections
from tests.content_maps.small_sets import BOX, ball, opened

SIDE = 16


def blobs(turn: Rotation | None = None, shift: tuple[float, float, float] = (0, 0, 0)):
    """Gaussians on a lattice (z, y, x), turned about its middle and shifted."""
    places = np.random.default_rng(0).uniform(-3, 3, (9, 3))
    if turn is not None:
        places = turn.apply(places)
    axis = np.arange(SIDE) - SIDE // 2
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    away = ((grid[..., None, :] - (places + shift)) ** 2).sum(-1)
    return np.exp(-away / 4).sum(-1)


@pytest.mark.parametrize(
    "moved",
    [
        {"shift": (0.1, -0.05, 0.2)},
        {"turn": Rotation.from_rotvec([0.02, 0.0, 0.0])},
        {"turn": Rotation.from_rotvec([0.01, -0.02, 0.015]), "shift": (0.0, 0.1, 0.0)},
    ],
)
def test_a_small_shift_or_turn_of_the_whole_is_explained(moved) -> None:
    maps = np.stack([blobs(), blobs(**moved) - blobs()])
    assert rigid_share(maps) > 0.98


def test_noise_and_a_part_that_moves_are_not_explained() -> None:
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.standard_normal((4, SIDE, SIDE, SIDE)), (0, 1, 1, 1))
    assert rigid_share(np.concatenate([blobs()[None], noise])) < 0.1
    assert rigid_share(blobs()[None]) == 0
    away = np.zeros((SIDE,) * 3)
    away[3:5, 3:5, 3:5] = 1.0
    assert rigid_share(np.stack([blobs() + away, away - np.roll(away, 1, 0)])) < 0.3


def test_wrong_poses_are_doubted_and_exact_ones_are_not() -> None:
    """Content that knows how wrong shifts are, about 1.5 pixels; and content that knows a hinge."""
    still, doubts = [Conformer("still", built_in_conformers(1)[0].molecule)], []
    for error, kinds in ((1.5, still), (0.0, None)):
        settings = ProjectionSettings(
            n=400, box=BOX, pixel_size=8.0, snr=1.0, ctf=True, shift_error_px=error
        )
        made = simulate_projections(settings, kinds)
        if kinds is None:
            z = made.truth[["hinge_deg"]].to_numpy() / 15
        else:
            away = made.shift - made.truth[["shift_x", "shift_y"]].to_numpy()
            z = np.einsum("nij,ni->nj", made.rotation[:, :2], away)  # in the frame of the object
        few = ContentMapSettings(functions=5, landmarks=30, rounds=0)
        given = opened(made), z, np.full_like(z, 0.3), ball()
        doubts.append(doubt_about_poses(fit_content_maps(*given, few, quiet=True)))
    wrong, exact = doubts
    assert wrong is not None and "errors of the given poses" in wrong
    assert "--refine-poses corrects them a little" in wrong
    assert exact is None
