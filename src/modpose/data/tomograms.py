"""Tomograms: how each of their images was tilted, focused and exposed (RELION 4, 5 and WarpTools).

A tilt series turns the specimen: an image of tilt f shows what lies at r, Å from the centre of the
tomogram, at the first two components of A_f r, and at the depth (A_f r)_z.  RELION 5 gives
A_f = Rz(rlnTomoZRot) Ry(rlnTomoYTilt) Rx(rlnTomoXTilt); RELION 4 and WarpTools give the rows of A_f
in rlnTomoProjX, Y and Z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.locate import find_files
from modpose.data.ranges import check_column
from modpose.data.star import columns_of, read_star
from modpose.errors import InputError, shown
from modpose.files.text import number

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

TOMOGRAM, FILE = "rlnTomoName", "rlnTomoTiltSeriesStarFile"
FRAMES = "rlnTomoVisibleFrames"
MATRIX = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")
ANGLES = ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot")
NOMINAL = "rlnTomoNominalStageTiltAngle"
SCALE = "rlnCtfScalefactor"
SIZE = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
NOT_A_ROTATION = 1e-2
"""Largest departure of A Aᵀ from the identity; files have few decimals."""
OFF_AXIS = 0.3
"""Largest y component of the beam's direction for which the tilt axis is about y."""


@dataclass(frozen=True)
class Tomogram:
    """The images of one tilt series, in the order of their table.

    Attributes
    ----------
    name
        rlnTomoName.
    rotation
        (T, 3, 3), from the tomogram to the frame of each image.
    defocus
        (T, 3) defocus U, V (Å) and angle (degrees) at the centre of the tomogram; None without.
    others
        (T, 3) phase shift (degrees), B factor (Å²), factor of the CTF.
    dose
        (T,) electrons per Å² received before each image; 0 where the table does not say.
    hand
        1 or -1: whether depth adds to the defocus or takes from it (rlnTomoHand).
    pixel_size
        Å of the tilt images; None where it is not given.
    size
        (3,) pixels of the tomogram at that pixel size; None where it is not given.
    optics
        Voltage (kV), spherical aberration (mm) and amplitude contrast; None where one is missing.
    """

    name: str
    rotation: Floats
    defocus: Floats | None
    others: Floats
    dose: Floats
    hand: float
    pixel_size: float | None
    size: Floats | None
    optics: tuple[float, float, float] | None

    @property
    def n(self) -> int:
        """How many images."""
        return len(self.rotation)

    def depth(self, position: Floats) -> Floats:
        """Return the depth in each image, (T,) Å, of a position (3,), Å from the centre."""
        return np.asarray(self.rotation[:, 2] @ position)


def read_tomograms(path: Path) -> dict[str, Tomogram]:
    """Read a list of tomograms, with the files that it names.

    Raises
    ------
    InputError
        If a tilt series is missing, gives no tilts, or gives impossible numbers.
    """
    import pandas as pd

    blocks = read_star(path)
    overview = next((b for b in blocks.values() if TOMOGRAM in columns_of(b)), None)
    if overview is None:
        alone = [name for name, block in blocks.items() if MATRIX[2] in columns_of(block)]
        overview = pd.DataFrame({TOMOGRAM: alone})
    rows = pd.DataFrame([overview]) if isinstance(overview, dict) else overview
    if not len(rows):
        raise InputError(f"{path}: it names no tilts (rlnTomoName, rlnTomoProjZ)")
    files: dict[str, Path] = {}
    if FILE in rows.columns:
        names = [str(name) for name in rows[FILE]]
        files, missing = find_files(names, path, None)
        if missing:
            raise InputError(f"{path}: the tilt series {missing[0]} cannot be found")
    found = {}
    for _, row in rows.iterrows():
        name = str(row[TOMOGRAM])
        table = blocks.get(name)
        where = f"{path}: {name}"
        if table is None and FILE in rows.columns:
            file = files[str(row[FILE])]
            table, where = next(iter(read_star(file).values())), str(file)
        if table is None:
            raise InputError(f"{path}: the tilts of {name} are missing, expected data_{name}")
        tilts = pd.DataFrame([table]) if isinstance(table, dict) else table
        found[name] = _tomogram(name, row, tilts, where)
    return found


def tilts_of(path: Path) -> dict[str, Floats]:
    """Read the tilts of every tomogram of a list, degrees.

    Raises
    ------
    InputError
        If a tilt axis is not about y, or the list names no tilts.
    """
    tilts = {}
    for name, tomogram in read_tomograms(path).items():
        beam = tomogram.rotation[:, 2]
        if np.abs(beam[:, 1]).max() > OFF_AXIS:
            raise InputError(f"{path}: {name} was tilted about another axis than y")
        tilts[name] = np.rad2deg(np.arctan2(-beam[:, 0], beam[:, 2]))
    return tilts


