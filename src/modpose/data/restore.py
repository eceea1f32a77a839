"""Images in the form that the models expect: bright particles, corrected phases, white noise.

Tables say what other programs or the microscope did to the images: dark particles (``blob/sign``),
phases of odd aberrations and beam tilt, multiplication by the CTF, which colours the noise.  These
are corrected here for each image as it is read.  Effects that cannot be corrected and change the
result are refused.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.data.opened import Source
from modpose.data.optics import PREMULTIPLIED, SIGN, aberrations, ctf_state, image_sign
from modpose.data.particles import Particles
from modpose.data.wedges import Wedges
from modpose.errors import InputError
from modpose.observe.aberrations import EVEN, take_off, zernike_phase
from modpose.observe.ctf import CtfColumn, CtfState, noise_gain

Images = NDArray[np.float32]

LARGEST_PHASE_DEG = 20.0
"""Ignored aberrations change no phase by more than this: the worst coefficient keeps 94 %."""
LARGEST_SHIFT_PX = 0.5
"""Ignored anisotropic magnification moves nothing in the box by more than this, pixels."""


class Restoration:
    """Corrects images for the earlier processing that their table gives.

    Parameters
    ----------
    source
        The images and their table.
    wedges
        Weights of the volumes, if they have them.

    Raises
    ------
    InputError
        If the table says that images were multiplied by their CTF and does not give it.
    """

    def __init__(self, source: Source, wedges: Wedges | None = None) -> None:
        particles, dims = source.particles, len(source.stack.shape)
        self.wedges = wedges if wedges is not None and wedges.premultiplied else None
        self.sign = image_sign(particles)
        if self.sign is not None:
            particles.note(
                f"{SIGN} is -1, so particles are dark; these images are multiplied by -1 "
                "(--invert would make them dark again)"
            )
        self.odd = aberrations(particles).odd if dims == 2 else None
        self.params = None
        if self.wedges is None and may_be_premultiplied(particles):
            self.params = self._ctf(source)
        if self.params is not None or (self.wedges is not None and source.tilts is None):
            particles.note("images were multiplied by their CTF; their noise is made white")
        if self.odd is not None:
            particles.note("phases of beam tilt and odd aberrations are removed from the images")
        self.pixel_size: NDArray[np.float64] | None = None
        if self.odd is not None:
            self.pixel_size = particles.sizes_or(source.stack.pixel_size)
            if self.pixel_size is None:
                raise InputError(
                    f"{particles.name}: there is a beam tilt or rlnOddZernike but no "
                    "pixel size (angstrom)"
                )

    @staticmethod
    def _ctf(source: Source) -> NDArray[np.float32] | None:
        """Return the CTF that images were multiplied by; None if none was."""
        particles = source.particles
        params = particles.ctf(source.stack.pixel_size)
        if params is None:
            flat = len(source.stack.shape) == 2
            way = "their CTF (--ctf)" if flat else "their rlnCtfImage (--wedge auto)"
            raise InputError(
                f"{particles.name}: {PREMULTIPLIED} is 1, but the CTF that the images were "
                f"multiplied by is not given, expected {way}"
            )
        if params.shape[1] <= CtfColumn.STATE:
            return None
        return params if (params[:, CtfColumn.STATE] == CtfState.PREMULTIPLIED).any() else None

    def __bool__(self) -> bool:
        parts = (self.sign, self.odd, self.params, self.wedges)
        return any(part is not None for part in parts)

    def __call__(self, images: Images, index: NDArray[np.int64]) -> Images:
        """Correct images (B, C, *shape) of the rows ``index``."""
        if self.sign is not None:
            sign = self.sign[index].astype(np.float32)
            images = images * sign.reshape(-1, *[1] * (images.ndim - 1))
        if self.odd is None and self.params is None and self.wedges is None:
            return images
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        if self.odd is not None and self.pixel_size is not None:
            odd = torch.from_numpy(self.odd[index])
            pixels = take_off(pixels, odd, torch.from_numpy(self.pixel_size[index]))
        gain = self._gain(index, pixels.shape[2:])
        if gain is not None:
            axes = tuple(range(2, pixels.dim()))
            spectrum = torch.fft.rfftn(pixels, dim=axes) / gain[:, None]
            pixels = torch.fft.irfftn(spectrum, s=pixels.shape[2:], dim=axes)
        return np.asarray(pixels.numpy(), np.float32)

    def _gain(self, index: NDArray[np.int64], shape: torch.Size) -> Tensor | None:
        if self.wedges is not None:
            return torch.from_numpy(self.wedges.gain(index))
        if self.params is None:
            return None
        return noise_gain(torch.from_numpy(self.params[index]), shape)


def may_be_premultiplied(particles: Particles) -> bool:
    """Whether the table, or that of the CTF, says so for any image."""
    state, given = ctf_state(particles), particles.given_ctf
    if state is not None:
        return bool((state == CtfState.PREMULTIPLIED).any())
    if given is None or given.shape[1] <= CtfColumn.STATE:
        return False
    return bool((given[:, CtfColumn.STATE] == CtfState.PREMULTIPLIED).any())


def _kinds(rows: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return the distinct rows of (N, K), about one per optics group."""
    import pandas as pd

    return None if rows is None else pd.DataFrame(rows).drop_duplicates().to_numpy()


