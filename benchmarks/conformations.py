"""How well conformations are learned where poses had to be found, against given poses.

    modpose simulate projections -o hinge --images 3000 --ctf --maps 24
    python -m benchmarks.conformations hinge/particles.star
    python -m benchmarks.conformations hinge/particles.star --refine 5 0.3
    python -m benchmarks.conformations hinge/particles.star --causes
    python -m benchmarks.conformations hinge/particles.star --limit 400

The table is one of ``modpose simulate projections``: its poses are the true ones, and it holds the
hinge angles.  Fits ``modpose-posed`` twice, with these poses and without any.  The error of content
is that of the angle which it foretells: each image gets the mean angle of the 20 images nearest to
it in content, out of the other four fifths of the images.

Poses are compared with the true ones after one rotation of all, and after one rotation for each
twelfth of the hinge angles.  The difference is drift: a frame that follows the content, which does
no harm.

--refine DEGREES RATE also corrects found poses while content is learned (model.refine_poses): the
prior standard deviation of a rotation, and the learning rate.

--causes says what in the errors of found poses harms content.  It fits twice more at true poses:
with the drift alone, and with the errors that are left without it, each given to another image, so
that they do not follow content.

--limit N fits nothing.  It says how well the angles of N images can be told at all: from the true
maps, with the true poses, and with poses that are fitted, too, to each map.  Fitting begins at
the true poses, so a method without poses can hardly do better than the second.
The maps beside the table must be close: 2 degrees apart for the full circle of an antibody.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import machine
from benchmarks.abinitio import LOST_DEG, MIRROR, common_frame, errors_of_hand
from modpose import PoseModel
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.source import Source, open_source
from modpose.evaluate.true_maps import read_true_maps
from modpose.fourier.reference import make_references
from modpose.search.abinitio.images import read_images
from modpose.search.so3_climb import climb

Floats = NDArray[np.float64]

NEIGHBOURS, PARTS = 20, 5
POSES = ("rlnAngle", "rlnOrigin")
POSES_OF = ("given", "found")
CONTENTS = 12
"""Parts of the hinge angles, each of which may have a frame of its own."""
REACH_DEG = 24.0
"""Images are compared with the true maps within this angle of their own."""
STEPS = 5


def without_poses(source: Source) -> Source:
    """Return the same images without the columns of their poses."""
    table = source.particles.table
    kept = [name for name in table.columns if not str(name).startswith(POSES)]
    return replace(source, particles=replace(source.particles, table=table[kept]))


def angle_errors(z: Floats, angle: Floats) -> Floats:
    """Errors (N,), in the unit of ``angle``, degrees, of angles told from content (N, d)."""
    from sklearn.neighbors import KNeighborsRegressor

    rad = np.deg2rad(angle)
    circle = np.stack([np.cos(rad), np.sin(rad)], 1)
    order, found = np.random.default_rng(0).permutation(len(z)), np.empty(len(z))
    for part in range(PARTS):
        held = order[part::PARTS]
        rest = np.setdiff1d(order, held)
        told = KNeighborsRegressor(NEIGHBOURS).fit(z[rest], circle[rest]).predict(z[held])
        found[held] = np.arctan2(told[:, 1], told[:, 0])
    return _apart_deg(np.rad2deg(found), angle)


def _apart_deg(first: Floats, second: Floats) -> Floats:
    """Differences of angles on the circle, degrees, at least 0."""
    return np.abs((first - second + 180) % 360 - 180)


def pose_errors(found: Tensor, truth: Tensor, angle: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Errors (N,), degrees, of rotations (N, 3, 3), of the hand with fewer lost.

    Returns
    -------
    one, own, other
        After one rotation of all; after one for each twelfth of the angles (N,); and after one
        rotation of all, of the other hand.
    """
    none = torch.eye(3)[None]
    hands = truth, MIRROR @ truth @ MIRROR
    both = [errors_of_hand(found, hand, none) for hand in hands]
    better = min((0, 1), key=lambda k: _lost(both[k]))
    part, own = _twelfths(angle), torch.zeros(len(found))
    for k in np.unique(part):
        rows = torch.from_numpy(part == k)
        own[rows] = errors_of_hand(found[rows], hands[better][rows], none)
    return both[better], own, both[1 - better]


def causes(found: Tensor, truth: Tensor, angle: Floats) -> dict[str, Tensor]:
    """True poses (N, 3, 3) with a part of the errors of found ones; arguments as before."""
    one, _, other = pose_errors(found, truth, angle)
    truth = truth if _lost(one) <= _lost(other) else MIRROR @ truth @ MIRROR
    change = truth.transpose(1, 2) @ found
    part, drift = _twelfths(angle), torch.empty_like(change)
    for k in np.unique(part):
        rows = torch.from_numpy(part == k)
        drift[rows] = common_frame(change[rows][:, None])
    rest = drift.transpose(1, 2) @ change
    mixed = torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))
    return {"true, with the drift": truth @ drift, "true, with errors mixed": truth @ rest[mixed]}


def _twelfths(angle: Floats) -> NDArray[np.int64]:
    low, high = angle.min(), angle.max()
    place = CONTENTS * (angle - low) / max(high - low, 1e-6)
    return np.asarray(np.minimum(place, CONTENTS - 1), np.int64)


def _pose_line(found: Tensor, truth: Tensor, angle: Floats) -> str:
    one, own, other = pose_errors(found, truth, angle)
    mirrored = float(((one > LOST_DEG) & (other <= LOST_DEG)).float().mean())
    return (
        f"poses found: rotation {float(one.median()):.2f}° median, {100 * _lost(one):.1f} % lost; "
        f"with a frame for each twelfth of the angles {float(own.median()):.2f}°, "
        f"{100 * _lost(own):.1f} % lost; {100 * mirrored:.1f} % at mirrored poses"
    )


