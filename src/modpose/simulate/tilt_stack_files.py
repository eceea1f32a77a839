"""Writing simulated tilt series as RELION 5 or WarpTools writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from modpose.data.mrc import write_mrcs
from modpose.data.particles import TRUTH
from modpose.data.star import StarBlocks, write_blocks
from modpose.files.writing import all_or_nothing, refuse_to_replace
from modpose.geometry.rotations import relion_of_rotation
from modpose.simulate import microscope
from modpose.simulate.tilt_settings import Layout
from modpose.simulate.tilt_stacks import EXTENT, SimulatedTilts, TiltGeometry

WRITTEN = ("optimisation_set.star", "particles.star", "tomograms.star", "tilt_series", "stacks")
SERIES_PIXEL = 2.0
"""Å per pixel of the tilt series in the written tables; particles are binned."""


def write_tilts(
    made: SimulatedTilts,
    folder: Path,
    layout: Layout = "relion5",
    poses: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write an optimisation set with its tables and one stack per particle.

    RELION 5: a table for each tilt series, with angles; coordinates in Å from the centre; stacks
    hold the visible images.  WarpTools: one list of tomograms, with matrices; coordinates in pixels
    from a corner; stacks hold all images.  The truth goes into columns of its own.

    Parameters
    ----------
    made
        The data set.
    folder
        Made when missing.
    layout
        ``relion5`` or ``warptools``.
    poses
        Write the true poses as rlnAngleRot ... rlnOriginZAngst, too.
    overwrite
        Replace files of these names.

    Returns
    -------
    Path
        The optimisation set.

    Raises
    ------
    InputError
        If something is there already and ``overwrite`` is false.
    """
    written = [folder / name for name in WRITTEN]
    refuse_to_replace(written, overwrite)
    native = layout == "relion5"
    with all_or_nothing() as place:
        names = []
        for i in range(made.settings.n):
            name = f"stacks/{_name(made.tomogram[i])}/{i + 1:06d}_stack2d.mrcs"
            images = made.images[i][made.visible[i]] if native else made.images[i]
            write_mrcs(place(folder / name), images, made.settings.pixel_size)
            names.append(name)
        blocks: StarBlocks = {
            "general": {"rlnTomoSubTomosAre2DStacks": 1},
            "optics": _optics(made),
            "particles": _particles(made, names, native, poses),
        }
        write_blocks(place(written[1]), blocks, 50001)
        _write_tomograms(made, folder, native, place)
        listed = {
            "rlnTomoParticlesFile": "particles.star",
            "rlnTomoTomogramsFile": "tomograms.star",
        }
        write_blocks(place(written[0]), {"": listed}, 50001)
    return written[0]


def _name(tomogram: int) -> str:
    return f"TS_{tomogram + 1:02d}"


def _optics(made: SimulatedTilts) -> pd.DataFrame:
    settings = made.settings
    one = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "simulated",
        "rlnVoltage": microscope.VOLTAGE_KV,
        "rlnSphericalAberration": microscope.CS_MM,
        "rlnAmplitudeContrast": microscope.AMPLITUDE_CONTRAST,
        "rlnTomoTiltSeriesPixelSize": SERIES_PIXEL,
        "rlnCtfDataAreCtfPremultiplied": int(settings.premultiplied),
        "rlnImageDimensionality": 2,
        "rlnTomoSubtomogramBinning": settings.pixel_size / SERIES_PIXEL,
        "rlnImagePixelSize": settings.pixel_size,
        "rlnImageSize": settings.box,
    }
    return pd.DataFrame([one])


