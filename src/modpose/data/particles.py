"""Particles: the table of a stack, and its interpretation.

One row per image, in the order of the input.  Columns are named as in the file (STAR tags without
the leading underscore; cryoSPARC fields, vectors as ``field_0``, ``field_1``, ...).
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modpose.data.optics import ctf_parameters
from modpose.data.poses import poses_of_table
from modpose.data.ranges import check_column
from modpose.data.table_form import TableForm
from modpose.errors import SHOWN, InputError, shorter, shown

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.optics import Aberrations

logger = logging.getLogger("modpose")

Format = Literal["star", "cs", "csv", "none"]
Floats = NDArray[np.float64]

DEFAULT_MAGNIFICATION = 10_000.0
"""With it, RELION 3.0's rlnDetectorPixelSize (micrometre) is the pixel size in angstrom."""

TRUTH = {
    "modposeTruthAngle": "angle_deg",
    **{f"modposeTruthR{i}{j}": f"r{i}{j}" for i in range(3) for j in range(3)},
    "modposeTruthShiftX": "shift_x",
    "modposeTruthShiftY": "shift_y",
    "modposeTruthShiftZ": "shift_z",
    "modposeTruthMirrored": "mirrored",
    "modposeTruthScale": "scale",
    "modposeTruthClass": "class",
    "modposeTruthHinge": "hinge_deg",
    "modposeTruthElongation": "elongation",
    "modposeTruthTemplate": "template",
    "modposeTruthJunk": "junk",
    "modposeTruthContrast": "contrast",
}
"""STAR column of a simulated truth to its short name."""
HALF_SETS = {"rlnRandomSubset": 2, "alignments3D/split": 1}
"""Columns of half sets, with the value of the second half."""
TILT_RANGE = ("modposeTiltMin", "modposeTiltMax")
"""STAR columns of the smallest and largest tilt of a particle's tomogram, degrees."""