def refuse_aberrations(source: Source, shape: tuple[int, ...], pixel_size: float | None) -> None:
    """Refuse aberrations that are not modelled, unless they change nothing in this box.

    Parameters
    ----------
    source
        Images and their table.
    shape
        Shape of the images as the model sees them.
    pixel_size
        Their pixel size, Å; None if unknown.

    Raises
    ------
    InputError
        If they matter; the message names the column, its effect, and the pixel size that makes it
        negligible.
    """
    found = aberrations(source.particles)
    found = found._replace(even=_kinds(found.even), phases=_kinds(found.phases))
    name = source.particles.name
    if len(shape) != 2 or (found.even is None and found.phases is None):
        phase = 0.0
    elif pixel_size is None:
        raise InputError(f"{name}: there are aberrations but no pixel size (angstrom)")
    else:
        phase = _largest_phase(found.even, found.phases, pixel_size)
    column = "rlnEvenZernike" if found.even is not None else "ctf/tilt_A, trefoil_A or tetra_A"
    if phase > LARGEST_PHASE_DEG and pixel_size is not None:
        hint = ""
        for larger in pixel_size * np.geomspace(1.05, 20, 60):
            if _largest_phase(found.even, found.phases, larger) <= LARGEST_PHASE_DEG:
                hint = f"; a smaller --box, with pixels of {larger:.3g} A, makes it negligible"
                break
        raise InputError(
            f"{name}: {column} changes phases by up to {phase:.3g} degrees at {pixel_size:.3g} A "
            "per "
            f"pixel, which is not modelled{hint}"
        )
    if phase > 0:
        source.particles.note(
            f"{column} is ignored: it changes no phase by more than {phase:.2g} degrees here"
        )
    if found.magnification is not None and len(shape) == 2:
        spread = np.linalg.norm(found.magnification - np.eye(2), ord=2, axis=(1, 2)).max()
        moved = float(spread) * min(shape) / 2
        if moved > LARGEST_SHIFT_PX:
            raise InputError(
                f"{name}: the magnification is anisotropic by {100 * spread:.2g} % "
                f"(rlnMagMat, ctf/anisomag), which moves the edge of the box by {moved:.2g} pixels "
                "and is not modelled; a smaller --box makes it negligible"
            )
        source.particles.note(
            f"rlnMagMat or ctf/anisomag is ignored: it moves nothing by more than {moved:.2g} "
            "pixels here"
        )


def _largest_phase(
    even: NDArray[np.float64] | None, phases: NDArray[np.float64] | None, pixel_size: float
) -> float:
    """Return the largest change of a phase, degrees, up to Nyquist's frequency."""
    largest, edge = 0.0, 0.5 / pixel_size
    if even is not None:
        axis = torch.linspace(-edge, edge, 33, dtype=torch.float64)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        inside = torch.hypot(x, y) <= edge
        kinds = torch.tensor(even)
        largest = float(zernike_phase(kinds, EVEN, x[inside], y[inside]).abs().max())
    if phases is not None:
        largest = max(largest, float((phases @ np.array([edge, edge**3, edge**4])).max()))
    return float(np.rad2deg(largest))
