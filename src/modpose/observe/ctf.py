r"""The contrast transfer function (CTF) of the electron microscope.

With spatial frequency s (1/Å), wavelength λ (Å), defocus z along the direction of s (Å, positive
when underfocused), spherical aberration Cs (Å), phase shift φ of a phase plate and amplitude
contrast w, the phase is

.. math:: \gamma(s) = 2\pi\left(-\tfrac12 z λ s^2 + \tfrac14 C_s λ^3 s^4\right) - φ

and the function, with the envelope of a B factor (Å²),

.. math:: CTF(s) = -\left[\sqrt{1-w^2}\,\sin γ - w \cos γ\right] e^{-B s^2/4}.

**Sign.**  The leading minus is RELION's convention: CTF(0) = +w and low frequencies of an
underfocused image are positive, so that a bright (positive) particle stays bright.  RELION,
cryoSPARC and torch-ctf treat stacks with inverted contrast (white protein) in this way; cryoDRGN's
function has the opposite sign.  Sign and astigmatism axis were checked against a
``relion_project`` image of a point mass.

**Astigmatism.**  Defocus U applies along the direction at ``defocus angle`` from the x axis
towards y (x along columns, y along rows, both increasing with the index), V across it:
z(α) = ½ [U + V + (U − V) cos 2(α − α₀)].

References: Rohou & Grigorieff 2015 (doi:10.1016/j.jsb.2015.08.008), equations 2-5; Mindell &
Grigorieff 2003 (doi:10.1016/S1047-8477(03)00069-8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from modpose.errors import InputError
from modpose.geometry.grids import frequencies
from modpose.observe.ctf_columns import ALWAYS as ALWAYS
from modpose.observe.ctf_columns import CtfColumn as CtfColumn
from modpose.observe.ctf_columns import CtfState as CtfState

PROFILE = 4096
"""Points of the radial profile of a 3-D CTF."""
WIDTHS = (ALWAYS, CtfColumn.STATE + 1, CtfColumn.DOSE + 1)
"""How many columns CTF parameters may have."""
LEAST_GAIN = 0.05
"""Premultiplied images are not amplified further where less than this fraction of the noise is
left: the rest there comes from neighbouring frequencies or from rounding.
"""


def electron_wavelength(voltage_kv: Tensor) -> Tensor:
    """Return the relativistic wavelength in Å of electrons accelerated by ``voltage_kv`` kV.

    λ = h / √(2 m e V (1 + e V / 2 m c²)), constants of nature as of CODATA 2018.
    """
    volts = voltage_kv * 1e3
    return 12.26425966158 / torch.sqrt(volts + 9.784755918e-7 * volts**2)


def ctf_2d(params: Tensor, shape: tuple[int, int], *, rfft: bool = True) -> Tensor:
    """Evaluate the factor on the model's signal, on the lattice of an unshifted FFT.

    It is the CTF c; |c| for images with flipped phases; c² divided by the gain of the noise for
    images that were multiplied by c (:class:`CtfState`).

    Parameters
    ----------
    params
        (B, 9), (B, 11) or (B, 12) floating, columns as in :class:`CtfColumn`.
    shape
        (H, W) of the images in pixels; frequencies are those of ``torch.fft`` over the pixel size.
    rfft
        Half plane as in ``torch.fft.rfft2``, or the whole plane.

    Returns
    -------
    Tensor
        (B, H, W // 2 + 1), or (B, H, W) with ``rfft=False``, in the type of ``params``.

    Raises
    ------
    InputError
        If ``params`` has another shape.
    """
    return _passed(_recorded_2d(params, shape, rfft), params)


def ctf_3d(params: Tensor, shape: Sequence[int], *, rfft: bool = True) -> Tensor:
    """Evaluate the same in three dimensions.

    Each slice of a tilt series has the CTF of its image.  With one defocus for all tilts and
    directions, this is a function of the radius.  The defocus is the mean of U and V; the change
    of defocus with height and tilt is left out.

    Parameters
    ----------
    params
        (B, 9), (B, 11) or (B, 12), columns as in :class:`CtfColumn`.
    shape
        (D, H, W).
    rfft
        Half or all of the last axis.

    Returns
    -------
    Tensor
        (B, D, H, W // 2 + 1), or (B, D, H, W) with ``rfft=False``, in the type of ``params``.
    """
    return _passed(_recorded_3d(params, shape, rfft), params)


def noise_gain(params: Tensor, shape: Sequence[int]) -> Tensor:
    """Evaluate the factor on the noise of images or volumes from later processing.

    Parameters
    ----------
    params
        (B, 9), (B, 11) or (B, 12), columns as in :class:`CtfColumn`.
    shape
        (H, W) or (D, H, W).

    Returns
    -------
    Tensor
        (B, *shape[:-1], W // 2 + 1): √(c² + :data:`LEAST_GAIN`²) for images that were multiplied
        by c, 1 for others.
    """
    flat = len(shape) == 2
    made = _recorded_2d(params, (shape[0], shape[1])) if flat else _recorded_3d(params, shape)
    gain = _gain(made)
    return torch.where(_state(params, made) == CtfState.PREMULTIPLIED, gain, torch.ones_like(gain))


def _recorded_2d(params: Tensor, shape: tuple[int, int], rfft: bool = True) -> Tensor:
    """Evaluate the CTF itself."""
    if params.ndim != 2 or params.shape[1] not in WIDTHS:
        expected = "shape (images, 9), (images, 11) or (images, 12)"
        raise InputError.of("CTF", "the parameter array", tuple(params.shape), expected)
    column = [params[:, c, None, None] for c in range(ALWAYS)]
    pixel_size, defocus_u, defocus_v, axis_deg, voltage, cs_mm, contrast, phase_deg, b = column

    height, width = shape
    frequencies = torch.fft.rfftfreq if rfft else torch.fft.fftfreq
    kx = frequencies(width, dtype=params.dtype, device=params.device)
    ky = torch.fft.fftfreq(height, dtype=params.dtype, device=params.device)[:, None]
    s2 = (kx**2 + ky**2) / pixel_size**2
    azimuth = torch.atan2(ky, kx)

    wavelength = electron_wavelength(voltage)
    spread = (defocus_u - defocus_v) * torch.cos(2 * (azimuth - torch.deg2rad(axis_deg)))
    defocus = (defocus_u + defocus_v + spread) / 2
    aberration = cs_mm * 1e7 * wavelength**3 * s2**2 / 4 - defocus * wavelength * s2 / 2
    gamma = 2 * math.pi * aberration - torch.deg2rad(phase_deg)
    transfer = contrast * torch.cos(gamma) - torch.sqrt(1 - contrast**2) * torch.sin(gamma)
    transfer = transfer * torch.exp(-b * s2 / 4)
    if params.shape[1] > CtfColumn.SCALE:
        transfer = transfer * params[:, CtfColumn.SCALE, None, None]
    if params.shape[1] > CtfColumn.DOSE:
        transfer = transfer * signal_left(params[:, CtfColumn.DOSE, None, None], s2.sqrt())
    return transfer


def signal_left(dose: Tensor, frequency: Tensor) -> Tensor:
    """Return the fraction of the amplitudes that radiation has left.

    exp(-N / 2 Nc(s)) with the critical exposure Nc(s) = 0.245 s^-1.665 + 2.81 electrons per Å²
    (Grant & Grigorieff 2015, doi:10.7554/eLife.06980, equations 3 and 5, at 300 kV).  RELION
    takes the same at every voltage.

    Parameters
    ----------
    dose
        Electrons per Å² received before the image was taken, to be broadcast with ``frequency``.
    frequency
        1/Å.
    """
    critical = 0.245 * frequency.clamp(min=1e-6) ** -1.665 + 2.81
    return torch.exp(-dose / (2 * critical))


def _recorded_3d(params: Tensor, shape: Sequence[int], rfft: bool = True) -> Tensor:
    """Evaluate the CTF of the mean defocus in every direction."""
    mean = params.clone()
    mean[:, CtfColumn.DEFOCUS_U] = params[:, 1:3].mean(1)
    mean[:, CtfColumn.DEFOCUS_V] = mean[:, CtfColumn.DEFOCUS_U]
    # A profile to the lattice's corners, sqrt(3)/2 cycles per pixel: use half the pixel size
    mean[:, CtfColumn.PIXEL_SIZE] /= 2
    profile = _recorded_2d(mean, (1, 2 * PROFILE))[:, 0]  # radii 0 to 1 cycles per pixel
    radius = frequencies(shape).norm(dim=-1).to(params) * PROFILE
    if rfft:
        radius = radius[..., : shape[-1] // 2 + 1]
    below = radius.floor().long().clamp(max=PROFILE - 1)
    rest = radius - below
    return torch.lerp(profile[:, below], profile[:, below + 1], rest[None])


def _gain(transfer: Tensor) -> Tensor:
    return torch.sqrt(transfer.square() + LEAST_GAIN**2)


def _state(params: Tensor, like: Tensor) -> Tensor:
    """State of each image, to be broadcast against (B, ...)."""
    if params.shape[1] == ALWAYS:
        return params.new_zeros(len(params), *[1] * (like.dim() - 1))
    return params[:, CtfColumn.STATE].reshape(-1, *[1] * (like.dim() - 1))


def _passed(transfer: Tensor, params: Tensor) -> Tensor:
    """From the CTF (B, ...) to the factor on the signal in the images as given."""
    if params.shape[1] == ALWAYS:
        return transfer
    state = _state(params, transfer)
    whitened = transfer.square() / _gain(transfer)
    altered = torch.where(state == CtfState.FLIPPED, transfer.abs(), whitened)
    return torch.where(state == CtfState.RECORDED, transfer, altered)


def apply_ctf(images: Tensor, params: Tensor) -> Tensor:
    """Filter images with their CTF, as the microscope filters the projected density.

    The CTF spreads a point over λ·defocus·s (tens of pixels at high frequency).  In a periodic FFT
    of the box itself, signal that leaves one side would return at the other.  The box is therefore
    doubled before the transform and cropped after it.  The padding repeats the edge pixels.  Zeros
    would make a step at the border of an image with a background level, and the CTF would turn
    that step into fringes.  If the particle fades out before the edge, both paddings are the same.
    What really lies outside the box is unknown.

    Parameters
    ----------
    images
        (B, C, H, W) floating; every channel of an image gets the same CTF.
    params
        (B, 9), (B, 11) or (B, 12), columns as in :class:`CtfColumn`.

    Returns
    -------
    Tensor
        (B, C, H, W); differentiable in both arguments.
    """
    height, width = images.shape[-2:]
    top, left = height // 2, width // 2
    padded = F.pad(images, (left, width - left, top, height - top), mode="replicate")
    transfer = ctf_2d(params, (2 * height, 2 * width)).to(images.dtype)
    spectrum = torch.fft.rfft2(padded) * transfer[:, None]
    filtered: Tensor = torch.fft.irfft2(spectrum, s=(2 * height, 2 * width))
    return filtered[..., top : top + height, left : left + width]