@dataclass(frozen=True)
class Particles:
    """A table with one row per image.

    Attributes
    ----------
    table
        The columns as read, row order as in the input.
    optics
        One row per optics group (RELION 3.1 and later), or None.
    format
        Format of the file; ``none`` for images without a table.
    name
        Name of the table in messages.
    form
        Further data for writing the table in its original form.
    given_poses, given_halves, given_ctf
        Results of :meth:`poses`, :meth:`half_sets` and :meth:`ctf` from separate files
        (:mod:`modpose.data.given`), in place of those of the table; or None.
    given_aberrations
        Aberrations in the table of the CTF; or None.
    position
        (N,) position of each image in its file, from 0, for images without a table; the file is
        ``name``, or that of the column ``file``.  None for images without a file.
    """

    table: pd.DataFrame
    optics: pd.DataFrame | None = None
    format: Format = "none"
    name: str = "particles"
    form: TableForm = field(default=TableForm(), repr=False)
    given_poses: tuple[Floats, Floats] | None = field(default=None, repr=False)
    given_halves: NDArray[np.int64] | None = field(default=None, repr=False)
    given_ctf: Floats | None = field(default=None, repr=False)
    given_aberrations: Aberrations | None = field(default=None, repr=False)
    position: NDArray[np.int64] | None = field(default=None, repr=False)
    _notes: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def n(self) -> int:
        """Number of particles."""
        return len(self.table)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the table, or of the optics groups (repeated for each particle).

        Parameters
        ----------
        name
            With or without the leading underscore of STAR files.

        Raises
        ------
        InputError
            If there is no such column; the message lists similar names.
        """
        name = name.removeprefix("_")
        if name in self.table.columns:
            return np.asarray(self.table[name])
        groups = self._optics_rows if self._in_optics(name) else None
        if groups is not None and self.optics is not None:
            return np.asarray(self.optics[name])[groups]
        raise InputError(f"{self.name}: {no_column(name, self.columns())}")

    def columns(self) -> list[str]:
        """Return the names that :meth:`column` knows."""
        return [*map(str, self.table.columns), *self._optics_columns()]

    def has(self, name: str) -> bool:
        """Return whether :meth:`column` would find ``name``."""
        return name in self.table.columns or self._in_optics(name)

    def subset(self, index: NDArray[np.int64]) -> Particles:
        """Keep the rows at ``index``, in that order; optics groups stay."""
        rows = np.asarray(index)
        return replace(
            self,
            table=self.table.iloc[rows].reset_index(drop=True),
            given_poses=self.given_poses and (self.given_poses[0][rows], self.given_poses[1][rows]),
            given_halves=None if self.given_halves is None else self.given_halves[rows],
            given_ctf=None if self.given_ctf is None else self.given_ctf[rows],
            given_aberrations=self.given_aberrations and self.given_aberrations.at(rows),
            position=None if self.position is None else self.position[rows],
        )

    # --- what the columns mean ----------------------------------------------------------------

    def pixel_sizes(self) -> Floats | None:
        """Return the pixel size of each particle, (N,) angstrom; None if unknown.

        RELION 3.1 and later: rlnImagePixelSize; 3.0: 10,000 rlnDetectorPixelSize /
        rlnMagnification; cryoSPARC: blob/psize_A.
        """
        for name in ("rlnImagePixelSize", "rlnPixelSize", "blob/psize_A"):
            if self.has(name):
                return self.positive(name)
        if self.has("rlnDetectorPixelSize"):
            detector = self.positive("rlnDetectorPixelSize")
            if not self.has("rlnMagnification"):
                return detector
            return detector * DEFAULT_MAGNIFICATION / self.positive("rlnMagnification")
        if self.has("rlnTomoTiltSeriesPixelSize") and self.has("rlnTomoSubtomogramBinning"):
            binning = self.positive("rlnTomoSubtomogramBinning")
            return self.positive("rlnTomoTiltSeriesPixelSize") * binning
        if self.optics is None and "rlnOpticsGroup" in self.table.columns:
            self.note("the block data_optics is missing or empty, and with it the pixel size")
        return None if self.given_ctf is None else self.given_ctf[:, 0]

    def pixel_size(self) -> float | None:
        """Return the pixel size of all particles, angstrom; None if unknown.

        Raises
        ------
        InputError
            If it is not positive or differs between particles by more than 1 %.
        """
        sizes = self.pixel_sizes()
        if sizes is None or not sizes.size:
            return None
        low, high = float(sizes.min()), float(sizes.max())
        if high > 1.01 * low:
            raise InputError(
                f"{self.name}: the pixel size is {low:g} A for some particles and {high:g} A for "
                "others, expected one"
            )
        return low if low == high else float(np.median(sizes))

    def has_ctf(self, pixel_size: float | None = None) -> bool:
        """Return whether the table gives a CTF; warn where it gives none."""
        if self.ctf(pixel_size) is not None:
            return True
        logger.warning(
            "%s: it gives no CTF, so maps are made without; those of real images will be blurred",
            self.name,
        )
        return False

    def ctf(self, pixel_size: float | None = None) -> NDArray[np.float32] | None:
        """Return the parameters of the contrast transfer function.

        Parameters
        ----------
        pixel_size
            Angstrom, used if the table has none (for example that of the stack).

        Returns
        -------
        parameters
            (N, 9): pixel size (A), defocus U (A), defocus V (A), defocus angle (degrees), voltage
            (kV), spherical aberration (mm), amplitude contrast, phase shift (degrees), B factor
            (A²; 0 when absent).  (N, 11) if a factor is not 1, phases were flipped or images were
            multiplied by their CTF (:class:`modpose.observe.ctf.CtfColumn`).  None if the table
            has no defocus.

        Raises
        ------
        InputError
            If the table has a defocus but lacks another parameter, or a value is impossible.
        """
        found = ctf_parameters(self, pixel_size)
        return None if found is None else found.astype(np.float32)

    def poses(self, pixel_size: float | None = None) -> tuple[Floats, Floats] | None:
        """Return the poses that move the upright object into each image.

        RELION: R = Rz(psi) Ry(tilt) Rz(rot) (its Euler matrix; missing angles are 0) and
        t = -origin / pixel size.  cryoSPARC: R is the transpose of the matrix of the rotation
        vector and t = -shift, which is the same convention.

        Returns
        -------
        rotation, shift
            (N, 3, 3), and (N, 2) or, for volumes, (N, 3), pixels, order x, y[, z].  None if the
            table has no angles.
        """
        if self.given_poses is not None:
            return self.given_poses
        return poses_of_table(self, pixel_size)

    def half_sets(self) -> NDArray[np.int64] | None:
        """Return the half of each particle, (N,) 0 or 1, in which its pose was found.

        RELION: rlnRandomSubset, 1 and 2; cryoSPARC: alignments3D/split, 0 and 1.  Of two values
        the larger is the second half, also where another program counts otherwise.  None if the
        table has none.
        """
        if self.given_halves is not None:
            return self.given_halves
        name = next((name for name in HALF_SETS if self.has(name)), None)
        if name is None:
            return None
        values = self.column(name)
        kinds = np.unique(values) if values.dtype.kind in "iuf" else values[:0]
        kinds = kinds[kinds == kinds]  # without missing values
        second = kinds[1] if len(kinds) == 2 else HALF_SETS[name]
        return np.asarray(values == second, np.int64)

    def tilt_range(self) -> Floats | None:
        """Return the smallest and largest tilt of each particle's tomogram.

        Returns
        -------
        limits
            (N, 2) degrees (modposeTiltMin, modposeTiltMax); None if the table has none.

        Raises
        ------
        InputError
            If only one of the columns exists, or the tilts measure nothing.
        """
        present = [name for name in TILT_RANGE if self.has(name)]
        if not present:
            return None
        if len(present) == 1:
            raise InputError(f"{self.name}: there is only {present[0]}, expected both limits")
        low, high = (self.numbers(name) for name in TILT_RANGE)
        bad = np.flatnonzero(~((low >= -90) & (low < high) & (high <= 90)))
        if bad.size:
            row = int(bad[0])
            raise InputError.of(
                self.name,
                f"the tilt range in row {row + 1}",
                f"{low[row]:g} to {high[row]:g} degrees",
                "two angles from -90 to 90, the smaller first (or the wedge hides everything)",
            )
        return np.stack([low, high], axis=1)

    def sizes_or(self, pixel_size: float | None) -> Floats | None:
        """Return the pixel sizes (N,) of the table, else ``pixel_size``; None without either."""
        sizes = self.pixel_sizes()
        if sizes is None and pixel_size is not None:
            return np.full(self.n, pixel_size)
        return sizes

    def truth(self) -> pd.DataFrame | None:
        """Return the truth of a simulation, one row per image; None without truth.

        Columns (if present): angle_deg, r00 ... r22, shift_x, shift_y, shift_z
        (pixels), mirrored (0 or 1), scale, class, hinge_deg, template,
        junk (no, noise or object), contrast.
        """
        present = {tag: short for tag, short in TRUTH.items() if tag in self.table.columns}
        if not present:
            return None
        return self.table[list(present)].rename(columns=present)

    # --- reading a column -----------------------------------------------------------------------

    def numbers(self, name: str) -> Floats:
        """Return a column as numbers (N,), finite and possible; raise InputError otherwise."""
        values = self.column(name)
        try:
            with np.errstate(invalid="ignore"):  # a signalling NaN; refused below
                numbers = values.astype(np.float64)
        except (ValueError, TypeError):
            bad = next(v for v in values if not _is_number(v))
            raise InputError.of(self.name, name, repr(bad), "a number") from None
        finite = np.isfinite(numbers)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise InputError.of(self.name, f"{name} in row {row + 1}", numbers[row], "a number")
        check_column(name, numbers, self.name)
        return numbers

    def positive(self, name: str) -> Floats:
        """Return the same numbers; refuse values that are not positive."""
        numbers = self.numbers(name)
        bad = np.flatnonzero(numbers <= 0)
        if bad.size:
            found = f"{numbers[bad[0]]:g}"
            raise InputError.of(
                self.name, f"{name} in row {bad[0] + 1}", found, "a positive number"
            )
        return numbers

    def _optics_columns(self) -> list[str]:
        return [] if self.optics is None else [str(c) for c in self.optics.columns]

    def _in_optics(self, name: str) -> bool:
        return name in self._optics_columns()

    @cached_property
    def names_split(self) -> dict[str, tuple[NDArray[np.int64], NDArray[Any]]]:
        """Image numbers and stacks of the columns of names that were read so far."""
        return {}

    @cached_property
    def _optics_rows(self) -> NDArray[np.int64]:
        """Return the row of the optics table for each particle."""
        assert self.optics is not None
        if "rlnOpticsGroup" not in self.table.columns or "rlnOpticsGroup" not in self.optics:
            if len(self.optics) == 1:
                return np.zeros(self.n, dtype=np.int64)
            raise InputError(f"{self.name}: one of its tables has no column rlnOpticsGroup")
        known = {group: row for row, group in enumerate(self.optics["rlnOpticsGroup"].tolist())}
        groups = self.table["rlnOpticsGroup"].tolist()
        missing = next((group for group in groups if group not in known), None)
        if missing is not None:
            raise InputError.of(
                self.name, "rlnOpticsGroup", missing, f"one of data_optics ({listed(known)})"
            )
        return np.array([known[group] for group in groups], dtype=np.int64)

    def note(self, note: str) -> None:
        """Log something about the table, once."""
        if note not in self._notes:
            self._notes.add(note)
            logger.warning("%s: %s", self.name, note)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def no_column(name: str, columns: Iterable[str]) -> str:
    """Return a message that a column does not exist, with similar or existing names."""
    names = [str(column) for column in columns]
    near = difflib.get_close_matches(name[:SHOWN], names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected one such as {listed(names)}"
    return f"there is no column {shown(name)}, {hint}"


def listed(names: Any) -> str:
    """Write out the first few of many names."""
    names = [shorter(str(name), 40) for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
