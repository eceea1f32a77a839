"""Meaning of the columns of CTF parameters; needs no torch."""

from __future__ import annotations

from enum import IntEnum

ALWAYS = 9
"""Number of required columns; the others may be missing."""


class CtfColumn(IntEnum):
    """Columns of a (N, 9), (N, 11) or (N, 12) array of CTF parameters."""

    PIXEL_SIZE = 0
    """Å per pixel."""
    DEFOCUS_U = 1
    """Å, positive when underfocused."""
    DEFOCUS_V = 2
    """Å."""
    DEFOCUS_ANGLE = 3
    """Degrees from x towards y, direction of defocus U."""
    VOLTAGE = 4
    """kV."""
    CS = 5
    """Spherical aberration, mm."""
    AMPLITUDE_CONTRAST = 6
    """Fraction, 0 to 1."""
    PHASE_SHIFT = 7
    """Degrees."""
    B_FACTOR = 8
    """Å²; the envelope is exp(-B s²/4)."""
    SCALE = 9
    """Factor of the whole function (rlnCtfScalefactor); 1 if the column is missing."""
    STATE = 10
    """Earlier processing of the image (:class:`CtfState`); none if the column is missing."""
    DOSE = 11
    """Electrons per Å² that the specimen received before the image was taken; the signal has faded
    accordingly.  0 if the column is missing."""


class CtfState(IntEnum):
    """Processing of the images by another program."""

    RECORDED = 0
    """None: an image is c F + noise."""
    FLIPPED = 1
    """Phases were flipped: |c| F + noise."""
    PREMULTIPLIED = 2
    """Images were multiplied by c: c² F + c noise.  The models see them divided by the gain of the
    noise (:func:`modpose.observe.ctf.noise_gain`): c² F / gain + white noise.
    """
