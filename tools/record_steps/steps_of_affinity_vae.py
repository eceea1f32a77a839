"""Record affinity-VAE (github.com/alan-turing-institute/affinity-vae).

Its convolutional encoder and decoder with a pose channel, mean squared error, and its affinity
loss; batch normalisation, which it can be run without, is off.
"""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import torch

from tools.record_steps.recording import (
    IMAGES,
    GivenNoise,
    normal_noise,
    record,
    rows_of_batches,
    smooth_images,
    stand_in,
    weights,
)

SIDE, Z_DIM, POSE, FILTERS, RATE = 8, 3, 2, [4, 8], 5e-4
BETA, GAMMA, CLASSES = 0.1, 0.5, 4


def main(out: str, source: str) -> None:
    """Train on 24 images of 8 x 8, in four classes, with the program's own functions."""
    sys.path.insert(0, source)
    stand_in("lightning", "avae.vis")
    for name, missing in (("lightning", "Fabric"), ("avae.vis", "format")):
        if not hasattr(sys.modules[name], missing):
            setattr(sys.modules[name], missing, object)
    decoder = import_module("avae.decoders.decoders").Decoder
    encoder = import_module("avae.encoders.encoders").Encoder
    avae_loss = import_module("avae.loss").AVAELoss
    affinity_vae = import_module("avae.models").AffinityVAE
    pass_batch = import_module("avae.utils_learning").pass_batch

    torch.manual_seed(1)
    shape = (SIDE, SIDE)
    sizes = {"latent_dims": Z_DIM, "pose_dims": POSE, "filters": FILTERS, "bnorm": False}
    model = affinity_vae(encoder(shape, **sizes), decoder(shape, **sizes))
    images, rows = smooth_images(IMAGES, SIDE, 2) / 4, rows_of_batches(IMAGES, 3)
    noise = normal_noise((Z_DIM,), 4)
    random = np.random.RandomState(5)
    labels = np.arange(IMAGES) % CLASSES
    features = random.standard_normal((CLASSES, 3))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    affinity = (features @ features.T).astype(np.float32)
    given = {"images": images, "rows": rows, "labels": labels, "affinity": affinity}
    arrays = given | weights(encoder=model.encoder, decoder=model.decoder)
    device = torch.device("cpu")
    loss = avae_loss(device, [BETA], [GAMMA], torch.from_numpy(affinity), "MSE", "mean")
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    class OneDevice:
        """What the program asks of lightning."""

        def __init__(self) -> None:
            self.device = device

        def backward(self, value: torch.Tensor) -> None:
            """Find the gradients."""
            value.backward()  # type: ignore[no-untyped-call]

    def step(number: int) -> list[float]:
        chosen = rows[number]
        batch = [
            torch.from_numpy(images[chosen]).unsqueeze(1),
            None,
            torch.from_numpy(labels[chosen]),
        ]
        model.train()
        with GivenNoise(iter([noise[number]])):
            history = pass_batch(
                OneDevice(),
                model,
                batch,
                0,
                1,
                0,
                1,
                loss=loss,
                history=[np.zeros(4)],
                optimizer=optimizer,
                beta=[BETA],
            )[-1]
        return list(history[0])

    record(out, arrays, step, ("loss", "recon", "kl", "affinity_loss"))


if __name__ == "__main__":
    main(*sys.argv[1:])
