"""Writing simulated projections: a stack, a STAR, true maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from modpose.data.mrc import write_mrcs
from modpose.data.star import write_star
from modpose.files.writing import Staging, all_or_nothing, refuse_to_replace
from modpose.geometry.rotations import relion_of_rotation
from modpose.simulate.star_tables import tables

if TYPE_CHECKING:
    import pandas as pd

    from modpose.simulate.projections import Projections

WRITTEN = ("particles.star", "particles.mrcs", "maps")


def write_projections(
    simulated: Projections, folder: Path, maps: int = 0, overwrite: bool = False
) -> Path:
    """Write ``particles.mrcs`` and ``particles.star`` (RELION 3.1).

    The consensus poses are in RELION's columns, the truth in separate columns.  With ``maps``, the
    true map of each class at that many hinge angles is in ``maps/``; ``maps/maps.csv`` lists them
    (``file``, ``class``, ``hinge_deg``).

    Parameters
    ----------
    simulated
        The data set.
    folder
        Created if missing.
    maps
        Number of hinge angles; if nothing moves, any number but 0 gives one map per class.
    overwrite
        Replace files of these names.

    Returns
    -------
    Path
        The STAR file, which is written last.
    """
    refuse_to_replace([folder / name for name in WRITTEN], overwrite)
    size = simulated.settings.pixel_size
    with all_or_nothing() as place:
        write_mrcs(place(folder / "particles.mrcs"), simulated.images, size)
        for earlier in _earlier_maps(folder / "maps"):
            place.remove(earlier)
        if maps:
            _write_maps(simulated, folder / "maps", maps, place)
        write_star(place(folder / "particles.star"), *star_tables(simulated))
    return folder / "particles.star"


def _earlier_maps(folder: Path) -> list[Path]:
    """Name the true maps of an earlier simulation: they are not those of the new images."""
    import pandas as pd

    listed = folder / "maps.csv"
    if not listed.is_file():
        return []
    try:
        names = [str(name) for name in pd.read_csv(listed).get("file", ())]
    except (ValueError, OSError):  # not a table that a simulation wrote
        return []
    return [listed, *(folder / name for name in names if Path(name).name == name)]


def _write_maps(simulated: Projections, folder: Path, count: int, place: Staging) -> None:
    import pandas as pd

    rows = []
    angles = simulated.hinge_angles(count)
    for k, one in enumerate(simulated.conformers):
        for number, angle in enumerate(angles):
            name = f"{one.name}.mrc" if len(angles) == 1 else f"{one.name}_{number:02d}.mrc"
            volume = simulated.volume(k, float(angle))
            write_mrcs(place(folder / name), volume[None], simulated.settings.pixel_size)
            rows.append({"file": name, "class": k, "hinge_deg": angle})
    text = pd.DataFrame(rows).to_csv(index=False).encode()
    place(folder / "maps.csv").write_bytes(text)


def star_tables(simulated: Projections) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build the particles and optics tables of RELION 3.1."""
    settings, n = simulated.settings, len(simulated.images)
    angles = relion_of_rotation(torch.from_numpy(simulated.rotation)).numpy()
    particles: dict[str, object] = {
        "rlnImageName": [f"{number:06d}@particles.mrcs" for number in range(1, n + 1)],
        "rlnRandomSubset": 1 + np.arange(n) % 2,
    }
    particles |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T, strict=True))
    for i, axis in enumerate("XY"):
        particles[f"rlnOrigin{axis}Angst"] = -simulated.shift[:, i] * settings.pixel_size
    return tables(
        particles,
        simulated.truth,
        simulated.ctf,
        pixel_size=settings.pixel_size,
        box=settings.box,
        dimensions=2,
    )