def _particles(made: SimulatedTilts, names: list[str], native: bool, poses: bool) -> pd.DataFrame:
    n = made.settings.n
    table: dict[str, Any] = {
        "rlnTomoName": [_name(k) for k in made.tomogram],
        "rlnTomoParticleName": [f"{_name(k)}/{i + 1}" for i, k in enumerate(made.tomogram)],
        "rlnOpticsGroup": np.ones(n, np.int64),
        "rlnImageName": names,
        "rlnTomoVisibleFrames": [
            "[" + ",".join("1" if seen else "0" for seen in row) + "]" for row in made.visible
        ],
        "rlnRandomSubset": np.arange(n) % 2 + 1,
    }
    if native:
        for k, axis in enumerate("XYZ"):
            table[f"rlnCenteredCoordinate{axis}Angst"] = made.position[:, k]
    else:
        corner = (made.position + np.array(EXTENT) / 2) / made.settings.pixel_size
        for k, axis in enumerate("XYZ"):
            table[f"rlnCoordinate{axis}"] = corner[:, k]
    if poses:
        angles = relion_of_rotation(torch.from_numpy(made.rotation)).numpy()
        for k, name in enumerate(("Rot", "Tilt", "Psi")):
            table[f"rlnAngle{name}"] = angles[:, k]
        for k, axis in enumerate("XYZ"):
            table[f"rlnOrigin{axis}Angst"] = -made.shift[:, k] * made.settings.pixel_size
    for name, column in TRUTH.items():
        if column in made.truth:
            table[name] = made.truth[column].to_numpy()
    return pd.DataFrame(table)


def _write_tomograms(made: SimulatedTilts, folder: Path, native: bool, place: Any) -> None:
    overview: dict[str, Any] = {"rlnTomoName": [_name(k) for k in range(len(made.geometry))]}
    count = len(made.geometry)
    size = np.array(EXTENT) / SERIES_PIXEL
    overview |= {f"rlnTomoSize{axis}": [int(size[k])] * count for k, axis in enumerate("XYZ")}
    overview |= {
        "rlnTomoHand": [float(made.settings.hand)] * count,
        "rlnTomoTiltSeriesPixelSize": [SERIES_PIXEL] * count,
        "rlnVoltage": [microscope.VOLTAGE_KV] * count,
        "rlnSphericalAberration": [microscope.CS_MM] * count,
        "rlnAmplitudeContrast": [microscope.AMPLITUDE_CONTRAST] * count,
    }
    series = {_name(k): _tilts(one, native) for k, one in enumerate(made.geometry)}
    blocks: dict[str, Any] = {"global": pd.DataFrame(overview)}
    if native:
        files = [f"tilt_series/{name}.star" for name in series]
        blocks["global"] = blocks["global"].assign(rlnTomoTiltSeriesStarFile=files)
        for (name, table), file in zip(series.items(), files, strict=True):
            write_blocks(place(folder / file), {name: table}, 50001)
    else:
        blocks |= series
    write_blocks(place(folder / "tomograms.star"), blocks, 50001)


def _tilts(one: TiltGeometry, native: bool) -> pd.DataFrame:
    table: dict[str, Any] = {}
    if native:
        table |= {
            "rlnTomoNominalStageTiltAngle": one.angles[:, 1],
            "rlnTomoXTilt": one.angles[:, 0],
            "rlnTomoYTilt": one.angles[:, 1],
            "rlnTomoZRot": one.angles[:, 2],
            "rlnTomoXShiftAngst": np.zeros(len(one.angles)),
            "rlnTomoYShiftAngst": np.zeros(len(one.angles)),
        }
    else:
        for k, axis in enumerate("XYZ"):
            table[f"rlnTomoProj{axis}"] = [_bracketed([*row[k], 0.0]) for row in one.rotation]
        table["rlnTomoProjW"] = ["[0,0,0,1]"] * len(one.angles)
    table |= {
        "rlnDefocusU": one.defocus[:, 0],
        "rlnDefocusV": one.defocus[:, 1],
        "rlnDefocusAngle": one.defocus[:, 2],
        "rlnCtfScalefactor": np.cos(np.deg2rad(one.angles[:, 1])),
        "rlnMicrographPreExposure": one.dose,
    }
    return pd.DataFrame(table)


def _bracketed(numbers: list[float] | NDArray[np.float64]) -> str:
    return "[" + ",".join(f"{value:.8g}" for value in numbers) + "]"
