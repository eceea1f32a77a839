"""Poses and classes of volumes that a model was not fitted to: by its encoder, and by search.

    modpose simulate subtomograms -o data --assemblies 4 --volumes 600 --snr 0.1
    modpose fit data/particles.star -o run --classes 4
    python -m benchmarks.new_volumes run --molecules 4 --volumes 150 --snr 0.1 --seed 1

Draws other volumes of the same molecules and compares what is found with the truth, each class
after one rotation and one offset, and with the Cramer-Rao bound.  For a hinged molecule the bound
is that of a hinge to be found in the same volume, and errors are told again where the frame may
rotate and shift in proportion to the hinge, beside the bound of a known one.  Seconds are the
processor's; what a model prepares once for all volumes is distinguished.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from benchmarks.averaging import bounds_of, hinge_bounds_of
from modpose import PoseModel, open_source
from modpose.content.clustering import cluster
from modpose.data.source import Source
from modpose.evaluate.metrics import spearman
from modpose.evaluate.pose_recovery import PoseRecovery, recover_poses
from modpose.infer.encoded import Encoded
from modpose.memory import keep_freed_memory
from modpose.simulate.species import built_in_species, hinged_species
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import Subtomograms, simulate_subtomograms


def measure(model: PoseModel, made: Subtomograms, *, search: bool) -> tuple[Encoded, float]:
    """Encode; return what was found, and seconds of the processor a volume."""
    source = held(made)
    start = time.process_time()
    found = model.encode(source, search=search)
    return found, (time.process_time() - start) / made.n


@torch.no_grad()
def seconds_alone(model: PoseModel, made: Subtomograms) -> float:
    """Seconds of the processor a volume for content and pose by the encoder, without a bound."""
    dataset, vae = model.dataset(held(made)), model.vae.eval()
    start = time.process_time()
    for batch in dataset.batches(np.arange(dataset.n), vae.whole_batch):
        assert torch.isfinite(vae.posterior(batch).best().z).all()
    return (time.process_time() - start) / made.n


def held(made: Subtomograms) -> Source:
    """Make the volumes once, and not as they are read."""
    return Source(open_source(made.volumes(), kind="volumes").stack, made.source().particles)


def recovery(
    made: Subtomograms, found: Encoded, bounds: list[float], motion: torch.Tensor | None = None
) -> PoseRecovery:
    """Compare what was found with the truth."""
    count = len(made.species)
    class_index = cluster(found.z, count, "kmeans", 0) if count > 1 else [0] * made.n
    rotation, shift = torch.from_numpy(found.rotation), torch.from_numpy(found.shift)
    members = torch.as_tensor(class_index)
    return recover_poses(rotation, shift, members, made.truth, bounds=bounds, motion=motion)


def report(made: Subtomograms, found: Encoded) -> None:
    """Print how well classes, poses and the hinge were found."""
    if made.settings.hinge_range_deg is None:
        lines = recovery(made, found, bounds_of(made)).lines()
    else:
        hinge = torch.tensor(made.truth["hinge_deg"].to_numpy())
        bounds = [[hinge_bounds_of(made, known=known)] for known in (False, True)]
        plain = recovery(made, found, bounds[0]).lines()[1]
        given = recovery(made, found, bounds[1], hinge).lines()[1]
        ranks = [abs(spearman(z, hinge.numpy())) for z in found.z.T]
        lines = [plain, f"given the hinge, {given}"]
        lines += [f"rank correlation of content with the hinge: {max(ranks):.3f}"]
    for line in lines:
        print(f"  {line}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.new_volumes", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--molecules", type=int, default=1)
    parser.add_argument("--volumes", type=int, default=150)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--hinge", type=float, nargs=2, default=None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-search", action="store_true", help="by the encoder alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(machine.sentence(1), flush=True)
    model = PoseModel.load(options.run)
    model.quiet = True
    box = model.vae.shape[0]
    species = built_in_species(options.molecules) if options.hinge is None else hinged_species()
    made = simulate_subtomograms(
        SubtomogramSettings(
            n=options.volumes,
            box=box,
            snr=options.snr,
            seed=options.seed,
            hinge_range_deg=None if options.hinge is None else tuple(options.hinge),
        ),
        species,
    )
    start = time.process_time()
    model.encode(made.source(), rows=np.arange(1))
    print(f"prepared once: {time.process_time() - start:.2f} s")
    ways = {"encoder": False} if options.no_search else {"encoder": False, "search": True}
    for name, search in ways.items():
        found, seconds = measure(model, made, search=search)
        alone = "" if search else f" ({1000 * seconds_alone(model, made):.1f} without its bound)"
        print(
            f"{name}: {1000 * seconds:.1f} ms per volume{alone}, ELBO {found.elbo.mean():.2f} nats"
        )
        report(made, found)


if __name__ == "__main__":
    main()
