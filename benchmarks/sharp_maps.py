"""Sharp maps of a molecule that moves, against its true maps: area of FSC, content, time, memory.

    python -m benchmarks.sharp_maps 1igt.pdb --arm A,B:1-235 --hinge-at B:236 --images 10000
    python -m benchmarks.sharp_maps 1igt.pdb --still --images 3000

Simulates projections (64 pixels of 6 angstrom, SNR 0.1, CTF, exact poses; the arm turns full
circle), fits `modpose-posed` and computes the maps that `modpose volumes` draws.  For each of many
true maps, the image nearest to its angle is taken, and the map drawn for that image is compared
with the true one.

area        mean over the true maps of the area under the FSC up to Nyquist (at most 0.5), inside a
            soft mask about the true map (`modpose.search.solvent.molecule_mask`)
consensus   the map of all images, by the same solver and filter
oracle      the same solver and filter with the true conformations known
gain        (area - consensus) / (oracle - consensus)
content     median difference of an image's angle from that which the 20 images of nearest content,
            of other fifths of the set, have

With --rotation-error and --shift-error the given poses are wrong; the maps are then computed once
as they are, and once with corrected poses (`modpose volumes --refine-poses`).

With --still nothing moves: the area must not be below the consensus, and the halves of maps that
are forced to move must not agree.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import machine
from modpose.content_maps import ContentMaps, ContentMapSettings, fit_content_maps
from modpose.content_maps.rigid import rigid_share
from modpose.data.dataset import Dataset
from modpose.estimator import PoseModel
from modpose.evaluate.true_maps import TrueMap, read_true_maps
from modpose.fit import fit_run
from modpose.fourier.fsc import fsc
from modpose.geometry.rotations import geodesic
from modpose.options import configure
from modpose.outputs.content_maps import MARGIN, content_maps_of
from modpose.run import Run
from modpose.search.solvent import molecule_mask
from modpose.simulate.conformations import Conformer, built_in_conformers, conformers_of_files
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

Floats = NDArray[np.float64]
Volume = NDArray[np.float32]

NEAREST, PARTS = 20, 5
KNOWN_DEG = 1.7
"""Step between known angles, as if they were this uncertain: the error of good content."""


def simulated(options: argparse.Namespace, folder: Path) -> Path:
    """Simulate, unless the folder has images; return the table."""
    star = folder / "particles.star"
    if star.is_file():
        return star
    settings = ProjectionSettings(
        n=options.images,
        box=options.box,
        pixel_size=384 / options.box,
        snr=options.snr,
        ctf=True,
        hinge_range_deg=None if options.still else (-180.0, 180.0),
        rotation_error_deg=options.rotation_error,
        shift_error_px=options.shift_error,
        seed=options.seed,
    )
    if options.molecule is None:
        moving, still = None, [Conformer("still", built_in_conformers(1)[0].molecule)]
        kinds = still if options.still else moving
    else:
        part = (None, None) if options.still else (options.arm, options.hinge_at)
        kinds = conformers_of_files([options.molecule], 10.0, *part)
    made = simulate_projections(settings, kinds)
    return write_projections(made, folder, 1 if options.still else options.maps, overwrite=True)


def fitted(star: Path, folder: Path, seed: int, epochs: int | None) -> Run:
    """Fit the recipe, unless the folder has a run."""
    if (folder / "latents.parquet").is_file():
        return Run.open(folder)
    flags = {"--epochs": ("train.epochs", epochs), "--seed": ("seed", seed)}
    source, config, _ = configure(str(star), recipe="modpose-posed", flags=flags)
    return fit_run(source, config, folder, quiet=True)


def known_content(angle: Floats) -> tuple[Floats, Floats]:
    """Content that knows the true angle (N,), and its standard deviation."""
    radians = np.deg2rad(angle)
    z = np.stack([np.cos(radians), np.sin(radians)], 1)
    return z, np.full_like(z, np.deg2rad(KNOWN_DEG))


def content_error(z: Floats, angle: Floats) -> float:
    """Median error, degrees, of angles that are read from content."""
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsRegressor

    reader = KNeighborsRegressor(NEAREST)
    found = cross_val_predict(reader, z, known_content(angle)[0], cv=PARTS)
    away = np.rad2deg(np.arctan2(found[:, 1], found[:, 0])) - angle
    return float(np.median(np.abs((away + 180) % 360 - 180)))


class Scorer:
    """Scores of maps against the true ones.

    Parameters
    ----------
    true
        The true maps.
    angle
        (N,) true angles of the images, degrees; None where nothing moves.
    """

    def __init__(self, true: list[TrueMap], angle: Floats | None) -> None:
        self.true = true
        volumes = torch.from_numpy(np.stack([one.volume for one in true])).float()
        ball = volumes.shape[-1] - MARGIN
        self.masks = [molecule_mask(one[None], ball).numpy() for one in volumes]
        self.rows = [0] * len(true)
        if angle is not None:
            away = [np.abs((angle - one.hinge_deg + 180) % 360 - 180) for one in true]
            self.rows = [int(one.argmin()) for one in away]

    def areas(self, draw: Callable[[int], Volume]) -> Floats:
        """Area for each true map of the map that is drawn for its image."""
        pairs = zip(self.rows, self.true, self.masks, strict=True)
        return np.array([fsc(draw(row), one.volume, mask).area() / 2 for row, one, mask in pairs])


def halves_of_motions(found: ContentMaps) -> float:
    """Correlation of the two halves' maps beside the mean."""
    first, second = (half[1:].ravel().astype(float) for half in found.bands[0].halves)
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size > 0 else 0.0


