"""What real sets of projections have and ideal ones lack: uneven views, junk, contrast, noise.

All of it is drawn from a generator of its own, so that a set without it stays as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.simulate.molecules import axis_rotations, project
from modpose.simulate.settings import ProjectionSettings

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

KINDS = ("no", "noise", "object")
"""What the truth says of junk: an image with the particle, with nothing, with a wrong object."""
BLOBS = 12
"""Of a wrong object."""
CHUNK = 256


def generator(settings: ProjectionSettings) -> np.random.Generator:
    """Return the generator of all imperfections of a set."""
    return np.random.default_rng([settings.seed, 1])


def near_axis(rotation: Floats, views: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Turn some rotations so that they are seen from near the molecule's z axis.

    Parameters
    ----------
    rotation
        (N, 3, 3).
    views
        Share of the images, and the largest angle between the beam and the axis, degrees.  Views
        are uniform within this cone, as is the rotation in the plane of the image.
    rng
        Random number generator.
    """
    share, largest_deg = views
    turned = rotation.copy()
    chosen = rng.random(len(rotation)) < share
    count = int(chosen.sum())
    height = rng.uniform(np.cos(np.deg2rad(largest_deg)), 1.0, count)
    rot, psi = rng.uniform(0.0, 360.0, (2, count))
    z, y = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    tilt = np.rad2deg(np.arccos(height))
    turned[chosen] = axis_rotations(z, psi) @ axis_rotations(y, tilt) @ axis_rotations(z, rot)
    return turned


def draw_junk(settings: ProjectionSettings, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw for each image the index (N,) of its kind in :data:`KINDS`."""
    junk = rng.random(settings.n) < settings.junk
    wrong = {"noise": 0.0, "object": 1.0, "both": 0.5}[settings.junk_kind]
    return np.where(junk, 1 + (rng.random(settings.n) < wrong), 0)


def wrong_objects(
    count: int, settings: ProjectionSettings, radius: float, mass: float, rng: np.random.Generator
) -> Images:
    """Project a new random cloud of blobs for each of so many images.

    Parameters
    ----------
    count
        How many.
    settings
        Box and pixel size.
    radius
        Of the cloud, Å.
    mass
        Its integral.
    rng
        Random number generator.
    """
    sigma = np.full(BLOBS, radius / 5)
    images = np.empty((count, settings.box, settings.box), np.float32)
    for first in range(0, count, CHUNK):
        many = min(CHUNK, count - first)
        direction = rng.standard_normal((many, BLOBS, 3))
        direction /= np.linalg.norm(direction, axis=2, keepdims=True)
        centers = 0.8 * radius * np.cbrt(rng.random((many, BLOBS, 1))) * direction
        shift = settings.shift_std_px * rng.standard_normal((many, 2))
        pose = np.broadcast_to(np.eye(3), (many, 3, 3)), shift
        masses = np.full(BLOBS, mass / BLOBS)
        images[first : first + many] = project(
            centers, sigma, masses, *pose, settings.box, settings.pixel_size
        )
    return images


def draw_contrast(settings: ProjectionSettings, rng: np.random.Generator) -> Floats:
    """Draw factors (N,) on the signal: log-normal, their mean one."""
    spread = np.sqrt(np.log1p(settings.contrast**2))
    return np.asarray(np.exp(spread * rng.standard_normal(settings.n) - spread**2 / 2))


def noise_power(box: int, fall: float) -> Floats:
    """Power of the noise at each coefficient (box, box // 2 + 1) of ``rfft2``; its mean is one.

    It falls exponentially with the radius of the frequency, by the factor ``fall`` from the origin
    to half the sampling rate, and stays the same beyond.
    """
    ky, kx = np.meshgrid(np.fft.fftfreq(box), np.fft.rfftfreq(box), indexing="ij")
    power = fall ** -np.minimum(2 * np.hypot(kx, ky), 1.0)
    twice = np.where((kx == 0) | (2 * np.abs(kx) == 1), 1.0, 2.0)
    return np.asarray(power * twice.sum() / (power * twice).sum())


def coloured(noise: Images, fall: float) -> Images:
    """Filter white noise (N, H, H) so that it has the power of :func:`noise_power`."""
    filtered = np.empty_like(noise)
    gain = np.sqrt(noise_power(noise.shape[-1], fall))
    for first in range(0, len(noise), CHUNK):
        part = slice(first, first + CHUNK)
        filtered[part] = np.fft.irfft2(np.fft.rfft2(noise[part]) * gain, s=noise.shape[1:])
    return filtered


def columns(
    settings: ProjectionSettings, kind: NDArray[np.int64], contrast: Floats
) -> dict[str, NDArray[Any]]:
    """Return the truth of junk and contrast, where there is any."""
    found: dict[str, NDArray[Any]] = {}
    if settings.junk:
        found["junk"] = np.array(KINDS)[kind]
    if settings.contrast:
        found["contrast"] = contrast
    return found
