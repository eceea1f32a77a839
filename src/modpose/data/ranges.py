"""Possible values of experimental quantities; wrong units are refused before any computation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """The possible values of a quantity.

    Attributes
    ----------
    low, high
        Smallest and largest possible value.
    expected
        Expectation in messages.
    gap
        Open interval of impossible values in between; None for none.
    """

    low: float
    high: float
    expected: str
    gap: tuple[float, float] | None = None


VOLTAGE = Range(10, 3000, "kilovolts, 10 to 3,000 (300 for 300,000 volts)")
CS = Range(-1, 20, "millimetres, -1 to 20 (such as 2.7; 0.0027 is in metres)", gap=(0.0011, 0.0045))
DEFOCUS = Range(-500_000, 500_000, "angstrom, -500,000 to 500,000 (15,000 for 1.5 um)")
CONTRAST = Range(0, 1, "a fraction, 0 to 1 (0.1 for 10 %)")
DEGREES = Range(-720, 720, "degrees, -720 to 720")
RADIANS = Range(-4 * np.pi, 4 * np.pi, "radians, -12.6 to 12.6")
TURN = Range(-2 * np.pi, 2 * np.pi, "radians, -6.3 to 6.3 (a rotation vector)")
TILT = Range(-90, 90, "degrees, -90 to 90")
B_FACTOR = Range(-20_000, 20_000, "A^2, -20,000 to 20,000")
SCALE = Range(1e-6, 1000, "a positive factor, at most 1,000")
PIXEL = Range(1e-3, 1e8, "a positive number of angstrom (0.001 to 100,000,000)")
MICROSCOPE_PIXEL = Range(0.2, 200, "angstrom per pixel, 0.2 to 200 with a CTF (0.1 nm is 1)")
SHIFT = Range(-1e7, 1e7, "a shift of at most 10,000,000")
TRANSLATION = Range(0, 1, "at most 1, in fractions of the box")
DOSE = Range(0, 1e4, "electrons per square angstrom, 0 to 10,000")
BOX = Range(2, 65_536, "a whole number of pixels, 2 to 65,536")
BINNING = Range(1e-3, 1000, "a positive factor, at most 1,000")

RANGES: dict[str, Range] = {
    "rlnVoltage": VOLTAGE,
    "ctf/accel_kv": VOLTAGE,
    "rlnSphericalAberration": CS,
    "ctf/cs_mm": CS,
    "rlnDefocusU": DEFOCUS,
    "rlnDefocusV": DEFOCUS,
    "ctf/df1_A": DEFOCUS,
    "ctf/df2_A": DEFOCUS,
    "rlnAmplitudeContrast": CONTRAST,
    "ctf/amp_contrast": CONTRAST,
    "rlnDefocusAngle": DEGREES,
    "rlnPhaseShift": DEGREES,
    "rlnAngleRot": DEGREES,
    "rlnAngleTilt": DEGREES,
    "rlnAnglePsi": DEGREES,
    "ctf/df_angle_rad": RADIANS,
    "ctf/phase_shift_rad": RADIANS,
    "alignments3D/pose_0": TURN,
    "alignments3D/pose_1": TURN,
    "alignments3D/pose_2": TURN,
    "rlnCtfBfactor": B_FACTOR,
    "ctf/bfactor": B_FACTOR,
    "rlnCtfScalefactor": SCALE,
    "rlnImagePixelSize": PIXEL,
    "rlnPixelSize": PIXEL,
    "rlnDetectorPixelSize": PIXEL,
    "rlnTomoTiltSeriesPixelSize": PIXEL,
    "blob/psize_A": PIXEL,
    "alignments3D/psize_A": PIXEL,
    "rlnMagnification": Range(1, 1e9, "a magnification, at least 1"),
    "rlnTomoSubtomogramBinning": BINNING,
    "rlnImageSize": BOX,
    "rlnMicrographPreExposure": DOSE,
    "modposeTiltMin": TILT,
    "modposeTiltMax": TILT,
    **{f"rlnOrigin{axis}{unit}": SHIFT for axis in "XYZ" for unit in ("", "Angst")},
    **{f"alignments3D/shift_{axis}": SHIFT for axis in (0, 1)},
}
"""Column of a table (vectors as ``field_0``) to the range of its values."""

CTF_RANGES: tuple[tuple[str, Range], ...] = (
    ("the pixel size", MICROSCOPE_PIXEL),
    ("defocus U", DEFOCUS),
    ("defocus V", DEFOCUS),
    ("the defocus angle", DEGREES),
    ("the voltage", VOLTAGE),
    ("the spherical aberration", CS),
    ("the amplitude contrast", CONTRAST),
    ("the phase shift", DEGREES),
    ("the B factor", B_FACTOR),
)
"""The same for the columns of CTF parameters (:class:`modpose.observe.ctf.CtfColumn`)."""

MANY = 30
"""Number of images that by chance hardly ever all have small angles."""
MICROMETRES = 100.0
"""A set with a smaller defocus throughout, in angstrom and not 0, was given in micrometres."""


def check_range(values: Floats, allowed: Range, column: str, where: str) -> None:
    """Refuse values (N,) outside of a range.

    Raises
    ------
    InputError
        If there is one; the message names the first row (from 1), its value, and the expectation.
    """
    good = (values >= allowed.low) & (values <= allowed.high)
    if allowed.gap is not None:
        good &= ~((values > allowed.gap[0]) & (values < allowed.gap[1]))
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        found = f"{values[row]:.7g}"
        raise InputError.of(where, f"{column} in row {row + 1}", found, allowed.expected)


def check_column(name: str, values: Floats, where: str) -> None:
    """Refuse values (N,) that are impossible in a column of this name."""
    if name in RANGES:
        check_range(values, RANGES[name], name, where)


def check_ctf(parameters: Floats, where: str) -> None:
    """Refuse CTF parameters (N, 9 or more) that no microscope has.

    Raises
    ------
    InputError
        If there is one; the message names the first row (from 1), the value, and the expectation.
    """
    for column, (name, allowed) in enumerate(CTF_RANGES):
        check_range(parameters[:, column], allowed, name, where)
    largest = float(np.abs(parameters[:, 1:3]).max(initial=0.0))
    if 0 < largest < MICROMETRES:
        found = f"at most {largest:.4g}"
        expected = "angstrom (15,000 for 1.5 um)"
        raise InputError.of(where, "the defocus of all images", found, expected)
