"""Tables of particles with places in micrographs, and poses, as jobs take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.star import write_star
from modpose.data.table_files import write_table
from modpose.files.writing import all_or_nothing
from modpose.geometry.rotations import haar_rotations
from tests.small_data import cryosparc_table

N, IMAGE_PIXEL, MICROGRAPH_PIXEL = 60, 4.0, 1.0


def rotations(n: int = N) -> np.ndarray:
    return haar_rotations(n, torch.Generator().manual_seed(0)).double().numpy()


def star(folder: Path, n: int = N, **columns: object) -> Path:
    """Particles at bin 4 of three micrographs."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{k + 1:06d}@Extract/bin4.mrcs" for k in range(n)],
            "rlnMicrographName": [f"mics/m{k % 3}.mrc" for k in range(n)],
            "rlnCoordinateX": rng.integers(0, 400, n).astype(float),
            "rlnCoordinateY": rng.integers(0, 400, n).astype(float),
            "rlnOriginXAngst": rng.normal(0, 6, n).round(6),
            "rlnOriginYAngst": rng.normal(0, 6, n).round(6),
            "rlnMaxValueProbDistribution": rng.random(n).round(6),
            "rlnOpticsGroup": 1,
        }
    ).assign(**columns)
    optics = {"rlnOpticsGroup": 1, "rlnImagePixelSize": IMAGE_PIXEL, "rlnImageSize": 16}
    optics |= {"rlnMicrographPixelSize": MICROGRAPH_PIXEL, "rlnImageDimensionality": 2}
    particles = Particles(table, pd.DataFrame([optics]), "star")
    posed = with_pose(particles, rotation=rotations(n))
    folder.mkdir(parents=True, exist_ok=True)
    write_star(folder / "p.star", posed.table, posed.optics)
    return folder / "p.star"


def cs(folder: Path, n: int = N) -> Path:
    rng = np.random.default_rng(1)
    plain = cryosparc_table(n, "J1/stack.mrcs", 16)
    extra = [("location/micrograph_path", "S20"), ("location/micrograph_uid", "u8")]
    extra += [("location/micrograph_shape", "u4", (2,)), ("location/micrograph_psize_A", "f4")]
    extra += [("location/center_x_frac", "f4"), ("location/center_y_frac", "f4")]
    records = np.zeros(n, plain.dtype.descr + extra)
    for name in plain.dtype.names:
        records[name] = plain[name]
    records["location/micrograph_uid"] = np.arange(n) % 3
    records["location/micrograph_shape"] = 500, 400
    records["location/micrograph_psize_A"] = MICROGRAPH_PIXEL
    records["location/center_x_frac"], records["location/center_y_frac"] = rng.random((2, n))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "p.cs").open("wb") as file:
        np.save(file, records)
    return folder / "p.cs"


def write_particles(particles: Particles, out: Path) -> None:
    with all_or_nothing() as place:
        write_table(particles, out, place)
