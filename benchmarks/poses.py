"""How well poses and classes of digits are found: MNIST(U) and MNIST(N), every figure of a seed.

    python -m benchmarks.poses --data mnist.npz --seed 0
    python -m benchmarks.poses --data mnist.npz --angle-std 45 --seed 0

One fit of ``--minutes``, then content and pose of test images and of their twins (the same digit
upright and centred): angle of the one minus angle of the other, minus the true angle, is the error.
Every test image (``--turned``) is rotated, too: how many readings follow but for half a turn.
``--search 1000`` takes the first thousand of them again with a search of all poses, ``--copies 5``
the first two thousand (``--copied``) with the pose that most of so many rotated copies tell.
``--run`` keeps the fitted model, or reads it where it is there already.  ``--smooth 1`` blurs the
pictures first, as a lens does: strokes are then wide enough that a rotation cuts off no values.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from benchmarks import machine
from benchmarks.digits import FAR, Images
from modpose import PoseModel
from modpose.config import merge, set_option
from modpose.content.clustering import Method, cluster
from modpose.evaluate import metrics
from modpose.evaluate.equivariance import RotationErrors, twin_angle_errors, twin_shift_errors
from modpose.geometry.degrees import wrap_deg
from modpose.infer.encoded import Encoded
from modpose.simulate.digits import transform
from studies.common.equivariance import by_label, turned_consistency
from studies.target_vae.digit_tables import ASYMMETRIC

CONSISTENCY_IMAGES = 40
ROTATIONS = 7
"""Of every test image; no quarter turns among them, which move no pixel off the lattice."""


def pictures(data: Path, part: str, most: int, smooth: float = 0.0) -> tuple[Images, np.ndarray]:
    """Read (N, 28, 28) pictures in [0, 1], blurred by ``smooth`` pixels, and their digits."""
    with np.load(data, allow_pickle=False) as arrays:
        images = arrays[f"x_{part}"][:most].astype(np.float32) / 255
        labels = arrays[f"y_{part}"][:most].astype(np.int64)
    return gaussian_filter(images, (0, smooth, smooth), mode="constant"), labels


def fit(options: argparse.Namespace, train: Images) -> PoseModel:
    """Fit the recipe to rotated and shifted digits, with the priors that they were drawn from."""
    images, _ = transform(
        train, box=FAR.box, angle_std_deg=options.angle_std, shift_std_px=FAR.shift_std_px, seed=1
    )
    chosen = {
        "data": {"val_fraction": 0.02},
        "model": {"shift": {"prior": "gaussian", "std_px": FAR.shift_std_px}},
        "train": {"epochs": 1_000_000, "threads": options.threads},
    }
    if options.angle_std is not None:
        normal = {"rotation": {"prior": "gaussian", "std_deg": options.angle_std}}
        chosen = merge(chosen, {"model": normal, "train": {"augment": {"rotate": "none"}}})
    for assignment in options.set:
        chosen = set_option(chosen, assignment)
    model = PoseModel(
        options.recipe,
        z_dim=options.z_dim,
        options=chosen,
        max_minutes=options.minutes,
        seed=options.seed,
    )
    return model.fit(images)


def fitted(options: argparse.Namespace) -> PoseModel:
    """Return the model in the folder ``--run``; fit it where there is none yet."""
    if options.run is not None and options.run.exists():
        return PoseModel.load(options.run)
    model = fit(options, pictures(options.data, "train", options.images, options.smooth)[0])
    if options.run is not None:
        model.save(options.run)
    return model


def report(model: PoseModel, test: Images, labels: np.ndarray, options: argparse.Namespace) -> None:
    """Print every figure of one fitted model."""
    images, truth = transform(
        test, box=FAR.box, angle_std_deg=options.angle_std, shift_std_px=FAR.shift_std_px, seed=2
    )
    upright, _ = transform(test, box=FAR.box, angle_std_deg=0.0)
    found = report_poses(model, images, upright, truth, labels)
    report_consistency(model, images)
    report_half_turns(model, images[: options.turned], labels)
    methods: tuple[Method, ...] = ("ward", "kmeans", "gmm")
    shares = {m: metrics.hungarian_accuracy(labels, cluster(found.z, 10, m))[0] for m in methods}
    said = ", ".join(f"{method} {100 * share:.1f} %" for method, share in shares.items())
    print(f"clusters of z: {said}; 5-NN {100 * metrics.knn_accuracy(found.z, labels):.1f} %")
    if options.search:
        few = slice(options.search)
        print(f"the first {options.search} images, by the encoder and by search:")
        for search in (False, True):
            report_poses(model, images[few], upright[few], truth[few], labels[few], search=search)
    if options.copies > 1:
        few = slice(options.copied)
        print(f"the first {len(images[few])} images, read once and from {options.copies} copies:")
        for copies in (1, options.copies):
            report_poses(model, images[few], upright[few], truth[few], labels[few], copies=copies)
        report_consistency(model, images, options.copies)


def report_consistency(model: PoseModel, images: Images, copies: int = 1) -> None:
    """Print how far the poses of rotated images are from those of the same images as they are."""
    turned = turned_consistency(model, images[:CONSISTENCY_IMAGES], copies=copies)
    print(
        f"self-consistency over 160 rotations of {CONSISTENCY_IMAGES} images: RMSE "
        f"{metrics.circular_rmse_deg(turned):.1f} degrees"
    )


def report_half_turns(model: PoseModel, images: Images, labels: np.ndarray) -> None:
    """Print how many readings of rotated images are over 90 degrees off, digit by digit."""
    if not len(images):
        return
    errors = wrap_deg(turned_consistency(model, images, ROTATIONS))
    over = np.abs(errors) > 90
    print(
        f"self-consistency over {ROTATIONS} rotations of {len(images)} images, read once: RMSE "
        f"{metrics.circular_rmse_deg(errors):.1f} degrees, median {np.median(np.abs(errors)):.2f}, "
        f"half turns {100 * over.mean():.3f} % (in {over.any(1).sum()} images)"
    )
    for digit in np.unique(labels):
        mine = labels[: len(images)] == digit
        print(
            f"  {digit}: median {np.median(np.abs(errors[mine])):.2f} degrees, half turns "
            f"{100 * over[mine].mean():.3f} %"
        )


def report_poses(
    model: PoseModel,
    images: Images,
    upright: Images,
    truth: pd.DataFrame,
    labels: np.ndarray,
    *,
    search: bool = False,
    copies: int = 1,
) -> Encoded:
    """Print how far the poses of images are from those of their twins, beside the truth."""
    found = model.encode(images, search=search, copies=copies)
    twin = model.encode(upright, search=search, copies=copies)
    assert found.angle_deg is not None and twin.angle_deg is not None
    angle = truth["angle_deg"].to_numpy()
    shift = truth[["shift_x", "shift_y"]].to_numpy()
    errors = twin_angle_errors(found.angle_deg, twin.angle_deg, angle)
    moved = twin_shift_errors(found.shift, twin.shift, shift, angle)
    every, firm = RotationErrors.of(errors), errors[np.isin(labels, ASYMMETRIC)]
    digits = " ".join(f"{e.resultant:.2f}" for e in by_label(errors, labels).values())
    print(f"ELBO (one sample): {found.elbo.mean():.1f} nats per image")
    print(
        f"rotation against the twin: median {np.median(np.abs(errors)):.2f} degrees, resultant "
        f"{metrics.resultant_length(firm):.3f} (2-7, 9), {every.resultant:.3f} (all); by digit "
        f"{digits}; circular correlation (Jammalamadaka & SenGupta, ill-conditioned for uniform "
        f"angles) {metrics.circular_correlation(errors + angle, angle):.3f}"
    )
    print(
        f"shift: r {metrics.pearson(found.shift[:, 0], shift[:, 0]):.3f}, "
        f"{metrics.pearson(found.shift[:, 1], shift[:, 1]):.3f}; RMSE against the twin "
        f"{metrics.shift_rmse_px(moved):.2f} px"
    )
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.poses", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--recipe", default="modpose")
    parser.add_argument("--z-dim", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=15.0, help="of training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--angle-std", type=float, help="degrees; uniform without")
    parser.add_argument("--set", action="append", default=[], help="section.option=value")
    parser.add_argument("--run", type=Path, help="folder that keeps the fitted model")
    parser.add_argument("--smooth", type=float, default=0.0, help="s.d. of a blur, pixels")
    parser.add_argument("--images", type=int, default=60_000, help="training images, at most")
    parser.add_argument("--test", type=int, default=10_000, help="test images, at most")
    parser.add_argument("--turned", type=int, default=10_000, help="of them also turned, at most")
    parser.add_argument("--search", type=int, default=0, help="test images also searched")
    parser.add_argument("--copies", type=int, default=1, help="also read from so many, turned")
    parser.add_argument("--copied", type=int, default=2_000, help="test images so read, at most")
    options = parser.parse_args(arguments)
    print(machine.sentence(options.threads), flush=True)
    model = fitted(options)
    report(model, *pictures(options.data, "test", options.test, options.smooth), options)


if __name__ == "__main__":
    main()
