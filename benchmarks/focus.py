"""Focus: content of one of two independent motions, the other one being a nuisance.

    python -m benchmarks.focus --images 2000 --box 32

Simulates projections of a molecule with two arms that move independently (the second moves more),
fits `modpose-posed`, and computes sharp maps twice: everywhere, and with a focus on the first arm.

explained   share of the variance of each motion that content tells: R2 of the mean of the 20 images
            of nearest content, of other fifths of the set
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import machine
from modpose.data.mrc import write_mrcs
from modpose.fit import fit_run
from modpose.options import configure
from modpose.outputs.content_maps import content_maps_of
from modpose.simulate.conformations import Conformer
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

Floats = NDArray[np.float64]

ANGLES = 32
"""Different angles of the first arm.  One number holds both motions: its whole part tells the angle
of the first arm, the rest that of the second."""
SWING = (25.0, 40.0)
"""Largest angle of each arm, degrees."""
NEAREST, PARTS = 20, 5


class TwoArms:
    """A molecule of Gaussians: a body, and two arms that swing about the z axis."""

    def __init__(self) -> None:
        body = [(0, 0, 0), (0, 14, 10), (4, -14, -8), (0, 6, -20), (-4, -8, 20)]
        arm = [(22, 0, 4), (34, 6, 0), (46, 2, -6)]
        self._still = np.array(body, float)
        self._arm = np.array(arm, float)
        self.sigmas = np.full(len(body) + 2 * len(arm), 7.0)
        self.masses = np.ones(len(self.sigmas))

    def conformations(self, hinge_deg: Floats) -> Floats:
        """(N, M, 3) positions at (N,) numbers that hold both angles."""
        both = motions(hinge_deg)
        still = np.broadcast_to(self._still, (len(both), *self._still.shape))
        arms = [self._turned(both[:, 0], 1.0), self._turned(both[:, 1], -1.0)]
        return np.concatenate([still, *arms], 1)

    def radius(self, hinge_deg: Floats) -> float:
        """Largest distance from the origin."""
        return float(np.linalg.norm(self._arm, axis=1).max())

    def _turned(self, angle: Floats, side: float) -> Floats:
        c, s = np.cos(np.deg2rad(angle))[:, None], np.sin(np.deg2rad(angle))[:, None]
        x, y, z = side * self._arm[:, 0], self._arm[:, 1], self._arm[:, 2]
        return np.stack(
            [c * x - s * y, s * x + c * y, np.broadcast_to(z, c.shape[:1] + z.shape)], 2
        )


def motions(number: Floats) -> Floats:
    """Angles (N, 2) of the two arms, degrees, that numbers (N,) hold."""
    first = np.floor(number).clip(0, ANGLES - 1) / (ANGLES - 1)
    both = np.stack([first, number - np.floor(number)], 1)
    return np.asarray((2 * both - 1) * SWING)


def two_arms() -> list[Conformer]:
    """Return the molecule as the one class of a set."""
    return [Conformer("two-arms", TwoArms(), (0.0, ANGLES - 1e-6))]


def around_arm(box: int, pixel_size: float) -> NDArray[np.float32]:
    """Soft ball (box, box, box) about the first arm."""
    axis = (np.arange(box) - box // 2) * pixel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    away = np.sqrt((x - 36) ** 2 + y**2 + z**2)
    return np.asarray(np.clip((34 - away) / 8, 0, 1), np.float32)


def explained(z: Floats, both: Floats) -> Floats:
    """Share (2,) of the variance of each motion that content (N, k) tells."""
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsRegressor

    found = cross_val_predict(KNeighborsRegressor(NEAREST), z, both, cv=PARTS)
    return np.asarray(1 - ((found - both) ** 2).mean(0) / both.var(0))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.focus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, help="of the fit; default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(machine.sentence(1), flush=True)
    torch.set_num_threads(1)
    size = 160 / options.box
    settings = ProjectionSettings(
        n=options.images,
        box=options.box,
        pixel_size=size,
        snr=options.snr,
        ctf=True,
        seed=options.seed,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = simulate_projections(settings, two_arms())
        star = write_projections(made, folder, 0)
        region = folder / "arm.mrc"
        write_mrcs(region, around_arm(options.box, size)[None], size)
        flags = {"--epochs": ("train.epochs", options.epochs), "--seed": ("seed", options.seed)}
        source, config, _ = configure(str(star), recipe="modpose-posed", flags=flags)
        start = time.process_time()
        run = fit_run(source, config, folder / "run", quiet=True)
        print(f"fit: {time.process_time() - start:.0f} CPU s", flush=True)
        both = motions(made.truth["hinge_deg"].to_numpy(float))
        spread = run.latents()[[f"z_{k}_std" for k in range(run.config.model.z_dim)]].median()
        report("the run", run.content() / spread.to_numpy(), both)
        for name, focus in (("sharp maps", None), ("with focus", region)):
            start = time.process_time()
            found = content_maps_of(run, focus=focus, overwrite=True, quiet=True)
            report(name, found.z / np.maximum(np.median(found.std, 0), 1e-9), both)
            seconds = time.process_time() - start
            print(f"  {len(found.basis)} functions, {found.z.shape[1]} axes, {seconds:.0f} CPU s")


def report(name: str, z: Floats, both: Floats) -> None:
    """Print what content tells of the two motions."""
    first, second = explained(z, both)
    print(f"{name:12} explains {first:.3f} of the motion in the focus, {second:.3f} of the other")


if __name__ == "__main__":
    main()
