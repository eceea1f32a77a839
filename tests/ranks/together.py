"""What two processes do together in the tests: python together.py FOLDER TASK."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modpose import fit_run, open_source, ranks
from modpose.config import merge, parse_config
from modpose.fourier.coefficients import Coefficients, coefficients_of, white_noise
from modpose.geometry.grids import lattice
from modpose.geometry.rotations import haar_rotations
from modpose.recipes import recipe_config
from modpose.run import Run
from modpose.search.alignment import Alignment, AlignSettings
from modpose.search.pipeline import align
from modpose.search.shared import sums_of_all
from modpose.train import loop

SMALL: dict[str, Any] = {"epochs": 4, "batch_size": 12, "chunk": 6}
"""Twenty steps, of two chunks each."""
MODELS: dict[str, dict[str, Any]] = {
    "network": {
        "model": {"z_dim": 1, "encoder": {"hidden": 8}, "field": {"hidden": 8}},
        "train": SMALL | {"pixels": 40, "augment": {"rotate": "encoder-input"}},
    },
    "table": {
        "model": {"z_dim": 1, "encoder": {"kind": "table"}, "field": {"hidden": 8}},
        "data": {"val_fraction": 0.0},
        "train": SMALL | {"max_grad_norm": 1.0},
    },
}
"""One without and one with rows of single images."""


def write_images(folder: Path) -> None:
    """Write 57 images of noise; the last batch is too short for a chunk in each process."""
    images = np.random.default_rng(0).normal(size=(57, 12, 12)).astype(np.float32)
    np.save(folder / "stack.npy", images)


def fitted(folder: Path, model: str, name: str) -> Run:
    """Fit a model to them."""
    config = parse_config(merge(recipe_config("spatial-vae"), MODELS[model]), "test")
    return fit_run(open_source(folder / "stack.npy"), config, folder / name, quiet=True)


def sums(folder: Path) -> None:
    """Add up and gather what each process holds."""
    with ranks.joined():
        rank = ranks.place().rank
        assert ranks.several() and ranks.leads() == (rank == 0)
        assert list(ranks.share(range(5))) == [[0, 2, 4], [1, 3]][rank]
        assert ranks.sum(torch.tensor([1.0, rank])).tolist() == [2.0, 1.0]
        column = torch.tensor([[1.0, 5.0], [2.0, 5.0]])[:, 0]
        assert ranks.sum(column).tolist() == column.tolist() == [2.0, 4.0]
        long = torch.arange(3_000_000, dtype=torch.float64)  # in memory that both share
        assert torch.equal(ranks.sum(long * (1 + rank)), 3 * long)
        both = [torch.ones(2, 3).T, torch.arange(300_000.0)]
        ranks.sum_together(both)
        assert torch.equal(both[0], torch.full((3, 2), 2.0))
        assert torch.equal(both[1], 2 * torch.arange(300_000.0))
        rows = torch.sparse_coo_tensor([[rank, 2]], [[1.0], [2.0]], (4, 1), check_invariants=True)
        assert ranks.sum(rows).to_dense().tolist() == [[1.0], [1.0], [4.0], [0.0]]
        assert ranks.once(lambda: {"rank": rank}) == {"rank": 0}
        assert ranks.gathered(torch.tensor(rank)) == [torch.tensor(0), torch.tensor(1)]
    assert not ranks.several()


def fits(folder: Path) -> None:
    """Fit both models."""
    sums(folder)
    for model in MODELS:
        fitted(folder, model, f"{model}-2")


def blobs() -> Coefficients:
    """Volumes of two kinds of blob in noise, at random poses."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 6, 3, generator=generator) * 2.5
    kind = torch.arange(32) % 2
    turn = haar_rotations(32, generator)
    at = torch.einsum("nij,npj->npi", turn, points[kind])
    grid = lattice((16,) * 3).reshape(16, 16, 16, 3)
    apart = (grid[None, ..., None, :] - at[:, None, None, None]).square().sum(-1)
    volumes = (-apart / 4).exp().sum(-1) + 0.1 * torch.randn(32, 16, 16, 16, generator=generator)
    whole = torch.ones(1, 16, 16, 9)
    return coefficients_of(volumes, whole, white_noise(16, 0.1), 0.4)


def align_blobs() -> Alignment:
    """Find the kinds, the poses and one motion."""
    settings = AlignSettings(classes=2, rounds=3, refine_rounds=2, rotations=150, motions=1)
    return align(blobs(), settings, quiet=True)


def searches(folder: Path) -> None:
    """Align the volumes."""
    with ranks.joined():
        found = numbers()
    if ranks.leads():
        torch.save(found, folder / "found.pt")


def numbers() -> dict[str, torch.Tensor]:
    """Add up volumes at fixed poses, then find the poses."""
    kind, turn = torch.arange(32) % 2, haar_rotations(32, torch.Generator().manual_seed(1))
    sums, found = sums_of_all(blobs(), kind, 2, turn, torch.zeros(32, 3)), align_blobs()
    motions = [(each.z, each.directions) for each in found.motions]
    return found.assignment._asdict() | {
        "sums": torch.view_as_real(sums.value),
        "maps": found.maps.combined,
        "z": torch.cat([z.flatten() for z, _ in motions]),
        "directions": torch.cat([directions.flatten() for _, directions in motions]),
    }


def dies(folder: Path) -> None:
    """Save after each step; the second process is killed before the eighth."""
    step, done = loop._step, [0]

    def until(learner: loop.Learner, norm: float | None) -> None:
        if done[0] == 7 and not ranks.leads():
            os.kill(os.getpid(), signal.SIGKILL)
        done[0] += 1
        step(learner, norm)

    loop.SAVE_EVERY, loop._step = 0.0, until
    fitted(folder, "network", "killed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"sums": sums, "fits": fits, "dies": dies, "searches": searches}[sys.argv[2]](Path(sys.argv[1]))
