"""What an image costs in an epoch, beside what users would take instead, in one run.

    python -m benchmarks.peers --cryodrgn-python PYTHON
    python -m benchmarks.peers --images 300 --box 64
    python -m benchmarks.peers --images 500 --box 32 --recovar-python PYTHON --only whole

cryoDRGN (its own environment, its command ``train_vae`` with networks of 3 x 256) and the recipes
``cryodrgn`` (the same networks) and ``modpose-posed`` are fitted to the same simulated projections
of known pose, for one epoch and for three: half of the difference is an epoch, without start and
end.  The floor are principal components and k-means of scikit-learn, which know no pose.  Times are
of the processor, so that what else the machine does hardly counts; each line says how many times
those of the recipe ``cryodrgn`` it takes.

RECOVAR (its command ``pipeline``, four principal components) has no epochs.  It is compared with a
whole fit of ``modpose-posed``: start, all epochs, and the encoding of the images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from benchmarks import machine
from modpose.data.source import open_source
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings
from studies.cryobench import peers
from studies.cryobench.measure import measured

SHORT, LONG = 1, 3
"""Epochs of the two fits whose difference counts."""
OURS = ("cryodrgn", "modpose-posed")


def epoch(fit: Callable[[int, Path], float], folder: Path) -> float:
    """Processor seconds of an epoch of a fit, given its number of epochs and a folder."""
    taken = []
    for number in (SHORT, LONG):
        place = folder / f"{number}"
        place.mkdir(parents=True)
        taken.append(fit(number, place))
    return (taken[1] - taken[0]) / (LONG - SHORT)


def ours(star: Path, recipe: str) -> Callable[[int, Path], float]:
    """Return fits of one of our recipes."""

    def fit(epochs: int, folder: Path) -> float:
        command = [sys.executable, "-m", "modpose", "fit", str(star), "-o", str(folder / "run")]
        how = ["--recipe", recipe, "--epochs", str(epochs), "--set", "data.val_fraction=0"]
        return measured([*command, *how, "--quiet"], folder / "log.txt").processor_s

    return fit


def theirs(star: Path, python: Path) -> Callable[[int, Path], float]:
    """Return fits of cryoDRGN."""
    return lambda epochs, folder: (
        peers.fit("cryodrgn", python, star, folder, seed=0, epochs=epochs).processor_s
    )


def whole(star: Path, folder: Path, recovar: Path | None) -> dict[str, float]:
    """Processor seconds of a whole fit of our recipe, and of RECOVAR's pipeline."""
    ours = [sys.executable, "-m", "modpose", "fit", str(star), "-o", str(folder / "fitted")]
    ours += ["--recipe", "modpose-posed", "--quiet"]
    found = {"recipe modpose-posed": measured(ours, folder / "fitted.txt").processor_s}
    if recovar is not None:
        command = [str(recovar.parent / "recovar"), "pipeline", str(star), "--zdim", "4"]
        how = ["--mask", "sphere", "--accept-cpu", "--no-downsample", "-o", str(folder / "recovar")]
        found["RECOVAR"] = measured([*command, *how], folder / "recovar.txt").processor_s
    return found


def floor(star: Path) -> dict[str, float]:
    """Processor seconds of linear analyses of all images."""
    source = open_source(star)
    images = source.stack.read(np.arange(source.n)).reshape(source.n, -1)
    found = {}
    for name, model in (
        ("PCA, 8 components", PCA(8, random_state=0)),
        ("k-means, 10 clusters", KMeans(10, n_init=1, random_state=0)),
    ):
        begun = time.process_time()
        model.fit(images)
        found[f"scikit-learn: {name}"] = time.process_time() - begun
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--cryodrgn-python", type=Path, help="Python of its environment")
    parser.add_argument("--recovar-python", type=Path, help="Python of its environment")
    parser.add_argument("--only", choices=("epochs", "whole"), help="default: both")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine.sentence(1), flush=True)
    recovar = options.recovar_python and peers.python_of("recovar", options)
    pixel_size = 192.0 / options.box
    settings = ProjectionSettings(
        n=options.images, box=options.box, pixel_size=pixel_size, ctf=True
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_projections(simulate_projections(settings, built_in_conformers(1)), folder)
        star = folder / "particles.star"
        if options.only != "whole":
            print_epochs(star, folder, options)
        if options.only != "epochs":
            print("a whole run | s of a core")
            for what, seconds in whole(star, folder, recovar).items():
                print(f"{what} | {seconds:.3g}", flush=True)


def print_epochs(star: Path, folder: Path, options: argparse.Namespace) -> None:
    """Print what an image costs in an epoch of each program."""
    fits = {f"recipe {recipe}": ours(star, recipe) for recipe in OURS}
    if options.cryodrgn_python is not None:
        fits["cryoDRGN"] = theirs(star, peers.python_of("cryodrgn", options))
    taken = {what: epoch(fit, folder / f"fit{k}") for k, (what, fit) in enumerate(fits.items())}
    taken |= floor(star)
    first = taken[f"recipe {OURS[0]}"]
    print("what | ms of a core for an image and epoch | times recipe cryodrgn")
    for what, seconds in taken.items():
        each = 1e3 * seconds / options.images
        print(f"{what} | {each:.3g} | {seconds / first:.3g}", flush=True)


if __name__ == "__main__":
    main()
