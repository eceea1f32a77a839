"""Record the lookup table of cryoDRGN's fork for explicit latent variables.

github.com/danieledelberg/ExplicitLatentVariables, folder ``CryoDRGNVLT/cryodrgn``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import torch

from tools.record_steps.recording import (
    IMAGES,
    GivenNoise,
    normal_noise,
    record,
    rows_of_batches,
    weights,
)
from tools.record_steps.slices import HIDDEN, LAYERS, SIDE, Z_DIM, particles

RATE, ROW_RATE = 5e-4, 1e-2


def main(out: str, source: str) -> None:
    """Train a decoder and a table on 24 images of 8 x 8 with the program's own functions."""
    sys.path.insert(0, str(Path(source) / "CryoDRGNVLT" / "cryodrgn"))
    train_vae = import_module("cryodrgn.commands.train_vae")
    assert train_vae.__file__ is not None and source in train_vae.__file__
    models = import_module("cryodrgn.models")
    lattice = import_module("cryodrgn.lattice").Lattice(SIDE + 1, extent=0.5)
    tracker = import_module("cryodrgn.z_train").ZTracker
    seen = lattice.get_circular_mask(SIDE // 2)
    torch.manual_seed(1)
    model = models.HetOnlyVAE(
        lattice,
        LAYERS,
        HIDDEN,
        LAYERS,
        HIDDEN,
        int(seen.sum()),
        Z_DIM,
        enc_mask=seen,
        enc_type="gaussian",
        feat_sigma=0.5,
    )
    table = tracker(torch.randn(IMAGES, Z_DIM), torch.randn(IMAGES, Z_DIM) - 3)
    given, rows = particles(), rows_of_batches(IMAGES, 3)
    noise = normal_noise((Z_DIM,), 4)
    arrays = weights(decoder=model.decoder, table=table) | given._asdict()
    transforms = given.transforms()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    sparse = torch.optim.SparseAdam(list(table.parameters()), lr=ROW_RATE)

    def step(number: int) -> tuple[float, ...]:
        chosen = torch.from_numpy(rows[number]).long()
        mean, log_variance = table.get_zval(chosen)
        with GivenNoise(iter([noise[number]])):
            numbers: tuple[float, ...] = train_vae.train_batch(
                model,
                lattice,
                transforms[chosen],
                None,
                mean,
                log_variance,
                torch.from_numpy(given.rotation)[chosen],
                torch.from_numpy(given.shift)[chosen],
                optimizer,
                sparse,
                1 / Z_DIM,
                ctf_params=torch.from_numpy(given.ctf)[chosen],
            )
        return numbers

    record(out, arrays | {"rows": rows}, step, ("loss", "recon", "kl"))


if __name__ == "__main__":
    main(*sys.argv[1:])
