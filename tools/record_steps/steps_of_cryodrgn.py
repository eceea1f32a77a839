"""Record cryoDRGN (``pip install cryodrgn==4.3.1``): ``train_vae`` with poses and CTF."""

from __future__ import annotations

import sys
from importlib import import_module

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

RATE = 5e-4


def main(out: str) -> None:
    """Train on 24 images of 8 x 8 with the program's own functions."""
    train_vae = import_module("cryodrgn.commands.train_vae")
    models = import_module("cryodrgn.models")
    lattice = import_module("cryodrgn.lattice").Lattice(SIDE + 1, extent=0.5)
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
    given, rows = particles(), rows_of_batches(IMAGES, 3)
    noise = normal_noise((Z_DIM,), 4)
    arrays = weights(encoder=model.encoder, decoder=model.decoder) | given._asdict()
    transforms = given.transforms()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    def step(number: int) -> tuple[float, ...]:
        chosen = torch.from_numpy(rows[number]).long()
        with GivenNoise(iter([noise[number]])):
            numbers: tuple[float, ...] = train_vae.train_batch(
                model,
                lattice,
                transforms[chosen],
                None,
                torch.from_numpy(given.rotation)[chosen],
                torch.from_numpy(given.shift)[chosen],
                optimizer,
                1 / Z_DIM,
                ctf_params=torch.from_numpy(given.ctf)[chosen],
            )
        return numbers

    record(out, arrays | {"rows": rows}, step, ("loss", "recon", "kl"))


if __name__ == "__main__":
    main(sys.argv[1])
