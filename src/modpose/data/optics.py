"""The microscope and the earlier processing of the images, according to a table.

The parameters of the contrast transfer function; whether phases were flipped or images were
multiplied by it; the sign of the contrast; and other aberrations.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modpose.data.ranges import MANY, check_ctf
from modpose.errors import InputError
from modpose.observe.ctf_columns import CtfColumn

if TYPE_CHECKING:
    from modpose.data.particles import Particles

Floats = NDArray[np.float64]

MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
"""STAR columns of the microscope; in RELION 3.1 and later they are in data_optics."""
FLIPPED, PREMULTIPLIED = "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"
CORRECTED = "rlnCtfDataAreCtfCorrected"
SIGN = "blob/sign"
ODD, EVEN = "rlnOddZernike", "rlnEvenZernike"
BEAM_TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
MAGNIFICATION = tuple(f"rlnMagMat{i}{j}" for i in (0, 1) for j in (0, 1))


def ctf_parameters(particles: Particles, pixel_size: float | None) -> Floats | None:
    """Return what :meth:`Particles.ctf` does, in double precision."""
    corrected = _flag(particles, CORRECTED)
    if corrected is not None and corrected.any():
        where = f"{CORRECTED} in row {int(np.flatnonzero(corrected)[0]) + 1}"
        expected = "0: the CTF of corrected images cannot be modelled (--set model.ctf=off)"
        raise InputError.of(particles.name, where, "1", expected)
    found = particles.given_ctf
    if found is None:
        if particles.has("ctf/df1_A"):
            columns = _ctf_cryosparc(particles)
        elif particles.has("rlnDefocusU"):
            columns = _ctf_relion(particles)
        else:
            return None
        sizes = particles.sizes_or(pixel_size)
        if sizes is None:
            raise InputError(f"{particles.name}: there is a defocus but no pixel size (angstrom)")
        found = np.stack([sizes, *columns], axis=1)
        check_ctf(found, particles.name)
        _note_unusual(particles, found)
    state, scale = ctf_state(particles), _scale(particles)
    if state is None and scale is None:
        return found
    late = found[:, 9:] if found.shape[1] > 9 else np.tile([1.0, 0.0], (particles.n, 1))
    scale = late[:, 0] if scale is None else scale
    state = late[:, 1] if state is None else state
    if (scale == 1).all() and not state.any():
        return found[:, :9]
    return np.concatenate([found[:, :9], scale[:, None], state[:, None]], axis=1)


def _note_unusual(particles: Particles, ctf: Floats) -> None:
    """Note values that are possible, but mostly come from another convention."""
    if len(ctf) and (ctf[:, CtfColumn.DEFOCUS_U : CtfColumn.DEFOCUS_ANGLE] < 0).all():
        particles.note(
            "the defocus of all images is negative, which means overfocus; underfocus is positive "
            "here, as in RELION and cryoSPARC. Check its sign"
        )
    phase = np.abs(ctf[:, CtfColumn.PHASE_SHIFT])
    if particles.n >= MANY and phase.min() > 0 and phase.max() <= np.pi:
        particles.note(
            "the phase shifts look like radians, because none is larger than 3.2, but they are "
            "read as degrees"
        )


def _scale(particles: Particles) -> Floats | None:
    name = "rlnCtfScalefactor"
    return particles.numbers(name) if particles.has(name) else None


def ctf_state(particles: Particles) -> Floats | None:
    """Return the earlier processing of the images, (N,) of :class:`modpose.observe.ctf.CtfState`.

    None if the table does not say; the images are then as recorded.

    Raises
    ------
    InputError
        If a flag is neither 0 nor 1, or images were both phase-flipped and multiplied.
    """
    flipped, premultiplied = (_flag(particles, name) for name in (FLIPPED, PREMULTIPLIED))
    if flipped is None and premultiplied is None:
        return None
    flipped = np.zeros(particles.n) if flipped is None else flipped
    premultiplied = np.zeros(particles.n) if premultiplied is None else premultiplied
    both = np.flatnonzero(flipped * premultiplied)
    if both.size:
        where = f"{particles.name}: {FLIPPED} and {PREMULTIPLIED} in row {both[0] + 1}"
        raise InputError(f"{where} are both 1, expected one of them")
    return flipped + 2 * premultiplied


def said_of_all(particles: Particles, name: str) -> bool:
    """Whether one of the two flags is 1 for all particles; refuse mixed values."""
    ctf_state(particles)  # refuses flags that contradict each other
    values = _flag(particles, name)
    if values is None:
        return False
    if values.any() and not values.all():
        raise InputError(
            f"{particles.name}: {name} is 1 for some particles and 0 for others, expected the "
            "same for all volumes"
        )
    return bool(values.all())


def _flag(particles: Particles, name: str) -> Floats | None:
    """Return a column of 0 and 1; None if it is missing."""
    if not particles.has(name):
        return None
    values = particles.numbers(name)
    bad = np.flatnonzero((values != 0) & (values != 1))
    if bad.size:
        found = f"{values[bad[0]]:g}"
        raise InputError.of(particles.name, f"{name} in row {bad[0] + 1}", found, "0 or 1")
    return values


def image_sign(particles: Particles) -> Floats | None:
    """Return the factor that makes particles bright, (N,) of 1 and -1; None if all are 1."""
    if not particles.has(SIGN):
        return None
    sign = particles.numbers(SIGN)
    bad = np.flatnonzero(np.abs(sign) != 1)
    if bad.size:
        found = f"{sign[bad[0]]:g}"
        raise InputError.of(particles.name, f"{SIGN} in row {bad[0] + 1}", found, "1 or -1")
    return None if (sign == 1).all() else sign


def _ctf_relion(particles: Particles) -> list[Floats]:
    _refuse_without_optics(particles)
    defocus_u = particles.numbers("rlnDefocusU")

    def numbers(name: str, otherwise: Floats) -> Floats:
        return particles.numbers(name) if particles.has(name) else otherwise

    zero = np.zeros_like(defocus_u)
    bfactor = numbers("rlnCtfBfactor", zero)
    if (bfactor < 0).any():
        particles.note(
            "rlnCtfBfactor is negative, as in Warp and M; its absolute value is used as the damping"
        )
    return [
        defocus_u,
        numbers("rlnDefocusV", defocus_u),
        numbers("rlnDefocusAngle", zero),
        particles.positive("rlnVoltage"),
        particles.numbers("rlnSphericalAberration"),
        particles.numbers("rlnAmplitudeContrast"),
        numbers("rlnPhaseShift", zero),
        np.abs(bfactor),
    ]


def _refuse_without_optics(particles: Particles) -> None:
    """Refuse a table that names optics groups if the file has no table of them."""
    missing = [name for name in MICROSCOPE if not particles.has(name)]
    if missing and particles.optics is None and "rlnOpticsGroup" in particles.table.columns:
        raise InputError(
            f"{particles.name}: rlnOpticsGroup is there, but the block data_optics, which holds "
            f"{', '.join(missing)}, is missing or empty; put it back, or give the CTF (--ctf)"
        )


def _ctf_cryosparc(particles: Particles) -> list[Floats]:
    defocus_u = particles.numbers("ctf/df1_A")

    def numbers(name: str) -> Floats:
        return particles.numbers(name) if particles.has(name) else np.zeros_like(defocus_u)

    return [
        defocus_u,
        particles.numbers("ctf/df2_A"),
        np.rad2deg(particles.numbers("ctf/df_angle_rad")),
        particles.positive("ctf/accel_kv"),
        particles.numbers("ctf/cs_mm"),
        particles.numbers("ctf/amp_contrast"),
        np.rad2deg(numbers("ctf/phase_shift_rad")),
        numbers("ctf/bfactor"),
    ]


# --- aberrations ------------------------------------------------------------------------------


class Aberrations(NamedTuple):
    """Aberrations beyond the CTF; each is None if the table has none, or only zeros.

    Attributes
    ----------
    odd, even
        (N, K) coefficients of Zernike polynomials; the odd ones include beam tilt.
    magnification
        (N, 2, 2) from frequencies of the image to those of the object.
    phases
        (N, 3) bounds on the phase changes of cryoSPARC's fields, as multiples of s, s³ and s⁴.
    """

    odd: Floats | None = None
    even: Floats | None = None
    magnification: Floats | None = None
    phases: Floats | None = None

    def __bool__(self) -> bool:
        return any(part is not None for part in self)

    def at(self, rows: NDArray[np.int64]) -> Aberrations:
        """Return the aberrations of the particles at ``rows``."""
        return Aberrations(*(None if part is None else part[rows] for part in self))


def aberrations(particles: Particles) -> Aberrations:
    """Read the aberrations of each particle, from its table or from that of its CTF.

    Raises
    ------
    InputError
        If a list of coefficients is malformed.
    """
    odd = _coefficients(particles, ODD)
    if any(particles.has(name) for name in BEAM_TILT):
        odd = _with_beam_tilt(particles, odd)
    even = _coefficients(particles, EVEN)
    magnification, phases = _magnification(particles), _of_cryosparc(particles)
    found = Aberrations(_any(odd), _any(even), magnification, phases)
    return found if found or particles.given_aberrations is None else particles.given_aberrations


def _any(values: Floats | None) -> Floats | None:
    return values if values is not None and values.any() else None


def _coefficients(particles: Particles, name: str) -> Floats | None:
    """Read a column of lists ``[1.0,2.0]``, (N, K)."""
    if not particles.has(name):
        return None
    import pandas as pd

    which, kinds = pd.factorize(particles.column(name))
    lists: list[list[float]] = []
    for text in map(str, kinds):
        words = re.findall(r"[^\s,\[\]]+", text)
        try:
            lists.append([float(word) for word in words])
        except ValueError:
            found = repr(text[:40])
            raise InputError.of(particles.name, name, found, "numbers in brackets") from None
        if not np.isfinite(lists[-1]).all():
            raise InputError.of(particles.name, name, repr(text[:40]), "finite numbers")
    out = np.zeros((len(lists), max(map(len, lists))))
    for row, numbers in enumerate(lists):
        out[row, : len(numbers)] = numbers
    return out[which]


def _with_beam_tilt(particles: Particles, odd: Floats | None) -> Floats:
    import torch

    from modpose.observe.aberrations import with_beam_tilt

    tilt = np.stack(
        [
            particles.numbers(name) if particles.has(name) else np.zeros(particles.n)
            for name in BEAM_TILT
        ],
        axis=1,
    )
    before = np.zeros((particles.n, 6)) if odd is None else odd
    if not tilt.any():
        return before
    cs, voltage = particles.numbers("rlnSphericalAberration"), particles.positive("rlnVoltage")
    arrays = (torch.from_numpy(np.ascontiguousarray(a)) for a in (before, tilt, cs, voltage))
    return with_beam_tilt(*arrays).numpy()


def _magnification(particles: Particles) -> Floats | None:
    anisotropy = [f"ctf/anisomag_{i}" for i in range(4)]
    if all(particles.has(name) for name in MAGNIFICATION):
        flat = np.stack([particles.numbers(name) for name in MAGNIFICATION], axis=1)
    elif all(particles.has(name) for name in anisotropy):
        added = np.stack([particles.numbers(name) for name in anisotropy], axis=1)
        flat = added + np.eye(2).reshape(-1)
    else:
        return None
    matrix = flat.reshape(-1, 2, 2)
    return None if (matrix == np.eye(2)).all() else matrix


def _of_cryosparc(particles: Particles) -> Floats | None:
    """Bound the phases of cryoSPARC's fields: 2π s |shift|, 2π λ² s³ |tilt|, 2π λ³ s⁴ |tetra|."""
    fields = ("shift_A", "tetra_A", "tilt_A", "trefoil_A")
    if not any(particles.has(f"ctf/{name}_{i}") for name in fields for i in range(4)):
        return None

    import torch

    from modpose.observe.ctf import electron_wavelength

    def size(field: str, count: int) -> Floats:
        names = [f"ctf/{field}_{i}" for i in range(count)]
        values = [particles.numbers(name) for name in names if particles.has(name)]
        return np.linalg.norm(values, axis=0) if values else np.zeros(particles.n)

    shift, tetra = size("shift_A", 2), size("tetra_A", 4)
    cubic = size("tilt_A", 2) + size("trefoil_A", 2)
    if not (shift.any() or cubic.any() or tetra.any()):
        return None
    voltage = torch.from_numpy(particles.positive("ctf/accel_kv"))
    wavelength = electron_wavelength(voltage).numpy()
    bounds = np.stack([shift, cubic * wavelength**2, tetra * wavelength**3], axis=1)
    return np.asarray(2 * np.pi * bounds)
