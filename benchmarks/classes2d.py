"""How pure and how fast 2-D classes of two mixed complexes are, from a random start.

    python -m benchmarks.classes2d 1igt.pdb 4v4r_30S.pdb.gz --images 8000 --snr 0.05 --seed 0 1 2
    python -m benchmarks.classes2d 1igt.pdb 4v4r_30S.pdb.gz --images 8000 --junk 0.1

Runs what ``modpose align --classes 50`` runs on simulated projections of several molecules, mixed
in equal parts (64 pixels a side, uniform views, CTF, shifts of 1.75 pixels).  Purity is the share
of images that are of the commonest molecule of their class.  It is also given for classes of the
same sizes that are drawn at random.  ``--junk`` leaves only the noise of a share of the images;
these are left out of the purity, and it is said how many of them lie in classes of each kind.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks import machine
from modpose.data.source import open_source
from modpose.fourier.projection import half_plane
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.rotations import haar_rotations
from modpose.search.classes2d.run import Classes2d, classify_images
from modpose.search.classes2d.settings import Classes2dSettings
from modpose.simulate import microscope
from modpose.simulate.conformations import Conformer, conformers_of_files
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import Projections, simulate_projections
from modpose.simulate.settings import ProjectionSettings

SHIFT_STD_PX = 1.75
RESOLUTION = 12.0
"""Å of the densities."""


def mixture(
    files: Sequence[Path], images: int, snr: float, pixel_size: float, seed: int, junk: float = 0.0
) -> Projections:
    """Simulate projections as central slices of each molecule's map, which is fast."""
    kinds = [Conformer(o.name, o.molecule, None) for o in conformers_of_files(files, RESOLUTION)]
    settings = ProjectionSettings(
        n=len(kinds), pixel_size=pixel_size, snr=snr, ctf=True, shift_std_px=SHIFT_STD_PX, seed=seed
    )
    few = simulate_projections(settings, kinds)
    maps = torch.from_numpy(np.stack([few.volume(k) for k in range(len(kinds))])) / few.scale
    rng = np.random.default_rng(seed)
    kind = rng.integers(len(kinds), size=images)
    rotation = haar_rotations(images, torch.Generator().manual_seed(seed))
    shift = SHIFT_STD_PX * rng.standard_normal((images, 2))
    clean = _slices(maps, torch.from_numpy(kind), rotation, torch.from_numpy(shift).float())
    ctf = microscope.draw_ctf_parameters(images, pixel_size, settings.defocus_range, rng)
    filtered = microscope.filter_by_ctf(clean.numpy(), ctf)
    scale = microscope.scale_for_snr(float(filtered.var(dtype=np.float64)), snr)
    empty = np.random.default_rng([seed, 1]).random(images) < junk
    filtered[empty] = 0.0
    truth = {f"r{i}{j}": rotation[:, i, j].numpy() for i in range(3) for j in range(3)}
    names = np.array([one.name for one in kinds])[kind]
    truth |= {"shift_x": shift[:, 0], "shift_y": shift[:, 1], "class": kind, "template": names}
    truth["junk"] = empty
    return Projections(
        replace(settings, n=images),
        tuple(kinds),
        microscope.add_unit_noise(filtered * np.float32(scale), rng),
        scale,
        pd.DataFrame(truth),
        rotation.double().numpy(),
        shift,
        ctf,
    )


def _slices(maps: Tensor, kind: Tensor, rotation: Tensor, shift: Tensor) -> Tensor:
    box = maps.shape[-1]
    plane = half_plane(box, box / 2 - 1)
    frequency = torch.cat([plane.k, torch.zeros(len(plane.k), 1)], 1) / box
    references = make_references(maps, 0.5 - 1 / box)
    parts = []
    for rows in torch.split(torch.arange(len(kind)), 256):
        value = sample(references, kind[rows], turned(frequency, rotation[rows]))
        angle = -2 * torch.pi * shift[rows] @ plane.k.T / box
        value = value * torch.polar(torch.ones_like(angle), angle)
        flat = value.new_zeros(len(rows), box * (box // 2 + 1))
        flat[:, plane.mirror] = value.conj()
        flat[:, plane.place] = value
        whole = torch.fft.irfft2(flat.reshape(len(rows), box, -1), s=(box, box))
        parts.append(torch.fft.fftshift(whole, dim=(1, 2)))
    return torch.cat(parts)


def purity(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of images that are of the commonest kind of their class."""
    counts = np.zeros((found.max() + 1, truth.max() + 1))
    np.add.at(counts, (found, truth), 1)
    return float(counts.max(1).sum() / len(found))


def measure(asked: argparse.Namespace, seed: int) -> str:
    """Simulate, find classes, compare with the truth; a line of text."""
    made = mixture(asked.molecules, asked.images, asked.snr, asked.pixel_size, seed, asked.junk)
    truth, empty = made.truth["class"].to_numpy(), made.truth["junk"].to_numpy()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_projections(made, folder)
        del made
        settings = Classes2dSettings(classes=asked.classes, seed=seed)
        begun, used = time.perf_counter(), time.process_time()
        source = open_source(folder / "particles.star")
        found = classify_images(source, asked.keep or folder / "classes", settings, overwrite=True)
        took, used = time.perf_counter() - begun, time.process_time() - used
    index = found.class_index[~empty]
    pure = purity(index, truth[~empty])
    mixed = purity(np.random.default_rng(seed).permutation(index), truth[~empty])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    kinds = found.table["kind"].value_counts()
    number = len(np.unique(found.class_index))
    return (
        f"seed {seed}: purity {pure:.4f} (at random {mixed:.2f}), {number} classes with images, "
        f"{kinds.get('junk', 0)} junk; {used:.0f} processor seconds, {took:.0f} seconds, "
        f"{memory:.1f} GiB at most{_junk_clause(found, empty)}"
    )


def _junk_clause(found: Classes2d, empty: NDArray[np.bool_]) -> str:
    """Say how much of the images (N,) without and with an object lies in classes of junk."""
    if not empty.any():
        return ""
    junk = found.table["kind"].to_numpy()[found.class_index] == "junk"
    area, like = roc_auc_score(~empty, found.gain), found.noise_like
    holding = len(np.unique(found.class_index[empty & ~junk]))
    return (
        f"; in classes of junk: {100 * junk[empty].mean():.1f} % of {empty.sum()} images of noise, "
        f"{100 * junk[~empty].mean():.1f} % of the others; {holding} good classes hold noise; "
        f"the score of an image tells noise from the others with area {area:.3f} under the curve, "
        f"and calls {100 * like[empty].mean():.1f} % of the noise and "
        f"{100 * like[~empty].mean():.1f} % of the others hardly better than noise"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("molecules", nargs="+", type=Path, metavar="PDB")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--pixel-size", type=float, default=4.5)
    parser.add_argument("--junk", type=float, default=0.0, help="share of images of noise alone")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder of the last classes")
    asked = parser.parse_args(arguments)
    print(machine.sentence())
    for seed in asked.seed:
        print(measure(asked, seed), flush=True)


if __name__ == "__main__":
    main()
