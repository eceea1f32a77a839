"""Record TARGET-VAE (github.com/SMLC-NYSBC/TARGET-VAE).

Its MNIST program with attention over translations and four rotations, offsets added to the angles
(P4, variant 4), and random Fourier features, of which it has 1024 whatever is requested.
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
    exponential_noise,
    normal_noise,
    record,
    rows_of_batches,
    smooth_images,
    stand_in,
    weights,
)

SIDE, KERNEL, PADDING, KERNELS, ROTATIONS = 9, 7, 1, 8, 4
CELLS = ROTATIONS * (SIDE + 2 * PADDING - KERNEL + 1) ** 2
Z_DIM, HIDDEN, RATE, SIGMA = 2, 10, 5e-4, 1.0


def main(out: str, source: str) -> None:
    """Train on 24 images of 9 x 9 with the program's own functions."""
    sys.path.insert(0, source)
    stand_in("torchvision")
    models = import_module("src.models")
    train_mnist = import_module("train_mnist")

    torch.manual_seed(1)
    generator = models.SpatialGenerator(
        Z_DIM, HIDDEN, num_layers=2, fourier_expansion=True, sigma=SIGMA
    )
    with torch.no_grad():  # pairs of phase 0 and -90 degrees are cosines and sines, as ours are
        waves = generator.embed_latent
        half = len(waves.weight) // 2
        waves.weight[half:] = waves.weight[:half]
        waves.bias[:half], waves.bias[half:] = 0, -math.pi / 2
    inference = models.InferenceNetwork_AttentionTranslation_AttentionRotation(
        SIDE,
        1,
        Z_DIM,
        kernels_num=KERNELS,
        kernels_size=KERNEL,
        padding=PADDING,
        groupconv=ROTATIONS,
        rot_refinement=True,
        theta_prior=math.pi,
        normal_prior_over_r=False,
    )
    images, rows = smooth_images(IMAGES, SIDE, 2) / 4, rows_of_batches(IMAGES, 3)
    gumbel = exponential_noise((CELLS,), 6)
    content, angle = normal_noise((Z_DIM,), 4), normal_noise((1,), 5)
    arrays = weights(generator=generator, inference=inference) | {"images": images, "rows": rows}
    axis = np.linspace(-1, 1, SIDE)
    x, y = np.meshgrid(axis, -axis)
    grid = torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1)).float()
    parameters = [*generator.parameters(), *inference.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    pixels = torch.from_numpy(images).unsqueeze(1)

    def step(number: int) -> tuple[float, float]:
        batch = pixels[torch.from_numpy(rows[number]).long()]
        with GivenNoise(iter([gumbel[number], content[number], angle[number]])):
            elbo, _, kl = train_mnist.eval_minibatch(
                grid,
                batch,
                generator,
                inference,
                "attention",
                "attention+offsets",
                0,
                torch.device("cpu"),
                math.pi,
                ROTATIONS,
                SIDE,
            )
        (-elbo).backward()
        optimizer.step()
        optimizer.zero_grad()
        return -elbo.item(), kl.item()

    record(out, arrays, step, ("loss", "kl"))


if __name__ == "__main__":
    main(*sys.argv[1:])
