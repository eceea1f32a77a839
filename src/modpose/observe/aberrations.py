r"""Aberrations of the microscope beyond defocus, astigmatism and spherical aberration.

RELION writes them as Zernike polynomials of the spatial frequency (x, y) in 1/Å.  Odd ones, and
beam tilt, change the phases of an image's transform, X(k) = c(k) e^{iφ(k)} F(k) + noise with φ(-k)
= -φ(k); these phases are removed from the images.  Even ones add to the phase of the CTF.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modpose.observe.ctf import electron_wavelength

ODD = 1
EVEN = 0


def zernike_orders(count: int, parity: int) -> list[tuple[int, int]]:
    """List (m, n) of the first ``count`` polynomials, n odd or even, in RELION's order."""
    orders: list[tuple[int, int]] = []
    n = parity
    while len(orders) < count:
        orders += [(m, n) for m in range(-n, n + 1, 2)]
        n += 2
    return orders[:count]


def zernike(m: int, n: int, x: Tensor, y: Tensor) -> Tensor:
    """Evaluate the polynomial of order (m, n) at (x, y)."""
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    radial = torch.zeros_like(radius)
    a = abs(m)
    for k in range((n - a) // 2 + 1):
        factor = (-1) ** k * math.factorial(n - k)
        factor //= (
            math.factorial(k) * math.factorial((n + a) // 2 - k) * math.factorial((n - a) // 2 - k)
        )
        radial = radial + factor * radius ** (n - 2 * k)
    return radial * (torch.sin(a * angle) if m < 0 else torch.cos(a * angle))


def zernike_phase(coefficients: Tensor, parity: int, x: Tensor, y: Tensor) -> Tensor:
    """Sum polynomials of one parity with coefficients (B, K) at (x, y), (...); (B, ...) radians."""
    phase = x.new_zeros(len(coefficients), *x.shape)
    for number, (m, n) in enumerate(zernike_orders(coefficients.shape[1], parity)):
        if coefficients[:, number].any():
            part = coefficients[:, number].to(x)
            phase = phase + part.reshape(-1, *[1] * x.dim()) * zernike(m, n, x, y)
    return phase


def with_beam_tilt(odd: Tensor, tilt: Tensor, cs_mm: Tensor, voltage_kv: Tensor) -> Tensor:
    """Add a beam tilt (B, 2), milliradian, to odd coefficients (B, K), as RELION does.

    A tilted beam changes phases by -2π Cs λ² (tilt . k) k².
    """
    padded = torch.nn.functional.pad(odd, (0, max(0, 6 - odd.shape[1])))
    strength = -2e4 * math.pi * cs_mm * electron_wavelength(voltage_kv) ** 2 / 3
    along_x, along_y = strength * tilt[:, 0], strength * tilt[:, 1]
    added = torch.zeros_like(padded)
    added[:, 0], added[:, 1], added[:, 3], added[:, 4] = (
        2 * along_y,
        2 * along_x,
        along_y,
        along_x,
    )
    return padded + added


def take_off(images: Tensor, odd: Tensor, pixel_size: Tensor) -> Tensor:
    """Remove the phases of odd aberrations from images.

    Parameters
    ----------
    images
        (B, C, H, W).
    odd
        (B, K) coefficients of odd Zernike polynomials.
    pixel_size
        (B,) Å.
    """
    height, width = images.shape[-2:]
    ky, kx = torch.meshgrid(
        torch.fft.fftfreq(height, dtype=torch.float64),
        torch.fft.rfftfreq(width, dtype=torch.float64),
        indexing="ij",
    )
    spectrum = torch.fft.rfft2(images)
    kinds, which = torch.unique(
        torch.cat([odd.double(), pixel_size.double()[:, None]], 1), dim=0, return_inverse=True
    )
    for number, kind in enumerate(kinds):
        x, y = kx / kind[-1], ky / kind[-1]
        phase = zernike_phase(kind[None, :-1], ODD, x, y)[0]
        turn = torch.polar(torch.ones_like(phase), -phase).to(spectrum.dtype)
        # At Nyquist's frequency k = -k, so its coefficient does not change.
        turn[2 * ky.abs() >= 1], turn[2 * kx >= 1] = 1.0, 1.0
        rows = which == number
        spectrum[rows] = spectrum[rows] * turn
    taken: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return taken
