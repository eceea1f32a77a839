"""Poses and classes of volumes that a model was not fitted to: by its encoder, and by search.

    modpose simulate subtomograms -o data --assemblies 4 --volumes 600 --snr 0.1
    modpose fit data/particles.star -o run --classes 4
    python -m benchmarks.new_volumes run --molecules 4 --volumes 150 --snr 0.1 --seed 1

Draws other volumes of the same molecules and compares what is found with the truth, each class
after one rotation and one offset, and with the Cramer-Rao bound.  Seconds are the processor's; what
a model prepares once for all volumes is told apart.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from benchmarks.averaging import bounds_of
from modpose import PoseModel, open_source
from modpose.data.source import Source
from modpose.encoded import Encoded
from modpose.evaluate.clustering import cluster
from modpose.evaluate.metrics import spearman
from modpose.evaluate.pose_recovery import PoseRecovery, recover_poses
from modpose.simulate.species import built_in_species, hinged_species
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import Subtomograms, simulate_subtomograms
from modpose.train.memory import keep_freed_memory


def measure(
    model: PoseModel, made: Subtomograms, bounds: list[float] | None, *, search: bool
) -> tuple[Encoded, PoseRecovery, float]:
    """Encode; return what was found, how well, and seconds of the processor a volume."""
    table = made.source()
    held = open_source(made.volumes(), kind="volumes")  # made once, and not as they are read
    source = Source(held.stack, table.particles)
    start = time.process_time()
    found = model.encode(source, search=search)
    seconds = (time.process_time() - start) / made.n
    count = len(made.species)
    klass = cluster(found.z, count, "kmeans", 0) if count > 1 else [0] * made.n
    recovery = recover_poses(
        torch.from_numpy(found.rotation),
        torch.from_numpy(found.shift),
        torch.as_tensor(klass),
        made.truth,
        bounds=bounds,
    )
    return found, recovery, seconds


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
    bounds = None if options.hinge else bounds_of(made)
    start = time.process_time()
    model.encode(made.source(), rows=np.arange(1))
    print(f"prepared once: {time.process_time() - start:.2f} s")
    ways = {"encoder": False} if options.no_search else {"encoder": False, "search": True}
    for name, search in ways.items():
        found, recovery, seconds = measure(model, made, bounds, search=search)
        print(f"{name}: {1000 * seconds:.1f} ms a volume, ELBO {found.elbo.mean():.2f} nats")
        for line in recovery.lines():
            print(f"  {line}")
        if options.hinge is not None:
            hinge = made.truth["hinge_deg"].to_numpy()
            ranks = [abs(spearman(z, hinge)) for z in found.z.T]
            print(f"  rank correlation of content with the hinge: {max(ranks):.3f}")


if __name__ == "__main__":
    main()