def report(name: str, areas: Floats, start: float) -> float:
    """Print one line of areas and processor seconds; return the mean area."""
    seconds = time.process_time() - start
    print(
        f"{name:12} area {areas.mean():.4f}  worst {areas.min():.4f}  {seconds:6.0f} CPU s",
        flush=True,
    )
    return float(areas.mean())


def compare(run: Run, star: Path, functions: int | None, wrong_poses: bool) -> None:
    """Print all figures of a run."""
    dataset: Dataset = run.dataset()
    truth = dataset.source.particles.truth()
    moves = truth is not None and "hinge_deg" in truth
    angle = truth["hinge_deg"].to_numpy(float) if truth is not None and moves else None
    scorer = Scorer(read_true_maps(star.parent / "maps"), angle)
    z, std = run.content(), _deviations(run)
    start, model = time.process_time(), PoseModel.load(run.path)
    report("the model", scorer.areas(lambda row: model.decode(z[row][None])[0]), start)
    start = time.process_time()
    sharp = content_maps_of(run, functions=functions, overwrite=True, quiet=True)
    ours = report("sharp maps", scorer.areas(lambda row: sharp.volume(sharp.z[row])), start)
    share = rigid_share(sharp.bands[-1].maps)
    print(f"{len(sharp.basis)} functions of content; {share:.0%} of what moves is the whole map")
    if wrong_poses:
        _with_refined_poses(run, dataset, functions, scorer)
    mask, one = torch.from_numpy(sharp.mask), ContentMapSettings(functions=1, rounds=0)
    start = time.process_time()
    mean = fit_content_maps(dataset, z, std, mask, one, quiet=True)
    consensus = report("consensus", scorer.areas(lambda row: mean.volume(z[row])), start)
    if angle is None:
        moved = content_maps_of(run, functions=9, overwrite=True, quiet=True)
        print(f"sharp maps - consensus {ours - consensus:+.4f}")
        print(f"halves of nine forced functions correlate to {halves_of_motions(moved):.3f}")
        return
    start = time.process_time()
    known, width = known_content(angle)
    settings = ContentMapSettings(functions=functions, rounds=0)
    best = fit_content_maps(dataset, known, width, mask, settings, quiet=True)
    oracle = report("oracle", scorer.areas(lambda row: best.volume(known[row])), start)
    print(f"gain over the consensus {(ours - consensus) / (oracle - consensus):.2f}")
    spread = np.median(std, 0)
    before = content_error(z / spread, angle)
    # new content is in usual errors of one image
    after = before if np.array_equal(sharp.z, z) else content_error(sharp.z, angle)
    print(f"content, median error: {before:.2f} degrees in the run, {after:.2f} by sharp maps")


def _with_refined_poses(run: Run, dataset: Dataset, functions: int | None, scorer: Scorer) -> None:
    """Print the area of maps with corrected poses, and the errors of poses before and after."""
    start = time.process_time()
    found = content_maps_of(run, functions=functions, refine_poses=True, overwrite=True, quiet=True)
    report("poses too", scorer.areas(lambda row: found.volume(found.z[row])), start)
    assert dataset.rotation is not None and dataset.translation is not None
    given = np.asarray(dataset.rotation, float), np.asarray(dataset.translation, float)
    for name, poses in (("given", given), ("corrected", found.corrected(*given))):
        turn, shift = pose_errors(dataset, *poses)
        print(f"poses {name}: RMS error {turn:.2f} degrees, {shift:.2f} pixels an axis", flush=True)


def pose_errors(dataset: Dataset, rotation: Floats, shift: Floats) -> tuple[float, float]:
    """Root mean square errors of rotations, degrees, and of shifts, pixels an axis."""
    truth = dataset.source.particles.truth()
    assert truth is not None
    true = truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(float)
    away = geodesic(torch.from_numpy(rotation), torch.from_numpy(true.reshape(-1, 3, 3)))
    moved = shift - truth[["shift_x", "shift_y"]].to_numpy(float)
    return float(np.rad2deg(float(away.square().mean().sqrt()))), float(np.sqrt((moved**2).mean()))


def _deviations(run: Run) -> Floats:
    names = [f"z_{k}_std" for k in range(run.config.model.z_dim)]
    return run.latents()[names].to_numpy(float)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sharp_maps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("molecule", type=Path, nargs="?", help="PDB or mmCIF; else built in")
    parser.add_argument("--arm")
    parser.add_argument("--hinge-at")
    parser.add_argument("--still", action="store_true", help="nothing moves")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--rotation-error", type=float, default=0.0, help="RMS, degrees")
    parser.add_argument("--shift-error", type=float, default=0.0, help="deviation, pixels")
    parser.add_argument("--maps", type=int, default=100, help="number of true maps")
    parser.add_argument("--epochs", type=int, help="of the fit; default: the recipe's")
    parser.add_argument("--functions", type=int, help="of content; default: chosen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep images and run here, and use them again")
    options = parser.parse_args(arguments)
    print(machine.sentence(1), flush=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        star = simulated(options, folder)
        start = time.process_time()
        run = fitted(star, folder / "run", options.seed, options.epochs)
        print(f"fit: {time.process_time() - start:.0f} CPU s", flush=True)
        compare(run, star, options.functions, bool(options.rotation_error or options.shift_error))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"largest memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
