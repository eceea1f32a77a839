"""Record spatial-VAE (github.com/tbepler/spatial-VAE).

Its particle program: Gaussian pixels, tanh networks of two layers, rotation and shift.
"""

from __future__ import annotations

import math
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

SIDE, Z_DIM, HIDDEN, RATE = 9, 2, 12, 2e-3


def main(out: str, source: str) -> None:
    """Train on 24 images of 9 x 9 with the program's own functions."""
    sys.path.insert(0, source)
    stand_in("torchvision", "pandas", "PIL", "PIL.Image")
    models = import_module("spatial_vae.models")
    train_particles = import_module("train_particles")

    torch.manual_seed(1)
    generator = models.SpatialGenerator(Z_DIM, HIDDEN, num_layers=2)
    inference = models.InferenceNetwork(SIDE**2, Z_DIM + 3, HIDDEN, num_layers=2)
    images, rows = smooth_images(IMAGES, SIDE, 2), rows_of_batches(IMAGES, 3)
    noise = normal_noise((Z_DIM + 3,), 4)
    arrays = weights(generator=generator, inference=inference) | {"images": images, "rows": rows}
    axis = np.linspace(-1, 1, SIDE)
    x, y = np.meshgrid(axis, -axis)
    grid = torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1)).float()
    parameters = [*generator.parameters(), *inference.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    pixels = torch.from_numpy(images).flatten(1)

    def step(number: int) -> tuple[float, float]:
        batch = pixels[torch.from_numpy(rows[number]).long()]
        with GivenNoise(iter([noise[number]])):
            elbo, _, kl = train_particles.eval_minibatch(
                grid, batch, None, None, generator, inference, theta_prior=math.pi
            )
        (-elbo).backward()
        optimizer.step()
        optimizer.zero_grad()
        return -elbo.item(), kl.item()

    record(out, arrays, step, ("loss", "kl"))


if __name__ == "__main__":
    main(*sys.argv[1:])