def _tomogram(name: str, row: Any, tilts: pd.DataFrame, where: str) -> Tomogram:
    count = len(tilts)

    def column(tag: str, otherwise: float) -> Floats:
        return _numbers(tilts, tag, where) if tag in tilts.columns else np.full(count, otherwise)

    def of_all(tag: str) -> float | None:
        value = number(str(row[tag])) if tag in row.index else None
        return None if value is None or not np.isfinite(value) else float(value)

    matrices = all(tag in tilts.columns for tag in MATRIX)
    if not count:
        raise InputError.of(where, "the number of tilts", 0, "at least one")
    optics = [of_all(t) for t in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")]
    size = [of_all(tag) for tag in SIZE]
    pixel_size = of_all("rlnTomoTiltSeriesPixelSize") or of_all("rlnMicrographOriginalPixelSize")
    if pixel_size is not None and pixel_size <= 0:
        raise InputError.of(where, "the pixel size", pixel_size, "a positive number of Å")
    hand = of_all("rlnTomoHand")
    if hand not in (None, 1.0, -1.0):
        raise InputError.of(where, "rlnTomoHand", hand, "1 or -1")
    focus = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    defocus = None
    if focus[0] in tilts.columns:
        u = column(focus[0], 0.0)
        v = _numbers(tilts, focus[1], where) if focus[1] in tilts.columns else u
        defocus = np.stack([u, v, column(focus[2], 0.0)], axis=1)
    others = [column("rlnPhaseShift", 0.0), np.abs(column("rlnCtfBfactor", 0.0))]
    return Tomogram(
        name=name,
        rotation=_matrices(tilts, where) if matrices else _of_angles(tilts, where),
        defocus=defocus,
        others=np.stack([*others, column(SCALE, 1.0)], axis=1),
        dose=column("rlnMicrographPreExposure", 0.0),
        hand=1.0 if hand is None else hand,
        pixel_size=pixel_size,
        size=None if None in size else np.array(size, np.float64),
        optics=None if None in optics else (optics[0], optics[1], optics[2]),  # type: ignore[arg-type]
    )


def _matrices(tilts: pd.DataFrame, where: str) -> Floats:
    rows = []
    for tag in MATRIX:
        lists = [numbers_in(text, f"{where}: {tag}") for text in tilts[tag]]
        if min(map(len, lists)) < 3:
            raise InputError.of(where, tag, "too short", "rows of four numbers in brackets")
        rows.append(np.stack([values[:3] for values in lists]))
    found = np.stack(rows, axis=1)
    product = found @ found.transpose(0, 2, 1)
    bad = np.flatnonzero(
        (np.abs(product - np.eye(3)).max((1, 2)) > NOT_A_ROTATION) | (np.linalg.det(found) < 0)
    )
    if bad.size:
        raise InputError.of(
            where, f"rlnTomoProjX, Y, Z in row {bad[0] + 1}", "no rotation", "rows of a rotation"
        )
    return found


def _of_angles(tilts: pd.DataFrame, where: str) -> Floats:
    tag = ANGLES[1] if ANGLES[1] in tilts.columns else NOMINAL
    if tag not in tilts.columns:
        raise InputError(f"{where}: it names no tilts ({MATRIX[0]}, {ANGLES[1]} or {NOMINAL})")
    from scipy.spatial.transform import Rotation

    zero = np.zeros(len(tilts))
    x = _numbers(tilts, ANGLES[0], where) if ANGLES[0] in tilts.columns else zero
    z = _numbers(tilts, ANGLES[2], where) if ANGLES[2] in tilts.columns else zero
    return Rotation.from_euler(
        "xyz", np.stack([x, _numbers(tilts, tag, where), z], axis=1), degrees=True
    ).as_matrix()


def _numbers(table: pd.DataFrame, tag: str, where: str) -> Floats:
    values = [number(str(text)) for text in table[tag]]
    bad = next((i for i, value in enumerate(values) if value is None), None)
    if bad is not None:
        found = shown(str(table[tag].iloc[bad]))
        raise InputError.of(where, f"{tag} in row {bad + 1}", found, "a number")
    numbers = np.array(values, np.float64)
    if tag != SCALE:  # which is 0 for an image that is not used
        check_column(tag, numbers, where)
    return numbers


def numbers_in(text: Any, where: str) -> Floats:
    """Read numbers between commas, in brackets or not."""
    values: Sequence[Any] = [number(word.strip()) for word in str(text).strip("[] ").split(",")]
    if None in values:
        raise InputError.of(where, "the value", shown(str(text)), "numbers in brackets")
    return np.array(values, dtype=np.float64)