def _lost(error: Tensor) -> float:
    return float((error > LOST_DEG).float().mean())


def told_angles(
    source: Source, maps: Path, rotation: Tensor, shift: Tensor, angle: Floats
) -> tuple[Floats, Floats]:
    """Errors (N,), degrees, of angles told from the true maps: posterior means on the circle.

    Parameters
    ----------
    source
        N images.
    maps
        Folder of the true maps, in the order of their angles.
    rotation, shift
        True poses, (N, 3, 3) and (N, 2) pixels.
    angle
        (N,) true angles.

    Returns
    -------
    given, found
        With the true poses; with the best pose for each map, climbed to from the true one.
    """
    made = Dataset(source, DataConfig(val_fraction=0), seed=0, ctf=True)
    images = read_images(made, source.stack.shape[0] / 2 - 3, quiet=True)
    data = images.coefficients(slice(None), float(images.radius[-1]), images.side)
    flat = torch.cat([shift, torch.zeros(len(shift), 1)], 1)
    every = read_true_maps(maps)
    score = torch.full((2, len(angle), len(every)), -math.inf)
    for k, one in enumerate(every):
        near = _apart_deg(angle, np.full(len(angle), one.hinge_deg)) < REACH_DEG
        rows = torch.from_numpy(np.flatnonzero(near))
        if not len(rows):
            continue
        volume = math.sqrt(images.side) * torch.from_numpy(one.volume)[None]
        references = make_references(volume, float(data.radius[-1]), slopes=True)
        seen, own = data.rows(rows), torch.arange(len(rows))
        first = own * 0
        for number, steps in enumerate((0, STEPS)):
            pose = (rotation[rows], flat[rows])
            top = climb(seen, references, own, first, *pose, steps=steps, normalised=False)
            score[number, rows, k] = top.score
    at = np.deg2rad([one.hinge_deg for one in every])
    share = score.softmax(2).double().numpy()
    told = np.rad2deg(np.arctan2(share @ np.sin(at), share @ np.cos(at)))
    return _apart_deg(told[0], angle), _apart_deg(told[1], angle)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", help="particles.star of modpose simulate projections")
    parser.add_argument("--poses", nargs="+", choices=("given", "found"), default=POSES_OF)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--refine", type=float, nargs=2, metavar=("DEGREES", "RATE"))
    parser.add_argument("--causes", action="store_true", help="what in wrong poses harms content")
    parser.add_argument("--limit", type=int, metavar="N", help="what N images can tell at best")
    parser.add_argument("--maps", type=Path, help="true maps; by default those beside the table")
    told = parser.parse_args(arguments)
    print(machine.sentence())
    source = open_source(told.table)
    truth = source.particles.truth()
    assert truth is not None
    angle = truth["hinge_deg"].to_numpy()
    names = [f"r{i}{j}" for i in range(3) for j in range(3)]
    rotation = torch.tensor(truth[names].to_numpy().reshape(-1, 3, 3)).float()
    if told.limit is not None:
        few = source.subset(np.arange(min(told.limit, source.n)))
        shift = torch.tensor(truth[["shift_x", "shift_y"]].to_numpy()).float()
        maps = told.maps or Path(told.table).parent / "maps"
        both = told_angles(few, maps, rotation[: few.n], shift[: few.n], angle[: few.n])
        for name, error in zip(("given", "fitted"), both, strict=True):
            print(
                f"true maps, poses {name}: {np.median(error):.2f}° median, "
                f"{error.mean():.2f}° mean error"
            )
        print(
            f"ratio: {np.median(both[1]) / np.median(both[0]):.2f} of medians, "
            f"{both[1].mean() / both[0].mean():.2f} of means"
        )
        return
    options: dict[str, dict[str, object]] = {"train": {"epochs": told.epochs}}
    medians, model = [], None
    for name in told.poses:
        images = source if name == "given" else without_poses(source)
        own = dict(options)
        if told.refine is not None and name == "found":
            std, rate = told.refine
            own["model"] = {"refine_poses": {"rotation_std_deg": std, "lr": rate}}
        model, median = _fitted(images, own, told.seed, name, angle)
        medians.append(median)
    if model is None or "found" not in told.poses:
        return
    assert model._record is not None
    rotation_found = model._record.used("rotation")
    assert rotation_found is not None
    found = torch.tensor(rotation_found.reshape(-1, 3, 3)).float()
    print(_pose_line(found, rotation, angle), flush=True)
    if len(medians) == 2:
        print(f"error of content: {medians[1] / medians[0]:.2f} × that with given poses")
    if told.causes:
        moved = truth[["shift_x", "shift_y"]].to_numpy()
        for name, wrong in causes(found, rotation, angle).items():
            _fitted(source.with_poses(wrong.numpy(), moved), options, told.seed, name, angle)


def _fitted(
    images: Source, options: dict[str, dict[str, object]], seed: int, name: str, angle: Floats
) -> tuple[PoseModel, float]:
    """Fit, print how well content tells the angle, and return the median error, degrees."""
    used = time.process_time()
    model = PoseModel("modpose-posed", options=options, seed=seed, quiet=True).fit(images)
    used = time.process_time() - used
    table = model.latents()
    z = table[[f"z_{k}" for k in range(model.config.model.z_dim)]].to_numpy(float)
    error = angle_errors(z, angle)
    print(
        f"poses {name}: hinge angle {np.median(error):.2f}° median, {error.mean():.2f}° mean "
        f"error; {used:.0f} processor seconds",
        flush=True,
    )
    return model, float(np.median(error))


if __name__ == "__main__":
    main()
