"""Images, poses and CTFs that cryoDRGN and its fork are given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tools.record_steps.recording import IMAGES, Floats, smooth_images

SIDE, Z_DIM, HIDDEN, LAYERS = 8, 2, 12, 3


class Particles(NamedTuple):
    """What is known of the images.

    Attributes
    ----------
    images
        (IMAGES, SIDE, SIDE) about as strong as noise of variance 1.
    rotation
        (IMAGES, 3, 3).
    shift
        (IMAGES, 2) pixels that centre the images.
    ctf
        (IMAGES, 8) as cryoDRGN has it, without the side of the box.
    """

    images: Floats
    rotation: Floats
    shift: Floats
    ctf: Floats

    def transforms(self) -> Tensor:
        """Hartley transforms with a row and a column added, (IMAGES, SIDE + 1, SIDE + 1)."""
        shifted = torch.fft.ifftshift(torch.from_numpy(self.images), dim=(1, 2))
        spectrum = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(1, 2))
        return functional.pad(spectrum.real - spectrum.imag, (0, 1, 0, 1), mode="circular")


def particles() -> Particles:
    """Make images of blobs with any pose and CTF."""
    random = np.random.RandomState(7)
    images = smooth_images(IMAGES, SIDE, 2) + random.standard_normal((IMAGES, SIDE, SIDE))
    turns = np.linalg.qr(random.standard_normal((IMAGES, 3, 3)))[0]
    turns *= np.linalg.det(turns)[:, None, None]
    defocus = random.uniform(9000, 15000, (IMAGES, 1)) + np.array([[0.0, 600.0]])
    rest = np.tile([300.0, 2.7, 0.1, 0.0], (IMAGES, 1))
    angle = random.uniform(0, 180, (IMAGES, 1))
    ctf = np.concatenate([np.full((IMAGES, 1), 6.0), defocus, angle, rest], axis=1)
    shift = random.uniform(-1, 1, (IMAGES, 2))
    return Particles(*(part.astype(np.float32) for part in (images, turns, shift, ctf)))
